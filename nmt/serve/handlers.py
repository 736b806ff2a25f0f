"""The work of the model's thread for a request: translations with all that belongs to them, and attention."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from starlette.exceptions import HTTPException

from nmt.data import EOS
from nmt.inference.line_translator import LineTranslation, LineTranslator
from nmt.inference.translator import EMPTY_TRANSLATION, Translation, Translator
from nmt.models import Seq2Seq
from nmt.search import SearchConfig
from nmt.serve.model_thread import InferenceJob
from nmt.serve.models import ServedModel
from nmt.serve.schemas import AttentionRequest, TranslateRequest

Tell = Callable[[int, str], None]
"""Function that is called with a line's number from 1 and its translation so far."""

DECIMALS = 5
"""Of attention weights."""


class _WatchedModel:
    """A model that ends before a step when its job was given up, whatever the way to search."""

    def __init__(self, model: Seq2Seq, job: InferenceJob) -> None:
        self._model, self._job = model, job

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def step(self, *arguments: Any, **named: Any) -> Any:
        """As `Seq2Seq.step`."""
        self._job.check()
        return self._model.step(*arguments, **named)


class _Watched(Translator):
    """A translator that ends when its job was given up, and reports the translation after every step."""

    def __init__(self, of: Translator, config: SearchConfig, job: InferenceJob) -> None:
        super().__init__(of.model, of.tokenizer, config, of.device, carried=of.carried)
        model = cast(Seq2Seq, _WatchedModel(of.model, job))
        self.inner = Translator(model, of.tokenizer, config, of.device, carried=of.carried, on_sample=job.check)
        self.tell: Callable[[str], None] = lambda text: None

    def n_best(self, texts: Sequence[str], **_: Any) -> list[list[Translation]]:
        translations: list[list[Translation]] = []
        for text in texts:
            before = "".join(f"{best[0].text} " for best in translations)
            best = [EMPTY_TRANSLATION]
            for best in self.inner.stream_n_best(text):
                self.tell(before + best[0].text)
            translations.append(best)
        return translations


def search_config(served: ServedModel, request: TranslateRequest) -> SearchConfig:
    """Return how a request wants to search.

    Raises:
        ValueError: values that do not go together.
    """
    options = request.model_dump(include={"beam_size", "n_best", "length_penalty"}, exclude_none=True)
    config = dataclasses.replace(served.translator.config, **options)
    if request.beam_size is not None and request.n_best is None and config.method == "beam":
        config.n_best = min(config.n_best, config.beam_size)
    config.validate()
    return config


def request_sentences(request: TranslateRequest) -> list[str]:
    """Return the sentences of a request; they end at line feeds only."""
    if request.lines is not None:
        return request.lines
    text = request.text or ""
    return text.removesuffix("\n").split("\n")


def translate(
    served: ServedModel, request: TranslateRequest, job: InferenceJob, tell: Tell | None = None
) -> dict[str, Any]:
    """Return what `nmt.serve.schemas.TranslateResponse` says.

    Raises:
        StoppedError: see `Job.check`.
    """
    translator = _Watched(served.translator, search_config(served, request), job)
    answers = LineTranslator(translator, served.longest)
    sentences = []
    for number, line in enumerate(request_sentences(request), 1):
        if tell is not None:
            translator.tell = partial(tell, number)
        (answer,) = answers.translate_lines([line.encode("utf-8")])
        sentences.append(answers.to_json(number, answer) | {"details": _details(served, answer, job)})
    return {"model": served.name, "sentences": sentences}


def _details(served: ServedModel, answer: LineTranslation, job: InferenceJob) -> list[dict[str, Any]]:
    translator, tokenizer = served.translator, served.translator.tokenizer
    details = []
    for text, source, best in zip(answer.parts, tokenizer.encode_source(answer.parts), answer.best, strict=True):
        job.check()
        links = {
            rank: translator.word_alignment(weights, source, best[rank].tokens).links
            for rank, weights in translator.attention_weights([source] * len(best), [one.tokens for one in best])
        }
        hypotheses = [
            {
                **one._asdict(),
                "subwords": tokenizer.target_subwords(one.tokens),
                "words": tokenizer.target_word_ids(one.tokens),
                "links": links.get(rank),
            }
            for rank, one in enumerate(best)
        ]
        details.append(
            {
                "source": text,
                "subwords": tokenizer.source_subwords(source),
                "words": tokenizer.source_word_ids(source),
                "hypotheses": hypotheses,
            }
        )
    return details


def _ids(served: ServedModel, request: AttentionRequest, max_weights: int) -> tuple[list[int], list[int]]:
    """Return the ids of both sides.

    Raises:
        HTTPException: there are no such ids, layer or head, or it is too much.
    """
    if (request.tokens is None) == (request.target is None):
        raise HTTPException(422, "tokens or target must be given, and not both")
    num_layers, num_heads = served.shape
    if not num_layers:
        raise HTTPException(422, f"model={served.name}: it has no attention to the source (score=none)")
    for name, value, count in (("layer", request.layer, num_layers), ("head", request.head, num_heads)):
        if value is not None and not 0 <= value <= count:
            raise HTTPException(422, f"{name}={value}: must be 0 (the mean) to {count}")
    tokenizer = served.translator.tokenizer
    (source,) = tokenizer.encode_source([request.source])
    target = request.tokens if request.tokens is not None else tokenizer.encode_target([request.target or ""])[0]
    for place, token in enumerate(target):
        if not 0 <= token < tokenizer.target_size:
            raise HTTPException(422, f"tokens.{place}={token}: must be an id from 0 to {tokenizer.target_size - 1}")
    for name, ids, most in (("source", source, served.longest), ("tokens", target, served.max_target_tokens)):
        if len(ids) > most:
            raise HTTPException(413, f"{name}: has {len(ids)} tokens; at most {most} go into the model in one piece")
    num = (num_layers if request.layer is None else 1) * (num_heads if request.head is None else 1)
    num *= (len(source) + 1) * (len(target) + 1)
    if num > max_weights:
        raise HTTPException(
            413, f"{num:,} weights are more than one answer may hold ({max_weights:,}): ask for one layer and one head"
        )
    return source, target


def attention_response(served: ServedModel, request: AttentionRequest, max_weights: int) -> dict[str, Any]:
    """Return what `nmt.serve.schemas.Attention` says.

    Raises:
        HTTPException: the request cannot be answered.
    """
    source, target = _ids(served, request, max_weights)
    tokenizer = served.translator.tokenizer
    ((_, weights),) = served.translator.attention_weights([source], [target])
    kept = weights.astype(np.float64)  # (L, H, T, S)
    for axis, value in ((0, request.layer), (1, request.head)):
        if value == 0:
            kept = kept.mean(axis, keepdims=True)
        elif value is not None:
            kept = kept.take([value - 1], axis)
    return {
        "model": served.name,
        "layers": list(range(1, kept.shape[0] + 1)) if request.layer is None else [request.layer],
        "heads": list(range(1, kept.shape[1] + 1)) if request.head is None else [request.head],
        "source_subwords": [*tokenizer.source_subwords(source), "</s>"],
        "target_subwords": [*tokenizer.target_subwords(target), "</s>"],
        "source_words": tokenizer.source_word_ids([*source, EOS]),
        "target_words": tokenizer.target_word_ids([*target, EOS]),
        "weights": kept.round(DECIMALS).tolist(),
    }


def as_json(answer: dict[str, Any]) -> bytes:
    """Return one line of JSON."""
    return json.dumps(answer, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii")
