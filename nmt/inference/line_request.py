"""Requests for lines, and their results."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nmt.alignment.markup import ProjectedSpan
from nmt.alignment.pharaoh import num_words
from nmt.config import suggest
from nmt.inference.glossary import Term
from nmt.inference.sentence_splitter import SEGMENT_BOUNDARIES
from nmt.inference.translator import EMPTY_TRANSLATION, Translation
from nmt.runtime.text import is_blank

_FLAG = (bool, "true or false")
_KINDS = {"markup": _FLAG, "placeholders": _FLAG, "alignment": (dict, 'an object, as {"layer": 2, "head": 3}')}
"""Types of the fields of a request that are no texts, and how they are named in an error."""


class LineRequest(NamedTuple):
    """Text of a line, and what is asked for it.

    text: the source.
    prefix: the translation begins with it.
    suffix_of: the translation continues this text, which is not in it.
    markup: the tags of the text are carried over to the translation.
    placeholders: what `nmt.inference.placeholders` finds and the translation lacks is put back.
    target_lang: language to translate into; None: that of the model as it is asked.
    alignment: the layer and head, as {"layer": 2, "head": 3} counted from 1 (0: the mean), that markup, placeholders
        and links are read from; None: those that were chosen in training.
    """

    text: str = ""
    prefix: str = ""
    suffix_of: str = ""
    markup: bool = False
    placeholders: bool = False
    target_lang: str | None = None
    alignment: Mapping[str, int] | None = None

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
        except json.JSONDecodeError as wrong:
            raise ValueError(f"input_format=jsonl: no JSON: {wrong.msg} at character {wrong.colno}") from None
        except (ValueError, RecursionError):  # brackets that are nested too deeply
            values = None
        if not isinstance(values, dict) or "text" not in values:
            raise ValueError('input_format=jsonl: a line must be an object with the key "text", as {"text": "Hello!"}')
        for name in values:
            if name not in cls._fields:
                near = suggest(name, cls._fields)
                hint = f"did you mean {near}?" if near else f"those known are {', '.join(cls._fields)}"
                raise ValueError(f"input_format=jsonl: unknown key {name}; {hint}")
        return defaults.replaced(values, "input_format=jsonl: ")

    def replaced(self, values: Mapping[str, Any], place: str = "") -> "LineRequest":
        """Return the request with other values of fields; raise ValueError for one of another type, after `place`."""
        texts = dict[str, str]()
        for name, value in values.items():
            needed, kind = _KINDS.get(name, (str, "a text"))
            if type(value) is not needed:
                raise ValueError(f"{place}{name} must be {kind}, not {json.dumps(value, default=str)[:40]}")
            if isinstance(value, str):  # half a character, as \ud800, is no text
                texts[name] = re.sub(r"[\ud800-\udfff]", "\ufffd", re.sub(r"[\r\n]+", " ", value))
        return self._replace(**{**values, **texts})


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
    terms: those of the glossary in the source.
    """

    source: str
    segments: list[str]
    best: list[list[Translation]]
    error: str | None = None
    request: LineRequest = LineRequest()
    written: str | None = None
    spans: Sequence[ProjectedSpan] = ()
    lost: Sequence[str] = ()
    terms: Sequence[Term] = ()

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
        return [t._replace(text=self.request.continuation(t.text)) for t in self.joined()]

    def joined(self) -> list[Translation]:
        """Return `n_best` with what the translation continues."""
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
            text = join_translations([t.text for t in chosen], self.segments)[0].strip(" ")
            tokens = [token for t in chosen for token in t.tokens]
            score = sum(length * t.score for length, t in zip(lengths, chosen, strict=True)) / sum(lengths)
            truncated, log_prob = any(t.truncated for t in chosen), sum(t.log_prob for t in chosen)
            joined.setdefault(text, Translation(text, tokens, score, truncated, log_prob))
        return list(joined.values())


def join_translations(texts: Sequence[str], segments: Sequence[str] = ()) -> tuple[str, list[int]]:
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
