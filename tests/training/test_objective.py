"""The training objective: guided alignment and word dropout, by formula, for every attention, and by effect."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nmt import alignment
from nmt.attention import CROSS, NORMALIZERS, SCORES, WINDOWS, AttentionConfig
from nmt.cli.configs import Config
from nmt.data import (
    BOS,
    EOS,
    PAD,
    UNK,
    AlignmentTargets,
    Batch,
    BatchLoader,
    DataConfig,
    EncodedCorpus,
    Tokenizer,
    TokenizerConfig,
    attach_alignments,
    collate,
    load_corpus,
    select_rows,
    train_or_load_tokenizer,
)
from nmt.data.synthetic.dataset import SyntheticConfig
from nmt.evaluation.metrics import MetricsConfig
from nmt.evaluation.results import EvaluationSet
from nmt.inference.translator import Translator
from nmt.models import MODELS, Seq2Seq, build_model
from nmt.models.rnn import RNNConfig
from nmt.models.rnn_decoder import DECODERS
from nmt.models.transformer import TransformerConfig
from nmt.search import SearchConfig
from nmt.training.logger import MACHINE_DEPENDENT_KEYS
from nmt.training.losses import alignment_loss, cross_entropy
from nmt.training.objective import LossConfig, TrainingObjective, apply_word_dropout
from nmt.training.optim import OptimConfig
from nmt.training.signals import GracefulShutdown
from nmt.training.trainer import TrainConfig, Trainer
from nmt.training.validation import Validator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return DataConfig(
        synthetic=SyntheticConfig(train=120, valid=6, test=2, long=1),
        cache_dir=str(tmp_path_factory.mktemp("cache")),
        tokenizer=TokenizerConfig(type="bpe", vocab_size=400, subword_regularization=0.1),
    )


@pytest.fixture(scope="module")
def tokenizer(data: DataConfig) -> Tokenizer:
    return train_or_load_tokenizer(data)


@pytest.fixture(scope="module")
def corpus(data: DataConfig, tokenizer: Tokenizer) -> EncodedCorpus:
    return attach_alignments(data, load_corpus(data, "train", tokenizer), tokenizer)


def linked_batch(seed: int = 0, rows: int = 3, vocabulary: int = 20) -> Batch:
    """Return rows of different lengths; a third of the target tokens have links, to one or two source tokens."""
    generator = torch.Generator().manual_seed(seed)

    def sample(low: int, high: int, num: int = 1) -> list[int]:
        return torch.randint(low, high, (num,), generator=generator).tolist()

    sources, targets = ([sample(4, vocabulary, sample(2, 7)[0]) for _ in range(rows)] for _ in range(2))
    entries = []
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        for t in range(len(target)):
            linked = sorted(set(sample(0, len(source), sample(1, 3)[0])))
            if t == 0 or sample(0, 3)[0]:
                entries += [(row, t, s, 1 / len(linked)) for s in linked]
    indices = torch.tensor([entry[:3] for entry in entries]).T
    links = AlignmentTargets(indices.contiguous(), torch.tensor([entry[3] for entry in entries]))
    return collate(sources, targets)._replace(links=links)


def model_of(config: Any, dropout: float = 0.0, vocabulary: int = 20) -> Seq2Seq:
    torch.manual_seed(1)
    return build_model(dataclasses.replace(config, dropout=dropout), vocabulary, vocabulary, joint=True)


def small_transformer(**options: Any) -> TransformerConfig:
    return TransformerConfig(d_model=8, ffn_dim=8, attention=AttentionConfig(heads=2, **options))


def small_rnn(wiring: str = "luong", **options: Any) -> RNNConfig:
    return RNNConfig(
        embedding_dim=8,
        hidden_size=8,
        decoder=wiring,
        attention=AttentionConfig(**{"score": "additive", "dim": 8, **options}),
    )


def by_formula(weights: Tensor, links: AlignmentTargets) -> Tensor:
    """Compute -Σ_t Σ_s p(s | t) log a_t(s) term by term."""
    total = weights.new_zeros(())
    for (row, t, s), share in zip(links.indices.T.tolist(), links.weights.tolist(), strict=True):
        total = total - share * weights[row, t, s].log()
    return total


def test_alignment_loss_and_its_gradient_are_the_formula() -> None:
    batch = linked_batch()
    assert batch.links is not None
    torch.manual_seed(0)
    scores = torch.randn(3, batch.labels.size(1), batch.source.size(1), dtype=torch.float64, requires_grad=True)
    loss, missed = alignment_loss(scores.softmax(-1), *batch.links)
    (gradient,) = torch.autograd.grad(loss, scores)
    expected = by_formula(scores.softmax(-1), batch.links)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert float(missed) == 0
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, scores)[0], rtol=1e-10, atol=1e-12)
    # For a softmax it is a - p at every target token with links, and nothing elsewhere.
    reference = torch.zeros_like(scores)
    reference[tuple(batch.links.indices)] = batch.links.weights.double()
    is_linked = reference.sum(-1, keepdim=True)
    assert int((is_linked == 0).sum()) > 0
    torch.testing.assert_close(gradient, (scores.softmax(-1) - reference) * (is_linked > 0), rtol=1e-6, atol=1e-7)


def test_alignment_loss_is_minimal_where_attention_is_the_reference() -> None:
    batch = linked_batch()
    assert batch.links is not None
    reference = torch.zeros(3, batch.labels.size(1), batch.source.size(1))
    reference[tuple(batch.links.indices)] = batch.links.weights
    minimum, _ = alignment_loss(reference, *batch.links)
    assert float(minimum) == pytest.approx(-float((batch.links.weights * batch.links.weights.log()).sum()))
    for seed in range(10):
        torch.manual_seed(seed)
        blurred = 0.9 * reference + 0.1 * torch.rand(reference.shape).softmax(-1)
        assert float(alignment_loss(blurred, *batch.links)[0]) > float(minimum)


def test_links_with_zero_attention_are_left_out_and_counted() -> None:
    weights = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]], requires_grad=True)
    indices = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 2, 1]])
    loss, missed = alignment_loss(weights, indices, torch.tensor([0.5, 0.5, 1.0]))
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * 0.6931472)
    assert float(missed) == 1.5
    assert weights.grad is not None
    assert weights.grad.tolist() == [[[-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]


def test_alignment_loss_of_bf16_weights_is_summed_in_fp32() -> None:
    batch = linked_batch()
    assert batch.links is not None
    torch.manual_seed(0)
    weights = torch.randn(3, batch.labels.size(1), batch.source.size(1)).softmax(-1).bfloat16()
    of_bf16, of_fp32 = (torch.stack(alignment_loss(values, *batch.links)) for values in (weights, weights.float()))
    torch.testing.assert_close(of_bf16, of_fp32, rtol=0, atol=0)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("head", [0, 1, 2])
def test_the_chosen_layer_and_head_are_guided(layer: int, head: int) -> None:
    batch = linked_batch()
    assert batch.links is not None
    model = model_of(small_transformer()).double()
    objective = TrainingObjective(LossConfig(guided_alignment_weight=0.7, guided_layer=layer, guided_head=head))
    total, logged = objective(model, batch, "fp32")
    logits, attention = model(batch.source, batch.source_mask, batch.inputs, attention=True)
    assert attention is not None
    layers = [layer - 1] if layer else [0, 1]
    heads = [head - 1] if head else [0, 1]
    chosen = torch.stack([attention.cross[:, i, j] for i, j in product(layers, heads)]).mean(0)
    is_label = batch.labels != PAD
    expected = by_formula(chosen, batch.links)
    plain, _ = cross_entropy(logits[is_label], batch.labels[is_label], smoothing=0.1)
    assert objective.names == ("loss", "nll", "guided_alignment", "guided_missed")
    assert logged[2:].tolist() == pytest.approx([float(expected.detach()), 0.0])
    assert float(total.detach()) == pytest.approx(float((plain + 0.7 * expected).detach()))
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    expected_gradients = torch.autograd.grad(plain + 0.7 * expected, parameters, allow_unused=True)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert (gradient is None) == (expected_gradient is None)
        if gradient is not None and expected_gradient is not None:
            torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-9)


CONFIGS = [small_rnn(wiring) for wiring in DECODERS]
CONFIGS += [
    small_rnn(score=score, window=window)
    for score in SCORES
    for window in WINDOWS
    if CROSS in WINDOWS[window].attention_types
]
CONFIGS += [small_rnn(normalizer=name, top_k=2) for name in NORMALIZERS] + [small_rnn(coverage=True)]
CONFIGS += [small_transformer(score=score) for score in SCORES]
CONFIGS += [small_transformer(score=["additive", "dot"], normalizer="entmax15", window="local_m", window_size=1)]
CONFIGS += [small_transformer(per_layer=[{"score": "none"}, {"score": "general"}])]
CONFIGS += [
    dataclasses.replace(MODELS[name].config(), d_model=8, hidden_size=8)
    for name in ("transformer_rnn", "rnn_transformer")
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.architecture}-{config.attention.score}")
def test_guided_alignment_works_with_every_attention(config: Any) -> None:
    batch = linked_batch()
    assert batch.links is not None
    gradients = []
    for weight in (0.0, 1.0):
        model = model_of(config)
        total, logged = TrainingObjective(LossConfig(guided_alignment_weight=weight))(model, batch, "fp32")
        total.backward()
        parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        gradients.append(torch.cat(parts))
        assert torch.isfinite(gradients[-1]).all()
        assert torch.isfinite(logged).all()
    assert gradients[0].shape == gradients[1].shape
    assert not torch.equal(*gradients)
    num_linked = len(set(map(tuple, batch.links.indices[:2].T.tolist())))
    narrow = config.attention.window != "global" or config.attention.normalizer != "softmax"
    assert 0 <= float(logged[3]) <= (num_linked if narrow else 0)


def test_links_outside_a_window_are_counted() -> None:
    """local_m with one position on each side of t sees the links with |s - t| <= 1, and those of the last position."""
    batch = linked_batch(rows=6)
    assert batch.links is not None
    row, target, source = batch.links.indices
    lengths = batch.source_mask.sum(1)[row]
    outside = (source - torch.minimum(target, lengths - 1)).abs() > 1
    assert 0 < int(outside.sum()) < len(row)
    config = small_rnn(window="local_m", window_size=1)
    _, logged = TrainingObjective(LossConfig(guided_alignment_weight=1.0))(model_of(config), batch, "fp32")
    assert float(logged[3]) == pytest.approx(float(batch.links.weights[outside].sum()))


def test_r_drop_adds_a_quarter_of_the_divergence_times_alpha() -> None:
    """Half of the divergence in each direction, and half of that since the loss is the mean of two passes."""
    results = []
    for alpha in (2.0, 6.0):
        model = model_of(small_rnn(), dropout=0.5)
        torch.manual_seed(4)
        results.append(TrainingObjective(LossConfig(r_drop_alpha=alpha))(model, linked_batch(), "fp32"))
    (low, logged), (high, _) = results
    assert float(logged[-1]) > 0
    assert float((high - low).detach()) == pytest.approx(float(logged[-1]), rel=1e-4)


def test_r_drop_guides_both_passes() -> None:
    batch = linked_batch()
    values = {}
    for r_drop in (0.0, 1.0):
        objective = TrainingObjective(LossConfig(guided_alignment_weight=1.0, r_drop_alpha=r_drop))
        values[r_drop] = objective(model_of(small_rnn()), batch, "fp32")[1]
    torch.testing.assert_close(values[1.0][:4], values[0.0])  # without dropout the passes are equal
    noisy = [TrainingObjective(LossConfig(guided_alignment_weight=1.0, r_drop_alpha=1.0))] * 2
    logged = []
    for objective in noisy:
        model = model_of(small_rnn(), dropout=0.5)
        torch.manual_seed(4)
        logged.append(objective(model, batch, "fp32")[1])
    torch.testing.assert_close(*logged)
    assert not torch.allclose(logged[0][2], values[0.0][2])


@pytest.mark.parametrize(
    "options",
    [
        {"coverage_loss_weight": 1.0},
        {"guided_alignment_weight": 1.0},
        {"coverage_loss_weight": 1.0, "guided_alignment_weight": 1.0},
    ],
)
@pytest.mark.parametrize("r_drop", [0.0, 1.0])
def test_a_step_without_its_attention_has_nothing_of_its_loss(options: dict[str, float], r_drop: float) -> None:
    """Layer drop may leave only layers that do not attend to the source."""
    config = small_transformer(per_layer=[{"score": "none"}, {"score": "dot"}])
    model, batch = model_of(dataclasses.replace(config, layerdrop=0.3)), linked_batch()
    objective = TrainingObjective(LossConfig(r_drop_alpha=r_drop, **options))
    plain = TrainingObjective(LossConfig(r_drop_alpha=r_drop))
    num_without = 0
    for seed in range(30):
        results = []
        for criterion in (objective, plain):
            torch.manual_seed(seed)
            model.zero_grad()
            total, logged = criterion(model, batch, "fp32")
            total.backward()
            results.append((total.detach(), dict(zip(criterion.names, logged.tolist(), strict=True))))
        (total, terms), (expected, expected_terms) = results
        attention_terms = [terms[name] for name in terms.keys() - expected_terms.keys()]
        assert total.isfinite()
        if not any(attention_terms):
            num_without += 1
            assert total == expected
            assert {name: terms[name] for name in expected_terms} == expected_terms
    assert 3 < num_without < 20


def test_the_parts_of_a_batch_sum_to_it() -> None:
    batch, objective = linked_batch(rows=5), TrainingObjective(LossConfig(guided_alignment_weight=0.3))
    model = model_of(small_transformer()).double()
    whole, logged = objective(model, batch, "fp32")
    parts = [objective(model, select_rows(batch, slice(rank, None, 2)), "fp32") for rank in range(2)]
    torch.testing.assert_close(sum(part for part, _ in parts), whole)
    torch.testing.assert_close(torch.stack([part for _, part in parts]).sum(0), logged)


def test_words_are_dropped_at_the_given_rate_but_never_special_tokens() -> None:
    torch.manual_seed(0)
    ids = torch.randint(4, 50, (400, 60))
    ids[:, 0], ids[:, 40], ids[:, 41:] = BOS, EOS, PAD
    words = ids > EOS
    for rate in (0.05, 0.3):
        dropped = apply_word_dropout(ids, rate)
        changed = dropped != ids
        assert (dropped[changed] == UNK).all()
        assert not changed[~words].any()
        share = float(changed.sum() / words.sum())
        assert abs(share - rate) < 4 * (rate * (1 - rate) / int(words.sum())) ** 0.5
        by_place = changed[:, 1:40].float().mean(0)
        assert float((by_place - rate).abs().max()) < 5 * (rate * (1 - rate) / 400) ** 0.5
    assert apply_word_dropout(ids, 0.0) is ids


class Recorder(torch.nn.Module):
    """A wrapper that records the inputs of a model."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model, self.inputs = model, (torch.empty(0), torch.empty(0))

    def forward(self, source: Tensor, mask: Tensor, inputs: Tensor, **options: Any) -> Any:
        self.inputs = (source, inputs)
        return self.model(source, mask, inputs, **options)


@pytest.mark.parametrize(("source", "target"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
def test_words_are_dropped_on_the_given_side_and_in_training_only(source: float, target: float) -> None:
    batch = linked_batch(rows=8)
    recorder = Recorder(model_of(small_rnn()))
    objective = TrainingObjective(LossConfig(word_dropout=source, target_word_dropout=target))
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        objective(recorder, batch, "fp32")  # type: ignore[arg-type]
        draws.append([side.clone() for side in recorder.inputs])
    for side, rate, untouched in ((0, source, batch.source), (1, target, batch.inputs)):
        assert torch.equal(draws[0][side], untouched) == (rate == 0)
        assert torch.equal(draws[0][side], draws[1][side])  # the update's seed decides
        assert torch.equal(draws[0][side], draws[2][side]) == (rate == 0)
    recorder.eval()
    objective(recorder, batch, "fp32")  # type: ignore[arg-type]
    assert torch.equal(recorder.inputs[0], batch.source)
    assert torch.equal(recorder.inputs[1], batch.inputs)


Make = Callable[..., Trainer]
BASE = TrainConfig(
    max_updates=7,
    batch_tokens=400,
    log_every=2,
    valid_every=100,
    save_every=4,
    precision="fp32",
    valid_bleu_sentences=2,
)


@pytest.fixture
def make(data: DataConfig, corpus: EncodedCorpus, tokenizer: Tokenizer, tmp_path: Path) -> Make:
    """Return a function that makes a trainer of a tiny model, on synthetic data with links and sampled subwords."""

    def make(
        name: str, training: EncodedCorpus = corpus, rate: float = 0.01, dropout: float = 0.2, **changes: Any
    ) -> Trainer:
        config = dataclasses.replace(BASE, **changes)
        model = model_of(small_rnn(), dropout, tokenizer.source_size)
        translator = Translator(model, tokenizer, SearchConfig(beam_size=1, max_length_offset=2), CPU)
        valid = EvaluationSet.read(data, "valid")
        valid_batches = BatchLoader(load_corpus(data, "valid", tokenizer), tokenizer, config.batch_tokens, 3)
        return Trainer(
            model,
            BatchLoader(training, tokenizer, config.batch_tokens, 3),
            Validator(translator, valid_batches, valid.pairs[:2], valid.gold and valid.gold[:2], MetricsConfig()),
            config,
            OptimConfig(warmup_updates=2, learning_rate=rate),
            seed=3,
            device=CPU,
            directory=tmp_path / name,
            header={"config": {}, "tokenizer": tokenizer.state_dict()},
        )

    return make


class StopAfter(GracefulShutdown):
    """A shutdown that is requested once `updates` have been made."""

    def __init__(self, updates: int, trainer: Trainer) -> None:
        super().__init__()
        self.updates, self.trainer = updates, trainer

    @property
    def requested(self) -> bool:
        return self.trainer.progress.update >= self.updates


def fit(trainer: Trainer, updates: int = 10**9) -> Trainer:
    trainer.directory.mkdir(parents=True, exist_ok=True)
    trainer.fit(StopAfter(updates, trainer))
    return trainer


def stepped(trainer: Trainer, updates: int) -> Trainer:
    """Make some updates, without validation and logging."""
    epoch = 0
    while trainer.progress.update < updates:
        for batch in trainer.batches.epoch(epoch):
            if trainer.progress.update < updates:
                trainer.step([batch])
        epoch += 1
    return trainer


def rows(trainer: Trainer) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl without the keys that depend on the clock."""
    lines = (trainer.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key not in MACHINE_DEPENDENT_KEYS} for line in lines
    ]


def test_continued_equals_uninterrupted_with_links_and_sampled_subwords(make: Make) -> None:
    changes = {"guided_alignment_weight": 0.5, "word_dropout": 0.2, "target_word_dropout": 0.1}
    whole = fit(make("whole", **changes))
    for update in (2, 5):
        fit(make("pieces", **changes), update)
    pieces = fit(make("pieces", **changes))
    assert pieces.progress.update == whole.progress.update == 7
    assert rows(pieces) == rows(whole)
    assert [row["update"] for row in rows(whole) if "guided_alignment" in row and "guided_missed" in row] == [2, 4, 6]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, pieces.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("option", "value"), [("guided_alignment_weight", 1.0), ("word_dropout", 0.3), ("target_word_dropout", 0.3)]
)
def test_every_option_reaches_the_update(make: Make, option: str, value: float) -> None:
    weights = []
    for name, changes in (("a", {}), ("b", {option: value})):
        model = stepped(make(name, **changes), 1).model
        weights.append(torch.cat([tensor.flatten() for tensor in model.state_dict().values()]))
    assert not torch.equal(*weights)


def error_rate(trainer: Trainer, data: DataConfig) -> float:
    """Return the alignment error rate of the training text."""
    train = EvaluationSet.read(data, "train")
    assert train.gold is not None
    validation = trainer.validation
    assert validation is not None
    links = validation.translator.links(train.pairs)
    assert links is not None
    return alignment.alignment_error_rate(links, train.gold).aer


def mirrored(corpus: EncodedCorpus, pairs: Sequence[tuple[str, str]]) -> EncodedCorpus:
    """Return the corpus with every link mirrored in the source sentence."""
    assert corpus.links is not None
    words, offsets = corpus.links.pairs.copy(), corpus.links.offsets
    for row, (source, _) in enumerate(pairs):
        span = slice(offsets[row], offsets[row + 1])
        words[span, 0] = len(source.split(" ")) - 1 - words[span, 0]
    return dataclasses.replace(corpus, links=corpus.links._replace(pairs=words))


def test_right_alignments_help_and_wrong_ones_harm(make: Make, data: DataConfig, corpus: EncodedCorpus) -> None:
    pairs = EvaluationSet.read(data, "train").pairs
    options = {"rate": 0.05, "dropout": 0.0, "max_updates": 200}
    trainers = {
        "none": make("none", **options),
        "right": make("right", **options, guided_alignment_weight=1.0),
        "wrong": make("wrong", mirrored(corpus, pairs), **options, guided_alignment_weight=1.0),
    }
    rates = {name: error_rate(stepped(trainer, 200), data) for name, trainer in trainers.items()}
    assert rates["right"] < rates["none"] - 0.2, rates
    assert rates["right"] < rates["wrong"] - 0.2, rates


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guided_alignment_weight": -1.0}, "train.guided_alignment_weight=-1.0: must be at least 0 and below inf"),
        ({"guided_layer": -1}, "train.guided_layer=-1: must be at least 0"),
        ({"word_dropout": 1.0}, "train.word_dropout=1.0: must be at least 0 and below 1"),
        ({"target_word_dropout": -0.1}, "train.target_word_dropout=-0.1: must be at least 0 and below 1"),
    ],
)
def test_invalid_values_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        TrainConfig(**options).validate()


@pytest.mark.parametrize(
    ("model", "train", "message"),
    [
        (small_rnn(), {"guided_layer": 2}, r"train\.guided_layer=2: attention to the source has 1 layer; give one"),
        (small_rnn(), {"guided_head": 2}, r"train\.guided_head=2: attention to the source has 1 head;"),
        (small_transformer(), {"guided_layer": 3}, r"guided_layer=3: attention to the source has 2 layers;"),
        (small_transformer(), {"guided_head": 3}, r"guided_head=3: attention to the source has 2 heads;"),
        (small_transformer(per_layer=[{"score": "none"}, {}]), {"guided_layer": 2}, r"guided_layer=2: .* has 1 layer;"),
        (small_rnn(score="none"), {}, r"train\.guided_alignment_weight=1: needs a model with attention"),
        (
            dataclasses.replace(small_transformer(), layerdrop=0.1),
            {"guided_layer": 1},
            r"train\.guided_layer=1: model\.layerdrop=0\.1 leaves out layers",
        ),
    ],
)
def test_a_missing_layer_or_head_is_rejected(model: Any, train: dict[str, Any], message: str) -> None:
    config = Config(model=model, train=TrainConfig(guided_alignment_weight=1.0, **train))
    with pytest.raises(ValueError, match=message):
        config.validate()
    Config(model=model, train=TrainConfig(**train)).validate()


def test_options_without_effect_are_named() -> None:
    config = Config(model=small_transformer(), train=TrainConfig(guided_layer=1, guided_head=2))
    config.data.train_alignments = "FILE"
    assert config.unused_options() == ["train.guided_layer=1", "train.guided_head=2", "data.train_alignments=FILE"]
    config.train.guided_alignment_weight = 0.1
    assert config.unused_options() == []
