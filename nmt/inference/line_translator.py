"""Translate lines, whatever is in them, with exactly one result for each."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nmt.alignment.pharaoh import num_words
from nmt.alignment.writers import words_known
from nmt.data import EOS
from nmt.inference.sentence_splitter import SEGMENT_BOUNDARIES, split_sentence
from nmt.inference.translator import EMPTY_TRANSLATION, Terms, Translation, Translator
from nmt.runtime.text import is_blank


class LineTranslation(NamedTuple):
    """The result for a line.

    source: the line as it was read, bytes that are not UTF-8 replaced; "" for one that was too long to be kept.
    segments: the texts that were translated: one, or several for a line too long for the model; none after an error.
    best: for each segment its translations, the best first.
    error: why there is no translation.
    """

    source: str
    segments: list[str]
    best: list[list[Translation]]
    error: str | None = None

    def n_best(self) -> list[Translation]:
        """Return translations of the whole line: the best ones of its parts joined, then the second ones, and so on.

        Of several parts, `log_prob` is the sum, and `score` the mean weighted by the tokens (with the end token) of the
        best translation of each. It is of the same kind as the scores of the search, and falls from one translation to
        the next as those of the parts do. With the default length normalization the best translation has log p /
        length, as in one piece.
        """
        if not self.best:
            return [EMPTY_TRANSLATION]
        if len(self.best) == 1:
            return self.best[0]
        # a blank part has no translation and no score
        parts = zip(self.best, self.segments, strict=True)
        lengths = [0 if is_blank(text) else len(best[0].tokens) + 1 for best, text in parts]
        joined: dict[str, Translation] = {}
        for rank in range(max(map(len, self.best))):
            chosen = [best[min(rank, len(best) - 1)] for best in self.best]
            text = _join([t.text for t in chosen], self.segments)[0].strip(" ")
            tokens = [token for t in chosen for token in t.tokens]
            score = sum(length * t.score for length, t in zip(lengths, chosen, strict=True)) / sum(lengths)
            truncated, log_prob = any(t.truncated for t in chosen), sum(t.log_prob for t in chosen)
            joined.setdefault(text, Translation(text, tokens, score, truncated, log_prob))
        return list(joined.values())


class LineTranslator:
    """Translates lines, and counts those that were split or truncated or have no links in `counts`.

    Args:
        translator: the model.
        max_length: source tokens that are translated in one piece, unless the model takes fewer.
        terms: finds the terms (source, target) of a text that its source is annotated with, as `Glossary.terms` does;
            None: none are.

    Raises ValueError for `terms` and a model that was trained without any.
    """

    def __init__(self, translator: Translator, max_length: int, terms: Callable[[str], Terms] | None = None) -> None:
        limit = translator.max_source_length
        self.translator, self.max_length = translator, max_length if limit is None else min(max_length, limit)
        self.counts: Counter[str] = Counter()
        self.terms = terms
        translator.encode_sources([""], self._terms_of([""]))  # raises for a model without terms

    def translate_lines(self, lines: Sequence[bytes | None]) -> list[LineTranslation]:
        """Return one result for each line, in order. A line that fails has an error, and does not affect others."""
        sources = ["" if line is None else line.removesuffix(b"\r").decode("utf-8", errors="replace") for line in lines]
        errors = ["not translated: longer than a line may be" if line is None else None for line in lines]
        parts = [[] if error else self._split(source) for source, error in zip(sources, errors, strict=True)]
        try:
            segments = [text for texts in parts for text in texts]
            translated = iter(self.translator.n_best(segments, terms=self._terms_of(segments)))
            results = [
                LineTranslation(source, texts, [next(translated) for _ in texts], error)
                for source, texts, error in zip(sources, parts, errors, strict=True)
            ]
        except (ValueError, RuntimeError) as failure:  # mostly out of memory: fewer at a time may succeed
            if len(lines) > 1:
                return [self.translate_lines([line])[0] for line in lines]
            reason = " ".join(str(failure).split())[:200]
            return [LineTranslation(sources[0], [], [], f"not translated: {reason}")]
        for result in results:
            self.counts["split"] += len(result.segments) > 1
            self.counts["truncated"] += any(best[0].truncated for best in result.best)
        return results

    def _split(self, text: str) -> list[str]:
        text = "" if is_blank(text) else text.strip(" ")
        # a character has at most 4 bytes, each of which may be a subword: short texts need no counting
        if 4 * len(text) + 1 + len(self.translator.tokenizer.prefixes[0]) <= self.max_length:
            return [text]
        encode = self.translator.tokenizer.encode_source
        return split_sentence(text, lambda segment: len(encode([segment])[0]), self.max_length)

    def _terms_of(self, texts: Sequence[str]) -> list[Terms] | None:
        return None if self.terms is None else [self.terms(text) for text in texts]

    def to_json(self, number: int, result: LineTranslation) -> dict[str, Any]:
        """Return all about a result as JSON values. Links are (source, target) from 0, of words and of subwords."""
        n_best = result.n_best()
        best = n_best[0]
        record: dict[str, Any] = {"line": number, "source": result.source, "translation": best.text}
        if result.error is not None:
            return record | {"error": result.error}
        scores = [{"score": t.score, "log_prob": t.log_prob, "truncated": t.truncated} for t in n_best]
        record |= {**scores[0], "parts": len(result.segments)}
        if self.translator.config.n_best > 1:
            subwords = [self.translator.tokenizer.target_subwords(t.tokens) for t in n_best]
            all_values = zip(n_best, scores, subwords, strict=True)
            record["n_best"] = [{"text": t.text, **values, "subwords": names} for t, values, names in all_values]
        return record | self._alignment(result)

    def _alignment(self, result: LineTranslation) -> dict[str, Any]:
        """Return the subwords of both sides, links, and the alignment source; None for these without attention."""
        tokenizer = self.translator.tokenizer
        sources = self.translator.encode_sources(result.segments, self._terms_of(result.segments))
        targets = [best[0].tokens for best in result.best]
        alignment: dict[str, Any] = {
            "source_subwords": [subword for ids in sources for subword in tokenizer.source_subwords(ids)],
            "target_subwords": [subword for ids in targets for subword in tokenizer.target_subwords(ids)],
        }
        weights = dict(self.translator.attention_weights(sources, targets))
        if sources and not weights:
            return alignment | {"links": None, "subword_links": None, "alignment_source_text": None}
        _, first_source = _join(result.segments)
        _, first_target = _join([best[0].text for best in result.best], result.segments)
        links: dict[tuple[int, int], None] = {}  # a word that was split may be linked in both its halves
        subword_links: list[list[int]] = []
        num_source = num_target = 0  # subwords of earlier parts
        stored, has_numbers = self.translator.stored_source.source, True
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            source_words = tokenizer.source_words(result.segments[i], [*source, EOS])
            has_numbers &= words_known(result.segments[i], source_words)
            words = stored.links(weights[i], tokenizer.target_word_ids([*target, EOS]), source_words)
            links |= dict.fromkeys((first_source[i] + s, first_target[i] + t) for s, t in words)
            part_links = self.translator.subword_links(weights[i], source, target)
            subword_links += [[num_source + s, num_target + t] for s, t in part_links]
            num_source, num_target = num_source + len(source), num_target + len(target)
        self.counts["unknown words"] += not has_numbers
        return alignment | {
            "links": [list(link) for link in links if has_numbers],
            "subword_links": subword_links,
            "alignment_source_text": self.translator.describe(stored),
        }


def _join(texts: Sequence[str], segments: Sequence[str] = ()) -> tuple[str, list[int]]:
    """Join texts; translations of `segments` with a space where a segment was not split inside a word.

    Also return the number of the first word of each text, which may continue the last word of the one before.
    """
    joined, first_words = "", []
    num, in_word = 0, False  # words so far; whether the last may continue
    for number, text in enumerate(texts):
        continues = in_word and text[:1] not in ("", " ")
        first_words.append(num - continues)
        num += num_words(text) - continues
        in_word = not text.endswith(" ") if text else in_word
        joined += text
        if segments and in_word and _ends_at_boundary(segments[number]):
            joined += " "
            in_word = False
    return joined, first_words


def _ends_at_boundary(segment: str) -> bool:
    """Return whether a segment was split after a space or a mark, and not inside a word."""
    return any(match.end() == len(segment) for boundary in SEGMENT_BOUNDARIES for match in boundary.finditer(segment))


def json_line(record: dict[str, Any]) -> str:
    """Return one line of JSON, with every character escaped that a reader may take for the end of a line."""
    text = json.dumps(record, ensure_ascii=False)
    for character in "\x85\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
