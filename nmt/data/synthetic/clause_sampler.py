"""Sampling of the clauses of the synthetic language pair: who does what, when and where."""

from typing import Final

from nmt.data.synthetic.morphology import ADJECTIVES, NOUNS, PRONOUNS, VERBS
from nmt.data.synthetic.phrase_sampler import ANIMALS, PEOPLE, PLACES, THINGS, TIMES, PhraseSampler
from nmt.data.synthetic.semantics import Clause, NounPhrase


def _verbs(*frames: str) -> tuple[list[str], list[str]]:
    """Return the verbs with one of `frames`: those of people, and those of animals."""
    keys = [key for key, verb in VERBS.items() if verb.frame in frames]
    return keys, [key for key in keys if "A" in VERBS[key].subjects]


_TRANSITIVE: Final = _verbs("a", "d")
_GIVING: Final = _verbs("g")[0]
_BARE: Final = _verbs("i", "m")
_MOVING: Final = _verbs("to", "to", "from")
_RESTING: Final = _verbs("at")
_FAR: Final = frozenset({"drive", "return", "hurry"})
_FOR_SOMEONE: Final = frozenset({"buy", "cook", "build", "draw", "repair", "carry", "open", "close"})
_NOT_WILLED: Final = frozenset({"see", "hear", "love", "lose", "find", "forget", "understand", "follow", "meet"})
_BUSY: Final = frozenset({"open", "close", "clean", "repair", "build", "draw", "write", "eat", "drink", "cook", "wash"})
_ABOUT_THINGS: Final = ("buy", "sell", "look for", "find", "steal", "lose", "clean", "bring along", "cook", "repair")
_PREDICATES: Final = [key for key, adjective in ADJECTIVES.items() if "P" in adjective.kinds]

_UNDATED: Final = ("in the morning", "in the evening")  # goes with "often", and with no other time in the sentence
_UNNEGATED: Final = ("every day", "soon")  # "nicht jeden Tag" would need another order
_FREQUENCIES: Final = ("often", "always", "never", "sometimes")


class ClauseSampler(PhraseSampler):
    """Sampler of single clauses. A tense is one of those of `Clause`, or "modal" (present) and "modal past"."""

    def volitional_verb(self) -> str:
        """Sample a transitive verb for something one does on purpose."""
        while (verb := self.choose(_TRANSITIVE[0])) in _NOT_WILLED:
            pass
        return verb

    def clause(self, tense: str, extras: float = 0.5) -> Clause:
        """Sample a clause; `extras` scales the probability of its optional parts."""
        if self.random() < 0.12 and "modal" not in tense:
            return self.description(tense)
        return self.action(self.subject(), tense, extras)

    def description(self, tense: str) -> Clause:
        """Sample a clause with a predicate: something is old, or somebody tired."""
        if self.random() < 0.5:
            subject = self.subject(must_be_person=True)
            predicate = self.choose(_PREDICATES)
        else:
            noun = self.choose(THINGS if self.random() < 0.6 else PLACES)
            subject = self.with_owner(noun) if self.random() < 0.3 else self.thing(noun, indefinite=0.0, adjective=0.0)
            predicate = self.choose(NOUNS[noun].adjectives)
        negated = self.random() < 0.2 and subject.determiner not in ("every", "no", "a", "")
        frequency = "always" if not negated and self.random() < 0.1 and tense in ("present", "past") else ""
        return Clause(subject, "be", tense, negated=negated, predicate=predicate, frequency=frequency)

    def action(self, subject: NounPhrase, tense: str, extras: float, *, is_plain: bool = False) -> Clause:
        """Sample somebody doing something; `is_plain` is for temporal clauses: no negation, no "often"."""
        is_animal = subject.noun in ANIMALS
        clause = Clause(subject, "", tense)
        if tense == "can":
            clause = Clause(subject, "", "present", "can")
        elif tense == "modal":
            clause = Clause(subject, "", "present", self.choose(("can", "must", "want", "should", "may")))
        elif tense == "modal past":
            clause = Clause(subject, "", "past", self.choose(("can", "must", "want", "may")))
        kind = self.random()
        if kind < 0.52:
            verb = self.volitional_verb() if clause.modal and not is_animal else self.choose(_TRANSITIVE[is_animal])
            clause = self.transitive(clause, verb, extras)
        elif kind < 0.64 and not is_animal:
            verb = self.choose(_GIVING)
            gift = self.object(self.choose(VERBS[verb].objects))
            clause = clause._replace(verb=verb, recipient=self.person(subject), object=gift)
        elif kind < 0.76:
            clause = self.motion(clause, is_animal)
        elif kind < 0.86:
            clause = clause._replace(verb=self.choose(_RESTING[is_animal]), place=self.location())
        else:
            clause = self.intransitive(clause, self.choose(_BARE[is_animal]), extras)
        if subject.noun in PEOPLE and subject.determiner == "the" and not subject.conjunct and self.random() < 0.06:
            clause = clause._replace(subject=self.with_relative(subject, clause.tense))
        return self.circumstances(clause, tense, extras, is_plain)

    def motion(self, clause: Clause, is_animal: bool) -> Clause:
        """Add a verb of motion and a destination or origin."""
        verb = self.choose(_MOVING[is_animal])
        place = self.origin() if verb == "come" else self.goal(is_far=verb in _FAR, is_animal=is_animal)
        return clause._replace(verb=verb, place=place)

    def transitive(self, clause: Clause, verb: str, extras: float) -> Clause:
        """Add a transitive verb, its object, and perhaps a beneficiary, place or manner."""
        is_animal = clause.subject.noun in ANIMALS
        noun = self.choose(("water", "milk") if is_animal and verb == "drink" else VERBS[verb].objects)
        if noun in PEOPLE:
            target = self.person(clause.subject)
        elif self.random() < 0.1:
            target = self.with_owner(noun)
        else:
            target = self.object(noun)
        clause = clause._replace(verb=verb, object=target)
        chance = self.random()
        if verb in _FOR_SOMEONE and chance < 0.5 * extras and target.noun not in PRONOUNS:
            return clause._replace(beneficiary=self.person(clause.subject, pronoun=0.2))
        if chance < 0.3 * extras and verb not in ("love", "understand", "tidy up"):
            return clause._replace(place=self.location())
        if chance < 0.5 * extras and verb in _BUSY and target.determiner != "no":
            manners = ("quickly", "slowly") if is_animal else ("quickly", "slowly", "alone")
            return clause._replace(manner=self.choose(manners))
        return clause

    def intransitive(self, clause: Clause, verb: str, extras: float) -> Clause:
        """Add an intransitive verb, and perhaps manner, place or company."""
        clause = clause._replace(verb=verb)
        if VERBS[verb].frame == "i":
            return clause
        chance = self.random()
        if chance < 0.3:
            manners = ("loudly", "quietly", "alone") if verb in ("sing", "laugh", "cry") else ("alone",)
            return clause._replace(manner=self.choose(manners))
        if chance < 0.3 + extras:
            clause = clause._replace(place=self.location())
        if chance > 0.75:
            clause = clause._replace(company=self.person(clause.subject))
        return clause

    def circumstances(self, clause: Clause, tense: str, extras: float, is_plain: bool) -> Clause:
        """Add negation, frequency, time, and a relative clause on the object where nothing follows it."""
        chance = self.random()
        subject, target = clause.subject, clause.object
        # Beside a counted object, or one with "no", "not" and "never" would have to be expressed differently.
        is_counted = target is not None and (bool(target.number) or target.determiner == "no")
        if not is_plain and chance < 0.34 and subject.determiner not in ("every", "no") and not is_counted:
            if chance < 0.2:
                definite = subject.determiner not in ("a", "") or subject.is_name or subject.noun in PRONOUNS
                if definite and clause.modal != "must" and not (clause.manner and target):
                    clause = clause._replace(negated=True)
            elif not (clause.modal or clause.manner or tense == "pluperfect" or clause.verb in ("love", "live")):
                usual = ("already", "already", "never", "often") if tense == "perfect" else _FREQUENCIES
                clause = clause._replace(frequency=self.choose(usual))
        key = tense if tense in TIMES else clause.tense
        if tense not in ("can", "pluperfect") and self.random() < 0.6 * extras + 0.05:
            time = self.choose(TIMES[key])
            if clause.frequency and key in ("present", "past") and not (target and target.determiner not in ("a", "")):
                time = self.choose(_UNDATED)
            if not ((clause.frequency and time not in _UNDATED) or (clause.negated and time in _UNNEGATED)):
                clause = clause._replace(time=time)
        if target is None or target.determiner not in ("the", "a") or self.random() > 0.16:
            return clause
        if clause.place or clause.beneficiary or clause.manner or clause.time or clause.negated:
            return clause
        return clause._replace(object=self.with_relative(target, clause.tense))

    def with_relative(self, phrase: NounPhrase, tense: str) -> NounPhrase:
        """Add a relative clause to a phrase of a clause in `tense`: "the man who …", "the book that …"."""
        tense = "past" if tense in ("past", "pluperfect") else "present"
        noun = NOUNS[phrase.noun]
        head = NounPhrase(phrase.noun, plural=phrase.plural)
        is_animal = "A" in noun.kinds
        if is_animal or "P" in noun.kinds:
            chance = self.random()
            if chance < 0.55:
                clause = self.transitive(Clause(head, "", tense), self.choose(_TRANSITIVE[is_animal]), extras=0.0)
            elif chance < 0.85:
                clause = Clause(head, self.choose(_RESTING[is_animal]), tense, place=self.location())
            else:
                predicate = self.choose(noun.adjectives)
                if predicate == phrase.adjective:
                    return phrase
                clause = Clause(head, "be", tense, predicate=predicate)
            return phrase._replace(relative=clause)
        fitting = [key for key in _ABOUT_THINGS if phrase.noun in VERBS[key].objects]
        if not fitting:
            return phrase
        clause = Clause(self.subject(must_be_person=True), self.choose(fitting), tense, object=head)
        return phrase._replace(relative=clause, gap="object")
