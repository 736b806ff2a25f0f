"""Surface realization of the clauses and sentences of the synthetic language pair in both languages, with their links.

The English words are appended from left to right, so that the position of each is known when the German word that
translates it is made; the German words are ordered afterwards: verb second in a main clause, verb last in a subordinate
one, and between them pronouns, time, definite objects, negation, manner, indefinite objects, company, place.
"""

from typing import Final, NamedTuple

from nmt.data.synthetic import morphology
from nmt.data.synthetic.noun_phrases import COMMA, NounPhraseRealizer, Token
from nmt.data.synthetic.semantics import Clause, NounPhrase, SyntheticPair
from nmt.data.synthetic.verb_phrases import VerbPhraseRealizer

_MAIN, _INVERTED, _QUESTION, _LAST = range(4)  # position of the German finite verb
_NO_TOKENS: Final[list[Token]] = []


def realize(clauses: list[Clause], conjunctions: list[str] | None = None, *, question: bool = False) -> SyntheticPair:
    """Realize `clauses` in both languages, joined by the coordinating `conjunctions` ("and", "but") between them."""
    realizer = ClauseRealizer()
    tokens: list[Token] = []
    for index, clause in enumerate(clauses):
        if index:
            conjunction = (conjunctions or [])[index - 1]
            realizer.english[-1] += ","
            if conjunction != "and":
                tokens.append(COMMA)
            tokens += realizer.phrase(conjunction)
        tokens += realizer.main(clause, _QUESTION if question else _MAIN)
    return realizer.finish(tokens, "?" if question else ".")


class ClauseRealizer(NounPhraseRealizer):
    """Realizer of clauses with all their parts."""

    def finish(self, tokens: list[Token], end: str) -> SyntheticPair:
        """Return the sentence pair of the German `tokens`, with its punctuation and capitals."""
        english = self.english
        german: list[str] = []
        sure: list[tuple[int, int]] = []
        possible: list[tuple[int, int]] = []
        for form, sure_sources, possible_sources in tokens:
            if form == ",":
                german[-1] = german[-1].removesuffix(",") + ","
                continue
            sure += [(source, len(german)) for source in sure_sources]
            possible += [(source, len(german)) for source in possible_sources if source not in sure_sources]
            german.append(form)
        german[-1] = german[-1].rstrip(",") + end
        english[-1] += end
        for words in (english, german):
            words[0] = words[0][0].upper() + words[0][1:]
        return SyntheticPair(" ".join(english), " ".join(german), tuple(sorted(sure)), tuple(sorted(possible)))

    def main(self, clause: Clause, order: int) -> list[Token]:
        """Realize a main clause with the subordinate clauses before and after it."""
        tokens: list[Token] = []
        if clause.opening:
            tokens = self.subordinate(clause.opening)[1:]  # no comma before an opening clause, nor after "und"
            self.english[-1] += ","
            order = _INVERTED
        return tokens + self.clause(clause, order)

    def subordinate(self, pair: tuple[str, Clause]) -> list[Token]:
        """Realize a subordinate clause with its conjunction."""
        conjunction, clause = pair
        if conjunction == "when" and clause.tense == "past":
            conjunction = "when (past)"
        return [COMMA, *self.phrase(conjunction), *self.clause(clause, _LAST), COMMA]

    def relative(self, phrase: NounPhrase) -> list[Token]:
        """Realize the relative clause of a noun phrase, if it has one."""
        clause = phrase.relative
        if clause is None:
            return _NO_TOKENS
        noun = morphology.NOUNS[phrase.noun]
        gender = morphology.PLURAL if phrase.plural else noun.gender
        link = self.word("who" if "P" in noun.kinds else "that")
        pronoun: Token = (morphology.RELATIVE[gender][phrase.gap == "object"], (link,), ())
        return [COMMA, pronoun, *self.clause(clause, _LAST, gap=phrase.gap), COMMA]

    def clause(self, clause: Clause, order: int, *, gap: str = "") -> list[Token]:
        """Realize a clause and its trailing clauses; `gap` names the part that a relative pronoun replaces."""
        front = self.phrase(clause.time) if clause.time_first else _NO_TOKENS
        order = _INVERTED if front else order
        agreement = _agreement(clause.subject)
        verb = VerbPhraseRealizer(clause, agreement, order == _QUESTION)
        if order == _QUESTION:
            verb.english_before_subject(self)
        subject = _NO_TOKENS
        if gap != "subject":
            subject = [*self.noun_phrase(clause.subject, morphology.NOMINATIVE), *self.relative(clause.subject)]
        if order != _QUESTION:
            verb.english_before_subject(self)
        indefinite_object = _is_indefinite(clause.object)
        adverb = verb.english_after_subject(self, absorb_negation=indefinite_object)
        fields = self.complements(clause, verb, indefinite_object, gap)
        time = self.phrase(clause.time) if clause.time and not clause.time_first else _NO_TOKENS
        finite, ending = verb.german(order == _LAST)
        middle = [*fields.pronouns, *time, *fields.definite, *adverb, *fields.rest]
        if order == _MAIN:
            tokens = [*subject, finite, *middle, *ending]
        elif order == _LAST:
            tokens = [*subject, *middle, *ending, finite]
        else:
            tokens = [*front, finite, *subject, *middle, *ending]
        return tokens + self.trailing(clause, fields.relative)

    def complements(self, clause: Clause, verb: VerbPhraseRealizer, indefinite: bool, gap: str) -> "_Fields":
        """Realize the English words after the verb, in their order; return the German fields of the clause."""
        fields = _Fields([], [], [], [])
        bare: list[Token] = []
        if clause.recipient:
            field = fields.pronouns if clause.recipient.noun in morphology.PRONOUNS else fields.definite
            field += self.noun_phrase(clause.recipient, morphology.DATIVE)
        phrase = clause.object
        if phrase is not None and gap != "object":
            is_pronoun = phrase.noun in morphology.PRONOUNS
            case = morphology.DATIVE if morphology.VERBS[clause.verb].frame == "d" else morphology.ACCUSATIVE
            if not is_pronoun:
                verb.place_particle(self)
            field = fields.pronouns if is_pronoun else bare if indefinite else fields.definite
            field += self.noun_phrase(phrase, case, verb.absorbed_negation)
            fields.relative.extend(self.relative(phrase))
        verb.place_particle(self)
        if clause.predicate:
            adjective = morphology.ADJECTIVES[clause.predicate].german
            bare = [(adjective, (self.word(clause.predicate),), ())]
        beneficiary = self.prepositional("for", clause.beneficiary) if clause.beneficiary else _NO_TOKENS
        place = self.prepositional(*clause.place) if clause.place else _NO_TOKENS
        company = self.prepositional("with", clause.company) if clause.company else _NO_TOKENS
        manner = self.phrase(clause.manner) if clause.manner else _NO_TOKENS
        fields.rest.extend([*manner, *bare, *beneficiary, *company, *place])
        return fields

    def trailing(self, clause: Clause, relative: list[Token]) -> list[Token]:
        """Realize the clauses after a clause, behind the relative clause of its object."""
        complement = self.subordinate(clause.complement) if clause.complement else _NO_TOKENS
        purpose = self.infinitive(clause.purpose) if clause.purpose else _NO_TOKENS
        adjunct = self.subordinate(clause.adjunct) if clause.adjunct else _NO_TOKENS
        return [*relative, *complement, *purpose, *adjunct]

    def infinitive(self, clause: Clause) -> list[Token]:
        """Realize "in order to …" as "um … zu", with the "zu" inside a separable verb ("anzurufen")."""
        opening = self.phrase("in order")
        verb = VerbPhraseRealizer(clause, morphology.MANY)
        to_link = self.word("to")
        verb.main_verb(self, morphology.VERBS[clause.verb].english[0])
        fields = self.complements(clause, verb, _is_indefinite(clause.object), "")
        entry, links = morphology.VERBS[clause.verb], verb.verb_links
        ending: list[Token] = [("zu", (to_link,), ()), (entry.infinitive, links, ())]
        if entry.prefix:
            ending = [(f"{entry.prefix}zu{entry.infinitive}", (to_link, *links), ())]
        return [COMMA, *opening, *fields.pronouns, *fields.definite, *fields.rest, *ending, COMMA]


class _Fields(NamedTuple):
    """The German words of a clause by their position in it."""

    pronouns: list[Token]
    definite: list[Token]
    rest: list[Token]
    relative: list[Token]


def _agreement(subject: NounPhrase) -> int:
    if subject.noun in morphology.PRONOUNS:
        return morphology.PRONOUNS[subject.noun].agreement
    return morphology.MANY if subject.plural or subject.conjunct else morphology.THIRD


def _is_indefinite(phrase: NounPhrase | None) -> bool:
    if phrase is None or phrase.is_name or phrase.owner or phrase.noun in morphology.PRONOUNS:
        return False
    return not morphology.DETERMINERS[phrase.determiner].definite
