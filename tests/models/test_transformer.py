"""The Transformer and its options."""

import dataclasses
from itertools import product

import pytest
import torch
from torch import Tensor

from nmt.attention import DECODER_SELF, ENCODER_SELF, NORMALIZERS, SCORES, WINDOWS, AttentionConfig
from nmt.models import Seq2Seq, build_model
from nmt.models.layers import ACTIVATIONS, NORMS, POSITIONS, FeedForward, PositionalEmbedding, sinusoidal_embedding
from nmt.models.transformer import TransformerConfig, _sample_layers

VOCAB = 19
SELF = [
    (window, attention_type)
    for window, kind in WINDOWS.items()
    for attention_type in kind.attention_types
    if attention_type in (ENCODER_SELF, DECODER_SELF)
]


def config(**changes: object) -> TransformerConfig:
    heads = AttentionConfig(score="scaled", heads=2)
    base = TransformerConfig(
        d_model=8,
        ffn_dim=12,
        encoder_layers=2,
        decoder_layers=2,
        attention=heads,
        encoder_self_attention=heads,
        decoder_self_attention=heads,
    )
    base = dataclasses.replace(base, **changes)
    base.validate()
    return base


def make(chosen: TransformerConfig) -> Seq2Seq:
    torch.manual_seed(0)
    model = build_model(chosen, VOCAB, VOCAB, joint=True).double().eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(5)
    source, inputs = torch.randint(4, VOCAB, (2, 15)), torch.randint(4, VOCAB, (2, 13))
    mask = torch.ones(2, 15, dtype=torch.bool)
    mask[1, 6:] = False
    source[~mask] = 0
    return source, mask, inputs


@pytest.mark.parametrize(
    ("norm", "norm_position", "positions", "activation"),
    list(product(NORMS, ("pre", "post"), POSITIONS, ACTIVATIONS)),
)
def test_cached_steps_equal_the_whole(norm: str, norm_position: str, positions: str, activation: str) -> None:
    chosen = config(norm=norm, norm_position=norm_position, positions=positions, activation=activation)
    model, arguments = make(chosen), batch()
    torch.testing.assert_close(Seq2Seq.forward(model, *arguments)[0], model(*arguments)[0])


@pytest.mark.parametrize(
    ("score", "normalizer", "window", "attention_type"),
    [(score, normalizer, *place) for score, normalizer, place in product(SCORES, NORMALIZERS, SELF)],
)
def test_self_attention_of_every_kind_by_steps(score: str, normalizer: str, window: str, attention_type: str) -> None:
    own = AttentionConfig(score=score, heads=2, normalizer=normalizer, top_k=3, window=window, window_size=2)
    model, (source, mask, inputs) = make(config(positions="rotary", **{f"{attention_type}_attention": own})), batch()
    whole, _ = model(source, mask, inputs)
    torch.testing.assert_close(Seq2Seq.forward(model, source, mask, inputs)[0], whole)
    torch.testing.assert_close(model(source, mask, inputs, attention=True)[0], whole)
    alone, _ = model(source[1:, :6], mask[1:, :6], inputs[1:])
    torch.testing.assert_close(alone[0], whole[1])
    changed = inputs.clone()
    changed[:, 8] = (changed[:, 8] + 1 - 4) % (VOCAB - 4) + 4
    after, _ = model(source, mask, changed)
    torch.testing.assert_close(after[:, :8], whole[:, :8])
    assert not torch.allclose(after[:, 8:], whole[:, 8:])


@pytest.mark.parametrize(
    "change",
    [
        {"norm": "rms"},
        {"norm_position": "post"},
        {"positions": "learned"},
        {"positions": "rotary"},
        {"activation": "gelu"},
        {"activation": "swiglu"},
        {"ffn_dim": 10},
        {"d_model": 12},
        {"encoder_layers": 1},
        {"decoder_layers": 1},
        {"tie_embeddings": "none"},
        {"tie_embeddings": "all"},
        {"attention": AttentionConfig(score="none")},
        {"attention": AttentionConfig(score="scaled", heads=4)},
        {"attention": AttentionConfig(score="scaled", heads=2, per_layer=[{"score": "additive"}, {"score": "dot"}])},
        {"encoder_self_attention": AttentionConfig(score="cosine", heads=2)},
        {"decoder_self_attention": AttentionConfig(score="scaled", heads=2, window="sliding", window_size=1)},
    ],
)
def test_every_option_changes_the_model(change: dict[str, object]) -> None:
    before, _ = make(config())(*batch())
    after, _ = make(config(**change))(*batch())
    assert not torch.allclose(before, after)


def test_settings_of_single_layers() -> None:
    low_high = [{"score": "additive"}, {"score": "dot", "normalizer": "sparsemax"}]
    own = AttentionConfig(score="scaled", heads=2, per_layer=low_high)
    model = make(config(attention=own, encoder_self_attention=own, decoder_self_attention=own))
    for part in ("encoder.layers", "decoder.layers"):
        found = [layer.attention.names for layer in model.get_submodule(part)]
        assert found == [["additive"], ["dot"]]
    crosses = [layer.cross for layer in model.get_submodule("decoder.layers")]
    assert [(cross.names, cross.normalizer) for cross in crosses] == [
        (["additive"], "softmax"),
        (["dot"], "sparsemax"),
    ]
    arguments = batch()
    torch.testing.assert_close(Seq2Seq.forward(model, *arguments)[0], model(*arguments)[0])


def test_without_cross_attention_the_source_is_one_vector() -> None:
    model, (source, mask, inputs) = make(config(attention=AttentionConfig(score="none"))), batch()
    memory = model.encode(source, mask)
    assert set(memory) == {"mask", "summary"}
    values, _ = model.encoder(model.source_embedding(source), mask)
    torch.testing.assert_close(memory["summary"][1], values[1, :6].mean(0))
    swapped = {**memory, "summary": memory["summary"].flip(0)}
    found = [model.step(inputs[:1, 0].expand(2), model.init_state(one), one)[0] for one in (memory, swapped)]
    torch.testing.assert_close(found[0], found[1].flip(0))
    assert not torch.allclose(*found)


def test_a_layer_without_attention_beside_one_with_it() -> None:
    own = AttentionConfig(score="scaled", heads=2, per_layer=[{"score": "none"}, {}])
    model, arguments = make(config(attention=own)), batch()
    logits, record = model(*arguments, attention=True)
    assert record.cross.shape == (2, 1, 2, 13, 15)
    torch.testing.assert_close(Seq2Seq.forward(model, *arguments)[0], logits)


def test_sinusoids_follow_the_paper() -> None:
    table = sinusoidal_embedding(3, 2, 6, torch.zeros(1, dtype=torch.float64))
    for row, position in enumerate((3, 4)):
        for i in range(3):
            angle = torch.tensor(position / 10000 ** (2 * i / 6), dtype=torch.float64)
            torch.testing.assert_close(table[row, i], angle.sin())
            torch.testing.assert_close(table[row, 3 + i], angle.cos())


def test_sentences_longer_than_the_learned_table_are_refused() -> None:
    chosen = config(positions="learned", max_positions=14)
    model, (source, mask, inputs) = make(chosen), batch()
    with pytest.raises(ValueError, match=r"15 tokens is longer than model.max_positions=14.*sinusoidal or rotary"):
        model(source, mask, inputs)
    positions = PositionalEmbedding("learned", 8, 14)
    torch.testing.assert_close(positions(torch.zeros(1, 2, 8), start=12)[0], positions.table[12:])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feed_forward_follows_its_formula(activation: str) -> None:
    torch.manual_seed(0)
    layer, x = FeedForward(4, 6, activation, 0.0), torch.randn(2, 3, 4)
    inner = layer.inner(x)
    if activation == "swiglu":
        expected = inner[..., :6] * torch.sigmoid(inner[..., :6]) * inner[..., 6:]
    elif activation == "gelu":
        expected = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    else:
        expected = inner.clamp(min=0)
    torch.testing.assert_close(layer(x), layer.outer(expected))


@pytest.mark.parametrize("option", ["activation_dropout", "layerdrop"])
def test_dropouts_act_in_training_only(option: str) -> None:
    model, arguments = make(config(dropout=0.0, **{option: 0.6})), batch()
    expected, _ = make(config(dropout=0.0))(*arguments)
    torch.testing.assert_close(model(*arguments)[0], expected)
    model.train()
    torch.manual_seed(3)
    first, _ = model(*arguments)
    assert not torch.allclose(first, expected)
    torch.manual_seed(3)
    torch.testing.assert_close(model(*arguments)[0], first)


def test_layer_drop_leaves_out_its_share_but_never_all() -> None:
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(torch.nn.Identity() for _ in range(6))
    kept = [len(list(_sample_layers(layers, 0.3))) for _ in range(500)]
    assert min(kept) >= 1
    assert abs(sum(kept) / len(kept) - 0.7 * 6) < 0.15
    single = torch.nn.ModuleList([torch.nn.Identity()])
    assert all(len(list(_sample_layers(single, 0.9))) == 1 for _ in range(50))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "batch"}, "model.norm=batch: must be one of layer, rms"),
        ({"norm_position": "mid"}, "model.norm_position=mid: must be one of pre, post"),
        ({"positions": "none"}, "model.positions=none: must be one of sinusoidal, learned, rotary"),
        ({"activation": "tanh"}, "model.activation=tanh: must be one of relu, gelu, swiglu"),
        ({"d_model": 7}, "model.d_model=7: must be even"),
        ({"ffn_dim": 0}, "model.ffn_dim=0: must be at least 1"),
        ({"encoder_layers": 0}, "model.encoder_layers=0: must be at least 1"),
        ({"decoder_layers": 0}, "model.decoder_layers=0: must be at least 1"),
        ({"layerdrop": 1.0}, "model.layerdrop=1.0: must be at least 0 and below 1"),
        ({"dropout": -0.1}, "model.dropout=-0.1: must be at least 0 and below 1"),
        ({"tie_embeddings": "x"}, "model.tie_embeddings=x: must be one of none, output, all"),
        (
            {"encoder_self_attention": AttentionConfig(score="scaled", heads=3)},
            "model.encoder_self_attention.heads=3: model.d_model=8 is no multiple of it",
        ),
        (
            {"decoder_self_attention": AttentionConfig(score="dot", window="local_p")},
            "model.decoder_self_attention.window=local_p does not work in self-attention",
        ),
    ],
)
def test_impossible_configurations(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**change)
