"""Sampling of the sentences of the synthetic language pair: main clauses with their subordinate clauses."""

from typing import Final

from nmt.data.synthetic.clause_sampler import ClauseSampler
from nmt.data.synthetic.morphology import VERBS
from nmt.data.synthetic.phrase_sampler import ANIMALS, TIMES
from nmt.data.synthetic.realization import realize
from nmt.data.synthetic.semantics import Clause, NounPhrase, SyntheticPair

_TEMPORAL: Final = ("when", "when", "before", "after", "while", "until", "as soon as")


class SentenceSampler(ClauseSampler):
    """Sampler of sentences."""

    def sentence(self) -> SyntheticPair:
        """Sample a sentence: a question, two coordinated clauses, or a main clause with its subordinate clauses."""
        kind = self.random()
        if kind < 0.05:
            tense = self.choose(("present", "past", "perfect", "future", "modal", "modal past"))
            clause = self.clause(tense)
            if clause.modal == "must" and clause.tense == "past":  # "had to" makes no question
                clause = clause._replace(modal="can")
            return realize([clause], question=True)
        if kind < 0.12:
            tense = self.tense()
            return realize([self.main(tense), self.main(tense)], [self.choose(("and", "but"))])
        return realize([self.main_clause_with_adjuncts()])

    def long_sentence(self, goal: int) -> SyntheticPair:
        """Join main clauses with their subordinate clauses until the longer side has about `goal` words."""
        clauses = [self.main_clause_with_adjuncts()]
        conjunctions: list[str] = []
        while True:
            sentence = realize(clauses, conjunctions)
            if max(sentence.source.count(" "), sentence.target.count(" ")) >= goal - 6:
                return sentence
            conjunctions.append(self.choose(("and", "but")))
            clauses.append(self.main_clause_with_adjuncts())

    def tense(self) -> str:
        tenses = ("present", "present", "past", "past", "past", "perfect", "perfect", "future", "modal", "modal past")
        return self.choose(tenses)

    def main_clause_with_adjuncts(self) -> Clause:
        """Sample a main clause, alone or with a subordinate one before or after it."""
        kind = self.random()
        if kind < 0.38:
            return self.main(self.tense())
        if kind < 0.57:
            return self.reported_speech()
        if kind < 0.63:
            return self.purpose_clause()
        if kind < 0.8:
            return self.temporal_clause(is_opening=kind < 0.73)
        return self.causal_clause(is_opening=kind < 0.86)

    def main(self, tense: str, extras: float = 0.5) -> Clause:
        """Sample a main clause; its time can be at the front."""
        clause = self.clause(tense, extras)
        return clause._replace(time_first=True) if clause.time and self.random() < 0.55 else clause

    def reported_speech(self) -> Clause:
        """Sample "he says that …" or "she asks whether …"."""
        tense = self.choose(("present", "past", "past"))
        subject = self.subject(must_be_person=True)
        if self.random() < 0.25:
            inner = self.choose(("present", "future", "modal") if tense == "present" else ("past", "pluperfect"))
            return Clause(subject, "ask", tense, complement=("whether", self.clause(inner, 0.3)))
        verb = self.choose(("say", "say", "think", "believe", "know", "hope"))
        inner = self.choose(("present", "perfect", "future", "modal") if tense == "present" else ("past", "pluperfect"))
        clause = self.clause(inner, 0.35)
        if self.random() < 0.12 and inner in ("present", "past"):
            clause = clause._replace(adjunct=("because", self.clause(inner, 0.2)))
        negated = verb in ("think", "believe", "know") and subject.determiner in ("the", "my") and self.random() < 0.3
        return Clause(subject, verb, tense, negated=negated, complement=("that", clause))

    def purpose_clause(self) -> Clause:
        """Sample "she goes to the market in order to buy bread", or "so that …"."""
        tense = self.choose(("present", "past"))
        subject = self.subject()
        is_animal = subject.noun in ANIMALS
        if self.random() < 0.65 or is_animal:
            clause = self.motion(Clause(subject, "", tense), is_animal)
        else:
            clause = self.transitive(Clause(subject, "", tense), self.volitional_verb(), extras=0.0)
        if clause.time == "" and self.random() < 0.2:
            clause = clause._replace(time=self.choose(TIMES[tense]))
        if tense == "present" and self.random() < 0.35:
            return clause._replace(adjunct=("so that", self.action(self.subject(), "can", 0.2, is_plain=True)))
        verb = "eat" if is_animal else self.volitional_verb()
        place = self.location() if self.random() < 0.2 and not clause.place else None
        target = self.object(self.choose(VERBS[verb].objects))
        return clause._replace(purpose=Clause(NounPhrase("they"), verb, object=target, place=place))

    def temporal_clause(self, *, is_opening: bool) -> Clause:
        """Sample a main clause with a temporal clause."""
        conjunction = self.choose(_TEMPORAL)
        if conjunction == "after":
            tense, inner = self.choose((("past", "pluperfect"), ("future", "perfect")))
        else:
            tense = self.choose(("present", "past", "past", "future"))
            inner = "present" if tense == "future" else tense
        return self.subordination(conjunction, tense, inner, is_opening and conjunction != "until")

    def causal_clause(self, *, is_opening: bool) -> Clause:
        """Sample a main clause with a causal, concessive or conditional clause."""
        conjunction = self.choose(("because", "because", "although", "if"))
        if conjunction == "if":
            return self.subordination("if", self.choose(("present", "future", "modal")), "present", is_opening)
        tense = self.tense()
        inner = {"future": "present", "modal past": "past"}.get(tense, tense)
        return self.subordination(conjunction, tense, inner, is_opening)

    def subordination(self, conjunction: str, tense: str, inner: str, is_opening: bool) -> Clause:
        """Sample a main clause in `tense`, and its subordinate clause in the tense `inner` before or after it."""
        is_plain = conjunction not in ("because", "although", "if")
        if not is_plain and self.random() < 0.3:
            subordinate = self.clause(inner, 0.2)
            if "modal" not in inner:
                subordinate = self.description("present" if inner == "perfect" else inner)
        else:
            subordinate = self.action(self.subject(), inner, 0.3, is_plain=is_plain)
        pair = (conjunction, subordinate._replace(time=""))
        clause = self.action(self.subject(), tense, 0.3, is_plain=is_plain)
        if is_opening:
            return clause._replace(opening=pair, time="" if is_plain else clause.time)
        return clause._replace(adjunct=pair, time_first=clause.time != "" and self.random() < 0.5)
