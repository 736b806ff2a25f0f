"""Sampling of the noun phrases and places in the sentences of the synthetic language pair."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from nmt.data.synthetic.morphology import NOUNS, NUMBER_WORDS
from nmt.data.synthetic.semantics import NounPhrase

_Choice = TypeVar("_Choice")

PEOPLE: Final = [key for key, noun in NOUNS.items() if "P" in noun.kinds]
ANIMALS: Final = [key for key, noun in NOUNS.items() if "A" in noun.kinds]
THINGS: Final = [key for key, noun in NOUNS.items() if set(noun.kinds) & set("TWUVO")]
PLACES: Final = [key for key, noun in NOUNS.items() if noun.location_preposition]
_GOALS_WITH_TO: Final = [key for key in PLACES if NOUNS[key].goal_preposition == "to"]
_RELATED: Final = frozenset(key for key, noun in NOUNS.items() if "G" in noun.kinds)
_RELATIVES: Final = sorted(_RELATED)
_HOMES: Final = ["house", "garden", "kitchen", "room", "office"]
_OWNED: Final = frozenset([*THINGS, *ANIMALS, *_HOMES])
_WITHOUT_OWNER: Final = frozenset(PEOPLE) - _RELATED | frozenset(PLACES) - frozenset(_HOMES)
_LEFT_WITH_FROM: Final = frozenset({"field", "village", "city", "hotel", "castle"})  # not "out of", though one is "in"
_POSSESSIVES: Final = ("my", "his", "her", "our", "their")
_SMALL: Final = tuple(NUMBER_WORDS)
SYLLABLES: Final = ("ka", "lo", "mi", "ra", "te", "vu", "ni", "sa", "po", "di", "zu", "gar", "lin", "mor", "tan", "vel")
_WEEKDAYS: Final = tuple(f"on {day}day" for day in ("Mon", "Tues", "Wednes", "Thurs", "Fri", "Satur", "Sun"))
TIMES: Final[dict[str, tuple[str, ...]]] = {
    "present": ("today", "now", "every day", "in the morning", "in the evening"),
    "past": ("yesterday", "last week", "this morning", "in the evening", *_WEEKDAYS),
    "future": ("tomorrow", "soon", "next week", "tonight", *_WEEKDAYS),
    "perfect": ("today",),
    "modal": ("today", "now", "tomorrow", "tonight", *_WEEKDAYS),
}


class PhraseSampler:
    """Sampler of phrases; all randomness comes from `random`, which returns floats in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.random = random

    def choose(self, options: Sequence[_Choice]) -> _Choice:
        """Choose one of the options uniformly."""
        return options[int(self.random() * len(options))]

    def name(self) -> str:
        """Sample a name of three syllables."""
        return (self.choose(SYLLABLES) + self.choose(SYLLABLES) + self.choose(SYLLABLES)).capitalize()

    def number(self) -> str:
        """Sample a numeral of two or three digits."""
        return str(10 + int(self.random() * (90 if self.random() < 0.6 else 990)))

    def subject(self, *, must_be_person: bool = False) -> NounPhrase:
        """Sample the subject of a sentence."""
        chance = self.random()
        if chance < 0.3:
            return NounPhrase(self.choose(("I", "he", "she", "we", "they")))
        if chance < 0.36:
            return NounPhrase(self.name(), is_name=True)
        if chance < 0.5 and not must_be_person:
            return self.thing(self.choose(ANIMALS), indefinite=0.1)
        if chance < 0.54:
            return self.two_people()
        if chance < 0.57:
            return NounPhrase(self.choose(PEOPLE), "every")
        return self.thing(self.choose(PEOPLE), indefinite=0.1)

    def two_people(self) -> NounPhrase:
        determiner = self.choose(("the", "my", "his"))
        options = PEOPLE if determiner == "the" else _RELATIVES
        first, second = self.choose(options), self.choose(options)
        while first == second:
            second = self.choose(options)
        return NounPhrase(first, determiner, conjunct=NounPhrase(second, determiner))

    def person(self, subject: NounPhrase, pronoun: float = 0.3) -> NounPhrase:
        """Sample somebody other than `subject`."""
        chance = self.random()
        if chance < pronoun:
            pronouns = ("he", "she", "they") if subject.noun in ("I", "we") else ("I", "he", "she", "we", "they")
            return NounPhrase(self.choose(pronouns))
        if chance < pronoun + 0.07:
            return NounPhrase(self.name(), is_name=True)
        return self.thing(self.choose(PEOPLE), indefinite=0.0)

    def object(self, noun: str) -> NounPhrase:
        return self.thing(noun, indefinite=0.5)

    def thing(self, noun: str, indefinite: float, adjective: float = 0.25) -> NounPhrase:
        """Sample a phrase around `noun`; `indefinite` and `adjective` are probabilities."""
        entry = NOUNS[noun]
        attribute = self.choose(entry.adjectives) if self.random() < adjective else ""
        is_indefinite = self.random() < indefinite
        if not entry.countable:
            return NounPhrase(noun, "" if is_indefinite else self.choose(("the", "the", "my", "his", "our")), attribute)
        plural = self.random() < (0.33 if is_indefinite else 0.25)
        chance = self.random()
        if not is_indefinite:
            determiner = "the" if chance < 0.6 else "this" if chance < 0.7 else self.choose(_POSSESSIVES)
            if determiner in _POSSESSIVES and noun in _WITHOUT_OWNER:
                determiner = "the"
            return NounPhrase(noun, determiner, attribute, plural=plural)
        if not plural:
            return NounPhrase(noun, "no" if chance < 0.06 else "a", attribute)
        if chance > 0.94:
            return NounPhrase(noun, "no", attribute, plural=True)
        number = self.number() if chance < 0.62 else self.choose(_SMALL) if chance < 0.8 else ""
        return NounPhrase(noun, "", attribute, plural=True, number=number)

    def with_owner(self, noun: str) -> NounPhrase:
        """Sample "the teacher's house" or "Kalino's house"."""
        if noun not in _OWNED:
            return self.thing(noun, indefinite=0.0)
        adjective = self.choose(NOUNS[noun].adjectives) if self.random() < 0.25 else ""
        if self.random() < 0.3:
            owner = NounPhrase(self.name(), is_name=True)
        elif self.random() < 0.5:
            owner = NounPhrase(self.choose(PEOPLE), "the")
        else:
            owner = NounPhrase(self.choose(_RELATIVES), self.choose(_POSSESSIVES))
        return NounPhrase(noun, adjective=adjective, owner=owner, plural=self.random() < 0.2)

    def location(self) -> tuple[str, NounPhrase]:
        """Sample a location with its preposition."""
        chance = self.random()
        if chance < 0.06:
            return "in", NounPhrase(self.name(), is_name=True)
        if chance < 0.19:
            return "in", NounPhrase("room", number=self.number(), is_label=True)
        if chance < 0.3:
            return "near", self.place(self.choose(_GOALS_WITH_TO))
        noun = self.choose(PLACES)
        return NOUNS[noun].location_preposition, self.place(noun)

    def goal(self, *, is_far: bool, is_animal: bool) -> tuple[str, NounPhrase]:
        """Sample a destination with its preposition; `is_far` leaves out the rooms of a house."""
        chance = self.random()
        if chance < 0.1 and not is_animal:
            return "to", NounPhrase(self.name(), is_name=True)
        if chance < 0.2 and not is_animal:
            return "to", self.place(self.choose(_RELATIVES), adjective=0.0)
        noun = self.choose(_GOALS_WITH_TO if is_far else PLACES)
        return NOUNS[noun].goal_preposition, self.place(noun)

    def origin(self) -> tuple[str, NounPhrase]:
        """Sample an origin with its preposition."""
        if self.random() < 0.15:
            return "from", NounPhrase(self.name(), is_name=True)
        noun = self.choose(PLACES)
        is_inside = NOUNS[noun].location_preposition == "in" and noun not in _LEFT_WITH_FROM
        return "out of" if is_inside else "from", self.place(noun)

    def place(self, noun: str, adjective: float = 0.15) -> NounPhrase:
        attribute = self.choose(NOUNS[noun].adjectives) if self.random() < adjective else ""
        chance = self.random()
        if chance < 0.86:
            return NounPhrase(noun, "the", attribute)
        if noun in _RELATED or noun in _HOMES:
            return NounPhrase(noun, self.choose(_POSSESSIVES), attribute)
        return NounPhrase(noun, "a" if chance < 0.93 else "this", attribute)
