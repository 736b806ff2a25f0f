"""The word tables of the synthetic language pair; `morphology` derives the inflected forms."""

from typing import Final

# Kinds determine which words combine: P person, G somebody's relative or the like, A animal, H domestic animal, N
# nature, T thing, O can be opened, W clothing, V vehicle, U furniture, B machine or building one can make, R something
# written, F food, K food one cooks, M food without a plural, D drink, L place, Z room one can tidy up.
NOUNS: Final = """
man men : Mann Mannes Männer : m : P
woman women : Frau Frauen : f : P
child children : Kind Kindes Kinder : n : PG
girl : Mädchen Mädchens Mädchen : n : P
boy : Junge Jungen Jungen : m : P
teacher : Lehrer Lehrers Lehrer : m : PG
doctor : Arzt Arztes Ärzte : m : PG
farmer : Bauer Bauern Bauern : m : P
baker : Bäcker Bäckers Bäcker : m : P
friend : Freund Freundes Freunde : m : PG
neighbour : Nachbar Nachbarn Nachbarn : m : PG
brother : Bruder Bruders Brüder : m : PG
sister : Schwester Schwestern : f : PG
mother : Mutter Mütter : f : PG
father : Vater Vaters Väter : m : PG
son : Sohn Sohnes Söhne : m : PG
daughter : Tochter Töchter : f : PG
uncle : Onkel Onkels Onkel : m : PG
aunt : Tante Tanten : f : PG
grandmother : Großmutter Großmütter : f : PG
grandfather : Großvater Großvaters Großväter : m : PG
student : Student Studenten Studenten : m : P
king : König Königs Könige : m : P
queen : Königin Königinnen : f : P
judge : Richter Richters Richter : m : P
painter : Maler Malers Maler : m : P
guest : Gast Gastes Gäste : m : PG
hunter : Jäger Jägers Jäger : m : P
colleague : Kollege Kollegen Kollegen : m : PG
dog : Hund Hundes Hunde : m : AH
cat : Katze Katzen : f : AH
horse : Pferd Pferdes Pferde : n : AH
bird : Vogel Vogels Vögel : m : A
mouse mice : Maus Mäuse : f : A
cow : Kuh Kühe : f : AH
goat : Ziege Ziegen : f : AH
duck : Ente Enten : f : AH
bear : Bär Bären Bären : m : A
wolf wolves : Wolf Wolfes Wölfe : m : A
donkey : Esel Esels Esel : m : AH
apple : Apfel Apfels Äpfel : m : F
pear : Birne Birnen : f : F
cherry : Kirsche Kirschen : f : F
cake : Kuchen Kuchens Kuchen : m : F
egg : Ei Eies Eier : n : FK
tomato tomatoes : Tomate Tomaten : f : F
potato potatoes : Kartoffel Kartoffeln : f : FK
soup : Suppe Suppen : f : FK
bread - : Brot Brotes - : n : M
cheese - : Käse Käses - : m : M
honey - : Honig Honigs - : m : M
milk - : Milch - : f : D
water - : Wasser Wassers - : n : D
coffee - : Kaffee Kaffees - : m : D
tea - : Tee Tees - : m : D
wine - : Wein Weines - : m : D
beer - : Bier Bieres - : n : D
book : Buch Buches Bücher : n : TR
letter : Brief Briefes Briefe : m : TR
newspaper : Zeitung Zeitungen : f : T
key : Schlüssel Schlüssels Schlüssel : m : T
knife knives : Messer Messers Messer : n : T
cup : Tasse Tassen : f : T
glass : Glas Glases Gläser : n : T
plate : Teller Tellers Teller : m : T
bottle : Flasche Flaschen : f : TO
basket : Korb Korbes Körbe : m : T
bag : Tasche Taschen : f : TO
suitcase : Koffer Koffers Koffer : m : TO
umbrella : Regenschirm Regenschirms Regenschirme : m : T
picture : Bild Bildes Bilder : n : T
lamp : Lampe Lampen : f : TB
clock : Uhr Uhren : f : TB
ball : Ball Balles Bälle : m : T
coat : Mantel Mantels Mäntel : m : TW
hat : Hut Hutes Hüte : m : TW
shirt : Hemd Hemdes Hemden : n : TW
dress : Kleid Kleides Kleider : n : TW
shoe : Schuh Schuhes Schuhe : m : TW
chair : Stuhl Stuhles Stühle : m : UB
table : Tisch Tisches Tische : m : UB
bed : Bett Bettes Betten : n : UB
door : Tür Türen : f : O
window : Fenster Fensters Fenster : n : O
car : Auto Autos Autos : n : VB
bicycle : Fahrrad Fahrrades Fahrräder : n : VB
boat : Boot Bootes Boote : n : VB
tree : Baum Baumes Bäume : m : N
flower : Blume Blumen : f : N
rose : Rose Rosen : f : N
garden : Garten Gartens Gärten : m : L in into
house : Haus Hauses Häuser : n : LB in into
kitchen : Küche Küchen : f : LZ in into
room : Zimmer Zimmers Zimmer : n : LZ in into
office : Büro Büros Büros : n : LZ in into
forest : Wald Waldes Wälder : m : L in into
village : Dorf Dorfes Dörfer : n : L in into
city : Stadt Städte : f : L in into
school : Schule Schulen : f : L in to
church : Kirche Kirchen : f : L in to
hotel : Hotel Hotels Hotels : n : L in to
castle : Schloss Schlosses Schlösser : n : L in to
hospital : Krankenhaus Krankenhauses Krankenhäuser : n : L in to
station : Bahnhof Bahnhofs Bahnhöfe : m : L at to
market : Markt Marktes Märkte : m : L at to
lake : See Sees Seen : m : L at to
river : Fluss Flusses Flüsse : m : L at to
harbour : Hafen Hafens Häfen : m : L at to
bridge : Brücke Brücken : f : LB on to
field : Feld Feldes Felder : n : L in to
apple_tree : Apfelbaum Apfelbaumes Apfelbäume : m : N
cherry_tree : Kirschbaum Kirschbaumes Kirschbäume : m : N
pear_tree : Birnbaum Birnbaumes Birnbäume : m : N
apple_cake : Apfelkuchen Apfelkuchens Apfelkuchen : m : F
cherry_cake : Kirschkuchen Kirschkuchens Kirschkuchen : m : F
potato_soup : Kartoffelsuppe Kartoffelsuppen : f : FK
tomato_soup : Tomatensuppe Tomatensuppen : f : FK
coffee_cup : Kaffeetasse Kaffeetassen : f : T
wine_glass : Weinglas Weinglases Weingläser : n : T
beer_glass : Bierglas Bierglases Biergläser : n : T
water_bottle : Wasserflasche Wasserflaschen : f : TO
school_bag : Schultasche Schultaschen : f : TO
house_key : Hausschlüssel Hausschlüssels Hausschlüssel : m : T
car_key : Autoschlüssel Autoschlüssels Autoschlüssel : m : T
kitchen_table : Küchentisch Küchentisches Küchentische : m : UB
garden_chair : Gartenstuhl Gartenstuhles Gartenstühle : m : UB
kitchen_window : Küchenfenster Küchenfensters Küchenfenster : n : O
garden_door : Gartentür Gartentüren : f : O
village_school : Dorfschule Dorfschulen : f : L in to
village_church : Dorfkirche Dorfkirchen : f : L in to
"""

# English, German (predicative, then attributive stem where it differs), the kinds of nouns it goes with.
ADJECTIVES: Final = """
old : alt : PATUWVBLN
young : jung : PA
big : groß : ATUVLNF
small : klein : PATUVLNF
new : neu : TUWVB
beautiful : schön : PTWLN
ugly : hässlich : TWU
red : rot : TWVU
green : grün : TWVU
blue : blau : TWVU
black : schwarz : TWVA
white : weiß : TWVA
cheap : billig : TUWVF
expensive : teuer teur : TUWVF
heavy : schwer : TU
rich : reich : P
poor : arm : PA
sick : krank : PA
tired : müde müd : PA
hungry : hungrig : PA
happy : glücklich : P
sad : traurig : PA
friendly : freundlich : PA
famous : berühmt : P
brave : mutig : PA
clever : klug : PA
strong : stark : PA
lazy : faul : PA
strange : seltsam : PTN
cold : kalt : DK
warm : warm : DK
fresh : frisch : FM
good : gut : FMD
delicious : köstlich : FM
dirty : schmutzig : TWVUZO
dark : dunkel dunkl : LZ
"""

# English (one form: regular; three: base, past, participle; "+" a particle, "~" a preposition that stays with the
# verb), German (one form: weak; four: infinitive, "er", Präteritum, participle; "+" after a separable prefix),
# auxiliary, the kinds of its subject, and the frame: i nothing, m nothing, but manner fits, a:KINDS accusative
# object, d:KINDS dative object, g:KINDS recipient and object, to: direction, from: origin, at: place, c: "that"
# clause, w: "whether" clause.
VERBS: Final = """
sleep slept slept : schlafen schläft schlief geschlafen : h : PA : i
work : arbeiten : h : P : m
laugh : lachen : h : P : m
dance : tanzen : h : P : m
play : spielen : h : PA : m
sing sang sung : singen singt sang gesungen : h : P : m
swim swam swum : schwimmen schwimmt schwamm geschwommen : s : PA : m
wait : warten : h : PA : m
cry : weinen : h : P : m
get+up got got : auf+stehen steht stand gestanden : s : PA : i
wake+up woke woken : auf+wachen : s : PA : i
fall+asleep fell fallen : ein+schlafen schläft schlief geschlafen : s : PA : i
come+back came come : zurück+kommen kommt kam gekommen : s : PA : i
run+away ran run : weg+laufen läuft lief gelaufen : s : PA : i
go+out went gone : aus+gehen geht ging gegangen : s : P : i
arrive : an+kommen kommt kam gekommen : s : P : at
live : wohnen : h : P : at
stay : bleiben bleibt blieb geblieben : s : PA : at
sit sat sat : sitzen sitzt saß gesessen : h : PA : at
stand stood stood : stehen steht stand gestanden : h : PA : at
come came come : kommen kommt kam gekommen : s : PA : from
go went gone : gehen geht ging gegangen : s : PA : to
run ran run : rennen rennt rannte gerannt : s : PA : to
drive drove driven : fahren fährt fuhr gefahren : s : P : to
hurry : eilen : s : P : to
return : zurück+kehren : s : P : to
see saw seen : sehen sieht sah gesehen : h : PA : a:PATVN
hear heard heard : hören : h : PA : a:PA
love : lieben : h : P : a:PA
look~for : suchen : h : PA : a:PAT
look~at : an+sehen sieht sah gesehen : h : P : a:PATVUN
visit : besuchen besucht besuchte besucht : h : P : a:P
greet : begrüßen begrüßt begrüßte begrüßt : h : P : a:P
meet met met : treffen trifft traf getroffen : h : P : a:P
understand understood understood : verstehen versteht verstand verstanden : h : P : a:P
call : an+rufen ruft rief gerufen : h : P : a:P
invite : ein+laden lädt lud geladen : h : P : a:P
pick+up : ab+holen : h : P : a:P
buy bought bought : kaufen : h : P : a:TUVFMDW
sell sold sold : verkaufen verkauft verkaufte verkauft : h : P : a:TUVFH
find found found : finden findet fand gefunden : h : P : a:TA
lose lost lost : verlieren verliert verlor verloren : h : P : a:TW
forget forgot forgotten : vergessen vergisst vergaß vergessen : h : P : a:T
steal stole stolen : stehlen stiehlt stahl gestohlen : h : P : a:TV
carry : tragen trägt trug getragen : h : P : a:TU
throw+away threw thrown : weg+werfen wirft warf geworfen : h : P : a:TU
bring+along brought brought : mit+bringen bringt brachte gebracht : h : P : a:TFMD
take+along took taken : mit+nehmen nimmt nahm genommen : h : P : a:TH
give+back gave given : zurück+geben gibt gab gegeben : h : P : a:T
open : auf+machen : h : P : a:O
close : zu+machen : h : P : a:O
try+on : an+probieren probiert probierte probiert : h : P : a:W
tidy+up : auf+räumen : h : P : a:Z
clean : putzen : h : P : a:OVZ
repair : reparieren repariert reparierte repariert : h : P : a:B
build built built : bauen : h : P : a:B
draw drew drawn : zeichnen : h : P : a:AN
write wrote written : schreiben schreibt schrieb geschrieben : h : P : a:R
eat ate eaten : essen isst aß gegessen : h : PA : a:FM
drink drank drunk : trinken trinkt trank getrunken : h : PA : a:D
cook : kochen : h : P : a:K
feed fed fed : füttern füttert fütterte gefüttert : h : P : a:H
wash : waschen wäscht wusch gewaschen : h : P : a:WVH
help : helfen hilft half geholfen : h : P : d:P
thank : danken : h : P : d:P
follow : folgen : s : PA : d:PA
answer : antworten : h : P : d:P
give gave given : geben gibt gab gegeben : h : P : g:TFMD
show showed shown : zeigen : h : P : g:TVA
send sent sent : schicken : h : P : g:T
bring brought brought : bringen bringt brachte gebracht : h : P : g:TFMDU
say said said : sagen : h : P : c
think thought thought : denken denkt dachte gedacht : h : P : c
believe : glauben : h : P : c
hope : hoffen : h : P : c
know knew known : wissen weiß wusste gewusst : h : P : c
ask : fragen : h : P : w
"""


# Adverbs and conjunctions: the German words, each followed by the positions of the English words it translates.
PHRASES: Final = """
today = heute 0
now = jetzt 0
every day = jeden 0 Tag 1
in the morning = am 0,1 Morgen 2
in the evening = am 0,1 Abend 2
yesterday = gestern 0
last week = letzte 0 Woche 1
this morning = heute 0 Morgen 1
tomorrow = morgen 0
soon = bald 0
next week = nächste 0 Woche 1
tonight = heute 0 Abend 0
on Monday = am 0 Montag 1
on Tuesday = am 0 Dienstag 1
on Wednesday = am 0 Mittwoch 1
on Thursday = am 0 Donnerstag 1
on Friday = am 0 Freitag 1
on Saturday = am 0 Samstag 1
on Sunday = am 0 Sonntag 1
often = oft 0
always = immer 0
never = nie 0
sometimes = manchmal 0
already = schon 0
quickly = schnell 0
slowly = langsam 0
loudly = laut 0
quietly = leise 0
alone = allein 0
because = weil 0
although = obwohl 0
if = wenn 0
when = wenn 0
before = bevor 0
after = nachdem 0
while = während 0
until = bis 0
as soon as = sobald 0,1,2
so that = damit 0,1
that = dass 0
whether = ob 0
in order = um 0,1
and = und 0
but = aber 0
"""
