"""Beam search as fixed operations on the device: the hypotheses of the usual beam search, and steps that can be
recorded once and repeated, as a CUDA graph does."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from nmt.attention import NORMALIZERS, SCORES, AttentionConfig
from nmt.data import source_batch
from nmt.models import MODELS, Seq2Seq, build_model
from nmt.models.rnn_decoder import DECODERS
from nmt.search import Ensemble, SearchConfig, device_search, translate_batch
from nmt.search.device_search import DeviceBeamSearch

CPU = torch.device("cpu")
VOCABULARY = 13
SOURCES = [[4, 5, 6, 7, 8, 9, 4], [5, 12], [4, 11, 5, 5, 4], []]
SIZES = {"d_model": 8, "embedding_dim": 8, "hidden_size": 8, "ffn_dim": 12}

BEAM = SearchConfig(beam_size=3, max_length_ratio=1.5, max_length_offset=4)
CONFIGS = {
    "beam": BEAM,
    "greedy": dataclasses.replace(BEAM, beam_size=1),
    "wide": dataclasses.replace(BEAM, beam_size=7, early_stopping="never"),
    "never": dataclasses.replace(BEAM, early_stopping="never", length_penalty=0.0),
    "stops with the beam": dataclasses.replace(BEAM, early_stopping="beam", length_normalization="gnmt"),
    "groups": dataclasses.replace(BEAM, beam_size=6, diverse_groups=3, n_best=4, diversity_penalty=0.7),
    "groups that stop": dataclasses.replace(BEAM, beam_size=4, diverse_groups=4, n_best=2, early_stopping="beam"),
    "no repeated words": dataclasses.replace(BEAM, no_repeat_ngram_size=1, min_length_offset=2),
    "no repeated pairs": dataclasses.replace(BEAM, no_repeat_ngram_size=2, min_length_ratio=1.0),
    "minimum": dataclasses.replace(BEAM, min_length_ratio=0.8, min_length_offset=1, replace_unknown="forbid"),
    "coverage": dataclasses.replace(BEAM, coverage_penalty=0.4),
}


def make(seed: int, kind: str, *, sharpness: float = 3.0, **changes: Any) -> Seq2Seq:
    """Return a model in fp64 that is far from uniform, so that beams cross and rounding decides nothing."""
    torch.manual_seed(seed)
    base = MODELS[kind].config()
    names = {field.name for field in dataclasses.fields(base)}
    for option in {"encoder_self_attention", "decoder_self_attention"} & names:
        changes.setdefault(option, AttentionConfig(heads=2))
    changes.setdefault("attention", AttentionConfig(score="scaled", heads=2, dim=4))
    options = {name: value for name, value in {"tie_embeddings": "none", **SIZES, **changes}.items() if name in names}
    model = build_model(dataclasses.replace(base, **options), VOCABULARY, VOCABULARY, joint=True).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(sharpness**0.5)
        model.output.weight.mul_(2.0)
        model.output.bias.normal_()
    return model


def found(hypotheses: Any) -> list[list[tuple[Any, ...]]]:
    return [[(h.tokens, h.truncated, round(h.score, 8), round(h.log_prob, 8)) for h in one] for one in hypotheses]


def check(
    model: Seq2Seq,
    config: SearchConfig,
    sources: list[list[int]] = SOURCES,
    prefixes: list[list[int]] | None = None,
    **options: Any,
) -> None:
    source, mask = source_batch(sources)
    wanted = translate_batch(model, source, mask, config, prefixes=prefixes)
    with torch.no_grad():
        search = DeviceBeamSearch(model, len(sources) + 1, source.size(1) + 2, config, CPU, **options)
        for _ in range(2):  # the second time in the same tensors
            search.start(source, mask, prefixes)
            assert found(search.run()) == found(wanted)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", ["rnn", "transformer"])
@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 60), marks=pytest.mark.slow)])
def test_hypotheses_are_those_of_beam_search(
    seeds: range, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_search, "CACHE_STEPS", 3)  # so that caches grow
    for seed in seeds:
        check(make(seed, kind), CONFIGS[name])


@pytest.mark.parametrize("kind", ["rnn", "transformer"])
@pytest.mark.parametrize("prefixes", [[[7, 8], [], [9], [4]], [[], [], [], list(range(4, 13)) * 3]])
def test_prefixes(kind: str, prefixes: list[list[int]]) -> None:
    for seed in range(4):
        check(make(seed, kind), BEAM, prefixes=prefixes)
        check(make(seed, kind), CONFIGS["minimum"], prefixes=prefixes)


MODEL_CASES: list[tuple[str, dict[str, Any]]] = [
    *(("transformer", {"positions": positions, "max_positions": 40}) for positions in ("learned", "rotary")),
    ("transformer", {"norm_position": "post", "activation": "swiglu"}),
    *((kind, {"attention": AttentionConfig(score="none")}) for kind in MODELS),
    *((kind, {"attention": AttentionConfig(score="additive", dim=4, coverage=True)}) for kind in MODELS),
    *(("rnn", {"decoder": decoder, "cell": cell}) for decoder, cell in itertools.product(DECODERS, ("gru", "lstm"))),
    *((kind, {"attention": AttentionConfig(score=["additive", "cosine"], heads=2, dim=4)}) for kind in MODELS),
]
for _score, _normalizer in itertools.product(SCORES, NORMALIZERS):
    _one = AttentionConfig(score=_score, heads=2, dim=8, normalizer=_normalizer, top_k=2, max_positions=6)
    MODEL_CASES.append(("transformer", {"attention": _one, "decoder_self_attention": _one}))
for _window in ("local_m", "local_p"):
    _local = AttentionConfig(score="general", heads=2, dim=8, window=_window, window_size=1)
    _sliding = AttentionConfig(score="additive", heads=2, dim=8, window="sliding", window_size=1)
    MODEL_CASES += [(kind, {"attention": _local, "decoder_self_attention": _sliding}) for kind in MODELS]


@pytest.mark.parametrize(("kind", "changes"), MODEL_CASES)
def test_every_kind_of_model(kind: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_search, "CACHE_STEPS", 3)
    for seed in range(2):
        check(make(seed, kind, **changes), BEAM)


def test_ensembles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_search, "CACHE_STEPS", 3)
    for seed in range(4):
        members = [make(seed, "rnn"), make(seed + 100, "transformer")]
        check(Ensemble(members).eval(), CONFIGS["coverage"])


def test_a_coverage_penalty_needs_attention() -> None:
    model = make(0, "rnn", attention=AttentionConfig(score="none"))
    with torch.no_grad():
        search = DeviceBeamSearch(model, 1, 4, CONFIGS["coverage"], CPU)
        search.start(*source_batch([[4, 5]]))
        with pytest.raises(ValueError, match=r"coverage_penalty=0\.4: the model has no attention"):
            search.step(0)


class Tape(TorchDispatchMode):
    """Records every operation with the very tensors it had, and repeats them without the program, as a CUDA graph."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value was read from the device"
        result = func(*args, **(kwargs or {}))
        outputs = [x for x in tree_flatten(result)[0] if isinstance(x, Tensor)]
        self.operations.append((func, args, kwargs or {}, outputs))
        return result

    def replay(self) -> None:
        for func, args, kwargs, outputs in self.operations:
            results = [x for x in tree_flatten(func(*args, **kwargs))[0] if isinstance(x, Tensor)]
            for kept, new in zip(outputs, results, strict=True):
                if kept.data_ptr() != new.data_ptr() or kept.numel() == 0:
                    kept.copy_(new)


def record(step: Callable[[], None]) -> Callable[[], None]:
    """Record a step without its effect, as a capture, which runs nothing."""
    tape = Tape()
    search: DeviceBeamSearch = step.__self__  # type: ignore[attr-defined]
    tensors = [x for x in vars(search).values() if isinstance(x, Tensor)]
    tensors += [x for kept in (search.memory, *search.states.values()) for x in kept.values()]
    before = [x.clone() for x in tensors]
    with tape:
        step()
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(value)
    return tape.replay


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", MODELS)
def test_a_recorded_step_can_be_repeated(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_search, "CACHE_STEPS", 4)
    sources = [*SOURCES, list(range(4, 13)) * 2]
    for seed in range(2):
        check(make(seed, kind), CONFIGS[name], sources, record=record)


def test_a_recorded_search_takes_other_batches() -> None:
    """The same tensors and recorded steps serve a batch with and without prefixes, smaller, and with a long prefix."""
    model, shape = make(3, "transformer"), source_batch(SOURCES)[0].shape
    with torch.no_grad():
        search = DeviceBeamSearch(model, *shape, BEAM, CPU, record=record)
        long = list(range(4, 13)) * 6  # longer than any translation of the options
        for sources, prefixes in (
            (SOURCES, None), (SOURCES[::-1], None), (SOURCES[1:], [[5], [], [7]]), ([[9, 8]], None), ([[9, 8]], [long]),
            (SOURCES, None), ([[5, 5, 5]], [[12, 11]]),
        ):  # fmt: skip
            source, mask = source_batch(sources)
            search.start(source, mask, prefixes)
            assert found(search.run()) == found(translate_batch(model, source, mask, BEAM, prefixes=prefixes))
