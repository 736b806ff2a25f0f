"""Attention diagnostics against plain loops, and masked heads."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from nmt.attention import AttentionConfig
from nmt.data import PAD, collate
from nmt.evaluation.attention_diagnostics import (
    MEASURES,
    OVER_ATTENDED,
    TARGET_SEGMENTS,
    UNDER_ATTENDED,
    DiagnosticsAccumulator,
    cross_attention_modules,
    head_importance,
    head_measures,
)
from nmt.inference.interventions import Intervention, with_own_attention
from nmt.models import MODELS
from tests.inference.test_aligner import TEXTS, translator


def measures_by_loops(rows: Any, is_punctuation: Any) -> dict[str, float]:
    """Compute the measures of one head number by number; rows without that of the end token."""
    num_rows, num_columns = len(rows), len(rows[0]) - 1
    entropy = [-sum(w * math.log(w) for w in row if w > 0) for row in rows]
    received = [sum(row[s] for row in rows) for s in range(num_columns)]
    mean = sum(received) / num_columns
    best = [max(range(num_columns), key=lambda s: row[s]) for row in rows]
    steps = [after - before for before, after in itertools.pairwise(best)]
    edges = [part * num_rows // TARGET_SEGMENTS for part in range(TARGET_SEGMENTS)] + [num_rows]
    first, last = entropy[: edges[1]], entropy[edges[-2] :]
    return {
        "entropy": sum(entropy) / num_rows,
        "effective": sum(math.exp(e) for e in entropy) / num_rows,
        "under_attended": sum(c < UNDER_ATTENDED * mean for c in received) / num_columns,
        "over_attended": sum(c > OVER_ATTENDED * mean for c in received) / num_columns,
        "monotonic": sum(step >= 0 for step in steps) / len(steps),
        "jump_length": sum(abs(step - 1) for step in steps) / len(steps),
        "eos_weight": sum(row[-1] for row in rows) / num_rows,
        "punctuation": sum(w for row in rows for w, mark in zip(row, is_punctuation, strict=True) if mark) / num_rows,
        "entropy_drift": sum(last) / len(last) - sum(first) / len(first),
    }


def test_measures_equal_plain_loops() -> None:
    generator = np.random.default_rng(2)
    for num_target, num_source in ((7, 5), (12, 30), (6, 2)):
        weights = generator.dirichlet(np.full(num_source, 0.2), (2, 3, num_target))
        is_punctuation = generator.random(num_source) < 0.3
        measures, along_target = head_measures(weights, is_punctuation)
        assert set(measures) == set(MEASURES)
        for layer in range(2):
            for head in range(3):
                expected = measures_by_loops(weights[layer, head, :-1].tolist(), is_punctuation.tolist())
                assert {name: values[layer, head] for name, values in measures.items()} == pytest.approx(expected)
                assert measures["entropy_drift"][layer, head] == pytest.approx(
                    along_target[-1, layer, head] - along_target[0, layer, head]
                )


def identity(size: int) -> np.ndarray:
    return np.eye(size)[None, None]


def test_identity_and_uniform_heads_have_known_measures() -> None:
    accumulator = DiagnosticsAccumulator()
    uniform = np.full((1, 1, 11, 11), 1 / 11)
    both = np.concatenate([identity(11), uniform], 1)
    accumulator.add(both, [*"abcdefghi", ".", "</s>"], "a b c d e f g h i .")
    result = accumulator.result()
    assert result is not None
    identity_head, uniform_head = (
        {name: values[0, head] for name, values in result.measures.items()} for head in (0, 1)
    )
    assert identity_head == pytest.approx(
        {
            "entropy": 0,
            "effective": 1,
            "under_attended": 0,
            "over_attended": 0,
            "monotonic": 1,
            "jump_length": 0,
            "eos_weight": 0,
            "punctuation": 0.1,
        }
        | {"entropy_drift": 0},
        abs=1e-9,
    )
    assert uniform_head["effective"] == pytest.approx(11)
    assert (
        uniform_head["eos_weight"] == uniform_head["punctuation"] == pytest.approx(1 / 11) == result.uniform_punctuation
    )
    assert result.agreement[0, 1] == pytest.approx(0.1)  # the first subword is the argmax of a uniform row
    np.testing.assert_allclose(result.agreement.diagonal(), 1)


def test_a_test_set_is_the_mean_of_its_sentences_and_of_its_buckets() -> None:
    generator = np.random.default_rng(4)
    accumulator, rows = DiagnosticsAccumulator(), []
    lengths = [1, 3, 8, 12, 25, 70]
    for length in lengths:
        weights = generator.dirichlet(np.ones(length + 1), (1, 2, length + 1))
        is_punctuation = np.zeros(length + 1, np.bool_)
        accumulator.add(weights, ["a"] * length + ["</s>"], " ".join("a" * length))
        rows.append(head_measures(weights, is_punctuation)[0])
    result = accumulator.result()
    assert result is not None
    assert {name: num for name, (num, _) in result.by_length.items()} == {"0-10": 3, "11-20": 1, "21-30": 1, "61-": 1}
    for name in MEASURES:
        values = np.stack([row[name] for row in rows])
        np.testing.assert_allclose(result.measures[name], np.nanmean(values, axis=0))
        np.testing.assert_allclose(result.by_length["0-10"][1][name], np.nanmean(values[:3], axis=0))
    assert np.isnan(rows[0]["entropy_drift"]).all()
    plain = result.to_dict()
    assert plain["measures"]["entropy"] == np.round(result.measures["entropy"], 6).tolist()
    assert (plain["layers"], plain["heads"], plain["num_sentences"]) == (1, 2, 6)
    assert [line.split()[:2] for line in result.table()] == [["layer", "head"], ["1", "1"], ["1", "2"]]


def test_empty_sentences_have_no_measures() -> None:
    accumulator = DiagnosticsAccumulator()
    accumulator.add(np.ones((1, 1, 1, 1)), ["</s>"], "")
    result = accumulator.result()
    assert result is not None
    assert result.to_dict()["measures"]["entropy"] == [[None]]
    assert DiagnosticsAccumulator().result() is None


@pytest.mark.parametrize("architecture", MODELS)
def test_masking_a_head_zeroes_its_context_alone(architecture: str) -> None:
    loaded = translator(architecture)
    attentions = cross_attention_modules(loaded.model)
    batch = collate([[5, 6, 7]], [[8, 9]])
    weights = loaded.model(batch.source, batch.source_mask, batch.inputs, attention=True)[1]
    assert len(attentions) == weights.cross.size(1)
    seen: list[torch.Tensor] = []
    for number, attention in enumerate(attentions, 1):
        masked = with_own_attention(loaded.model)
        Intervention(number, 2, "zero").apply(cross_attention_modules(masked))
        handle = attention.output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        loaded.model(batch.source, batch.source_mask, batch.inputs)
        num = len(seen)
        masked(batch.source, batch.source_mask, batch.inputs)
        handle.remove()
        before, after = seen[0].unflatten(-1, (2, -1)), seen[num].unflatten(-1, (2, -1))  # its first call
        torch.testing.assert_close(after[..., 0, :], before[..., 0, :])
        assert (after[..., 1, :] == 0).all()
        assert (before[..., 1, :] != 0).any()
        assert attention.overrides is None
        seen.clear()


@pytest.mark.parametrize("architecture", MODELS)
def test_importance_is_the_rise_of_the_loss(architecture: str) -> None:
    loaded = translator(architecture)
    pairs = [pair for pair in TEXTS if pair[1]]
    importance = head_importance(loaded, pairs)
    assert importance is not None
    sources = loaded.tokenizer.encode_source([source for source, _ in pairs])
    targets = loaded.tokenizer.encode_target([target for _, target in pairs])
    batch = collate(sources, targets)

    def loss() -> float:
        with torch.no_grad():
            logits, _ = loaded.model(batch.source, batch.source_mask, batch.inputs)
        value = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.labels, ignore_index=PAD)
        return float(value)

    full_loss = loss()
    attentions = cross_attention_modules(loaded.model)
    assert importance.shape == (len(attentions), 2)
    # The weights of the second head's part of the output projection, zeroed, have the same effect as masking it.
    attention = attentions[-1]
    with torch.no_grad():
        half = attention.output.weight.size(1) // 2
        attention.output.weight[:, half:] = 0
    assert importance[-1, 1] == pytest.approx(loss() - full_loss, abs=1e-4)
    assert abs(importance[-1, 1]) > 1e-3


def test_a_single_head_without_projections_can_be_masked() -> None:
    loaded = translator("rnn")
    config = MODELS["rnn"].config()
    loaded.model = type(loaded.model)(config, loaded.tokenizer.source_size, loaded.tokenizer.target_size, joint=True)
    assert isinstance(config.attention, AttentionConfig)
    importance = head_importance(loaded, TEXTS[:3])
    assert importance is not None
    assert importance.shape == (1, 1)
    assert importance[0, 0] != 0


def test_without_attention_there_is_no_importance() -> None:
    assert head_importance(translator(score="none"), TEXTS) is None
