"""The content of a sentence of the synthetic language pair before its realization, and the sentence pair itself."""

from typing import NamedTuple


class SyntheticPair(NamedTuple):
    """A sentence pair and its links (source word, target word), 0-based and sorted, sure and possible."""

    source: str
    target: str
    sure: tuple[tuple[int, int], ...]
    possible: tuple[tuple[int, int], ...]


class NounPhrase(NamedTuple):
    """A noun phrase: `noun` is a key of NOUNS or PRONOUNS, or a name with `is_name`.

    `number` is a numeral in digits or a key of NUMBER_WORDS and needs `plural`; with `is_label` it follows the noun
    ("room 217"). An `owner` takes the place of the determiner ("the teacher's house"). `relative` is a clause whose
    subject or object, according to `gap`, is this phrase. `conjunct` is "the woman" in "the man and the woman".
    """

    noun: str
    determiner: str = ""
    adjective: str = ""
    plural: bool = False
    number: str = ""
    is_label: bool = False
    is_name: bool = False
    owner: "NounPhrase | None" = None
    relative: "Clause | None" = None
    gap: str = "subject"
    conjunct: "NounPhrase | None" = None


class Clause(NamedTuple):
    """A clause: `verb` is a key of VERBS, or "be" with `predicate`, an adjective.

    `tense`: present, past, perfect, pluperfect, future. `modal` is a key of MODALS and takes the present or the past
    tense. `place` is a pair (English preposition, phrase); `beneficiary` is the phrase after "for", `company` the one
    after "with". `time_first` puts `time` at the front. `complement`, `adjunct` and `opening` are pairs (conjunction,
    clause); `purpose` is a clause without a subject ("in order to").
    """

    subject: NounPhrase
    verb: str
    tense: str = "present"
    modal: str = ""
    negated: bool = False
    recipient: NounPhrase | None = None
    object: NounPhrase | None = None
    beneficiary: NounPhrase | None = None
    company: NounPhrase | None = None
    place: tuple[str, NounPhrase] | None = None
    predicate: str = ""
    time: str = ""
    time_first: bool = False
    frequency: str = ""
    manner: str = ""
    complement: "tuple[str, Clause] | None" = None
    adjunct: "tuple[str, Clause] | None" = None
    opening: "tuple[str, Clause] | None" = None
    purpose: "Clause | None" = None
