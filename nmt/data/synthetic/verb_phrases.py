"""The verb words of a clause of the built-in language pair."""

from typing import Final

from nmt.data.synthetic.morphology import HABEN, MODALS, SEIN, THIRD, VERBS, WERDEN
from nmt.data.synthetic.noun_phrases import NounPhraseRealizer, Token
from nmt.data.synthetic.semantics import Clause

TO_BE: Final = (("am", "is", "are"), ("was", "was", "were"))


class VerbPhraseRealizer:
    """The verb words of one clause: in English in two steps, around the subject of a question, then in German."""

    def __init__(self, clause: Clause, agreement: int, is_question: bool = False) -> None:
        self.clause = clause
        self.agreement = agreement
        self.needs_do = (is_question or clause.negated) and (
            clause.modal == "want" or (clause.tense in ("present", "past") and not clause.modal and clause.verb != "be")
        )
        self.auxiliary: tuple[int, ...] = ()
        self.support: tuple[int, ...] = ()  # "do", which has no German word of its own
        self.to: tuple[int, ...] = ()  # the "to" of "wants to", "had to", "was able to"
        self.links: tuple[int, ...] = ()  # the main verb and its particle
        self.able = ""  # what follows "be" in a modal
        self.swallowed: tuple[int, ...] = ()  # a "not" that became "kein"
        self.particle = "" if clause.verb == "be" else VERBS[clause.verb].particle

    def english_before_subject(self, wording: NounPhraseRealizer) -> None:
        """The English auxiliary, which comes before the subject in a question."""
        clause, agreement = self.clause, self.agreement
        tense = clause.tense
        is_past = tense == "past"
        if self.needs_do:
            self.support = (wording.word("did" if is_past else "does" if agreement == THIRD else "do"),)
        elif clause.modal == "want":
            self.auxiliary = (wording.word("wanted" if is_past else "wants" if agreement == THIRD else "want"),)
            self.to = (wording.word("to"),)
        elif clause.modal:
            modal = MODALS[clause.modal]
            first, *rest = (modal[1] if is_past else modal[0]).split()
            if first == "be":  # "was able to", around "not" and, in a question, around the subject
                first = TO_BE[is_past][agreement]
                self.able = rest[0]
            elif first == "can" and clause.negated:
                first = "cannot"
            self.auxiliary = (wording.word(first),)
            if rest and not self.able:
                self.to = (wording.word("to"),)
        elif tense == "perfect":
            self.auxiliary = (wording.word("has" if agreement == THIRD else "have"),)
        elif tense == "pluperfect":
            self.auxiliary = (wording.word("had"),)
        elif tense == "future":
            self.auxiliary = (wording.word("will"),)
        elif clause.verb == "be":
            self.links = (wording.word(TO_BE[is_past][agreement]),)

    def english_after_subject(self, wording: NounPhraseRealizer, *, swallow_negation: bool) -> list[Token]:
        """The other English verb words; returns the German adverbs, "nicht" among them unless "kein" swallows it."""
        clause = self.clause
        adverbs: list[Token] = []
        if clause.negated:
            link = self.auxiliary if wording.english[-1] == "cannot" else (wording.word("not"),)
            if swallow_negation:
                self.swallowed = link
            else:
                adverbs.append(("nicht", link, ()))
        if clause.frequency:
            adverbs += wording.phrase(clause.frequency)
        if self.able or (clause.modal == "want" and self.needs_do):
            self.auxiliary += (wording.word(self.able or "want"),)
            self.to = (wording.word("to"),)
        tense = clause.tense
        if clause.verb == "be":
            if not self.links:
                self.links = (wording.word("been" if "perfect" in tense else "be"),)
            return adverbs
        base, third, past, participle = VERBS[clause.verb].english
        if self.needs_do or clause.modal or tense == "future":
            form = base
        elif tense == "present":
            form = third if self.agreement == THIRD else base
        else:
            form = past if tense == "past" else participle
        self.main_verb(wording, form)
        return adverbs

    def main_verb(self, wording: NounPhraseRealizer, form: str) -> None:
        """Lay down the main verb in `form`, with the preposition that belongs to it."""
        self.links = (wording.word(form),)
        if self.particle and VERBS[self.clause.verb].particle_stays:
            self.place_particle(wording)

    def place_particle(self, wording: NounPhraseRealizer) -> None:
        """Lay down the particle, before or after the object, unless it stands already."""
        if self.particle:
            self.links += (wording.word(self.particle),)
            self.particle = ""

    def german(self, is_last: bool) -> tuple[Token, list[Token]]:
        """The finite verb and what closes the clause before it or, in a main clause, far after it."""
        clause, agreement, links = self.clause, self.agreement, self.links
        tense = clause.tense
        is_past = tense in ("past", "pluperfect")
        is_be = clause.verb == "be"
        verb = None if is_be else VERBS[clause.verb]
        if clause.modal or tense == "future":
            forms = _modal(clause.modal, is_past) if clause.modal else WERDEN
            infinitive = verb.prefix + verb.infinitive if verb else "sein"
            return (forms[agreement], self.auxiliary, self.support), [(infinitive, links, self.to)]
        if tense in ("perfect", "pluperfect"):
            forms = (SEIN if verb is None or verb.takes_sein else HABEN)[is_past]
            participle = verb.participle if verb else "gewesen"
            return (forms[agreement], self.auxiliary, ()), [(participle, links, ())]
        if verb is None:
            return (SEIN[is_past][agreement], links, ()), []
        form = (verb.past if is_past else verb.present)[agreement]
        if is_last:
            return (verb.prefix + form, links, self.support), []
        return (form, links, self.support), [(verb.prefix, links, ())] if verb.prefix else []


def _modal(key: str, is_past: bool) -> tuple[str, str, str]:
    _, _, present, past = MODALS[key]
    return past if is_past else present
