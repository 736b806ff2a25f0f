"""Scores of metrics that cannot live in this environment, such as COMET, read from files."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple


class ExternalScore(NamedTuple):
    """A corpus score, what the file says of how it was computed, and the scores of the sentences where it has them."""

    score: float
    signature: str
    sentences: list[float] | None


def read_external_scores(path: str | Path, num_sentences: int) -> ExternalScore:
    """Reads a file of scores that another program has written for the hypotheses of a test set.

    Either one number on each line, one line for each sentence, in order: the score is their mean. Or one JSON object
    {"score": number, "signature": text, "sentences": [number, …]}, of which one of score and sentences may be left out,
    and signature.

    Raises:
        ValueError: neither, another number of sentences, or something that is not a finite number; says where.
        OSError: the file cannot be opened.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text: a file of scores was expected") from None
    if text.startswith("{"):
        return _object(path, text, num_sentences)
    numbers = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            numbers.append(float(line))
        except ValueError:
            raise ValueError(f"{path}, line {number}: {line.strip()!r} is not a number: one score a line") from None
    return _checked(path, None, "", numbers, num_sentences)


def _object(path: str | Path, text: str, num_sentences: int) -> ExternalScore:
    try:
        found: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a JSON object: {error}") from None
    given = found.get("score"), found.get("sentences")
    if given == (None, None):
        raise ValueError(f"{path}: has neither score nor sentences; its keys are {', '.join(found) or '(none)'}")
    for value in [given[0] if given[0] is not None else 0, *(given[1] if isinstance(given[1], list) else [])]:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{path}: {value!r} is not a number")
    if given[1] is not None and not isinstance(given[1], list):
        raise ValueError(f"{path}: sentences must be a list of numbers")
    return _checked(path, given[0], str(found.get("signature", "")), given[1], num_sentences)


def _checked(
    path: str | Path, score: float | None, signature: str, sentences: list[float] | None, num_sentences: int
) -> ExternalScore:
    if sentences is not None and len(sentences) != num_sentences:
        raise ValueError(f"{path}: {len(sentences)} scores for {num_sentences} sentences: each needs one")
    for number, value in enumerate(sentences or [], start=1):
        if not math.isfinite(value):
            raise ValueError(f"{path}, sentence {number}: {value} is not a finite number")
    if score is None:
        assert sentences is not None
        score = sum(sentences) / len(sentences)
    if not math.isfinite(score):
        raise ValueError(f"{path}: {score} is not a finite number")
    return ExternalScore(float(score), signature, sentences)
