"""Scores of metrics that cannot run in this environment, such as COMET, read from files."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from nmt.runtime.compression import find_file, open_input


class ExternalScore(NamedTuple):
    """A corpus score, the file's signature of how it was computed, and sentence scores if the file has them."""

    score: float
    signature: str
    sentences: list[float] | None


def read_external_scores(path: str | Path, num_sentences: int) -> ExternalScore:
    """Read a file of scores that another program has written for the hypotheses of a test set.

    Either one number on each line, one line for each sentence, in order: the score is their mean. Or one JSON object
    {"score": number, "signature": text, "sentences": [number, …]}, where the signature and one of score and sentences
    may be missing.

    Raises:
        ValueError: the file is neither, has another number of sentences, or a value that is not a finite number.
        OSError: the file cannot be opened.
    """
    try:
        with open_input(find_file(Path(path))) as file:
            text = file.read().decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text: a file of scores was expected") from None
    if text.startswith("{"):
        score, signature, sentences = _parse_object(path, text)
    else:
        score, signature, sentences = None, "", _parse_lines(path, text)
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


def _parse_lines(path: str | Path, text: str) -> list[float]:
    scores = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            scores.append(float(line))
        except ValueError:
            raise ValueError(f"{path}, line {number}: {line.strip()!r} is not a number: one score a line") from None
    return scores


def _parse_object(path: str | Path, text: str) -> tuple[float | None, str, list[float] | None]:
    try:
        content: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a JSON object: {error}") from None
    score, sentences = content.get("score"), content.get("sentences")
    if score is None and sentences is None:
        raise ValueError(f"{path}: has neither score nor sentences; its keys are {', '.join(content) or '(none)'}")
    if sentences is not None and not isinstance(sentences, list):
        raise ValueError(f"{path}: sentences must be a list of numbers")
    for value in ([] if score is None else [score]) + (sentences or []):
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{path}: {value!r} is not a number")
    return score, str(content.get("signature", "")), sentences
