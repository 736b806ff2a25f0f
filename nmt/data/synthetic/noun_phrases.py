"""Realization of the noun phrases of the synthetic language pair in both languages at once."""

from typing import Final

from nmt.data.synthetic import morphology
from nmt.data.synthetic.semantics import NounPhrase

Token = tuple[str, tuple[int, ...], tuple[int, ...]]  # a German word, its sure and its possible English positions
COMMA: Final[Token] = (",", (), ())


class NounPhraseRealizer:
    """Realizer of noun phrases: appends English words to `english` and returns the German words that translate them."""

    def __init__(self) -> None:
        self.english: list[str] = []

    def word(self, word: str) -> int:
        """Append one English word; return its position."""
        self.english.append(word)
        return len(self.english) - 1

    def phrase(self, key: str) -> list[Token]:
        """Realize an entry of morphology.PHRASES."""
        start = len(self.english)
        phrase = morphology.PHRASES[key]
        self.english += phrase.english
        return [(form, tuple([start + link for link in links]), ()) for form, links in phrase.german]

    def noun_phrase(self, phrase: NounPhrase, case: int, negation: tuple[int, ...] = ()) -> list[Token]:
        """Realize a noun phrase; `negation` is the position of a "not" that the German phrase absorbs as "kein"."""
        noun = phrase.noun
        if phrase.is_name:
            return [(noun, (self.word(noun),), ())]
        if noun in morphology.PRONOUNS:
            pronoun = morphology.PRONOUNS[noun]
            return [(pronoun.german[case], (self.word(pronoun.english[case != morphology.NOMINATIVE]),), ())]
        tokens = self.common_noun(phrase, case, negation)
        if phrase.conjunct:
            tokens += [*self.phrase("and"), *self.noun_phrase(phrase.conjunct, case)]
        return tokens

    def common_noun(self, phrase: NounPhrase, case: int, negation: tuple[int, ...]) -> list[Token]:
        noun = morphology.NOUNS[phrase.noun]
        gender = morphology.PLURAL if phrase.plural else noun.gender
        after: list[Token] = []
        if phrase.owner is not None:
            tokens, after, endings = self.owner(phrase.owner, gender, case)
        else:
            tokens, endings = self.determiner(phrase, gender, case, negation)
        number = phrase.number
        if number and not phrase.is_label:
            tokens.append((morphology.NUMBER_WORDS.get(number, number), (self.word(number),), ()))
        if phrase.adjective:
            form = morphology.ADJECTIVES[phrase.adjective].inflected[endings][gender][case]
            tokens.append((form, (self.word(phrase.adjective),), ()))
        links = tuple([self.word(word) for word in noun.english[phrase.plural]])
        tokens.append((noun.german[phrase.plural][case], links, ()))
        if phrase.is_label:
            tokens.append((number, (self.word(number),), ()))
        return tokens + after

    def determiner(
        self, phrase: NounPhrase, gender: int, case: int, negation: tuple[int, ...]
    ) -> tuple[list[Token], int]:
        """Realize the determiner; also return the class of adjective endings after it."""
        determiner = morphology.DETERMINERS[phrase.determiner]
        links = negation
        if english := determiner.english[phrase.plural]:
            if english == "a" and (phrase.adjective or phrase.noun)[0] in "aeiou":
                english = "an"
            links = (*negation, self.word(english))
        if negation:
            determiner = morphology.DETERMINERS["no"]
        german = determiner.german[gender][case]
        return ([(german, links, ())] if german else []), determiner.endings

    def owner(self, owner: NounPhrase, gender: int, case: int) -> tuple[list[Token], list[Token], int]:
        """Realize "the teacher's"; return the tokens before and after the German noun, and the adjective endings."""
        tokens = self.noun_phrase(owner, morphology.GENITIVE)
        self.english[-1] += "'s"
        form, links, _ = tokens[-1]
        if owner.is_name:  # "Kalinos Hund" has no article
            return [(form + "s", links, ())], [], morphology.STRONG
        return [(morphology.DETERMINERS["the"].german[gender][case], (), links)], tokens, morphology.WEAK

    def prepositional(self, preposition: str, phrase: NounPhrase) -> list[Token]:
        """Realize a preposition and its phrase, contracted where German does so ("zum")."""
        links = tuple([self.word(word) for word in preposition.split()])
        german, case = morphology.PREPOSITIONS[preposition]
        if (preposition, phrase.noun) in morphology.WITH_AUF:
            german = "auf"
        elif phrase.is_name:
            german = {"to": "nach", "from": "aus"}.get(preposition, german)
        tokens = self.noun_phrase(phrase, case)
        form, sure, possible = tokens[0]
        if contraction := morphology.CONTRACTIONS.get((german, form)):
            return [(contraction, links + sure, possible), *tokens[1:]]
        return [(german, links, ()), *tokens]
