"""Translate lines, whatever is in them, with exactly one result for each."""

import html
import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmt.alignment.markup import MarkedText, ProjectedSpan, parse_markup, project, render, unit_weights, units
from nmt.alignment.pharaoh import num_words
from nmt.alignment.writers import words_known
from nmt.config import suggest
from nmt.data import EOS
from nmt.inference.glossary import Glossary, Term
from nmt.inference.placeholders import PLACEHOLDER, lost_placeholders, with_spaces
from nmt.inference.sentence_splitter import SEGMENT_BOUNDARIES, split_sentence
from nmt.inference.translator import EMPTY_TRANSLATION, Terms, Translation, Translator, cross_attention_modules
from nmt.runtime.text import is_blank


class LineRequest(NamedTuple):
    """Text of a line, and what is asked for it.

    text: the source.
    prefix: the translation begins with it.
    suffix_of: the translation continues this text, which is not in it.
    markup: the tags of the text are carried over to the translation.
    placeholders: what `nmt.inference.placeholders` finds and the translation lacks is put back.
    """

    text: str = ""
    prefix: str = ""
    suffix_of: str = ""
    markup: bool = False
    placeholders: bool = False

    @property
    def forced(self) -> str:
        """The text that the model has to begin with."""
        return (self.suffix_of + self.prefix).rstrip(" ")

    def continuation(self, text: str) -> str:
        """Return a translation, or its beginning, without what it continues; spaces at the end of that are its own."""
        start = self.suffix_of.rstrip(" ")
        return text.removeprefix(start).removeprefix(self.suffix_of[len(start) :]) if not start.startswith(text) else ""

    @classmethod
    def from_json(cls, line: str, defaults: "LineRequest") -> "LineRequest":
        """Read a line of JSON. Raise ValueError for one that is no object with these fields."""
        try:
            values: Any = json.loads(line)
        except (ValueError, RecursionError):  # brackets that are nested too deeply
            values = None
        if not isinstance(values, dict) or "text" not in values:
            raise ValueError('input_format=jsonl: a line must be an object with the key "text", as {"text": "Hello!"}')
        for name, value in values.items():
            if name not in cls._fields:
                near = suggest(name, cls._fields) or ", ".join(cls._fields)
                raise ValueError(f"input_format=jsonl: unknown key {name}; did you mean {near}?")
            if type(value) is not (needed := cls.__annotations__[name]):
                kind = "a text" if needed is str else "true or false"
                raise ValueError(f"input_format=jsonl: {name} must be {kind}, not {json.dumps(value)[:40]}")
            if isinstance(value, str):  # half a character, as \ud800, is no text
                values[name] = re.sub(r"[\ud800-\udfff]", "\ufffd", re.sub(r"[\r\n]+", " ", value))
        return defaults._replace(**values)


class LineTranslation(NamedTuple):
    """The result for a line.

    source: the line as it was read, bytes that are not UTF-8 replaced; "" for one that was too long to be kept.
    segments: the texts that were translated: one, or several for a line too long for the model; none after an error.
    best: for each segment its translations, the best first.
    error: why there is no translation.
    request: what was asked.
    written: the best translation with its markup and placeholders; None: the text of the best one.
    spans: the elements of the markup in it.
    lost: the placeholders that the model left out.
    """

    source: str
    segments: list[str]
    best: list[list[Translation]]
    error: str | None = None
    request: LineRequest = LineRequest()
    written: str | None = None
    spans: Sequence[ProjectedSpan] = ()
    lost: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The best translation as it is to be written."""
        return self.n_best()[0].text if self.written is None else self.written

    def n_best(self) -> list[Translation]:
        """Return translations of the whole line: the best ones of its parts joined, then the second ones, and so on.

        Of several parts, `log_prob` is the sum, and `score` the mean weighted by the tokens (with the end token) of the
        best translation of each. It is of the same kind as the scores of the search, and falls from one translation to
        the next as those of the parts do. With the default length normalization the best translation has log p /
        length, as in one piece.
        """
        return [t._replace(text=self.request.continuation(t.text)) for t in self._joined()]

    def _joined(self) -> list[Translation]:
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
        defaults: what is asked for each line, apart from its text.
        is_json: lines are objects of JSON with the fields of a `LineRequest`.

    Raises:
        ValueError: markup or placeholders for a model without attention.
    """

    def __init__(
        self, translator: Translator, max_length: int, defaults: LineRequest | None = None, is_json: bool = False
    ) -> None:
        self.defaults, self.is_json = defaults or LineRequest(), is_json
        limit = translator.max_source_length
        self.translator, self.max_length = translator, max_length if limit is None else min(max_length, limit)
        self.counts: Counter[str] = Counter()
        self._check(self.defaults)
        self.glossary: Glossary | None = None

    def translate_lines(self, lines: Sequence[bytes | None]) -> list[LineTranslation]:
        """Return one result for each line, in order. A line that fails has an error, and does not affect others."""
        sources = ["" if line is None else line.removesuffix(b"\r").decode("utf-8", errors="replace") for line in lines]
        errors = ["not translated: longer than a line may be" if line is None else None for line in lines]
        requests, marked = [self.defaults] * len(lines), [MarkedText("", [])] * len(lines)
        for i, source in enumerate(sources):
            try:
                requests[i] = self.defaults._replace(text=source)
                requests[i] = LineRequest.from_json(source, self.defaults) if self.is_json else requests[i]
                sources[i] = requests[i].text
                self._check(requests[i])
                marked[i] = parse_markup(requests[i].text) if requests[i].markup else MarkedText(requests[i].text, [])
            except ValueError as wrong:
                errors[i] = errors[i] or str(wrong)
        parts = [[] if error else self._split(text.text) for text, error in zip(marked, errors, strict=True)]
        forced = [request.forced for request in requests]
        prefixes = [(forced[i], *[""] * len(texts))[: len(texts)] for i, texts in enumerate(parts)]
        try:
            texts, begun = [*chain(*parts)], [*chain(*prefixes)] if any(forced) else None
            terms, phrases = self._annotations(texts), None
            if self.glossary is not None and terms is None:
                phrases = [[target for _, target in self.glossary.terms(text)] for text in texts]
            protected = [request.placeholders for request, of in zip(requests, parts, strict=True) for _ in of]
            for text, wanted, is_protected in zip(texts, phrases or [], protected, strict=False):
                wanted += PLACEHOLDER.findall(text) if is_protected else []
            translated = iter(self.translator.n_best(texts, prefixes=begun, phrases=phrases, terms=terms))
            results = [
                LineTranslation(source, texts, [next(translated) for _ in texts], error, request)
                for source, texts, error, request in zip(sources, parts, errors, requests, strict=True)
            ]
            results = [self._with_tags(*pair) for pair in zip(results, marked, strict=True)]
        except (ValueError, RuntimeError) as failure:  # mostly out of memory: fewer at a time may succeed
            if len(lines) > 1:
                return [self.translate_lines([line])[0] for line in lines]
            reason = " ".join(str(failure).split())[:200]
            failed = LineTranslation(sources[0], [], [], f"not translated: {reason}", requests[0])
            return [self._with_tags(failed, marked[0])]
        for result in results:
            self.counts["split"] += len(result.segments) > 1
            self.counts["truncated"] += any(best[0].truncated for best in result.best)
            if result.lost:
                self.counts["placeholders"] += len(result.lost)
            for term in self._terms(result):
                self.counts.update({"terms": 1, "terms used": int(term.used)})
        return results

    def _annotations(self, texts: Sequence[str]) -> list[Terms] | None:
        """Return what the sources of texts are annotated with, by a soft glossary; None for none."""
        return [self.glossary.find(text) for text in texts] if self.glossary and self.glossary.is_soft else None

    def _encode(self, result: LineTranslation) -> tuple[list[list[int]], list[list[int]]]:
        """Return the ids of both sides of each part, as the model had them."""
        sources = self.translator.encode_sources(result.segments, self._annotations(result.segments))
        return sources, [best[0].tokens for best in result.best]

    def _terms(self, result: LineTranslation) -> list[Term]:
        return self.glossary.used(result.segments, result.n_best()[0].text) if self.glossary else []

    def _check(self, request: LineRequest) -> None:
        """Raise ValueError for what the model cannot do."""
        tokenizer = self.translator.tokenizer
        for name in ("markup", "placeholders"):
            if getattr(request, name) and not cross_attention_modules(self.translator.attention_model):
                text = "the model has no attention to the source (model.attention.score=none) to place it by"
                raise ValueError(f"{name}=true: {text}; use another run")
        written = tokenizer.decode_target(tokenizer.encode_target([request.forced])[0]) if request.forced else ""
        if written != request.forced:
            name = "suffix_of" if request.suffix_of else "prefix"
            raise ValueError(
                f"{name}: the vocabulary writes {request.forced!r} as {written!r}; give a text that it has"
            )

    def _with_tags(self, result: LineTranslation, marked: MarkedText) -> LineTranslation:
        """Return a result with its markup and placeholders; one with an error has its text as it was."""
        request, text = result.request, result.text
        if result.error is not None:
            return result._replace(written=request.text) if request.markup else result
        if not request.markup and not request.placeholders:
            return result
        lost, garbled = lost_placeholders(marked, text, request.prefix) if request.placeholders else ([], {})
        spans: list[ProjectedSpan] = []
        if marked.tags or lost:
            weights = self._unit_weights(result, marked, text)
            spans = project(MarkedText(marked.text, [*marked.tags, *lost]), text, weights)
        num, names = len(marked.tags), [*(html.unescape(tag.opening) for tag in lost), *garbled.values()]
        begun = 0 if num else len(request.prefix.rstrip(" "))  # elements may begin or end in the prefix
        placed = [s._replace(start=max(s.start, begun), end=max(s.end, begun)) for s in spans[num:]]
        written = render(text, [*spans[:num], *(with_spaces(marked.text, text, span) for span in placed)])
        for wrong, right in garbled.items():
            written = written.replace(html.escape(wrong, quote=False), html.escape(right, quote=False), 1)
        written = written if request.markup else html.unescape(written)
        return result._replace(written=written, spans=spans[:num], lost=names)

    def _unit_weights(self, result: LineTranslation, marked: MarkedText, text: str) -> NDArray[np.float64]:
        """Return attention (Tu, Su) between the units of the translation `text` and those of the source."""
        tokenizer, whole, source, target = self.translator.tokenizer, result._joined()[0].text, 0, 0
        sources, targets = self._encode(result)
        source_units, target_units = marked.units(), units(text)
        weights = np.zeros((len(target_units), len(source_units)))
        for i, matrix in sorted(self.translator.attention_weights(sources, targets)):
            texts = result.segments[i], result.best[i][0].text
            source, target = marked.text.find(texts[0], source), whole.find(texts[1].strip(" "), target)
            start = target - (len(texts[1]) - len(texts[1].lstrip(" "))) - (len(whole) - len(text))
            offsets = tokenizer.offsets(texts[0], sources[i], texts[1], targets[i])
            moved = (
                [(a - source, b - source) for a, b in source_units],
                [(a - start, b - start) for a, b in target_units],
            )
            weights += unit_weights(self.translator.stored_source.source.plot_rows(matrix), *offsets, *moved)
            source, target = source + len(texts[0]), target + len(texts[1].strip(" "))  # the next may read the same
        return weights

    def _split(self, text: str) -> list[str]:
        text = "" if is_blank(text) else text.strip(" ")
        # a character has at most 4 bytes, each of which may be a subword: short texts need no counting
        if 4 * len(text) + 1 + len(self.translator.tokenizer.prefixes[0]) <= self.max_length:
            return [text]
        encode = self.translator.tokenizer.encode_source
        return split_sentence(text, lambda segment: len(encode([segment])[0]), self.max_length)

    def to_json(self, number: int, result: LineTranslation) -> dict[str, Any]:
        """Return all about a result as JSON values. Links are (source, target) from 0, of words and of subwords."""
        n_best = result.n_best()
        record: dict[str, Any] = {"line": number, "source": result.source, "translation": result.text}
        if result.error is not None:
            return record | {"error": result.error}
        if result.request.markup:
            record["spans"] = [span.to_json(n_best[0].text) for span in result.spans]
        if result.request.placeholders:
            record["lost_placeholders"] = result.lost
        scores = [{"score": t.score, "log_prob": t.log_prob, "truncated": t.truncated} for t in n_best]
        record |= {**scores[0], "parts": len(result.segments)}
        if self.glossary:
            record["terms"] = [term._asdict() for term in self._terms(result)]
        if self.translator.config.n_best > 1:
            subwords = [self.translator.tokenizer.target_subwords(t.tokens) for t in n_best]
            all_values = zip(n_best, scores, subwords, strict=True)
            record["n_best"] = [{"text": t.text, **values, "subwords": names} for t, values, names in all_values]
        return record | self._alignment(result)

    def _alignment(self, result: LineTranslation) -> dict[str, Any]:
        """Return the subwords of both sides, links, and the alignment source; None for these without attention."""
        tokenizer = self.translator.tokenizer
        sources, targets = self._encode(result)
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
