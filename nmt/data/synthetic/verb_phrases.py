"""Realization of the verb phrases of the synthetic language pair."""

from typing import Final

from nmt.data.synthetic.morphology import HABEN, MODALS, SEIN, THIRD, VERBS, WERDEN
from nmt.data.synthetic.noun_phrases import NounPhraseRealizer, Token
from nmt.data.synthetic.semantics import Clause

TO_BE: Final = (("am", "is", "are"), ("was", "was", "were"))


class VerbPhraseRealizer:
    """Realizer of a clause's verb phrase: in English in two steps, around the subject of a question, then in German."""

    def __init__(self, clause: Clause, agreement: int, is_question: bool = False) -> None:
        self.clause = clause
        self.agreement = agreement
        self.needs_do = (is_question or clause.negated) and (
            clause.modal == "want" or (clause.tense in ("present", "past") and not clause.modal and clause.verb != "be")
        )
        self.auxiliary_links: tuple[int, ...] = ()
        self.do_links: tuple[int, ...] = ()  # "do", which no German word translates
        self.to_links: tuple[int, ...] = ()  # the "to" of "wants to", "had to", "was able to"
        self.verb_links: tuple[int, ...] = ()  # the main verb and its particle
        self.modal_rest = ""  # "able" or "allowed"
        self.absorbed_negation: tuple[int, ...] = ()  # a "not" that became "kein"
        self.particle = "" if clause.verb == "be" else VERBS[clause.verb].particle

    def english_before_subject(self, realizer: NounPhraseRealizer) -> None:
        """Realize the English auxiliary, which comes before the subject in a question."""
        clause, agreement = self.clause, self.agreement
        tense = clause.tense
        is_past = tense == "past"
        if self.needs_do:
            self.do_links = (realizer.word("did" if is_past else "does" if agreement == THIRD else "do"),)
        elif clause.modal == "want":
            self.auxiliary_links = (realizer.word("wanted" if is_past else "wants" if agreement == THIRD else "want"),)
            self.to_links = (realizer.word("to"),)
        elif clause.modal:
            modal = MODALS[clause.modal]
            first, *rest = (modal[1] if is_past else modal[0]).split()
            if first == "be":  # "was able to", around "not" and, in a question, around the subject
                first = TO_BE[is_past][agreement]
                self.modal_rest = rest[0]
            elif first == "can" and clause.negated:
                first = "cannot"
            self.auxiliary_links = (realizer.word(first),)
            if rest and not self.modal_rest:
                self.to_links = (realizer.word("to"),)
        elif tense in ("perfect", "pluperfect", "future"):
            forms = {"perfect": "has" if agreement == THIRD else "have", "pluperfect": "had", "future": "will"}
            self.auxiliary_links = (realizer.word(forms[tense]),)
        elif clause.verb == "be":
            self.verb_links = (realizer.word(TO_BE[is_past][agreement]),)

    def english_after_subject(self, realizer: NounPhraseRealizer, *, absorb_negation: bool) -> list[Token]:
        """Realize the other English verb words; return the German adverbs, with "nicht" unless "kein" absorbs it."""
        clause = self.clause
        adverbs: list[Token] = []
        if clause.negated:
            link = self.auxiliary_links if realizer.english[-1] == "cannot" else (realizer.word("not"),)
            if absorb_negation:
                self.absorbed_negation = link
            else:
                adverbs.append(("nicht", link, ()))
        if clause.frequency:
            adverbs += realizer.phrase(clause.frequency)
        if self.modal_rest or (clause.modal == "want" and self.needs_do):
            self.auxiliary_links += (realizer.word(self.modal_rest or "want"),)
            self.to_links = (realizer.word("to"),)
        tense = clause.tense
        if clause.verb == "be":
            if not self.verb_links:
                self.verb_links = (realizer.word("been" if "perfect" in tense else "be"),)
            return adverbs
        base, third, past, participle = VERBS[clause.verb].english
        if self.needs_do or clause.modal or tense == "future":
            form = base
        elif tense == "present":
            form = third if self.agreement == THIRD else base
        else:
            form = past if tense == "past" else participle
        self.main_verb(realizer, form)
        return adverbs

    def main_verb(self, realizer: NounPhraseRealizer, form: str) -> None:
        """Realize the main verb in `form`, with the preposition that belongs to it."""
        self.verb_links = (realizer.word(form),)
        if self.particle and VERBS[self.clause.verb].particle_stays:
            self.place_particle(realizer)

    def place_particle(self, realizer: NounPhraseRealizer) -> None:
        """Realize the particle, before or after the object, unless that is done already."""
        if self.particle:
            self.verb_links += (realizer.word(self.particle),)
            self.particle = ""

    def german(self, is_last: bool) -> tuple[Token, list[Token]]:
        """Return the German finite verb, and the rest of the verb phrase, which ends the clause."""
        clause, agreement, links = self.clause, self.agreement, self.verb_links
        tense = clause.tense
        is_past = tense in ("past", "pluperfect")
        verb = None if clause.verb == "be" else VERBS[clause.verb]
        if clause.modal or tense == "future":
            forms = MODALS[clause.modal][3 if is_past else 2] if clause.modal else WERDEN
            infinitive = verb.prefix + verb.infinitive if verb else "sein"
            return (forms[agreement], self.auxiliary_links, self.do_links), [(infinitive, links, self.to_links)]
        if tense in ("perfect", "pluperfect"):
            forms = (SEIN if verb is None or verb.takes_sein else HABEN)[is_past]
            participle = verb.participle if verb else "gewesen"
            return (forms[agreement], self.auxiliary_links, ()), [(participle, links, ())]
        if verb is None:
            return (SEIN[is_past][agreement], links, ()), []
        form = (verb.past if is_past else verb.present)[agreement]
        if is_last:
            return (verb.prefix + form, links, self.do_links), []
        return (form, links, self.do_links), [(verb.prefix, links, ())] if verb.prefix else []
