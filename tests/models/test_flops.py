"""The cost of a model against numbers worked by hand and against the count of torch."""

import math
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nmt.models import MODELS, build_model
from nmt.models.flops import FLOPS_SEQUENCE_LENGTH, build_on_meta, flops_per_token, parameter_counts, parameter_groups

V = 20
S = FLOPS_SEQUENCE_LENGTH


def small_transformer(score: str) -> Any:
    """Width 8, 16 inside the feed-forward layers, one layer on each side, two heads."""
    config = MODELS["transformer"].config(d_model=8, ffn_dim=16, encoder_layers=1, decoder_layers=1)
    for attention in (config.attention, config.encoder_self_attention, config.decoder_self_attention):
        attention.heads = 2
    config.attention.score = score
    return config


def small_rnn(score: str) -> Any:
    """Embeddings 6, states 8 (4 each way in the encoder), attention 4 wide."""
    config = MODELS["rnn"].config(embedding_dim=6, hidden_size=8)
    config.attention.score, config.attention.dim = score, 4
    return config


def test_parameters_of_a_small_transformer() -> None:
    projections = 4 * (8 * 8 + 8)  # of query, key, value and output, with biases
    feed_forward = (8 * 16 + 16) + (16 * 8 + 8)
    norm = 8 + 8
    expected = {
        "source_embedding": V * 8,
        "target_embedding": V * 8,  # the output matrix as well
        "encoder_self": projections,
        "encoder": feed_forward + 2 * norm + norm,  # the last norm is the encoder's own
        "decoder_self": projections,
        "attention": projections + 2 * 4,  # v, one vector per head
        "decoder": feed_forward + 3 * norm + norm,
        "output": V,  # its bias
    }
    assert parameter_counts(build_model(small_transformer("additive"), V, V, joint=True)) == expected


def test_parameters_of_a_small_rnn() -> None:
    expected = {
        "source_embedding": V * 6,
        "target_embedding": V * 6,
        "encoder": 2 * (4 * 4 * (6 + 4) + 2 * 4 * 4),  # two directions with four gates and two biases
        "attention": 8 * 4 + 8 * 4 + 4,  # of query and key, and v
        "decoder": (8 * 8 + 8) + (4 * 8 * (6 + 8) + 2 * 4 * 8) + (8 + 8) * 6,  # bridge, cell, readout
        "output": V,
    }
    assert parameter_counts(build_model(small_rnn("additive"), V, V, joint=True)) == expected


@pytest.mark.parametrize(("score", "scores"), [("scaled", 2 * S * 8), ("additive", 4 * S * 8)])
def test_flops_of_a_small_transformer(score: str, scores: int) -> None:
    projections = 4 * 2 * 8 * 8
    products = 2 * S * 8  # of one query with all keys, or of its weights with all values
    feed_forward = 2 * (2 * 8 * 16)
    encoder = projections + 2 * products + feed_forward  # per source token, of which there are as many
    decoder = (projections + 2 * products) + (projections + scores + products) + feed_forward
    assert flops_per_token(small_transformer(score), V, V, joint=True) == encoder + decoder + 2 * 8 * V


@pytest.mark.parametrize(("score", "scores"), [("scaled", 2 * S * 4), ("additive", 4 * S * 4)])
def test_flops_of_a_small_rnn(score: str, scores: int) -> None:
    encoder = 2 * (2 * 4 * 4 * (6 + 4))
    bridge = 2 * 8 * 8 / S  # once for all target tokens
    cell = 2 * 4 * 8 * (6 + 8)
    attention = 2 * 8 * 4 + 2 * 8 * 4 + scores + 2 * S * 8  # query, key, scores, context
    readout = 2 * (8 + 8) * 6
    expected = encoder + bridge + cell + attention + readout + 2 * 6 * V
    assert flops_per_token(small_rnn(score), V, V, joint=True) == expected


def test_coverage_costs_one_more_product_and_a_window_saves() -> None:
    config = small_rnn("additive")
    plain = flops_per_token(config, V, V, joint=True)
    config.attention.coverage = True
    assert flops_per_token(config, V, V, joint=True) == plain + 2 * S * 4
    config.attention.coverage, config.attention.window, config.attention.window_size = False, "local_m", 3
    fewer = S - (2 * 3 + 1)
    assert flops_per_token(config, V, V, joint=True) == plain - fewer * (4 * 4 + 2 * 8)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("decoder", ["luong", "bahdanau"])
def test_recurrent_layers_cost_what_torch_counts_step_by_step(cell: str, decoder: str) -> None:
    config = small_rnn("dot")
    config.cell, config.decoder, config.encoder_layers, config.decoder_layers = cell, decoder, 2, 2
    model = build_on_meta(config, V, V, joint=True).eval()
    ids = torch.zeros(1, S, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        model(ids, torch.ones_like(ids, dtype=torch.bool), ids)
    assert counter.get_total_flops() > 0
    assert flops_per_token(config, V, V, joint=True) == counter.get_total_flops() / S


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("tie", ["none", "output", "all"])
def test_every_parameter_is_counted_once(architecture: str, tie: str) -> None:
    config = MODELS[architecture].config(tie_embeddings=tie)
    model = build_model(config, V, V, joint=True)
    total = sum(parameter.numel() for parameter in model.parameters())
    counted = parameter_counts(model)
    assert sum(counted.values()) == total
    assert ("target_embedding" in counted) is (tie != "all")
    assert set(parameter_groups(model)) == {name for name, _ in model.named_parameters()}
    assert parameter_counts(build_on_meta(config, V, V, joint=True)) == counted


def test_counting_leaves_the_generator_alone_and_numbers_finite() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert math.isfinite(flops_per_token(small_rnn("hybrid"), V, V, joint=True))
    assert torch.equal(torch.rand(4), expected)
