"""One answer for every line, whatever is in it: what `translate` prints."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from nmt.alignment.pharaoh import num_words
from nmt.inference.sentence_splitter import SEGMENT_BOUNDARIES, split_sentence
from nmt.inference.translator import EMPTY_TRANSLATION, Translation, Translator


class LineTranslation(NamedTuple):
    """What became of a line.

    source: the line as it was read, bytes that are not UTF-8 replaced; "" for one that was too long to be kept.
    parts: the texts that were translated: one, or several for a line too long for the model.
    best: for each part its translations, the best first; no parts where there was an error.
    error: why there is no translation.
    """

    source: str
    parts: list[str]
    best: list[list[Translation]]
    error: str | None = None

    def n_best(self) -> list[Translation]:
        """The whole line's translations, the best first: the best ones of its parts put together, then the second ones.

        In parts, `log_prob` is their sum, and `score` their mean, each part weighted by the tokens (with the end token)
        of its best translation. It is of the kind that the search gives, whatever that is, and falls from one
        translation to the next as those of the parts do. With the default length normaliser the best translation has
        log p / length, as in one piece.
        """
        if not self.best:
            return [EMPTY_TRANSLATION]
        if len(self.best) == 1:
            return self.best[0]
        # a part of spaces has no translation and no score
        nums = [
            len(part[0].tokens) + 1 if text.strip(" ") else 0 for part, text in zip(self.best, self.parts, strict=True)
        ]
        found = []
        for rank in range(max(map(len, self.best))):
            chosen = [part[min(rank, len(part) - 1)] for part in self.best]
            text = _joined([t.text for t in chosen], self.parts).text.strip(" ")
            score = sum(num * t.score for num, t in zip(nums, chosen, strict=True)) / sum(nums)
            tokens = [token for t in chosen for token in t.tokens]
            found.append(
                Translation(text, tokens, score, any(t.truncated for t in chosen), sum(t.log_prob for t in chosen))
            )
        return found


class LineTranslator:
    """Answers lines, and counts what was out of the ordinary in `counts`.

    Args:
        translator: the model.
        longest: source tokens that are translated in one piece, where the model can take so many.
    """

    def __init__(self, translator: Translator, longest: int) -> None:
        self.translator = translator
        self.longest = longest if translator.max_source_length is None else min(longest, translator.max_source_length)
        self.counts: Counter[str] = Counter()

    def translate_lines(self, lines: Sequence[bytes | None]) -> list[LineTranslation]:
        """One answer for each line, in order. A line that fails has an answer that says so, and harms no other."""
        read = [self._read(line) for line in lines]
        parts = [[] if error else self._parts(text) for text, error in read]
        texts = [part for found in parts for part in found]
        try:
            translated = iter(self.translator.n_best(texts))
            answers = [
                LineTranslation(text, found, [next(translated) for _ in found], error)
                for (text, error), found in zip(read, parts, strict=True)
            ]
        except (ValueError, RuntimeError) as failure:  # out of memory, above all: fewer at a time may do
            if len(lines) > 1:
                return [self.translate_lines([line])[0] for line in lines]
            reason = " ".join(str(failure).split())[:200]
            return [LineTranslation(read[0][0], [], [], f"not translated: {reason}")]
        for answer in answers:
            self._count(answer)
        return answers

    def _read(self, line: bytes | None) -> tuple[str, str | None]:
        if line is None:
            return "", "not translated: longer than a line may be"
        try:
            return line.removesuffix(b"\r").decode("utf-8"), None
        except UnicodeDecodeError:
            return line.removesuffix(b"\r").decode("utf-8", errors="replace"), None

    def _parts(self, text: str) -> list[str]:
        text = text.strip(" ")
        encode = self.translator.tokenizer.encode_source
        # no piece is shorter than nothing: a text of few characters needs no counting, except of spelt bytes
        if 4 * len(text) + 1 <= self.longest:
            return [text]
        return split_sentence(text, lambda piece: len(encode([piece])[0]), self.longest)

    def _count(self, answer: LineTranslation) -> None:
        self.counts["split"] += len(answer.parts) > 1
        self.counts["truncated"] += any(best[0].truncated for best in answer.best)

    def to_json(self, number: int, answer: LineTranslation) -> dict[str, Any]:
        """What is known of an answer, as JSON can hold it. Links are (source, target) from 0, of words and subwords."""
        ranked = answer.n_best()
        best = ranked[0]
        found: dict[str, Any] = {"line": number, "source": answer.source, "translation": best.text}
        if answer.error is not None:
            return {**found, "error": answer.error}
        found |= {
            "score": best.score,
            "log_prob": best.log_prob,
            "truncated": best.truncated,
            "parts": len(answer.parts),
        }
        if self.translator.config.n_best > 1:
            keys = ("text", "score", "log_prob", "truncated")
            found["n_best"] = [dict(zip(keys, (t.text, t.score, t.log_prob, t.truncated), strict=True)) for t in ranked]
        return {**found, **self._alignment(answer)}

    def _alignment(self, answer: LineTranslation) -> dict[str, Any]:
        """Subwords of both sides, the links between them and between words, and which layer and head they are read
        from; None without attention."""
        tokenizer = self.translator.tokenizer
        sources = tokenizer.encode_source(answer.parts)
        targets = [best[0].tokens for best in answer.best]
        found: dict[str, Any] = {
            "source_subwords": [piece for ids in sources for piece in tokenizer.source_subwords(ids)],
            "target_subwords": [piece for ids in targets for piece in tokenizer.target_subwords(ids)],
            "links": [],
            "subword_links": [],
            "alignment_source_text": self.translator.describe(self.translator.carried.reading),
        }
        weights = dict(self.translator.attention_weights(sources, targets))
        if sources and not weights:
            return {**found, "links": None, "subword_links": None, "alignment_source_text": None}
        first_source = _joined(answer.parts).first
        first_target = _joined([best[0].text for best in answer.best], answer.parts).first
        links: dict[tuple[int, int], None] = {}  # words that were cut may be linked in both their halves
        before = [0, 0]  # pieces of earlier parts, source and target
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            words = self.translator.word_alignment(weights[i], source, target)
            links |= dict.fromkeys((first_source[i] + s, first_target[i] + t) for s, t in words.links)
            pieces = self.translator.subword_links(weights[i], source, target)
            found["subword_links"] += [[before[0] + s, before[1] + t] for s, t in pieces]
            before = [before[0] + len(source), before[1] + len(target)]
        found["links"] = [list(link) for link in links]
        return found


class _JoinedText(NamedTuple):
    """Texts one behind the other.

    first: the number of each one's first word; that may be the last word of the one before, which goes on.
    """

    text: str
    first: list[int]


def _joined(texts: Sequence[str], parts: Sequence[str] = ()) -> _JoinedText:
    """Joins texts; those that translate `parts` with a space where a part was not cut off inside a word."""
    pieces: list[str] = []
    first: list[int] = []
    num, inside = 0, False  # words so far; whether the last may go on
    for number, text in enumerate(texts):
        goes_on = inside and text[:1] not in ("", " ")
        first.append(num - goes_on)
        num += num_words(text) - goes_on
        inside = not text.endswith(" ") if text else inside
        pieces.append(text)
        if parts and inside and _ends_at_mark(parts[number]):
            pieces.append(" ")
            inside = False
    return _JoinedText("".join(pieces), first)


def _ends_at_mark(part: str) -> bool:
    """Whether it was cut off behind a space or a mark, and not inside a word."""
    return any(found.end() == len(part) for mark in SEGMENT_BOUNDARIES for found in mark.finditer(part))


def json_line(record: dict[str, Any]) -> str:
    """One line of JSON, whatever a reader takes for the end of a line."""
    text = json.dumps(record, ensure_ascii=False)
    for character in "\x85\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
