"""The words of the synthetic language pair, with every inflected form.

The tables in `words/` are compact rows, compiled once, at import. A row gives the principal parts; the regular
forms follow by rule: an English plural or past tense, the weak German conjugation, the dative plural in "-n",
the oblique cases of the weak masculine nouns ("der Junge, den Jungen"). Every English word has one German counterpart
in its construction, so the German side is a function of the English one.
"""

from pathlib import Path
from typing import Final, NamedTuple

NOMINATIVE, ACCUSATIVE, DATIVE, GENITIVE = range(4)
MASCULINE, FEMININE, NEUTER, PLURAL = range(4)
FIRST, THIRD, MANY = range(3)  # agreement of the verb: first or third person singular, plural
WEAK, MIXED, STRONG = range(3)  # adjective endings after "der", after "ein", and without a determiner


class Noun(NamedTuple):
    """A noun: `english` holds the words of the singular and of the plural, `german[plural][case]` the German form.

    `location_preposition` and `goal_preposition` are English, and empty for nouns that are no places; `countable` is
    false for nouns without a plural. `adjectives` are the ones that go with the noun.
    """

    english: tuple[tuple[str, ...], tuple[str, ...]]
    german: tuple[tuple[str, ...], tuple[str, ...]]
    gender: int
    kinds: str
    location_preposition: str
    goal_preposition: str
    countable: bool
    adjectives: tuple[str, ...]


class Adjective(NamedTuple):
    """An adjective: `german` is the predicative form, `inflected[endings][gender][case]` the attributive ones."""

    german: str
    inflected: tuple[tuple[tuple[str, ...], ...], ...]
    kinds: str


class Verb(NamedTuple):
    """English and German forms of one verb; the German forms of a separable verb come without its prefix.

    `english`: base, third person, past, participle. `present` and `past` are indexed by FIRST, THIRD, MANY.
    """

    english: tuple[str, str, str, str]
    particle: str
    particle_stays: bool  # a preposition ("looks for him"), not an adverb ("picks him up")
    prefix: str
    infinitive: str
    present: tuple[str, str, str]
    past: tuple[str, str, str]
    participle: str
    takes_sein: bool
    subjects: str
    frame: str
    objects: tuple[str, ...]


class Determiner(NamedTuple):
    """A determiner: `german[gender][case]`; the adjective `endings` after it; `definite` determines the word order."""

    english: tuple[str, str]
    german: tuple[tuple[str, ...], ...]
    endings: int
    definite: bool


class Pronoun(NamedTuple):
    """A personal pronoun: subject and object form, German nominative, accusative, dative."""

    english: tuple[str, str]
    german: tuple[str, str, str]
    agreement: int


# Rows: masculine, feminine, neuter, plural; columns: nominative, accusative, dative, genitive.
_DER: Final = ("der den dem des", "die die der der", "das das dem des", "die die den der")
_DIESER: Final = ("er en em es", "e e er er", "es es em es", "e e en er")
_EIN: Final = ("- en em es", "e e er er", "- - em es", "e e en er")
_ENDINGS: Final = (
    ("e en en en", "e e en en", "e e en en", "en en en en"),
    ("er en en en", "e e en en", "es es en en", "en en en en"),
    ("er en em en", "e e er er", "es es em en", "e e en er"),
)


def _paradigm(stem: str, rows: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(stem + ending.replace("-", "") for ending in row.split()) for row in rows)


def _plural(word: str) -> str:
    if word.endswith(("s", "sh", "ch", "x")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def _read_table(name: str, separator: str = " : ") -> list[list[str]]:
    """Return the fields of each row of a word table; lines that begin with "#" are comments."""
    lines = (Path(__file__).parent / "words" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [[field.strip() for field in line.split(separator)] for line in lines if not line.startswith("#")]


def _adjectives() -> dict[str, Adjective]:
    compiled = {}
    for english, german, kinds in _read_table("adjectives"):
        base, *stem = german.split()
        inflected = tuple(_paradigm((stem or [base])[0], rows) for rows in _ENDINGS)
        compiled[english] = Adjective(base, inflected, kinds)
    return compiled


def _nouns(adjectives: dict[str, Adjective]) -> dict[str, Noun]:
    compiled = {}
    for english, german, gender_letter, kinds_and_prepositions in _read_table("nouns"):
        singular, *plural = english.split()
        *modifier, head = singular.split("_")
        english_forms = (*modifier, head), (*modifier, plural[0] if plural else _plural(head))
        forms = german.split()
        gender = "mfn".index(gender_letter)
        if gender == FEMININE:
            forms.insert(1, forms[0])
        nominative, genitive, many = forms
        # A masculine noun with a genitive in "-n" is weak: the ending stays in every case but the nominative.
        oblique = genitive if gender == MASCULINE and genitive.endswith("n") else nominative
        dative = many if many.endswith(("n", "s")) else many + "n"
        german_forms = (nominative, oblique, oblique, genitive), (many, many, dative, many)
        kinds, location, goal = [*kinds_and_prepositions.split(), "", ""][:3]
        fitting = tuple(key for key, adjective in adjectives.items() if set(adjective.kinds) & set(kinds))
        noun = Noun(english_forms, german_forms, gender, kinds, location, goal, many != "-", fitting)
        compiled[" ".join(noun.english[0])] = noun
    return compiled


def _english_verb(field: str) -> tuple[tuple[str, str, str, str], str, bool]:
    base, *irregular = field.split()
    particle_stays = "~" in base
    base, _, particle = base.replace("~", "+").partition("+")
    if irregular:
        past, participle = irregular
    elif base.endswith("e"):
        past = participle = base + "d"
    elif base.endswith("y") and base[-2] not in "aeiou":
        past = participle = base[:-1] + "ied"
    else:
        past = participle = base + "ed"
    third = "goes" if base == "go" else _plural(base)
    return (base, third, past, participle), particle, particle_stays


def _verbs(nouns: dict[str, Noun]) -> dict[str, Verb]:
    compiled = {}
    for english, german, auxiliary, subjects, frame_and_objects in _read_table("verbs"):
        forms, particle, particle_stays = _english_verb(english)
        principal_parts, *irregular = german.split()
        prefix, _, infinitive = principal_parts.rpartition("+")
        stem = infinitive.removesuffix("n").removesuffix("e")
        if irregular:
            third, past, participle = irregular
        else:
            linking = "e" if stem.endswith(("t", "d", "chn")) else ""
            third, past, participle = f"{stem}{linking}t", f"{stem}{linking}te", f"ge{stem}{linking}t"
        presents = stem + "e" if third.endswith("t") else third, third, infinitive
        pasts = past, past, past + ("n" if past.endswith("e") else "en")
        participle = prefix + participle
        frame, _, kinds = frame_and_objects.partition(":")
        objects = tuple(key for key, noun in nouns.items() if set(noun.kinds) & set(kinds))
        german_forms = infinitive, presents, pasts, participle, auxiliary == "s"
        verb = Verb(forms, particle, particle_stays, prefix, *german_forms, subjects, frame, objects)
        compiled[f"{forms[0]} {particle}".strip()] = verb
    return compiled


def _determiners() -> dict[str, Determiner]:
    compiled = {
        "the": Determiner(("the", "the"), _paradigm("", _DER), WEAK, True),
        "this": Determiner(("this", "these"), _paradigm("dies", _DIESER), WEAK, True),
        "every": Determiner(("every", ""), _paradigm("jed", _DIESER), WEAK, True),
        "a": Determiner(("a", ""), _paradigm("ein", _EIN), MIXED, False),
        "no": Determiner(("no", "no"), _paradigm("kein", _EIN), MIXED, False),
        "": Determiner(("", ""), _paradigm("", ("- - - -",) * 4), STRONG, False),
    }
    for english, stem in (("my", "mein"), ("his", "sein"), ("her", "ihr"), ("our", "unser"), ("their", "ihr")):
        compiled[english] = Determiner((english, english), _paradigm(stem, _EIN), MIXED, True)
    return compiled


ADJECTIVES: Final = _adjectives()
NOUNS: Final = _nouns(ADJECTIVES)
VERBS: Final = _verbs(NOUNS)
DETERMINERS: Final = _determiners()
PRONOUNS: Final = {
    "I": Pronoun(("I", "me"), ("ich", "mich", "mir"), FIRST),
    "he": Pronoun(("he", "him"), ("er", "ihn", "ihm"), THIRD),
    "she": Pronoun(("she", "her"), ("sie", "sie", "ihr"), THIRD),
    "we": Pronoun(("we", "us"), ("wir", "uns", "uns"), MANY),
    "they": Pronoun(("they", "them"), ("sie", "sie", "ihnen"), MANY),
}

HABEN: Final = (("habe", "hat", "haben"), ("hatte", "hatte", "hatten"))
SEIN: Final = (("bin", "ist", "sind"), ("war", "war", "waren"))
WERDEN: Final = ("werde", "wird", "werden")
RELATIVE: Final = (("der", "den"), ("die", "die"), ("das", "das"), ("die", "die"))  # [gender][case]

# English present and past, German present and past. "be" is replaced by the form that agrees.
_Forms = tuple[str, str, str]
MODALS: Final[dict[str, tuple[str, str, _Forms, _Forms]]] = {
    "can": ("can", "be able to", ("kann", "kann", "können"), ("konnte", "konnte", "konnten")),
    "must": ("must", "had to", ("muss", "muss", "müssen"), ("musste", "musste", "mussten")),
    "want": ("want to", "wanted to", ("will", "will", "wollen"), ("wollte", "wollte", "wollten")),
    "should": ("should", "", ("sollte", "sollte", "sollten"), ("", "", "")),
    "may": ("be allowed to", "be allowed to", ("darf", "darf", "dürfen"), ("durfte", "durfte", "durften")),
}

# English preposition: its German counterpart and the case it takes.
PREPOSITIONS: Final = {
    "in": ("in", DATIVE),
    "at": ("an", DATIVE),
    "on": ("auf", DATIVE),
    "near": ("bei", DATIVE),
    "into": ("in", ACCUSATIVE),
    "to": ("zu", DATIVE),
    "from": ("von", DATIVE),
    "out of": ("aus", DATIVE),
    "with": ("mit", DATIVE),
    "for": ("für", ACCUSATIVE),
}
WITH_AUF: Final = frozenset({("at", "market"), ("in", "field")})
CONTRACTIONS: Final = {
    ("in", "dem"): "im",
    ("in", "das"): "ins",
    ("an", "dem"): "am",
    ("bei", "dem"): "beim",
    ("von", "dem"): "vom",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
}


class Phrase(NamedTuple):
    """Words translated as a whole: the English ones, and each German one with the English positions it translates."""

    english: tuple[str, ...]
    german: tuple[tuple[str, tuple[int, ...]], ...]


def _phrases() -> dict[str, Phrase]:
    compiled = {}
    for english, german in _read_table("phrases", " = "):
        fields = german.split()
        links = [tuple(map(int, positions.split(","))) for positions in fields[1::2]]
        compiled[english] = Phrase(tuple(english.split()), tuple(zip(fields[::2], links, strict=True)))
    compiled["when (past)"] = Phrase(("when",), (("als", (0,)),))
    return compiled


PHRASES: Final = _phrases()
_ENGLISH_NUMBERS: Final = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_GERMAN_NUMBERS: Final = ("zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn")
NUMBER_WORDS: Final = dict(zip(_ENGLISH_NUMBERS, _GERMAN_NUMBERS, strict=True))
