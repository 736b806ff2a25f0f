"""The recurrent encoder-decoder: every decoder, cell and score."""

import dataclasses
from itertools import product

import pytest
import torch

from nmt.attention import SCORES, AttentionConfig
from nmt.models import Seq2Seq, build_model
from nmt.models.rnn import RNNConfig
from nmt.models.rnn_decoder import DECODERS
from nmt.models.rnn_layers import CELLS

VOCAB = 19
CASES = list(product(DECODERS, CELLS, [*SCORES, "none"]))


def config(decoder: str = "input_feeding", cell: str = "lstm", score: str = "additive", **changes: object) -> RNNConfig:
    base = RNNConfig(
        cell=cell,
        decoder=decoder,
        embedding_dim=6,
        hidden_size=8,
        encoder_layers=2,
        decoder_layers=2,
        attention=AttentionConfig(score=score, dim=5),
    )
    return dataclasses.replace(base, **changes)


def make(chosen: RNNConfig, seed: int = 0, **sizes: int) -> Seq2Seq:
    torch.manual_seed(seed)
    model = build_model(chosen, sizes.get("source", VOCAB), sizes.get("target", VOCAB), joint=True).double().eval()
    with torch.no_grad():  # away from the small initial values, so that every part matters
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    source, inputs = torch.randint(4, VOCAB, (3, 7)), torch.randint(4, VOCAB, (3, 6))
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 4:] = False
    mask[2, 1:] = False
    source[~mask] = 0
    return source, mask, inputs


@pytest.mark.parametrize(("decoder", "cell", "score"), CASES)
def test_forward_equals_its_definition_by_steps(decoder: str, cell: str, score: str) -> None:
    model, (source, mask, inputs) = make(config(decoder, cell, score)), batch()
    fast, record = model(source, mask, inputs, attention=True)
    slow, by_step = Seq2Seq.forward(model, source, mask, inputs, attention=True)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(model(source, mask, inputs)[0], fast)
    if score == "none":
        assert record is None
        assert by_step is None
    else:
        torch.testing.assert_close(record.cross, by_step.cross)
        assert record.cross.shape == (3, 1, 1, 6, 7)


@pytest.mark.parametrize("decoder", DECODERS)
def test_without_attention_the_source_is_one_vector(decoder: str) -> None:
    """The memory holds nothing else, and the output depends on it."""
    model, (source, mask, inputs) = make(config(decoder, score="none")), batch()
    memory = model.encode(source, mask)
    assert set(memory) == {"mask", "summary"}
    swapped = {**memory, "summary": memory["summary"].flip(0)}
    found = [model.step(inputs[:1, 0].expand(3), model.init_state(one), one)[0] for one in (memory, swapped)]
    torch.testing.assert_close(found[0], found[1].flip(0))


@pytest.mark.parametrize(("decoder", "cell"), list(product(DECODERS, CELLS)))
def test_scores_change_their_own_parameters_only(decoder: str, cell: str) -> None:
    """The shapes of all parameters outside the attention are the same for every score, and for none."""
    shapes = []
    for score in [*SCORES, "none"]:
        parameters = make(config(decoder, cell, score)).named_parameters()
        shapes.append({name: p.shape for name, p in parameters if "attention" not in name})
    assert all(shape == shapes[0] for shape in shapes)


@pytest.mark.parametrize(
    "change",
    [
        {"bidirectional": False},
        {"bridge": "zero"},
        {"tie_embeddings": "none"},
        {"tie_embeddings": "all"},
        {"encoder_layers": 1},
        {"decoder_layers": 1},
        {"embedding_dim": 4},
        {"hidden_size": 10},
        {"cell": "gru"},
        {"decoder": "luong"},
        {"decoder": "bahdanau"},
    ],
)
def test_every_option_changes_the_model(change: dict[str, object]) -> None:
    source, mask, inputs = batch()
    before, _ = make(config())(source, mask, inputs)
    after, _ = make(dataclasses.replace(config(), **change))(source, mask, inputs)
    assert not torch.allclose(before, after)


def test_bridge_zero_starts_without_the_source() -> None:
    model, (source, mask, _) = make(config(bridge="zero")), batch()
    assert all((tensor == 0).all() for tensor in model.init_state(model.encode(source, mask)).values())
    assert make(config()).init_state(make(config()).encode(source, mask))["hidden"].abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": "rnn"}, "model.cell=rnn: must be one of gru, lstm"),
        ({"decoder": "other"}, "model.decoder=other: must be one of bahdanau, input_feeding, luong"),
        ({"bridge": "x"}, "model.bridge=x: must be one of linear, zero"),
        ({"tie_embeddings": "x"}, "model.tie_embeddings=x: must be one of none, output, all"),
        ({"hidden_size": 7}, "model.hidden_size=7: must be even"),
        ({"decoder_layers": 0}, "model.decoder_layers=0: must be at least 1"),
        ({"dropout": 1.0}, "model.dropout=1.0: must be at least 0 and below 1"),
    ],
)
def test_impossible_configurations(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**change).validate()


def test_none_as_the_setting_of_the_one_layer_is_none() -> None:
    chosen = config(attention=AttentionConfig(score="dot", per_layer=[{"score": "none"}]))
    chosen.validate()
    assert make(chosen)(*batch(), attention=True)[1] is None
