"""The recurrent encoder-decoder: every wiring, cell and score."""

import dataclasses
from itertools import product

import pytest
import torch

from nmt.attention import SCORES, AttentionConfig
from nmt.models import Seq2Seq, build
from nmt.models.recurrent import CELLS
from nmt.models.rnn import WIRINGS, RNNConfig

VOCAB = 19
CASES = list(product(WIRINGS, CELLS, [*SCORES, "none"]))


def config(wiring: str = "input_feeding", cell: str = "lstm", score: str = "additive", **changes: object) -> RNNConfig:
    base = RNNConfig(
        cell=cell,
        wiring=wiring,
        embedding=6,
        hidden=8,
        encoder_layers=2,
        decoder_layers=2,
        attention=AttentionConfig(score=score, dim=5),
    )
    return dataclasses.replace(base, **changes)


def make(chosen: RNNConfig, seed: int = 0, **sizes: int) -> Seq2Seq:
    torch.manual_seed(seed)
    model = build(chosen, sizes.get("source", VOCAB), sizes.get("target", VOCAB), joint=True).double().eval()
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


@pytest.mark.parametrize(("wiring", "cell", "score"), CASES)
def test_forward_equals_its_definition_by_steps(wiring: str, cell: str, score: str) -> None:
    model, (source, mask, inputs) = make(config(wiring, cell, score)), batch()
    fast, record = model(source, mask, inputs, attention=True)
    slow, by_step = Seq2Seq.forward(model, source, mask, inputs, attention=True)
    torch.testing.assert_close(fast, slow)
    if score == "none":
        assert record is None
        assert by_step is None
    else:
        torch.testing.assert_close(record.cross, by_step.cross)
        assert record.cross.shape == (3, 1, 1, 6, 7)
        torch.testing.assert_close(record.cross.sum(-1), torch.ones(3, 1, 1, 6, dtype=torch.float64))
        assert (record.cross[1, ..., 4:] == 0).all()


@pytest.mark.parametrize(("wiring", "cell", "score"), CASES)
def test_padding_and_neighbours_change_nothing(wiring: str, cell: str, score: str) -> None:
    model, (source, mask, inputs) = make(config(wiring, cell, score)), batch()
    together, _ = model(source, mask, inputs)
    for row in range(3):
        length = int(mask[row].sum())
        alone, _ = model(source[row : row + 1, :length], mask[row : row + 1, :length], inputs[row : row + 1])
        torch.testing.assert_close(alone[0], together[row])


@pytest.mark.parametrize(("wiring", "cell", "score"), CASES)
def test_the_future_is_hidden_and_the_past_is_not(wiring: str, cell: str, score: str) -> None:
    model, (source, mask, inputs) = make(config(wiring, cell, score)), batch()
    before, _ = model(source, mask, inputs)
    changed = inputs.clone()
    changed[:, 3] = (changed[:, 3] + 1 - 4) % (VOCAB - 4) + 4
    after, _ = model(source, mask, changed)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3:], before[:, 3:])


@pytest.mark.parametrize("wiring", WIRINGS)
def test_logits_at_chosen_positions(wiring: str) -> None:
    model, (source, mask, inputs) = make(config(wiring)), batch()
    positions = torch.rand(3, 6) < 0.5
    everywhere, _ = model(source, mask, inputs)
    chosen, _ = model(source, mask, inputs, positions=positions)
    torch.testing.assert_close(chosen, everywhere[positions])
    by_step, _ = Seq2Seq.forward(model, source, mask, inputs, positions=positions)
    torch.testing.assert_close(chosen, by_step)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_without_attention_the_source_is_one_vector(wiring: str) -> None:
    """Memory beyond the summary is never read: scrambling it changes nothing."""
    model, (source, mask, inputs) = make(config(wiring, score="none")), batch()
    memory = model.encode(source, mask)
    scrambled = {**memory, "values": torch.randn_like(memory["values"])}
    for one in (memory, scrambled):
        one["logits"] = model.step(inputs[:, 0], model.start(one), one)[0]
    torch.testing.assert_close(memory["logits"], scrambled["logits"])


@pytest.mark.parametrize(("wiring", "cell"), list(product(WIRINGS, CELLS)))
def test_scores_change_their_own_parameters_only(wiring: str, cell: str) -> None:
    """The shapes of all parameters outside the attention are the same for every score, and for none."""
    shapes = []
    for score in [*SCORES, "none"]:
        parameters = make(config(wiring, cell, score)).named_parameters()
        shapes.append({name: p.shape for name, p in parameters if "attention" not in name})
    assert all(shape == shapes[0] for shape in shapes)


@pytest.mark.parametrize(
    "change",
    [
        {"bidirectional": False},
        {"bridge": "zero"},
        {"tie": "none"},
        {"tie": "all"},
        {"encoder_layers": 1},
        {"decoder_layers": 1},
        {"embedding": 4},
        {"hidden": 10},
        {"cell": "gru"},
        {"wiring": "luong"},
        {"wiring": "bahdanau"},
    ],
)
def test_every_option_changes_the_model(change: dict[str, object]) -> None:
    source, mask, inputs = batch()
    before, _ = make(config())(source, mask, inputs)
    after, _ = make(dataclasses.replace(config(), **change))(source, mask, inputs)
    assert not torch.allclose(before, after)


def test_ties() -> None:
    matrices = {}
    for tie in ("none", "output", "all"):
        model = make(config(tie=tie))
        matrices[tie] = [model.source_embedding.weight, model.target_embedding.weight, model.output.weight]
    assert len({id(matrix) for matrix in matrices["none"]}) == 3
    assert matrices["output"][1] is matrices["output"][2] is not matrices["output"][0]
    assert matrices["all"][0] is matrices["all"][1] is matrices["all"][2]


def test_bridge_zero_starts_without_the_source() -> None:
    model, (source, mask, _) = make(config(bridge="zero")), batch()
    assert all((tensor == 0).all() for tensor in model.start(model.encode(source, mask)).values())
    assert make(config()).start(make(config()).encode(source, mask))["hidden"].abs().sum() > 0


def test_dropout_acts_in_training_only() -> None:
    model, (source, mask, inputs) = make(config(dropout=0.5)), batch()
    expected, _ = model(source, mask, inputs)
    torch.testing.assert_close(model(source, mask, inputs)[0], expected)
    model.train()
    assert not torch.allclose(model(source, mask, inputs)[0], expected)


@pytest.mark.parametrize(("wiring", "score"), list(product(WIRINGS, [*SCORES, "none"])))
def test_every_parameter_learns(wiring: str, score: str) -> None:
    model, (source, mask, inputs) = make(config(wiring, "gru", score)).train(), batch()
    model(source, mask, inputs)[0].logsumexp(-1).sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": "rnn"}, "model.cell=rnn: must be one of gru, lstm"),
        ({"wiring": "other"}, "model.wiring=other: must be one of bahdanau, input_feeding, luong"),
        ({"bridge": "x"}, "model.bridge=x: must be one of linear, zero"),
        ({"tie": "x"}, "model.tie=x: must be one of none, output, all"),
        ({"hidden": 7}, "model.hidden=7: must be even"),
        ({"decoder_layers": 0}, "model.decoder_layers=0: must be at least 1"),
        ({"dropout": 1.0}, "model.dropout=1.0: must be at least 0 and below 1"),
    ],
)
def test_impossible_configurations(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**change).validate()


def test_tying_all_needs_one_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"model.tie=all: needs one vocabulary.*data.tokenizer.joint=true"):
        build(config(tie="all"), 5, 6, joint=False)
