"""Runs that begin with the weights and the vocabulary of a trained model."""

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt import checkpoint
from nmt.attention import AttentionConfig
from nmt.cli.configs import Config
from nmt.config import to_dict
from nmt.data import BatchLoader, DataConfig, Tokenizer, TokenizerConfig, collate
from nmt.data.corpora import tokenizer_for
from nmt.models import MODELS, Seq2Seq, build_model
from nmt.train import _inherit_tokenizer
from nmt.training.config import TrainConfig
from nmt.training.objective import LossConfig, TrainingObjective
from nmt.training.optim import OptimConfig, build_optimizer, learning_rate
from nmt.training.trainer import Trainer
from nmt.training.warm_start import (
    VOCABULARY_TENSORS,
    InitConfig,
    Parent,
    map_vocabulary,
    parts_table,
    set_learning,
    warm_start,
)

PAIRS = [
    (f"the {a} {v} a {b}", f"der {a} {v} ein {b}") for a in ("dog", "cat") for v in ("sees", "likes") for b in "xyz"
]
SIZES: dict[str, Any] = {"d_model": 8, "ffn_dim": 8, "embedding_dim": 8, "hidden_size": 8}
CPU = torch.device("cpu")


def tokenizer(**options: Any) -> Tokenizer:
    return Tokenizer.train(TokenizerConfig(**{"type": "word", "vocab_size": 100, **options}), PAIRS)


def make(kind: str, words: Tokenizer, seed: int = 0, **options: Any) -> Seq2Seq:
    torch.manual_seed(seed)
    config = MODELS[kind].config()
    names = {field.name for field in dataclasses.fields(config)}
    config = dataclasses.replace(config, **{k: v for k, v in {**SIZES, **options}.items() if k in names})
    return build_model(config, words.source_size, words.target_size, joint=words.joint)


def parent_of(model: Seq2Seq, words: Tokenizer) -> Parent:
    return Parent(Path("parent.pt"), {"model": copy.deepcopy(model.state_dict())}, words)


@pytest.mark.parametrize("kind", MODELS)
def test_all_weights_are_the_parents(kind: str) -> None:
    words = tokenizer()
    old, new = make(kind, words, 1), make(kind, words, 2)
    loaded, notes = warm_start(new, parent_of(old, words), InitConfig("parent"), words)
    assert loaded == set(new.state_dict())
    assert not notes
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())
    total = sum(p.numel() for p in new.parameters())
    lines = parts_table(new, loaded)
    assert sum(int(line.split()[1].replace(",", "")) for line in lines) == total
    assert all(line.endswith("parameters loaded") for line in lines)


def test_parts_go_into_another_architecture() -> None:
    words = tokenizer()
    old, new, untouched = make("rnn", words, 1), make("transformer", words, 2), make("transformer", words, 2)
    config = InitConfig("parent", modules=["embeddings"])
    loaded, _ = warm_start(new, parent_of(old, words), config, words)
    for name, value in new.state_dict().items():
        source = old if name in loaded or name == "output.weight" else untouched  # which is tied to the embedding
        assert torch.equal(value, source.state_dict()[name]), name
    assert loaded == {"source_embedding.weight", "target_embedding.weight"}


def test_another_score_takes_everything_but_the_score() -> None:
    words = tokenizer()
    old = make("transformer", words, 1, attention=AttentionConfig(score="additive", heads=2))
    new = make("transformer", words, 2, attention=AttentionConfig(score="general", heads=2))
    with pytest.raises(
        ValueError, match=r"scores\.0\.v has shape \[2, 4\] there and \[2, 4, 4\] here and 1 more: .*config=RUN"
    ):
        warm_start(new, parent_of(old, words), InitConfig("parent"), words)
    loaded, notes = warm_start(new, parent_of(old, words), InitConfig("parent", on_mismatch="skip"), words)
    missing = set(new.state_dict()) - loaded
    assert missing == {f"decoder.layers.{number}.cross.scores.0.v" for number in (0, 1)}
    assert "2 tensors were not taken" in notes[0]


def test_what_cannot_be_taken_is_one_sentence() -> None:
    words, other = tokenizer(), tokenizer(vocab_size=9)
    old, new = make("rnn", words, 1), make("transformer", words, 2)
    with pytest.raises(ValueError, match=r"init.modules=encodr: the model has no such part; did you mean encoder\?"):
        warm_start(new, parent_of(old, words), InitConfig("p", modules=["encodr"]), words)
    with pytest.raises(ValueError, match=r"is missing there and \d+ more"):
        warm_start(new, parent_of(old, words), InitConfig("p"), words)
    with pytest.raises(ValueError, match="nothing of it fits this model"):
        warm_start(new, parent_of(old, words), InitConfig("p", modules=["encoder"], on_mismatch="skip"), words)
    with pytest.raises(ValueError, match=r"output.bias has shape \[9\] there and \[15\] here"):  # another vocabulary
        warm_start(make("rnn", words), parent_of(make("rnn", other, 1), other), InitConfig("p"), words)
    untied, tied = make("rnn", words, 1, tie_embeddings="none"), make("rnn", words, 2, tie_embeddings="output")
    with pytest.raises(ValueError, match=r"output.weight is another matrix than target_embedding.weight there"):
        warm_start(tied, parent_of(untied, words), InitConfig("p"), words)
    with pytest.raises(ValueError, match=r"init.on_mismatch=skip: needs a parent; name one with init.checkpoint=RUN"):
        InitConfig(on_mismatch="skip").validate()


def test_a_damaged_or_missing_parent_is_named(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    checkpoint.save(path, {"model": {}, "tokenizer": tokenizer().state_dict()})
    assert Parent.load(str(path)).describe()["vocabulary"] == tokenizer().digest
    path.write_bytes(path.read_bytes()[:-100])
    for name in (str(path), str(tmp_path / "no_run")):
        with pytest.raises(ValueError, match=f"^init.checkpoint={name}: "):
            Parent.load(name)


def test_rows_of_a_new_vocabulary_come_from_the_pieces_that_spell_it() -> None:
    old, new = tokenizer(type="char"), tokenizer(type="word")
    mapped = map_vocabulary(old.source, new.source)
    table, initial = torch.randn(old.source_size, 4), torch.randn(new.source_size, 4)
    rows = mapped.rows(table, initial)
    for index in range(4, new.source_size):
        text = (new.source.surfaces[index] or b"").decode()
        (ids,) = old.source.encode([text])
        torch.testing.assert_close(rows[index], table[ids].mean(0))
    assert torch.equal(rows[:4], table[:4])
    assert mapped.counts == (4, new.source_size - 4, 0)  # words begin with a space
    same = map_vocabulary(new.source, new.source)
    assert torch.equal(same.rows(initial, torch.zeros_like(initial)), initial)
    strange = Tokenizer.train(TokenizerConfig(type="word", vocab_size=100), [("Ω", "Ω dog")])
    counts = map_vocabulary(old.source, strange.source)
    assert counts.pieces[4:] == [[]] or sorted(map(bool, counts.pieces[4:])) == [False, True]
    assert torch.equal(
        counts.rows(table, torch.ones(strange.source_size, 4))[[not p for p in counts.pieces]], torch.ones(1, 4)
    )


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_subwords_are_spelled_by_the_fewest_old_ones(kind: str) -> None:
    lines = [(line, line) for line in Path(__file__).read_text(encoding="utf-8").splitlines()]
    words, smaller = (Tokenizer.train(TokenizerConfig(type=kind, vocab_size=size), lines) for size in (600, 450))
    mapped = map_vocabulary(smaller.target, words.target)
    for index, piece in enumerate(mapped.pieces[4:], 4):
        spelled = b"".join(smaller.target.surfaces[i] or b"" for i in piece)
        assert spelled == words.target.surfaces[index]
        is_byte = words.target.subword(index).startswith("<0x")
        assert not is_byte or (len(piece) == 1 and smaller.target.subword(piece[0]) == words.target.subword(index))
    copied, averaged, drawn = mapped.counts
    assert copied > 256
    assert averaged > 0
    assert drawn == 0


def test_a_mapped_model_translates_as_before_where_the_vocabulary_is_the_same() -> None:
    words = tokenizer()
    reordered = Tokenizer.train(TokenizerConfig(type="word", vocab_size=100), PAIRS[::-1] + PAIRS[-1:] * 5)
    assert reordered.source.items != words.source.items
    old, new = make("transformer", words, 1).eval(), make("transformer", reordered, 2).eval()
    _, notes = warm_start(new, parent_of(old, words), InitConfig("p", vocabulary="map"), reordered)
    assert notes == [f"init.vocabulary=map: vocabulary: {words.source_size} pieces copied, 0 averaged, 0 drawn"]
    losses = []
    for model, own in ((old, words), (new, reordered)):
        batch = collate(own.encode_source([s for s, _ in PAIRS]), own.encode_target([t for _, t in PAIRS]))
        losses.append(TrainingObjective(LossConfig(label_smoothing=0.0))(model, batch, "fp32")[0].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert set(VOCABULARY_TENSORS) <= set(new.state_dict())


def test_scales_are_factors_of_one_adamw_step() -> None:
    """Against AdamW written out: bias correction makes the first step rate · g / (|g| + ε), plus decay."""
    words = tokenizer()
    model = make("transformer", words)
    config = OptimConfig(
        learning_rate=0.1, warmup_updates=0, schedule="constant", weight_decay=0.2, epsilon=1e-4,
        lr_scales={"encoder": 0.5, "encoder.layers.1": 0.25, "embeddings": 0, "decoder.layers.0.cross.query.bias": 2},
    )  # fmt: skip
    optimizer = build_optimizer(config, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = collate(words.encode_source([s for s, _ in PAIRS]), words.encode_target([t for _, t in PAIRS]))
    model.eval()
    TrainingObjective(LossConfig())(model, batch, "fp32")[0].backward()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, 1, 0.0) * group["lr_scale"]
    gradients = {name: p.grad for name, p in model.named_parameters()}
    optimizer.step()
    for name, parameter in model.named_parameters():
        scale = 0.25 if name.startswith("encoder.layers.1.") else 0.5 if name.startswith("encoder.") else 1.0
        scale = 2.0 if name == "decoder.layers.0.cross.query.bias" else scale
        gradient, rate = gradients[name], 0.1 * scale
        if "embedding" in name:
            assert gradient is None
            assert not parameter.requires_grad
            assert parameter not in optimizer.state
            assert torch.equal(parameter, before[name])
            continue
        assert gradient is not None
        decayed = before[name] * (1 - rate * 0.2) if parameter.dim() > 1 else before[name]
        wanted = decayed - rate * gradient / (gradient.abs() + 1e-4)
        torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-4, atol=1e-6)
    assert {group["lr_scale"] for group in optimizer.param_groups} == {1.0, 0.5, 0.25, 2}


def test_without_scales_the_groups_are_those_of_before() -> None:
    model = make("rnn", tokenizer())
    matrices, vectors = build_optimizer(OptimConfig(weight_decay=0.1), model).param_groups
    assert [p.dim() > 1 for p in matrices["params"]] == [True] * len(matrices["params"])
    names = {id(p): name for name, p in model.named_parameters()}
    order = [names[id(p)] for p in (*matrices["params"], *vectors["params"])]
    assert order == sorted(order, key=lambda name: (dict(model.named_parameters())[name].dim() <= 1, order.index(name)))
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)


def test_impossible_scales() -> None:
    model = make("rnn", tokenizer())
    with pytest.raises(ValueError, match=r"optim.lr_scales.encoder=-1: must be a number of at least 0; 0 freezes"):
        OptimConfig(lr_scales={"encoder": -1}).validate()
    with pytest.raises(ValueError, match=r"optim.lr_scales.encoder=nan"):
        OptimConfig(lr_scales={"encoder": math.nan}).validate()
    with pytest.raises(ValueError, match=r"optim.lr_scales=decode: the model has no such part; did you mean decoder"):
        set_learning(model, {"decode": 0.5})
    with pytest.raises(ValueError, match="every parameter is frozen"):
        set_learning(model, {"encoder": 0, "decoder": 0, "embeddings": 0, "output": 0})


Fit = Callable[..., Trainer]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    words = tokenizer()
    corpus_ids = [words.encode_source([s for s, _ in PAIRS]), words.encode_target([t for _, t in PAIRS])]

    class Batches(BatchLoader):
        def __init__(self) -> None: ...

        @property
        def corpora(self) -> list[str]:
            return []

        def num_batches(self) -> int:
            return 4

        def epoch(self, epoch: int, start: int = 0, **_: Any) -> Any:
            for number in range(start, 4):
                rows = slice(3 * number, 3 * number + 3)
                yield collate(corpus_ids[0][rows], corpus_ids[1][rows])

    def fit(name: str, updates: int, **scales: float) -> Trainer:
        model = make("transformer", words, 1, dropout=0.3, layerdrop=0.3)
        config = TrainConfig(max_updates=updates, save_every=10**6, valid_every=10**6, ema_decay=0.9, precision="fp32")
        optim = OptimConfig(lr_scales=scales, weight_decay=0.1, learning_rate=0.01, warmup_updates=5)
        trainer = Trainer(
            model, Batches(), None, config, optim, seed=3, device=CPU, directory=tmp_path / name,
            header={"config": {}, "tokenizer": words.state_dict()},
        )  # fmt: skip
        progress = trainer.progress
        for batch in (b for epoch in range(progress.update // 4, 99) for b in trainer.batches.epoch(epoch)):
            if progress.update >= updates:
                return trainer
            trainer.step([batch])
        raise AssertionError

    return fit


def test_frozen_tensors_stay_as_they_are(fit: Fit) -> None:
    start = fit("start", 0).model.state_dict()
    trainer = fit("run", 200, embeddings=0, encoder=0)
    for name, value in trainer.model.state_dict().items():
        is_frozen = name.startswith(("encoder.", "source_embedding.", "target_embedding.", "output.weight"))
        assert torch.equal(value, start[name]) == is_frozen, name
    assert trainer.ema is not None
    with trainer.ema.swapped_in():
        assert torch.equal(trainer.model.encoder.norm.weight, start["encoder.norm.weight"])
    trainer.model.train()
    x, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    assert torch.equal(trainer.model.encoder(x, mask)[0], trainer.model.encoder(x, mask)[0])  # nothing is dropped there


def test_zero_updates_are_the_parent() -> None:
    words = tokenizer()
    old, new = make("rnn", words, 1), make("rnn", words, 2)
    warm_start(new, parent_of(old, words), InitConfig("p"), words)
    batch = collate(words.encode_source([s for s, _ in PAIRS]), words.encode_target([t for _, t in PAIRS]))
    losses = [TrainingObjective(LossConfig())(model.eval(), batch, "fp32")[1] for model in (old, new)]
    assert torch.equal(*losses)


def test_tags_are_the_parents_or_the_mean_of_all_text() -> None:
    words = tokenizer()
    parent, child = words.with_tags(["<2de>", "<2fr>"]), words.with_tags(["<2cs>", "<2fr>", "<web>"])
    mapped = map_vocabulary(parent.source, child.source)
    table, initial = torch.randn(parent.source_size, 4), torch.randn(child.source_size, 4)
    rows, num = mapped.rows(table, initial), words.source_size
    assert torch.equal(rows[:num], table[:num])
    assert torch.equal(rows[num + 1], table[num + 1])
    for new in (num, num + 2):
        torch.testing.assert_close(rows[new], table[4:num].mean(0))
    old, new_model = make("transformer", words, 1), make("transformer", child, 2)
    _, notes = warm_start(new_model, parent_of(old, words), InitConfig("p", vocabulary="map"), child)
    assert notes[0] == "init.vocabulary=map: new tags begin as the mean of all text pieces: <2cs>, <2fr>, <web>"
    state, before = new_model.state_dict(), old.state_dict()
    assert torch.equal(state["output.bias"][:num], before["output.bias"])
    torch.testing.assert_close(state["output.bias"][-1], before["output.bias"][4:].mean())


def test_tags_of_a_kept_vocabulary(tmp_path: Path) -> None:
    words = tokenizer()
    trained = Config()
    trained.data = DataConfig(format="text", train="train", languages=["en", "de", "fr"], tags="decoder")
    content = {"config": to_dict(trained), "tokenizer": words.with_tags(["<2de>", "<2fr>", "<2en>"]).state_dict()}

    def kept(**options: Any) -> Tokenizer:
        config = Config()
        config.init = InitConfig("parent")
        config.data = DataConfig(**{"format": "text", "train": "train", "tags": "decoder", **options})
        config, inherited, _ = _inherit_tokenizer(config, content)
        return tokenizer_for(config.data, inherited, "de")

    for options in (
        {"languages": ["en", "de", "fr"]},
        {"languages": ["en", "de"]},
        {"source_lang": "en", "target_lang": "de"},
    ):
        assert kept(**options).prefixes == ((), (words.target_size,))  # one direction has its tag too
    assert kept(tags="none", source_lang="en", target_lang="de").prefixes == ((), ())
    with pytest.raises(ValueError, match=r"need the tag <2cs>, and the parent has <2de>, .*; init.vocabulary=map adds"):
        kept(languages=["en", "de", "cs"])
    with pytest.raises(ValueError, match=r"data.tags=source: the parent has its tags elsewhere; set data.tags=decoder"):
        kept(languages=["en", "de"], tags="source")
    trained.data = DataConfig(format="text", train="train")
    content = {"config": to_dict(trained), "tokenizer": words.state_dict()}
    with pytest.raises(ValueError, match=r"need the tag <2de>, and the parent has no tags"):
        kept(languages=["en", "de", "fr"])
