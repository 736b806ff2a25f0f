"""The realization and morphology of the synthetic language pair agree with examples typed by hand."""

import itertools

import pytest

from nmt.data.synthetic.morphology import ADJECTIVES, DETERMINERS, NOUNS, VERBS
from nmt.data.synthetic.realization import realize
from nmt.data.synthetic.semantics import Clause, NounPhrase

C, N = Clause, NounPhrase
HE, SHE, ME, WE, THEY = (N(word) for word in ("he", "she", "I", "we", "they"))
MAN, WOMAN, CHILD, DOG = (N(word, "the") for word in ("man", "woman", "child", "dog"))
DOCTOR, BOOK, TEACHER = N("doctor", "the"), N("book", "the"), N("teacher", "the")


def called(tense: str, **more: object) -> Clause:
    return C(MAN, "call", tense, object=DOCTOR)._replace(**more)


# Each row was typed by hand in both languages; nothing in it comes from the tables of the grammar.
PAIRS = [
    # Separable verbs, tenses, modal verbs.
    ([called("present")], "The man calls the doctor.", "Der Mann ruft den Arzt an."),
    ([called("past")], "The man called the doctor.", "Der Mann rief den Arzt an."),
    ([called("perfect")], "The man has called the doctor.", "Der Mann hat den Arzt angerufen."),
    ([called("future")], "The man will call the doctor.", "Der Mann wird den Arzt anrufen."),
    ([called("present", modal="must")], "The man must call the doctor.", "Der Mann muss den Arzt anrufen."),
    ([called("past", modal="must")], "The man had to call the doctor.", "Der Mann musste den Arzt anrufen."),
    ([called("present", modal="want")], "The man wants to call the doctor.", "Der Mann will den Arzt anrufen."),
    ([called("past", modal="can")], "The man was able to call the doctor.", "Der Mann konnte den Arzt anrufen."),
    ([called("present", modal="may")], "The man is allowed to call the doctor.", "Der Mann darf den Arzt anrufen."),
    ([C(SHE, "pick up", object=HE)], "She picks him up.", "Sie holt ihn ab."),
    ([C(ME, "look for", object=THEY)], "I look for them.", "Ich suche sie."),
    ([C(WE, "come back", "perfect")], "We have come back.", "Wir sind zurückgekommen."),
    ([C(THEY, "fall asleep", "past")], "They fell asleep.", "Sie schliefen ein."),
    # Verb second after an adverb, time before place.
    (
        [C(WOMAN, "buy", "past", object=N("bread"), time="yesterday", time_first=True)],
        "Yesterday the woman bought bread.",
        "Gestern kaufte die Frau Brot.",
    ),
    (
        [C(ME, "go", "future", place=("to", N("lake", "the")), time="on Monday")],
        "I will go to the lake on Monday.",
        "Ich werde am Montag zum See gehen.",
    ),
    # Agreement in gender, number and case.
    ([C(N("dog", "the", "old"), "sleep")], "The old dog sleeps.", "Der alte Hund schläft."),
    ([C(N("dog", "a", "old"), "sleep")], "An old dog sleeps.", "Ein alter Hund schläft."),
    ([C(N("horse", "my", "old"), "sleep")], "My old horse sleeps.", "Mein altes Pferd schläft."),
    ([C(HE, "see", object=N("dog", "this", "small"))], "He sees this small dog.", "Er sieht diesen kleinen Hund."),
    ([C(HE, "see", object=N("cat", "a", "small"))], "He sees a small cat.", "Er sieht eine kleine Katze."),
    (
        [C(HE, "help", object=N("child", "his", "small", plural=True))],
        "He helps his small children.",
        "Er hilft seinen kleinen Kindern.",
    ),
    ([C(SHE, "thank", object=N("boy", "a", "brave"))], "She thanks a brave boy.", "Sie dankt einem mutigen Jungen."),
    ([C(SHE, "drink", object=N("milk", "", "warm"))], "She drinks warm milk.", "Sie trinkt warme Milch."),
    (
        [C(WE, "buy", object=N("hat", "", "expensive", plural=True))],
        "We buy expensive hats.",
        "Wir kaufen teure Hüte.",
    ),
    (
        [C(HE, "give", "past", recipient=N("student", "the"), object=N("umbrella", "a"))],
        "He gave the student an umbrella.",
        "Er gab dem Studenten einen Regenschirm.",
    ),
    # Contractions, compounds, genitives.
    (
        [C(HE, "wait", place=("in", N("garden", "the", "big")))],
        "He waits in the big garden.",
        "Er wartet im großen Garten.",
    ),
    ([C(HE, "wait", place=("at", N("station", "the")))], "He waits at the station.", "Er wartet am Bahnhof."),
    ([C(HE, "wait", place=("at", N("market", "the")))], "He waits at the market.", "Er wartet auf dem Markt."),
    ([C(HE, "wait", place=("near", N("castle", "the")))], "He waits near the castle.", "Er wartet beim Schloss."),
    ([C(HE, "come", place=("from", N("harbour", "the")))], "He comes from the harbour.", "Er kommt vom Hafen."),
    ([C(HE, "go", place=("to", N("school", "the")))], "He goes to the school.", "Er geht zur Schule."),
    ([C(HE, "go", place=("to", N("doctor", "the")))], "He goes to the doctor.", "Er geht zum Arzt."),
    ([C(HE, "go", place=("into", N("house", "the")))], "He goes into the house.", "Er geht ins Haus."),
    ([C(HE, "go", place=("to", N("bridge", "this")))], "He goes to this bridge.", "Er geht zu dieser Brücke."),
    (
        [C(HE, "see", object=N("apple tree", "the", plural=True))],
        "He sees the apple trees.",
        "Er sieht die Apfelbäume.",
    ),
    (
        [C(N("house", adjective="old", owner=TEACHER), "be", predicate="small")],
        "The teacher's old house is small.",
        "Das alte Haus des Lehrers ist klein.",
    ),
    (
        [C(N("dog", adjective="old", owner=N("Kalora", is_name=True)), "play", "past")],
        "Kalora's old dog played.",
        "Kaloras alter Hund spielte.",
    ),
    # Numbers and names.
    (
        [C(N("Tamira", is_name=True), "sell", "past", object=N("shirt", "", "red", plural=True, number="45"))],
        "Tamira sold 45 red shirts.",
        "Tamira verkaufte 45 rote Hemden.",
    ),
    (
        [C(ME, "return", place=("to", N("Vuniko", is_name=True)))],
        "I return to Vuniko.",
        "Ich kehre nach Vuniko zurück.",
    ),
    (
        [C(SHE, "sleep", place=("in", N("room", number="217", is_label=True)))],
        "She sleeps in room 217.",
        "Sie schläft in Zimmer 217.",
    ),
    # Negation.
    ([called("past", negated=True)], "The man did not call the doctor.", "Der Mann rief den Arzt nicht an."),
    (
        [C(HE, "buy", negated=True, object=N("car", "a"))],
        "He does not buy a car.",
        "Er kauft kein Auto.",
    ),
    ([C(ME, "eat", negated=True, object=N("apple", plural=True))], "I do not eat apples.", "Ich esse keine Äpfel."),
    ([C(HE, "see", object=N("dog", "no"))], "He sees no dog.", "Er sieht keinen Hund."),
    (
        [C(WE, "go", modal="can", negated=True, place=("to", N("church", "the")))],
        "We cannot go to the church.",
        "Wir können nicht zur Kirche gehen.",
    ),
    (
        [C(SHE, "sing", modal="want", negated=True)],
        "She does not want to sing.",
        "Sie will nicht singen.",
    ),
    (
        [C(HE, "give back", "perfect", frequency="never", object=BOOK)],
        "He has never given back the book.",
        "Er hat das Buch nie zurückgegeben.",
    ),
    # Subordinate clauses with the verb at the end.
    (
        [C(SHE, "say", "past", complement=("that", C(HE, "call", "pluperfect", object=DOCTOR, negated=True)))],
        "She said that he had not called the doctor.",
        "Sie sagte, dass er den Arzt nicht angerufen hatte.",
    ),
    (
        [C(SHE, "ask", complement=("whether", C(DOG, "sleep", place=("in", N("kitchen", "the")))))],
        "She asks whether the dog sleeps in the kitchen.",
        "Sie fragt, ob der Hund in der Küche schläft.",
    ),
    (
        [
            C(
                HE,
                "go",
                "past",
                place=("to", N("river", "the")),
                opening=("after", C(HE, "eat", "pluperfect", object=N("apple", "the"))),
            )
        ],
        "After he had eaten the apple, he went to the river.",
        "Nachdem er den Apfel gegessen hatte, ging er zum Fluss.",
    ),
    (
        [C(HE, "wake up", "past", adjunct=("when", C(THEY, "arrive", "past", place=("at", N("station", "the")))))],
        "He woke up when they arrived at the station.",
        "Er wachte auf, als sie am Bahnhof ankamen.",
    ),
    (
        [C(HE, "laugh", adjunct=("when", C(SHE, "sing", manner="loudly")))],
        "He laughs when she sings loudly.",
        "Er lacht, wenn sie laut singt.",
    ),
    (
        [C(HE, "wait", adjunct=("because", C(CHILD, "get up", modal="must")))],
        "He waits because the child must get up.",
        "Er wartet, weil das Kind aufstehen muss.",
    ),
    (
        [C(SHE, "go", place=("to", N("market", "the")), purpose=C(SHE, "pick up", object=N("friend", "her")))],
        "She goes to the market in order to pick up her friend.",
        "Sie geht zum Markt, um ihren Freund abzuholen.",
    ),
    # Relative clauses, coordination, questions.
    (
        [
            C(
                HE,
                "see",
                "perfect",
                object=N("woman", "the", relative=C(WOMAN, "sing", place=("in", N("garden", "the")))),
            )
        ],
        "He has seen the woman who sings in the garden.",
        "Er hat die Frau gesehen, die im Garten singt.",
    ),
    (
        [C(HE, "sell", object=N("coat", "the", relative=C(MAN, "find", "past", object=N("coat")), gap="object"))],
        "He sells the coat that the man found.",
        "Er verkauft den Mantel, den der Mann fand.",
    ),
    (
        [C(N("man", "the", relative=C(N("man"), "buy", object=BOOK)), "laugh")],
        "The man who buys the book laughs.",
        "Der Mann, der das Buch kauft, lacht.",
    ),
    (
        [C(N("man", "the", conjunct=WOMAN), "dance", "past")],
        "The man and the woman danced.",
        "Der Mann und die Frau tanzten.",
    ),
]


@pytest.mark.parametrize(("clauses", "source", "target"), PAIRS, ids=[row[1] for row in PAIRS])
def test_realization_agrees_with_hand_typed_pairs(clauses: list[Clause], source: str, target: str) -> None:
    assert realize(clauses)[:2] == (source, target)


def test_coordination_and_questions() -> None:
    clauses = [C(HE, "sleep", "past"), C(SHE, "work", "past")]
    assert realize(clauses, ["and"])[:2] == ("He slept, and she worked.", "Er schlief und sie arbeitete.")
    assert realize(clauses, ["but"])[:2] == ("He slept, but she worked.", "Er schlief, aber sie arbeitete.")
    late = C(WE, "sleep", opening=("if", C(HE, "call", object=SHE)))
    assert realize([clauses[0], late], ["but"]).target == "Er schlief, aber wenn er sie anruft, schlafen wir."
    reported = [C(HE, "say", complement=("that", C(SHE, "work"))), C(WE, "sleep")]
    assert realize(reported, ["and"]).target == "Er sagt, dass sie arbeitet, und wir schlafen."
    question = realize([C(N("dog", "the"), "eat", object=N("bread"), frequency="often")], question=True)
    assert question[:2] == ("Does the dog often eat bread?", "Isst der Hund oft Brot?")
    assert realize([C(SHE, "be", "past", predicate="tired")], question=True)[:2] == (
        "Was she tired?",
        "War sie müde?",
    )


# Source and target words, joined by "=" when sure and by "~" when possible.
LINKS = [
    (
        C(MAN, "call", "past", negated=True, object=DOCTOR),
        "The=Der man=Mann did~rief not=nicht call=rief call=an. the=den doctor.=Arzt",
    ),
    (C(HE, "go", place=("to", N("school", "the"))), "He=Er goes=geht to=zur the=zur school.=Schule."),
    (
        C(HE, "buy", negated=True, object=N("apple tree", "a")),
        "He=Er does~kauft not=keinen buy=kauft an=keinen apple=Apfelbaum. tree.=Apfelbaum.",
    ),
    (C(SHE, "sleep", "perfect"), "She=Sie has=hat slept.=geschlafen."),
    (C(WE, "sing", modal="can", negated=True), "We=Wir cannot=können cannot=nicht sing.=singen."),
    (C(SHE, "get up", "past", modal="want"), "She=Sie wanted=wollte to~aufstehen. get=aufstehen. up.=aufstehen."),
    (
        C(HE, "sing", purpose=C(HE, "wake up")),
        "He=Er sings=singt, in=um order=um to=aufzuwachen. wake=aufzuwachen. up.=aufzuwachen.",
    ),
    (
        C(N("house", owner=TEACHER), "be", predicate="old"),
        "The=des teacher's~Das teacher's=Lehrers house=Haus is=ist old.=alt.",
    ),
]


@pytest.mark.parametrize(("clause", "links"), LINKS, ids=[row[1] for row in LINKS])
def test_links_agree_with_hand_typed_ones(clause: Clause, links: str) -> None:
    sentence = realize([clause])
    source, target = sentence.source.split(" "), sentence.target.split(" ")
    actual = [f"{source[i]}={target[j]}" for i, j in sentence.sure]
    actual += [f"{source[i]}~{target[j]}" for i, j in sentence.possible]
    assert sorted(actual) == sorted(links.split())


# The expected result of the rules, by a native reader: nominative, accusative, dative singular, then the dative plural.
DECLENSIONS = {
    ("the", "old", "man"): "der alte Mann, den alten Mann, dem alten Mann, den alten Männern",
    ("the", "old", "woman"): "die alte Frau, die alte Frau, der alten Frau, den alten Frauen",
    ("the", "old", "horse"): "das alte Pferd, das alte Pferd, dem alten Pferd, den alten Pferden",
    ("our", "old", "uncle"): "unser alter Onkel, unseren alten Onkel, unserem alten Onkel, unseren alten Onkeln",
    ("this", "expensive", "lamp"): "diese teure Lampe, diese teure Lampe, dieser teuren Lampe, diesen teuren Lampen",
    ("their", "dark", "office"): "ihr dunkles Büro, ihr dunkles Büro, ihrem dunklen Büro, ihren dunklen Büros",
    ("no", "sad", "bear"): "kein trauriger Bär, keinen traurigen Bären, keinem traurigen Bären, keinen traurigen Bären",
}


@pytest.mark.parametrize("key", DECLENSIONS, ids=" ".join)
def test_declension(key: tuple[str, str, str]) -> None:
    determiner, adjective, noun = key
    forms = []
    for plural, case in ((False, 0), (False, 1), (False, 2), (True, 2)):
        gender = 3 if plural else NOUNS[noun].gender
        article = DETERMINERS[determiner]
        inflected = ADJECTIVES[adjective].inflected[article.endings][gender][case]
        forms.append(f"{article.german[gender][case]} {inflected} {NOUNS[noun].german[plural][case]}")
    assert ", ".join(forms) == DECLENSIONS[key]


CONJUGATIONS = {
    "call": "rufe ruft rufen, rief riefen, angerufen",
    "work": "arbeite arbeitet arbeiten, arbeitete arbeiteten, gearbeitet",
    "draw": "zeichne zeichnet zeichnen, zeichnete zeichneten, gezeichnet",
    "feed": "füttere füttert füttern, fütterte fütterten, gefüttert",
    "know": "weiß weiß wissen, wusste wussten, gewusst",
    "invite": "lade lädt laden, lud luden, eingeladen",
    "find": "finde findet finden, fand fanden, gefunden",
    "wait": "warte wartet warten, wartete warteten, gewartet",
    "try on": "probiere probiert probieren, probierte probierten, anprobiert",
    "open": "mache macht machen, machte machten, aufgemacht",
}


@pytest.mark.parametrize("key", CONJUGATIONS)
def test_conjugation(key: str) -> None:
    verb = VERBS[key]
    forms = f"{' '.join(verb.present)}, {verb.past[1]} {verb.past[2]}, {verb.participle}"
    assert forms == CONJUGATIONS[key]


def test_there_are_more_than_a_billion_pairs() -> None:
    """Count one pattern: "the ADJECTIVE PEOPLE VERB the ADJECTIVE THINGS because the ADJECTIVE ANIMALS sleep"."""

    def phrases(keys: list[str]) -> int:
        return len({(adjective, key) for key in keys for adjective in NOUNS[key].adjectives})

    people = [key for key, noun in NOUNS.items() if "P" in noun.kinds]
    animals = [key for key, noun in NOUNS.items() if "A" in noun.kinds]
    verb_phrases = sum(
        phrases([key for key in verb.objects if NOUNS[key].countable]) for verb in VERBS.values() if verb.frame == "a"
    )
    assert phrases(people) * verb_phrases * phrases(animals) >= 10**9

    def pattern(adjectives: tuple[str, ...], nouns: tuple[str, ...], verb: str) -> str:
        subject, object_, animal = (N(n, "the", a, plural=True) for a, n in zip(adjectives, nouns, strict=True))
        return realize([C(subject, verb, object=object_, adjunct=("because", C(animal, "sleep")))]).source

    choices = itertools.product(
        itertools.product(("old", "young"), ("big", "old"), ("big", "sad")),
        itertools.product(("man", "child"), ("cow", "tree"), ("dog", "cat")),
        ("draw", "look at"),
    )
    sources = [pattern(*choice) for choice in choices]
    assert len(set(sources)) == len(sources) == 128
