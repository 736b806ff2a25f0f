"""Properties of every architecture with every score, normalizer and window."""

import dataclasses
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from nmt.attention import CROSS, NORMALIZERS, SCORES, WINDOWS, AttentionConfig
from nmt.models import MODELS, Seq2Seq, build_model, unused_options

VOCAB = 19
MIX = ["additive", "cosine"]
CASES = list(product(MODELS, [*SCORES, MIX, "none"]))
COMBINED = list(product(MODELS, NORMALIZERS, [w for w, kind in WINDOWS.items() if CROSS in kind.attention_types]))
SIZES = {"d_model": 8, "embedding_dim": 8, "hidden_size": 8, "ffn_dim": 12, "encoder_layers": 2, "decoder_layers": 2}


def config(architecture: str, score: object = "scaled", attention: dict[str, Any] | None = None, **changes: Any) -> Any:
    base = MODELS[architecture].config()
    names = {field.name for field in dataclasses.fields(base)}
    cross = AttentionConfig(score=score, heads=2, dim=4, window_size=2, top_k=2)
    base = dataclasses.replace(base, **{key: value for key, value in SIZES.items() if key in names})
    for option in {"encoder_self_attention", "decoder_self_attention"} & names:
        changes.setdefault(option, AttentionConfig(score="scaled", heads=2, window_size=2))
    base = dataclasses.replace(base, attention=dataclasses.replace(cross, **(attention or {})), **changes)
    base.validate()
    return base


def make(chosen: Any, *, source: int = VOCAB, target: int = VOCAB) -> Seq2Seq:
    torch.manual_seed(0)
    model = build_model(chosen, source, target, joint=True).double().eval()
    with torch.no_grad():  # away from the first values, so that every part matters
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(5)
    source, inputs = torch.randint(4, VOCAB, (3, 14)), torch.randint(4, VOCAB, (3, 6))
    mask = torch.ones(3, 14, dtype=torch.bool)
    mask[1, 6:] = False
    mask[2, 1:] = False
    source[~mask] = 0
    return source, mask, inputs


def check_steps(model: Seq2Seq, layers: int) -> None:
    """forward, with weights and without, equals its definition by steps, with weights and without."""
    source, mask, inputs = batch()
    logits, record = model(source, mask, inputs, attention=True)
    slow, by_step = Seq2Seq.forward(model, source, mask, inputs, attention=True)
    torch.testing.assert_close(slow, logits)
    torch.testing.assert_close(model(source, mask, inputs)[0], logits)
    torch.testing.assert_close(Seq2Seq.forward(model, source, mask, inputs)[0], logits)
    if record is None:
        assert by_step is None
        return
    torch.testing.assert_close(record.cross, by_step.cross)
    assert record.cross.shape == (3, layers, 2, 6, 14)
    torch.testing.assert_close(record.cross.sum(-1), torch.ones(3, layers, 2, 6, dtype=torch.float64))
    assert (record.cross[1, ..., 6:] == 0).all()


def cross_layers(chosen: Any) -> int:
    return chosen.decoder_layers if chosen.architecture.endswith("transformer") else 1


@pytest.mark.parametrize(("architecture", "score"), CASES)
def test_forward_equals_its_definition_by_steps(architecture: str, score: object) -> None:
    chosen = config(architecture, score)
    check_steps(make(chosen), cross_layers(chosen))
    assert (make(chosen)(*batch(), attention=True)[1] is None) == (score == "none")


@pytest.mark.parametrize(("architecture", "normalizer", "window"), COMBINED)
def test_normalizers_and_windows_by_steps(architecture: str, normalizer: str, window: str) -> None:
    chosen = config(architecture, ["additive", "general"], {"normalizer": normalizer, "window": window})
    check_steps(make(chosen), cross_layers(chosen))


@pytest.mark.parametrize("architecture", MODELS)
def test_coverage_by_steps(architecture: str) -> None:
    chosen = config(architecture, ["additive", "hybrid"], {"coverage": True})
    model = make(chosen)
    check_steps(model, cross_layers(chosen))
    found = []
    for covering in (True, False):
        for module in model.modules():
            if hasattr(module, "coverage") and isinstance(module.coverage, bool) and module.scores[0].has_coverage:
                module.coverage = covering
        found.append(model(*batch())[0])
    torch.testing.assert_close(found[0][:, 0], found[1][:, 0])  # nothing is covered before the first token
    assert not torch.allclose(found[0][:, 1:], found[1][:, 1:])


@pytest.mark.parametrize(("architecture", "score"), CASES)
def test_padding_and_neighbors_change_nothing(architecture: str, score: object) -> None:
    model, (source, mask, inputs) = make(config(architecture, score)), batch()
    together, _ = model(source, mask, inputs)
    for row in range(3):
        length = int(mask[row].sum())
        alone, _ = model(source[row : row + 1, :length], mask[row : row + 1, :length], inputs[row : row + 1])
        torch.testing.assert_close(alone[0], together[row])


@pytest.mark.parametrize(("architecture", "score"), CASES)
def test_the_future_is_hidden_and_the_past_is_not(architecture: str, score: object) -> None:
    model, (source, mask, inputs) = make(config(architecture, score)), batch()
    before, _ = model(source, mask, inputs)
    changed = inputs.clone()
    changed[:, 3] = (changed[:, 3] + 1 - 4) % (VOCAB - 4) + 4
    after, _ = model(source, mask, changed)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3:], before[:, 3:])


@pytest.mark.parametrize("architecture", MODELS)
def test_logits_at_chosen_positions(architecture: str) -> None:
    model, (source, mask, inputs) = make(config(architecture)), batch()
    positions = torch.randperm(18)[:7]
    everywhere, _ = model(source, mask, inputs)
    torch.testing.assert_close(model(source, mask, inputs, positions=positions)[0], everywhere.flatten(0, 1)[positions])
    by_step, _ = Seq2Seq.forward(model, source, mask, inputs, positions=positions)
    torch.testing.assert_close(by_step, everywhere.flatten(0, 1)[positions])


@pytest.mark.parametrize("architecture", MODELS)
def test_states_are_batch_first(architecture: str) -> None:
    """Search reorders rows of any model: swapping all states swaps the results."""
    model, (source, mask, inputs) = make(config(architecture, MIX, {"window": "local_m"})), batch()
    memory = model.encode(source, mask)
    state = model.init_state(memory)
    for t in range(3):
        _, _, state = model.step(inputs[:, t], state, memory)
    order = torch.tensor([2, 0, 1])
    swapped = [{name: tensor[order] for name, tensor in held.items()} for held in (state, memory)]
    expected, _, _ = model.step(inputs[:, 3], state, memory)
    found, _, _ = model.step(inputs[order, 3], *swapped)
    torch.testing.assert_close(found, expected[order])


@pytest.mark.parametrize("coverage", [False, True])
@pytest.mark.parametrize("reserved", [0, 3, 20])
@pytest.mark.parametrize("architecture", MODELS)
def test_a_reordered_row_continues_as_its_source_row(architecture: str, reserved: int, coverage: bool) -> None:
    model = make(config(architecture, "additive" if coverage else "scaled", {"coverage": coverage}))
    source, mask, _ = batch()
    tokens = torch.randint(4, VOCAB, (6, 5))
    tokens[1, :2], tokens[2, :3], tokens[4], tokens[5] = tokens[0, :2], tokens[0, :3], tokens[3], tokens[3]
    memory = model.encode(source[:1], mask[:1])
    rows, source_rows, first_steps = torch.tensor([1, 2, 4]), torch.tensor([0, 0, 5]), torch.tensor([2, 3, 5])
    same = tokens.clone()
    same[rows] = same[source_rows]

    def last_logits(sequences: Tensor, *, fork: bool) -> Tensor:
        start = {name: tensor.expand(6, *tensor.shape[1:]).clone() for name, tensor in model.init_state(memory).items()}
        state = model.allocate_cache(start, reserved) if reserved else start
        for step in range(5):
            _, _, state = model.step(sequences[:, step], state, memory)
        if fork:
            model.reorder_state(state, rows, source_rows, first_steps)
        return model.step(tokens[:, 0], state, memory)[0]

    torch.testing.assert_close(last_logits(tokens, fork=True), last_logits(same, fork=False))


@pytest.mark.parametrize("architecture", MODELS)
def test_scores_and_windows_change_their_own_parameters_only(architecture: str) -> None:
    """All other parameters have the same names and start with the same values, whatever the score and window are."""
    found = []
    for score, window in [*((score, "global") for score in SCORES), (MIX, "global"), ("dot", "local_p")]:
        torch.manual_seed(0)
        parameters = build_model(
            config(architecture, score, {"window": window}), VOCAB, VOCAB, joint=True
        ).named_parameters()
        found.append({name: p for name, p in parameters if ".scores." not in name and ".window." not in name})
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.equal(other[name], parameter) for name, parameter in found[0].items())


@pytest.mark.parametrize(("architecture", "score"), CASES)
def test_every_parameter_learns(architecture: str, score: object) -> None:
    chosen = config(architecture, score, {"coverage": True} if score in ("additive", "hybrid") else None)
    model, (source, mask, inputs) = make(chosen).train(), batch()
    model(source, mask, inputs)[0].square().sum().backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9}
    # A bias of keys adds the same to every score of a query where the score is an inner product with the key; and
    # where keys are not looked at, nothing that makes them learns.
    for name in list(silent):
        if name.endswith("key.bias") or (score == "location" and ".key." in name and "cross" in name):
            silent.remove(name)
        if score == "location" and "decoder.attention.key" in name:
            silent.remove(name)
    assert silent == set()


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("tie", ["none", "output", "all"])
def test_ties(architecture: str, tie: str) -> None:
    model = make(config(architecture, tie_embeddings=tie))
    matrices = [model.source_embedding.weight, model.target_embedding.weight, model.output.weight]
    assert len({id(matrix) for matrix in matrices}) == {"none": 3, "output": 2, "all": 1}[tie]
    assert (matrices[1] is matrices[2]) == (tie != "none")


@pytest.mark.parametrize("architecture", MODELS)
def test_tying_all_needs_one_vocabulary(architecture: str) -> None:
    with pytest.raises(ValueError, match=r"model.tie_embeddings=all: needs one vocabulary.*data.tokenizer.joint=true"):
        build_model(config(architecture, tie_embeddings="all"), 5, 6, joint=False)


def test_tying_all_needs_one_width() -> None:
    for architecture, change in (("transformer_rnn", {"embedding_dim": 6}), ("rnn_transformer", {"embedding_dim": 6})):
        with pytest.raises(
            ValueError, match=r"model.tie_embeddings=all: source embeddings are . wide and target embeddings ."
        ):
            build_model(config(architecture, tie_embeddings="all", **change), 5, 5, joint=True)


@pytest.mark.parametrize("architecture", MODELS)
def test_dropout_acts_in_training_only(architecture: str) -> None:
    model, (source, mask, inputs) = make(config(architecture, dropout=0.5)), batch()
    expected, _ = model(source, mask, inputs)
    torch.testing.assert_close(model(source, mask, inputs)[0], expected)
    model.train()
    assert not torch.allclose(model(source, mask, inputs)[0], expected)


@pytest.mark.parametrize("architecture", MODELS)
def test_attention_dropout_acts_in_training_and_not_on_the_returned_weights(architecture: str) -> None:
    model = make(config(architecture, "additive", {"dropout": 0.5}, dropout=0.0))
    expected, record = model(*batch(), attention=True)
    model.train()
    logits, dropped = model(*batch(), attention=True)
    assert not torch.allclose(logits, expected)
    first = (slice(None), 0, slice(None), 0)  # the first layer's first position has seen no dropout yet
    torch.testing.assert_close(dropped.cross[first], record.cross[first])


def test_options_without_effect_are_named() -> None:
    assert unused_options(MODELS["transformer"].config()) == []
    chosen = config("transformer", "dot", {"top_k": 4, "window_size": 3, "divisor": "2", "max_positions": 9})
    found = unused_options(chosen)
    assert {line for line in found if "model.attention." in line} == {
        "model.attention.top_k=4",
        "model.attention.window_size=3",
        "model.attention.divisor=2",
        "model.attention.max_positions=9",
    }
    used = {"top_k": 4, "window_size": 3, "normalizer": "top_k", "window": "local_m"}
    assert not any("model.attention." in line for line in unused_options(config("transformer", "dot", used)))
    in_a_layer = {"top_k": 4, "window_size": 10, "per_layer": [{}, {"normalizer": "top_k"}]}
    assert not any("model.attention.top_k" in line for line in unused_options(config("transformer", "dot", in_a_layer)))
    assert "model.attention.heads=2" in unused_options(config("rnn", "none"))


@pytest.mark.parametrize("architecture", MODELS)
def test_learned_scalars_are_reported_per_head(architecture: str) -> None:
    model = make(config(architecture, ["hybrid", "cosine"]))
    found = model.learned_scalars()
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in found} == {"hybrid", "cosine"}
    gates = [values for name, values in found.items() if name.endswith("hybrid.gate")]
    assert gates
    assert all(len(values) == 1 and 0 < values[0] < 1 for values in gates)
    assert make(config(architecture, "dot")).learned_scalars() == {}
