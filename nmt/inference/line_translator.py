"""Translate lines, whatever is in them, with exactly one result for each."""

import html
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt.alignment.markup import MarkedText, ProjectedSpan, parse_markup, project, render, units
from nmt.alignment.writers import words_known
from nmt.data import EOS
from nmt.inference.glossary import Glossary
from nmt.inference.line_request import LineRequest, LineTranslation, join_translations
from nmt.inference.placeholders import PLACEHOLDER, in_place_of, lost_placeholders, with_spaces, without_placeholders
from nmt.inference.sentence_splitter import split_sentence
from nmt.inference.translator import Terms, Translator, cross_attention_modules
from nmt.runtime.text import is_blank


class LineTranslator:
    """Translates lines, and counts those that were split or truncated or have no links in `counts`.

    Args:
        translator: the model.
        max_length: source tokens that are translated in one piece, unless the model takes fewer.
        defaults: what is asked for each line, apart from its text.
        is_json: lines are objects of JSON with the fields of a `LineRequest`.
        glossary: terms that translations shall have.
        reverse: a model of the other direction than `translator`, whose attention is added where markup and
            placeholders are placed.

    Raises:
        ValueError: markup or placeholders for a model without attention.
    """

    def __init__(
        self,
        translator: Translator,
        max_length: int,
        defaults: LineRequest | None = None,
        is_json: bool = False,
        glossary: Glossary | None = None,
        reverse: Translator | None = None,
    ) -> None:
        self.defaults, self.is_json, self.glossary = defaults or LineRequest(), is_json, glossary
        self.reverse, self._models = reverse, dict[tuple[str | None, str], Translator]()
        limit = translator.max_source_length
        self.translator, self.max_length = translator, max_length if limit is None else min(max_length, limit)
        self.counts: Counter[str] = Counter()
        self._check(self.defaults)

    def translate_lines(self, lines: Sequence[bytes | None]) -> list[LineTranslation]:
        """Return one result for each line, in order. A line that fails has an error, and does not affect others."""
        read = [self._read(line) for line in lines]
        try:
            translated = self._translate([result for result, _ in read])
            results = [self._with_tags(result, text) for result, (_, text) in zip(translated, read, strict=True)]
        except (ValueError, RuntimeError) as failure:  # mostly out of memory: fewer at a time may succeed
            if len(lines) > 1:
                return [self.translate_lines([line])[0] for line in lines]
            ((result, marked),), reason = read, " ".join(str(failure).split())[:200]
            return [self._with_tags(result._replace(segments=[], error=f"not translated: {reason}"), marked)]
        for result in results:
            self.counts["split"] += len(result.segments) > 1
            self.counts["truncated"] += any(best[0].truncated for best in result.best)
            self.counts.update("placeholders" for _ in result.lost)
            self.counts.update(name for term in result.terms for name in ["terms", "terms used"][: 1 + term.used])
        return results

    def _read(self, line: bytes | None) -> tuple[LineTranslation, MarkedText]:
        """Return a line with its segments or its error, and its text without markup."""
        source = "" if line is None else line.removesuffix(b"\r").decode("utf-8", errors="replace")
        request, marked = self.defaults._replace(text=source), MarkedText("", [])
        error = "not translated: longer than a line may be" if line is None else None
        try:
            request = LineRequest.from_json(source, self.defaults) if self.is_json and error is None else request
            self._check(request)
            marked = parse_markup(request.text) if request.markup else MarkedText(request.text, [])
        except ValueError as wrong:
            error = str(wrong)
        segments = [] if error else self._split(marked.text)
        return LineTranslation(request.text, segments, [], error, request), marked

    def _translate(self, results: Sequence[LineTranslation]) -> list[LineTranslation]:
        """Return lines with the translations of their segments, those of one model translated together."""
        translated, lines = [*results], dict[Translator, list[int]]()
        for i, result in enumerate(results):
            if result.segments:
                lines.setdefault(self._model(result.request), []).append(i)
        for model, indices in lines.items():
            group = [results[i] for i in indices]
            texts = [text for result in group for text in result.segments]
            begun = ["" if n else result.request.forced for result in group for n in range(len(result.segments))]
            terms = [terms for result in group for terms in self._annotations(result)]
            phrases = [phrases for result in group for phrases in self._phrases(result)]
            best = iter(model.n_best(texts, prefixes=begun, phrases=phrases, terms=terms))
            for i, result in zip(indices, group, strict=True):
                translated[i] = result = result._replace(best=[next(best) for _ in result.segments])
                if self.glossary is not None:
                    used = self.glossary.used(self._texts_of_terms(result), result.joined()[0].text)
                    translated[i] = result._replace(terms=used)
        return translated

    def _model(self, request: LineRequest) -> Translator:
        """Return the model into the language of a request, with its alignment source; raise ValueError for a language,
        layer or head that it does not have."""
        model, key = self.translator, (request.target_lang, str(request.alignment))
        if key not in self._models:
            if not self._is_of_default_language(request):
                assert model.data is not None, "call `into` first"
                model = model.into(model.data, request.target_lang, model.tag)
            self._models[key] = model if request.alignment is None else model.read_from(request.alignment)
        return self._models[key]

    def _is_of_default_language(self, request: LineRequest) -> bool:
        return request.target_lang in (None, self.translator.target_lang)

    def _texts_of_terms(self, result: LineTranslation) -> list[str]:
        """Return what of each segment may have terms: nothing in another language than the glossary's, and no
        placeholder that is to stay."""
        if not self._is_of_default_language(result.request):
            return [""] * len(result.segments)
        return [*map(without_placeholders, result.segments)] if result.request.placeholders else result.segments

    def _annotations(self, result: LineTranslation) -> list[Terms]:
        """Return for each segment what its source is annotated with; [] without a soft glossary."""
        find = self.glossary.find if self.glossary is not None and self.glossary.is_soft else None
        return [find(text) for text in self._texts_of_terms(result)] if find else []

    def _phrases(self, result: LineTranslation) -> list[list[str]]:
        """Return for each segment what its translation must contain; [] without a hard glossary."""
        if self.glossary is None or self.glossary.is_soft:
            return []
        phrases = [[target for *_, target in self.glossary.find(text)] for text in self._texts_of_terms(result)]
        for text, wanted in zip(result.segments, phrases, strict=True):
            found = [match[0] for match in PLACEHOLDER.finditer(text) if result.request.placeholders]
            wanted += [
                text for text, written in zip(found, self.translator.written(found), strict=True) if text == written
            ]
        return phrases

    def encode(self, result: LineTranslation) -> tuple[list[list[int]], list[list[int]]]:
        """Return the ids of both sides of each part, as the model had them."""
        sources = self._model(result.request).encode_sources(result.segments, self._annotations(result))
        return sources, [best[0].tokens for best in result.best]

    def _check(self, request: LineRequest) -> None:
        """Raise ValueError for what the model cannot do."""
        tokenizer, models = self._model(request).tokenizer, (self.translator, self.reverse)
        has_attention = all(cross_attention_modules(model.attention_model) for model in models if model is not None)
        for name in ("markup", "placeholders"):
            if getattr(request, name) and not has_attention:
                which = "the model" if self.reverse is None else "the model, or that of reverse,"
                text = f"{which} has no attention to the source (model.attention.score=none) to place it by"
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
        marked = marked._replace(whole=PLACEHOLDER) if request.placeholders else marked
        continued = result.joined()[0].text, request.forced
        lost, garbled = lost_placeholders(marked, *continued) if request.placeholders else ([], {})
        spans: list[ProjectedSpan] = []
        if marked.tags or lost:
            weights = self._unit_weights(result, marked, text)
            spans = project(marked._replace(tags=[*marked.tags, *lost]), text, weights)
        spans, placed = spans[: len(marked.tags)], spans[len(marked.tags) :]
        prefix = 0 if spans else len(request.prefix.rstrip(" "))  # elements may begin or end in the prefix
        begun = max((end for start, end in units(text, whole=marked.whole) if start < prefix), default=0)
        placed = [s._replace(start=max(s.start, begun), end=max(s.end, begun)) for s in placed]
        placed = [with_spaces(marked.text, text, span) for span in placed]
        written = render(text, [*spans, *placed, *in_place_of(garbled, text, spans)])
        written = written if request.markup else html.unescape(written)
        names = [*(html.unescape(tag.opening) for tag in lost), *garbled.values()]
        return result._replace(written=written, spans=spans, lost=names)

    def _unit_weights(self, result: LineTranslation, marked: MarkedText, text: str) -> NDArray[np.float64]:
        """Return attention (Tu, Su) between the units of the translation `text` and those of the source."""
        model, (sources, targets) = self._model(result.request), self.encode(result)
        reverse = self.reverse if self._is_of_default_language(result.request) else None
        whole, source, target = result.joined()[0].text, 0, 0
        swapped = [(best[0].text, text) for text, best in zip(result.segments, result.best, strict=True)]
        ids = reverse.encode_pairs(swapped) if reverse else ([], [])
        backward = dict(reverse.attention_weights(*ids)) if reverse else {}
        source_units, target_units = marked.units(), units(text, whole=marked.whole)
        weights = np.zeros((len(target_units), len(source_units)))
        for i, matrix in sorted(model.attention_weights(sources, targets)):
            texts = result.segments[i], result.best[i][0].text
            source, target = marked.text.find(texts[0], source), whole.find(texts[1].strip(" "), target)
            start = target - (len(texts[1]) - len(texts[1].lstrip(" "))) - (len(whole) - len(text))
            moved = (
                [(a - source, b - source) for a, b in source_units],
                [(a - start, b - start) for a, b in target_units],
            )
            weights += model.unit_weights(texts, (sources[i], targets[i]), matrix, moved)
            if reverse:
                pair = swapped[i], (ids[0][i], ids[1][i])
                weights += reverse.unit_weights(*pair, backward[i], moved[::-1]).T
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
            record["terms"] = [term._asdict() for term in result.terms]
        if self.translator.config.n_best > 1:
            scored, subwords = zip(n_best, scores, strict=True), self.translator.tokenizer.target_subwords
            record["n_best"] = [{"text": t.text, **values, "subwords": subwords(t.tokens)} for t, values in scored]
        return record | self._alignment(result)

    def _alignment(self, result: LineTranslation) -> dict[str, Any]:
        """Return the subwords of both sides, links, and the alignment source; None for these without attention."""
        model = self._model(result.request)
        tokenizer, (sources, targets) = model.tokenizer, self.encode(result)
        alignment: dict[str, Any] = {
            "source_subwords": [subword for ids in sources for subword in tokenizer.source_subwords(ids)],
            "target_subwords": [subword for ids in targets for subword in tokenizer.target_subwords(ids)],
        }
        weights = dict(model.attention_weights(sources, targets))
        if sources and not weights:
            return alignment | {"links": None, "subword_links": None, "alignment_source_text": None}
        _, first_source = join_translations(result.segments)
        _, first_target = join_translations([best[0].text for best in result.best], result.segments)
        links: dict[tuple[int, int], None] = {}  # a word that was split may be linked in both its halves
        subword_links: list[list[int]] = []
        num_source = num_target = 0  # subwords of earlier parts
        stored, has_numbers = model.stored_source.source, True
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            source_words = tokenizer.source_words(result.segments[i], [*source, EOS])
            has_numbers &= words_known(result.segments[i], source_words)
            words = stored.links(weights[i], tokenizer.target_word_ids([*target, EOS]), source_words)
            links |= dict.fromkeys((first_source[i] + s, first_target[i] + t) for s, t in words)
            part_links = model.subword_links(weights[i], source, target)
            subword_links += [[num_source + s, num_target + t] for s, t in part_links]
            num_source, num_target = num_source + len(source), num_target + len(target)
        self.counts["unknown words"] += not has_numbers
        return alignment | {
            "links": [list(link) for link in links if has_numbers],
            "subword_links": subword_links,
            "alignment_source_text": model.describe(stored),
        }


def json_line(record: dict[str, Any]) -> str:
    """Return one line of JSON, with every character escaped that a reader may take for the end of a line."""
    text = json.dumps(record, ensure_ascii=False)
    for character in "\x85\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
