"""The work of the model's thread for a request: translations with their details, and attention."""

import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from nmt.data import EOS
from nmt.inference.glossary import load_glossary
from nmt.inference.line_request import LineRequest, LineTranslation
from nmt.inference.line_translator import LineTranslator
from nmt.inference.scorer import token_log_probs
from nmt.inference.translator import EMPTY_TRANSLATION, Translation, Translator
from nmt.search import SearchConfig
from nmt.serve.model_thread import InferenceJob
from nmt.serve.models import ServedModel
from nmt.serve.schemas import AttentionRequest, TranslateRequest

ProgressCallback = Callable[[int, str], None]
"""Called with a line's number from 1 and its translation so far."""

DECIMALS = 5
"""Decimals of attention weights."""


class _CancellableTranslator(Translator):
    """A translator that raises when its job is canceled, and reports the translation after every step."""

    def __init__(self, base: Translator, job: InferenceJob) -> None:
        def step(*args: Any, **kwargs: Any) -> Any:
            job.raise_if_cancelled()
            return base.model.step(*args, **kwargs)

        super().__init__(base.model, base.tokenizer, base.config, base.device, carried=base.stored_source)
        self.inner, self.raise_if_cancelled = copy.copy(base), job.raise_if_cancelled
        self.inner.model, self.inner.on_sample = copy.copy(base.model), job.raise_if_cancelled
        object.__setattr__(self.inner.model, "step", step)  # every search method calls it
        self.on_progress: Callable[[str], None] = lambda text: None

    def n_best(
        self, texts: Sequence[str], *, prefixes: Sequence[str] | None = None, **others: Any
    ) -> list[list[Translation]]:
        translations: list[list[Translation]] = []
        for i, (text, prefix) in enumerate(zip(texts, prefixes or [""] * len(texts), strict=True)):
            self.raise_if_cancelled()  # which no other engine than torch does
            before = "".join(f"{best[0].text} " for best in translations)
            best, steps = [EMPTY_TRANSLATION], self.inner.stream_n_best(text, prefix=prefix)
            asked: dict[str, Any] = {
                name: [values[i]] for name, values in others.items() if values and values[i]
            }  # phrases or terms
            if self.inner.engine_used or asked:
                steps = iter(self.inner.n_best([text], prefixes=[prefix], **asked))
            for best in steps:
                self.on_progress(before + best[0].text)
            translations.append(best)
        return translations


def _search_config(default: SearchConfig, request: TranslateRequest) -> SearchConfig:
    options = request.model_dump(include={"beam_size", "n_best", "length_penalty"}, exclude_none=True)
    config = dataclasses.replace(default, **options)
    if request.beam_size is not None and request.n_best is None and config.method == "beam":
        config.n_best = min(config.n_best, config.beam_size)
    config.validate()
    return config


def with_options(served: ServedModel, request: TranslateRequest) -> ServedModel:
    """Return the model with a request's options of the search, alignment source and glossary; raise ValueError for what
    it cannot do."""
    translator, glossary = copy.copy(served.translator), served.glossary
    translator.config = _search_config(translator.config, request)
    if request.alignment is not None:
        translator = translator.read_from(request.alignment)
    if request.glossary is not None or request.glossary_mode is not None:
        entries = glossary.entries if request.glossary is None and glossary is not None else request.glossary
        glossary = load_glossary(entries, translator, request.glossary_mode or "hard")
    return dataclasses.replace(served, translator=translator, glossary=glossary)


def line_request(request: TranslateRequest) -> LineRequest:
    """Return what a request asks for each of its sentences."""
    return LineRequest("", request.prefix, request.suffix_of, request.markup, request.placeholders)


def request_sentences(request: TranslateRequest) -> list[str]:
    """Return the sentences of a request; those of `text` end at line feeds only."""
    return (request.text or "").removesuffix("\n").split("\n") if request.lines is None else request.lines


def translate(
    served: ServedModel, request: TranslateRequest, job: InferenceJob, on_progress: ProgressCallback | None = None
) -> dict[str, Any]:
    """Return the fields of `schemas.TranslateResponse`, by a model of `with_options`; raise CancelledError when the job
    is canceled."""
    translator = _CancellableTranslator(served.translator, job)
    options = served.max_source_tokens, line_request(request)
    line_translator = LineTranslator(translator, *options, glossary=served.glossary)
    sentences = []
    for number, line in enumerate(request_sentences(request), 1):
        if on_progress is not None:
            translator.on_progress = partial(on_progress, number)
        (translation,) = line_translator.translate_lines([line.encode("utf-8")])
        details = _details(served, translation, line_translator.encode(translation)[0], job)
        sentences.append(line_translator.to_json(number, translation) | {"details": details})
    return {"model": served.name, "sentences": sentences}


def _details(
    served: ServedModel, line: LineTranslation, sources: Sequence[list[int]], job: InferenceJob
) -> list[dict[str, Any]]:
    translator, tokenizer = served.translator, served.translator.tokenizer
    details, stored = [], translator.stored_source.source
    for text, source, hypotheses in zip(line.segments, sources, line.best, strict=True):
        job.raise_if_cancelled()
        targets = [hypothesis.tokens for hypothesis in hypotheses]
        words = tokenizer.source_words(text, [*source, EOS])
        links = {
            rank: stored.links(weights, tokenizer.target_word_ids([*targets[rank], EOS]), words)
            for rank, weights in translator.attention_weights([source] * len(targets), targets)
        }
        details.append(
            {
                "source": text,
                "tokens": source,
                "subwords": tokenizer.source_subwords(source),
                "words": words[:-1],
                "hypotheses": [
                    {
                        **hypothesis._asdict(),
                        "subwords": tokenizer.target_subwords(hypothesis.tokens),
                        "words": tokenizer.target_word_ids(hypothesis.tokens),
                        "links": links.get(rank),
                    }
                    for rank, hypothesis in enumerate(hypotheses)
                ],
            }
        )
    return details


def _encode_pair(served: ServedModel, request: AttentionRequest, max_weights: int) -> tuple[list[int], list[int]]:
    """Return the ids of both sides; raise HTTPException when an id, layer or head does not exist, or for a limit."""
    if (request.tokens is None) == (request.target is None):
        raise HTTPException(422, "tokens or target must be given, and not both")
    num_layers, num_heads = served.shape
    if not num_layers:
        raise HTTPException(422, f"model={served.name}: it has no attention to the source (score=none)")
    for name, value, count in (("layer", request.layer, num_layers), ("head", request.head, num_heads)):
        if value is not None and not 0 <= value <= count:
            raise HTTPException(422, f"{name}={value}: must be 0 (the mean) to {count}")
    tokenizer = served.translator.tokenizer
    source, target = request.source_tokens, request.tokens
    source = tokenizer.encode_source([request.source])[0] if source is None else source
    target = tokenizer.encode_target([request.target or ""])[0] if target is None else target
    for name, ids, size in (
        ("source_tokens", source, tokenizer.source_size),
        ("tokens", target, tokenizer.target_size),
    ):
        for index, token in enumerate(ids):
            if not 0 <= token < size:
                raise HTTPException(422, f"{name}.{index}={token}: must be an id from 0 to {size - 1}")
    max_source = served.max_source_tokens if request.source_tokens is None else served.max_annotated_tokens
    limits = max_source, served.max_target_tokens
    for name, ids, limit in zip(("source", "tokens"), (source, target), limits, strict=True):
        if len(ids) > limit:
            raise HTTPException(413, f"{name}: has {len(ids)} tokens; at most {limit} go into the model in one piece")
    num_weights = (num_layers if request.layer is None else 1) * (num_heads if request.head is None else 1)
    num_weights *= (len(source) + 1) * (len(target) + 1)
    if num_weights > max_weights:
        reason = f"{num_weights:,} weights are more than one response may hold ({max_weights:,})"
        raise HTTPException(413, f"{reason}: request one layer and one head")
    return source, target


def attention_response(served: ServedModel, request: AttentionRequest, max_weights: int) -> dict[str, Any]:
    """Return the fields of `schemas.AttentionResponse`; raise HTTPException for an invalid request."""
    source, target = _encode_pair(served, request, max_weights)
    translator, tokenizer, log_prob = served.translator, served.translator.tokenizer, None
    try:
        ((_, attention_weights),) = translator.attention_weights([source], [target])
    except ValueError as error:
        if not request.interventions:
            raise
        raise HTTPException(422, f"interventions: {error}") from None  # a matrix for another source
    if request.interventions:
        with translator.decoding():
            pairs = {0: (source, target)}
            ((_, values),) = token_log_probs(translator.model, pairs, translator.config, translator.device)
        log_prob = None if isinstance(values, str) else sum(values)
    weights = attention_weights.astype(np.float64)  # (L, H, T, S)
    for axis, value in ((0, request.layer), (1, request.head)):
        if value == 0:
            weights = weights.mean(axis, keepdims=True)
        elif value is not None:
            weights = weights.take([value - 1], axis)
    return {
        "model": served.name,
        "layers": list(range(1, weights.shape[0] + 1)) if request.layer is None else [request.layer],
        "heads": list(range(1, weights.shape[1] + 1)) if request.head is None else [request.head],
        "source_subwords": [*tokenizer.source_subwords(source), "</s>"],
        "target_subwords": [*tokenizer.target_subwords(target), "</s>"],
        "source_words": tokenizer.source_words(request.source, [*source, EOS]),
        "target_words": tokenizer.target_words(request.target or tokenizer.decode_target(target), [*target, EOS]),
        "weights": weights.round(DECIMALS).tolist(),
        "log_prob": log_prob,
    }


def as_json(content: dict[str, Any]) -> bytes:
    """Return one line of JSON."""
    return json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii")
