"""What the model's thread does for a request: translations with all that belongs to them, and attention."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from nmt.data import EOS
from nmt.inference.line_translator import Answer, Answers
from nmt.inference.translator import EMPTY, Translation, Translator
from nmt.models import AttentionRecord, Seq2Seq, State
from nmt.search import SearchConfig
from nmt.serve.model_thread import Watch
from nmt.serve.models import AskedWrongError, Served
from nmt.serve.schemas import AttentionRequest, TranslateRequest

Tell = Callable[[int, str], None]
"""Called with a line's number from 1 and its translation so far."""

DECIMALS = 5
"""Of attention weights."""


class _WatchedModel(Seq2Seq):
    """A model that looks up before every step, so that every way to search does."""

    def __init__(self, of: Seq2Seq, watch: Watch) -> None:
        super().__init__()
        self.of, self.watch = of, watch
        self.max_source, self.max_target = of.max_source, of.max_target
        self.train(of.training)

    def encode(self, source: Tensor, source_mask: Tensor) -> State:
        return self.of.encode(source, source_mask)

    def start(self, memory: State) -> State:
        return self.of.start(memory)

    def reserve(self, state: State, steps: int) -> State:
        return self.of.reserve(state, steps)

    def fork(self, state: State, to: Tensor, of: Tensor, since: Tensor) -> None:
        self.of.fork(state, to, of, since)

    def step(
        self, token: Tensor, state: State, memory: State, *, attention: bool = False
    ) -> tuple[Tensor, AttentionRecord | None, State]:
        self.watch.check()
        return self.of.step(token, state, memory, attention=attention)


class _Watched(Translator):
    """A translator that looks up at every step, and tells how far it is."""

    def __init__(self, of: Translator, config: SearchConfig, watch: Watch) -> None:
        super().__init__(of.model, of.tokenizer, config, of.device, carried=of.carried)
        model = _WatchedModel(of.model, watch)
        self.inner = Translator(model, of.tokenizer, config, of.device, carried=of.carried, on_sample=watch.check)
        self.watch = watch
        self.tell: Callable[[str], None] = lambda text: None

    def n_best(self, texts: Sequence[str], **_: Any) -> list[list[Translation]]:
        found: list[list[Translation]] = []
        for text in texts:
            self.watch.check()
            before = "".join(f"{best[0].text} " for best in found)
            best = [EMPTY]
            for best in self.inner.growing(text):
                self.watch.check()
                self.tell(before + best[0].text)
            found.append(best)
        return found


def search_config(served: Served, asked: TranslateRequest) -> SearchConfig:
    """How a request wants to search.

    Raises:
        ValueError: values that do not go together.
    """
    given = {name: getattr(asked, name) for name in ("beam", "num_best", "length_penalty")}
    config = dataclasses.replace(
        served.translator.config, **{name: value for name, value in given.items() if value is not None}
    )
    if asked.beam is not None and asked.num_best is None and config.method == "beam":
        config.num_best = min(config.num_best, config.beam)
    config.validate()
    return config


def lines_of(asked: TranslateRequest) -> list[str]:
    """The sentences of a request; they end at line feeds only."""
    if asked.lines is not None:
        return asked.lines
    text = asked.text or ""
    return text.removesuffix("\n").split("\n")


def translate(served: Served, asked: TranslateRequest, watch: Watch, tell: Tell | None = None) -> dict[str, Any]:
    """What `nmt.serve.schemas.Translated` says.

    Raises:
        StoppedError: see `Watch`.
    """
    translator = _Watched(served.translator, search_config(served, asked), watch)
    answers = Answers(translator, served.longest)
    sentences = []
    for number, line in enumerate(lines_of(asked), 1):
        if tell is not None:
            translator.tell = lambda text, number=number: tell(number, text)  # type: ignore[misc]
        (answer,) = answers.answer([line.encode("utf-8")])
        sentences.append(answers.record(number, answer) | {"details": _details(served, answer, watch)})
    return {"model": served.name, "sentences": sentences}


def _details(served: Served, answer: Answer, watch: Watch) -> list[dict[str, Any]]:
    tokenizer = served.translator.tokenizer
    found: list[dict[str, Any]] = []
    for source, best in zip(tokenizer.encode_source(answer.parts), answer.best, strict=True):
        watch.check()
        links = _links(served, source, best)
        hypotheses = [
            {
                "text": one.text,
                "score": one.score,
                "log_prob": one.log_prob,
                "cut": one.cut,
                "tokens": one.tokens,
                "pieces": tokenizer.target_pieces(one.tokens),
                "words": tokenizer.target_words(one.tokens),
                "links": links[rank],
            }
            for rank, one in enumerate(best)
        ]
        found.append(
            {
                "source": answer.parts[len(found)],
                "pieces": tokenizer.source_pieces(source),
                "words": tokenizer.source_words(source),
                "hypotheses": hypotheses,
            }
        )
    return found


def _links(served: Served, source: list[int], best: Sequence[Translation]) -> dict[int, list[tuple[int, int]] | None]:
    """Links of each hypothesis; None without attention."""
    translator = served.translator
    found: dict[int, list[tuple[int, int]] | None] = dict.fromkeys(range(len(best)))
    targets = [one.tokens for one in best]
    for rank, weights in translator.attention([source] * len(best), targets):
        found[rank] = translator.word_alignment(weights, source, targets[rank]).links
    return found


def check_attention(served: Served, asked: AttentionRequest, max_weights: int) -> tuple[list[int], list[int]]:
    """The ids of both sides.

    Raises:
        AskedWrongError: ids, layer or head that there are not, or too much.
    """
    if (asked.tokens is None) == (asked.target is None):
        raise AskedWrongError("tokens or target must be given, and not both")
    num_layers, num_heads = served.shape
    if not num_layers:
        raise AskedWrongError(f"model={served.name}: it has no attention to the source (score=none)")
    for name, value, there in (("layer", asked.layer, num_layers), ("head", asked.head, num_heads)):
        if value is not None and not 0 <= value <= there:
            raise AskedWrongError(f"{name}={value}: must be 0 (the mean) to {there}")
    tokenizer = served.translator.tokenizer
    (source,) = tokenizer.encode_source([asked.source])
    target = asked.tokens if asked.tokens is not None else tokenizer.encode_target([asked.target or ""])[0]
    for place, token in enumerate(target):
        if not 0 <= token < tokenizer.target_size:
            raise AskedWrongError(f"tokens.{place}={token}: must be an id from 0 to {tokenizer.target_size - 1}")
    for name, ids, most in (("source", source, served.longest), ("tokens", target, served.most_target)):
        if len(ids) > most:
            raise AskedWrongError(f"{name}: has {len(ids)} tokens; at most {most} go into the model in one piece", 413)
    num = (num_layers if asked.layer is None else 1) * (num_heads if asked.head is None else 1)
    num *= (len(source) + 1) * (len(target) + 1)
    if num > max_weights:
        raise AskedWrongError(
            f"{num:,} weights are more than one answer may hold ({max_weights:,}): ask for one layer and one head", 413
        )
    return source, target


def attend(served: Served, asked: AttentionRequest, source: list[int], target: list[int]) -> dict[str, Any]:
    """What `nmt.serve.schemas.Attention` says, of ids that `check_attention` has found."""
    tokenizer = served.translator.tokenizer
    ((_, weights),) = served.translator.attention([source], [target])
    kept = weights.astype(np.float64)  # (L, H, T, S)
    for axis, value in ((0, asked.layer), (1, asked.head)):
        if value == 0:
            kept = kept.mean(axis, keepdims=True)
        elif value is not None:
            kept = kept.take([value - 1], axis)
    return {
        "model": served.name,
        "layers": list(range(1, kept.shape[0] + 1)) if asked.layer is None else [asked.layer],
        "heads": list(range(1, kept.shape[1] + 1)) if asked.head is None else [asked.head],
        "source_pieces": [*tokenizer.source_pieces(source), "</s>"],
        "target_pieces": [*tokenizer.target_pieces(target), "</s>"],
        "source_words": tokenizer.source_words([*source, EOS]),
        "target_words": tokenizer.target_words([*target, EOS]),
        "weights": kept.round(DECIMALS).tolist(),
    }


def as_json(answer: dict[str, Any]) -> bytes:
    """One line of JSON."""
    return json.dumps(answer, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii")
