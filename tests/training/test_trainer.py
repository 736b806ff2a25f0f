"""Training: continued = uninterrupted, accumulated = whole, limits, best checkpoints, and a small task learned."""

import dataclasses
import io
import json
import logging
import math
import signal
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nmt import checkpoint
from nmt.alignment import AlignmentConfig, AlignmentSource
from nmt.attention import AttentionConfig
from nmt.data import (
    PAD,
    BatchLoader,
    DataConfig,
    SentencePair,
    Tokenizer,
    TokenizerConfig,
    load_corpus,
    train_or_load_tokenizer,
)
from nmt.data.synthetic.dataset import SyntheticConfig
from nmt.evaluation.attention_diagnostics import TENSORBOARD_MEASURES, DiagnosticsAccumulator
from nmt.evaluation.metrics import MetricsConfig
from nmt.evaluation.report.charts import training_curves
from nmt.evaluation.results import EvaluationSet
from nmt.inference.aligner import Aligner
from nmt.inference.translator import Translator
from nmt.models import build_model
from nmt.models.rnn import RNNConfig
from nmt.runtime.logs import log_file
from nmt.runtime.process import setup_process
from nmt.search import SearchConfig
from nmt.training import logger
from nmt.training.distributed import DistributedContext
from nmt.training.logger import MetricAccumulator
from nmt.training.optim import OptimConfig, build_scaler
from nmt.training.progress import TrainProgress
from nmt.training.rescoring import changed_score_options
from nmt.training.signals import GracefulShutdown
from nmt.training.trainer import TrainConfig, Trainer
from nmt.training.validation import NUM_MEASURED, Validator

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    max_updates=14, batch_tokens=600, log_every=5, valid_every=4, save_every=7, precision="fp32", valid_bleu_sentences=4
)


class StopAfter(GracefulShutdown):
    """A shutdown that is requested once `updates` have been made, as by a signal."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.updates, self.trainer = updates, None

    @property
    def requested(self) -> bool:
        return self.trainer is not None and self.trainer.progress.update >= self.updates


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return DataConfig(
        synthetic=SyntheticConfig(train=150, valid=6, test=3, long=2),
        cache_dir=str(tmp_path_factory.mktemp("cache")),
        tokenizer=TokenizerConfig(type="word", vocab_size=3000),
    )


Make = Callable[..., Trainer]


@pytest.fixture
def make(data: DataConfig, tmp_path: Path) -> Make:
    """Return a function that makes a trainer of a tiny model in its own run directory."""
    default = data

    def make(
        name: str = "run",
        *,
        data: DataConfig = default,
        optim: OptimConfig | None = None,
        dropout: float = 0.3,
        score: str = "additive",
        stored: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Trainer:
        config, tokenizer = dataclasses.replace(CONFIG, **changes), train_or_load_tokenizer(data)
        torch.manual_seed(3)
        model_config = RNNConfig(
            embedding_dim=8, hidden_size=8, dropout=dropout, attention=AttentionConfig(score=score, dim=8)
        )
        model = build_model(model_config, tokenizer.source_size, tokenizer.target_size, joint=True)
        translator = Translator(model, tokenizer, SearchConfig(beam_size=2, max_length_offset=2), CPU)
        valid = EvaluationSet.read(data, "valid")
        batches = [
            BatchLoader(load_corpus(data, s, tokenizer), tokenizer, config.batch_tokens, 3) for s in ("train", "valid")
        ]
        return Trainer(
            model,
            batches[0],
            Validator(translator, batches[1], valid.pairs, valid.gold, MetricsConfig()),
            config,
            optim or OptimConfig(warmup_updates=4, learning_rate=0.01),
            seed=3,
            device=CPU,
            directory=tmp_path / name,
            header={"config": stored or {}, "tokenizer": tokenizer.state_dict()},
        )

    return make


def fit(trainer: Trainer, stop: GracefulShutdown | None = None) -> Trainer:
    trainer.directory.mkdir(parents=True, exist_ok=True)
    stop = stop or GracefulShutdown()
    if isinstance(stop, StopAfter):
        stop.trainer = trainer
    trainer.fit(stop)
    return trainer


def rows(trainer: Trainer) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl without the keys that depend on the clock."""
    metrics = logger.read_metrics(trainer.directory / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in logger.MACHINE_DEPENDENT_KEYS} for row in metrics]


@pytest.mark.parametrize(
    ("stops", "changes"),
    [
        ([3], {}),
        ([4], {"ema_decay": 0.9}),
        ([5], {"coverage_loss_weight": 0.5}),
        ([5], {"r_drop_alpha": 1.0}),
        ([7, 8], {"ema_decay": 0.9}),
        ([8, 8], {"ema_decay": 0.9}),
        ([14], {"ema_decay": 0.9}),
        ([2, 4, 6, 9, 13, 14], {"ema_decay": 0.5, "coverage_loss_weight": 0.5}),
    ],
)
def test_continued_equals_uninterrupted(make: Make, stops: list[int], changes: dict[str, float]) -> None:
    whole = fit(make("whole", **changes))
    for update in stops:
        stopped = fit(make("pieces", **changes), StopAfter(update)).progress
        assert stopped.update == update
        assert bool(stopped.stop_reason) == (update == 14)
        assert stopped.last_validated < 14
    pieces = fit(make("pieces", **changes))
    assert pieces.progress.update == whole.progress.update == 14
    assert rows(pieces) == rows(whole)
    assert [row["update"] for row in rows(whole) if "loss" in row] == [5, 10]
    assert [row["update"] for row in rows(whole) if "valid_loss" in row] == [4, 8, 12, 14]
    assert all(("coverage_loss" in row) == ("coverage_loss_weight" in changes) for row in rows(whole) if "loss" in row)
    assert_same_checkpoints(pieces, whole)


def test_continued_equals_uninterrupted_with_sampled_segmentations(make: Make, data: DataConfig) -> None:
    tokenizer = TokenizerConfig(vocab_size=330, subword_regularization=0.2)
    sampled = dataclasses.replace(data, tokenizer=tokenizer)
    limits = {"max_updates": 6, "valid_every": 6, "save_every": 3, "log_every": 2, "data": sampled}
    whole = fit(make("whole", **limits))
    fit(make("pieces", **limits), StopAfter(3))
    pieces = fit(make("pieces", **limits))
    assert rows(pieces) == rows(whole)
    assert_same_checkpoints(pieces, whole)


def assert_same_checkpoints(actual: Trainer, expected: Trainer) -> None:
    """Compare weights, moving average, optimizer and progress bit for bit."""
    for name, ignored in (("last", {"seconds"}), ("best", {"seconds", "unlogged_sums", "divergence_state"})):
        a, b = (checkpoint.load(getattr(trainer, name)) for trainer in (actual, expected))
        assert list(a) == list(b)
        positions = [{k: v for k, v in content["position"].items() if k not in ignored} for content in (a, b)]
        assert positions[0] == positions[1]
        for key in {"model", "average"} & set(a):
            assert list(a[key]) == list(b[key])
            assert all(torch.equal(tensor, b[key][part]) for part, tensor in a[key].items()), (name, key)
    states = [checkpoint.load(trainer.last)["optimizer"]["state"] for trainer in (actual, expected)]
    assert all(
        torch.equal(tensor, states[1][n][part]) for n, state in states[0].items() for part, tensor in state.items()
    )
    assert all(torch.equal(t, actual.model.state_dict()[n]) for n, t in expected.model.state_dict().items())


def kill(trainer: Trainer, method: str, when: Callable[..., bool]) -> None:
    """Train, and end the process instead of the call of `method` for whose arguments `when` holds."""
    run = getattr(trainer, method)

    def call(*arguments: Any, **named: Any) -> Any:
        if when(trainer, *arguments):
            raise SystemExit("killed")
        return run(*arguments, **named)

    setattr(trainer, method, call)
    with pytest.raises(SystemExit):
        fit(trainer)


def test_killed_equals_uninterrupted(make: Make) -> None:
    """The updates after the last checkpoint of a killed run are repeated, and their rows are not duplicated."""
    whole = fit(make("whole", ema_decay=0.9))
    killed = make("killed", ema_decay=0.9)
    kill(killed, "step", lambda trainer, _: trainer.progress.update == 11)
    assert rows(killed)[-1]["update"] == 10
    resumed = make("killed", ema_decay=0.9)
    assert resumed.progress.update == 7
    fit(resumed)
    assert rows(resumed) == rows(whole)
    assert_same_checkpoints(resumed, whole)


@pytest.mark.parametrize(
    ("stops", "method", "when", "validated"),
    [
        ([], "validation", lambda trainer, *_: trainer.progress.update == 14, 12),
        ([], "save", lambda trainer, *_: trainer.progress.last_validated == 14, 12),
        ([8], "step", lambda trainer, _: trainer.progress.last_validated == 8, 4),
    ],
    ids=["in the last validation", "after the last validation", "after a validation made up for"],
)
def test_killed_around_a_validation_equals_uninterrupted(
    make: Make, stops: list[int], method: str, when: Callable[..., bool], validated: int
) -> None:
    """A validation after the checkpoint of its own update is repeated, and its row is not duplicated."""
    whole = fit(make("whole"))
    for update in stops:
        fit(make("killed"), StopAfter(update))
    killed = make("killed")
    kill(killed, method, when)
    last = checkpoint.load(killed.last)["position"]
    assert last["last_validated"] == validated < last["update"]
    assert bool(last["stop_reason"]) == (last["update"] == 14)
    resumed = fit(make("killed"))
    assert rows(resumed) == rows(whole)
    assert_same_checkpoints(resumed, whole)
    assert fit(make("killed")).progress == resumed.progress  # nothing is left to do


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("changes", [{}, {"patience": 1, "average_checkpoints": "last"}])
def test_an_interrupted_validation_is_repeated_before_anything_else(
    make: Make, times: int, changes: dict[str, Any]
) -> None:
    """Also after `times` interruptions: the run may end with that validation, and makes no update before it."""

    def never_better(trainer: Trainer, *, cut: bool = False) -> Trainer:
        def validation(model: Any, records: Any, update: int, precision: str, stop: GracefulShutdown) -> Any:
            if cut and update == 8:
                stop.received = signal.SIGTERM
                return None
            return {"loss": 1.0}

        trainer.validation = validation  # type: ignore[assignment]
        return trainer

    options = {"max_updates": 10, "early_stopping_metric": "loss", "save_every": 3, "ema_decay": 0.9, **changes}
    whole = fit(never_better(make("whole", **options)))
    for _ in range(times):
        stopped = fit(never_better(make("pieces", **options), cut=True)).progress
        assert (stopped.update, stopped.last_validated, stopped.stop_reason) == (8, 4, "")
    pieces = fit(never_better(make("pieces", **options)))
    assert whole.progress.update == (8 if "patience" in changes else 10)
    assert rows(pieces) == rows(whole)
    assert_same_checkpoints(pieces, whole)


def test_a_signal_ends_a_validation_after_the_batch_that_is_translated(make: Make) -> None:
    trainer, stop = make(), GracefulShutdown()
    trainer.validation.translator.config.batch_size = 1  # type: ignore[attr-defined]
    stop.received = signal.SIGTERM
    validation: Any = trainer.validation
    assert validation(trainer.model, None, 1, "fp32", stop) is None


def test_best_checkpoint_is_the_average(make: Make) -> None:
    """It holds the validated weights, which are the average of the weights after each update."""
    trainer = make(max_updates=6, valid_every=100, ema_decay=0.5)
    expected = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    step, validate, validated_weights = trainer.step, trainer.validation, []

    def recorded_step(batches: Any) -> Any:
        result = step(batches)
        decay = min(0.5, (1 + trainer.progress.update) / (10 + trainer.progress.update))
        for name, tensor in trainer.model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor
        return result

    def validation(model: Any, *arguments: Any) -> Any:
        assert validate is not None
        validated_weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return validate(model, *arguments)

    trainer.step, trainer.validation = recorded_step, validation  # type: ignore[method-assign, assignment]
    fit(trainer)
    best, last = checkpoint.load(trainer.best), checkpoint.load(trainer.last)
    assert "average" not in best
    assert set(last["average"]) == {name for name, _ in trainer.model.named_parameters()}
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(best["model"][name], expected[name])
        assert torch.equal(best["model"][name], validated_weights[0][name])
        assert torch.equal(last["model"][name], tensor)
        assert torch.equal(last["average"].get(name, best["model"][name]), best["model"][name])
        assert not torch.equal(best["model"][name], tensor)
    plain = fit(make("plain", max_updates=6, valid_every=100))
    assert all(torch.equal(t, trainer.model.state_dict()[n]) for n, t in plain.model.state_dict().items())


def test_a_moving_average_cannot_begin_in_the_middle(make: Make) -> None:
    fit(make(max_updates=2))
    with pytest.raises(ValueError, match=r"train.ema_decay=0.9: the run was begun without an average"):
        make(ema_decay=0.9)


def test_accumulated_batches_equal_a_whole_one(make: Make) -> None:
    """The gradient of an update is that of the mean over all its tokens, however they are batched."""
    whole, parts = make("whole", dropout=0.0), make("parts", dropout=0.0)
    batches = list(whole.batches.epoch(0))[:3]
    gradients = []
    for trainer, groups in ((whole, [batches]), (parts, [[batch] for batch in batches])):
        trainer.optim_config.clip_norm = 0.0
        trainer.optimizer.step = lambda *_: None  # type: ignore[method-assign, assignment, misc]
        trainer.optimizer.zero_grad = lambda **_: None  # type: ignore[method-assign, assignment]
        total = sum(batch.num_tokens for batch in batches)
        for group in groups:
            trainer.step(group)
            if len(groups) > 1:  # weigh each update by its share of the tokens
                for parameter in trainer.model.parameters():
                    parameter.grad, before = None, parameter.grad
                    share = sum(b.num_tokens for b in group) / total
                    parameter.sum_ = getattr(parameter, "sum_", 0) + share * before  # type: ignore[attr-defined]
        gradients.append([getattr(p, "sum_", p.grad) for p in trainer.model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_limits_end_a_run_and_raising_them_continues_it(make: Make) -> None:
    first = fit(make(max_updates=3))
    assert first.progress.stop_reason == "train.max_updates=3 reached"
    assert first.best.exists()  # shorter than a validation: it validates at the end
    assert fit(make(max_updates=3)).progress.update == 3
    assert fit(make(max_updates=5)).progress.update == 5
    assert [row["update"] for row in rows(make()) if "valid_loss" in row] == [3, 4, 5]
    timed = fit(make("timed", max_minutes=1e-9, max_updates=1000))
    assert timed.progress.stop_reason == "train.max_minutes=1e-09 reached"
    assert timed.progress.update == timed.progress.last_validated == 1


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("schedule", ["cosine", "inverse_sqrt"])
def test_epochs_end_a_run_exactly_and_continue_exactly(make: Make, accumulation: int, schedule: str) -> None:
    """Whatever interrupts it: in the first epoch, at its end, at the last update. Every pair is used in every epoch."""
    optim = OptimConfig(warmup_updates=2, learning_rate=0.01, schedule=schedule)
    limits = {"max_updates": 0, "max_epochs": 2, "gradient_accumulation": accumulation, "optim": optim, "log_every": 1}
    whole = make("whole", **limits)
    num = [sum(1 for _ in whole.batches.epoch(epoch)) for epoch in (0, 1, 5)]
    assert num == [whole.batches.num_batches()] * 3
    epoch = math.ceil(num[0] / accumulation)
    fit(whole)
    assert (whole.progress.update, whole.progress.epoch, whole.progress.batch) == (2 * epoch, 2, 0)
    assert whole.progress.stop_reason == "train.max_epochs=2 reached"
    assert whole.progress.last_validated == 2 * epoch
    logged = [row for row in rows(whole) if "loss" in row]
    assert [row["epoch"] for row in logged] == [0] * epoch + [1] * epoch
    if schedule == "cosine":
        assert logged[-1]["learning_rate"] == pytest.approx(0.01 * optim.min_lr_ratio)
        assert logged[-2]["learning_rate"] > 1.01 * logged[-1]["learning_rate"]
    for update in (1, epoch, epoch + 1, 2 * epoch):
        assert fit(make("pieces", **limits), StopAfter(update)).progress.update == update
    pieces = fit(make("pieces", **limits))
    assert rows(pieces) == rows(whole)
    assert_same_checkpoints(pieces, whole)
    before = (whole.last.stat().st_mtime_ns, whole.last.read_bytes())
    assert fit(make("whole", **limits)).progress.update == 2 * epoch  # finished: nothing is done
    assert (whole.last.stat().st_mtime_ns, whole.last.read_bytes()) == before


def test_a_kill_before_an_epoch_that_ends_the_run_is_saved(make: Make) -> None:
    limits = {"max_updates": 0, "max_epochs": 1, "save_every": 100, "valid_every": 100}
    whole = fit(make("whole", **limits))
    killed = make("killed", **limits)
    kill(killed, "_validate", lambda trainer, *_: True)
    continued = make("killed", **limits)
    assert continued.progress.stop_reason == "train.max_epochs=1 reached"
    assert rows(fit(continued)) == rows(whole)
    assert_same_checkpoints(continued, whole)
    more = fit(make("killed", **{**limits, "max_epochs": 2, "optim": OptimConfig(schedule="constant")}))
    assert (more.progress.update, more.progress.epoch) == (2 * whole.progress.update, 2)


@pytest.mark.parametrize(
    ("updates", "reason"), [(3, "train.max_updates=3 reached"), (2500, "train.max_epochs=1 reached")]
)
def test_the_limit_that_comes_first_ends_a_run_and_its_schedule(make: Make, updates: int, reason: str) -> None:
    trainer = fit(make(max_updates=updates, max_epochs=1, log_every=1))
    assert trainer.progress.stop_reason == reason
    last = [row for row in rows(trainer) if "loss" in row][-1]
    assert last["update"] == trainer.last_update == min(updates, trainer.batches.num_batches())
    rate = 0.01 * min(1.0, last["update"] / 4) * trainer.optim_config.min_lr_ratio
    assert last["learning_rate"] == pytest.approx(rate)


def test_the_last_updates_can_be_the_best(make: Make) -> None:
    trainer = make(max_updates=5, valid_every=4, early_stopping_metric="loss")
    outcomes = iter([2.0, 1.0])
    trainer.validation = lambda *_: {"loss": next(outcomes)}  # type: ignore[assignment]
    assert fit(trainer).progress.best_update == 5
    assert checkpoint.load(trainer.best)["position"]["update"] == 5


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ema_decay", 1.0),
        ("ema_decay", -0.1),
        ("ema_decay", math.nan),
        ("coverage_loss_weight", -1.0),
        ("coverage_loss_weight", math.inf),
        ("r_drop_alpha", -1.0),
    ],
)
def test_impossible_configurations(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"train.{option}={value}: must be"):
        dataclasses.replace(CONFIG, **{option: value}).validate()


def test_patience(make: Make) -> None:
    trainer = make(max_updates=100, valid_every=2, patience=3, early_stopping_metric="loss")
    outcomes = iter([5.0, 4.0, 4.5, 4.2, 4.1, 1.0])
    trainer.validation = lambda *_: {"loss": next(outcomes)}  # type: ignore[assignment]
    progress = fit(trainer).progress
    assert progress.stop_reason == "no better valid loss in train.patience=3 validations"
    assert (progress.update, progress.best_update, progress.best_score) == (10, 4, 4.0)
    assert checkpoint.load(trainer.best)["position"]["update"] == 4


OLD, NEW = {"metrics": {"tokenize": "char"}}, {"metrics": {"tokenize": "13a"}}


def score_weights(trainer: Trainer, sign: int = 1, mean: float = 0.0) -> list[float]:
    """Score every model by its weights, and a mean of checkpoints `mean` higher; return the list of scores to come."""
    given: list[float] = []
    validate_averaged, extra = trainer._validate_averaged, [0.0]

    def validation(model: Any, *_: Any) -> dict[str, float]:
        given.append(weights_score(model.state_dict(), sign) + extra[0])
        return {"loss": 1.0, "bleu": given[-1]}

    def recorded(*arguments: Any) -> None:
        extra[0] = mean
        validate_averaged(*arguments)

    trainer.validation = validation  # type: ignore[assignment]
    trainer._validate_averaged = recorded  # type: ignore[method-assign]
    return given


def weights_score(state: dict[str, torch.Tensor], sign: int) -> float:
    return 50 + sign * sum(float(tensor.double().abs().mean()) for tensor in state.values())


@pytest.mark.parametrize("keep_best", [1, 3])
@pytest.mark.parametrize("mean", [False, True])
def test_the_best_is_measured_again_when_scores_have_another_meaning(make: Make, keep_best: int, mean: bool) -> None:
    """The new scores are those of the files, and best.pt is the first by them, before training goes on."""
    options: dict[str, Any] = {"valid_every": 2, "save_every": 4, "keep_best_checkpoints": keep_best, "patience": 9}
    options["average_checkpoints"] = "last" if mean else "none"
    first = make(max_updates=8, stored=OLD, **options)
    score_weights(first, mean=10.0)
    fit(first)
    files = dict.fromkeys([first.best, *sorted(first.best.parent.glob("best-*.pt"))])
    contents = {path: checkpoint.load(path) for path in files}
    assert len(files) == (1 if keep_best == 1 else 4)
    continued = make(max_updates=10, stored=NEW, **options)
    before = dataclasses.replace(continued.progress)
    given = score_weights(continued, sign=-1)
    kill(continued, "step", lambda *_: True)
    expected = {path: weights_score(content["model"], -1) for path, content in contents.items()}
    progress, best = continued.progress, checkpoint.load(continued.best)
    assert sorted(given) == sorted(set(expected.values()))
    assert progress.best_score == max(expected.values()) == weights_score(best["model"], -1)
    assert (progress.best_update, progress.validations_without_improvement) == (best["position"]["update"], 0)
    assert (before.best_update, before.best_averaged_updates) == (8, [4, 8] if mean else [])
    kept_mean = mean and progress.best_score == expected[first.best]
    assert progress.best_averaged_updates == ([4, 8] if kept_mean else [])
    if keep_best == 3:
        assert progress.best_update < 8
        kept = [(expected[checkpoint.checkpoint_path(first.best.parent, "best", u)], u) for u in (4, 6, 8)]
        assert progress.kept_losses == [1.0] * 3
        assert progress.kept_best == sorted(kept, reverse=True)
        assert sorted(before.kept_best, reverse=True) == before.kept_best != progress.kept_best
    again = make(max_updates=10, stored=NEW, **options)
    for name in ("best_score", "best_loss", "best_update", "best_averaged_updates", "kept_best", "kept_losses"):
        assert getattr(again.progress, name) == getattr(progress, name)
    given = score_weights(again, sign=-1)
    fit(again)
    assert len(given) == 1 + mean
    assert [row["update"] for row in rows(again) if "valid_loss" in row] == [2, 4, 6, 8, 10]
    assert again.progress.best_update == progress.best_update


@pytest.mark.parametrize(
    ("metric", "stored", "current"),
    [
        ("bleu", OLD, OLD),
        ("bleu", {}, NEW),  # an option that the version before did not have
        ("bleu", {"search": {"batch_size": 1}}, {"search": {"batch_size": 2}}),
        ("bleu", {"metrics": {"num_resamples": 1}}, {"metrics": {"num_resamples": 2}}),
        ("chrf", OLD, NEW),
        ("loss", {"search": {"beam_size": 1}}, {"search": {"beam_size": 2}}),
        ("bleu", {"alignment": {"layer": "1"}}, {"alignment": {"layer": "2"}}),
    ],
)
def test_options_that_leave_the_score_as_it_is(metric: str, stored: dict[str, Any], current: dict[str, Any]) -> None:
    assert changed_score_options(metric, stored, current) == []


@pytest.mark.parametrize(
    ("metric", "stored", "current", "line"),
    [
        ("bleu", OLD, NEW, "metrics.tokenize: char → 13a"),
        ("bleu", {"search": {"beam": 1}}, {"search": {"beam_size": 2}}, "search.beam_size: 1 → 2"),  # of version 0.3
        (
            "chrf",
            {"metrics": {"lowercase": False}},
            {"metrics": {"lowercase": True}},
            "metrics.lowercase: False → True",
        ),
        ("chrf", {"search": {"method": "beam"}}, {"search": {"method": "mbr"}}, "search.method: beam → mbr"),
        ("aer", {"alignment": {"layer": "1"}}, {"alignment": {"layer": "2"}}, "alignment.layer: 1 → 2"),
    ],
)
def test_options_that_give_a_score_another_meaning(
    metric: str, stored: dict[str, Any], current: dict[str, Any], line: str
) -> None:
    assert changed_score_options(metric, stored, current) == [line]


def test_a_finished_run_is_not_validated_again(make: Make) -> None:
    fit(make(stored=OLD, max_updates=4))
    finished = make(stored=NEW, max_updates=4)
    given = score_weights(finished)
    before = finished.last.read_bytes()
    fit(finished)
    assert (given, finished.last.read_bytes()) == ([], before)


def test_a_finished_run_whose_validation_is_missing_is_validated_after_its_best(make: Make) -> None:
    first = make(stored=OLD)
    kill(first, "validation", lambda trainer, *_: trainer.progress.update == 14)
    continued = make(stored=NEW)
    assert continued.progress.stop_reason
    given = score_weights(continued)
    fit(continued)
    assert (len(given), continued.progress.last_validated) == (2, 14)


@pytest.mark.parametrize("fault", ["missing", "damaged", "later"])
def test_a_best_model_that_cannot_be_measured_again(make: Make, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """The next validation is the best then, whatever the score before."""
    first = make(stored=OLD, valid_every=2)
    score_weights(first, sign=1)
    fit(first, StopAfter(6))
    continued = make(stored=NEW, valid_every=2)
    content = checkpoint.load(first.best)
    if fault == "missing":
        first.best.unlink()
    elif fault == "damaged":
        first.best.write_bytes(first.best.read_bytes()[:-100])
    else:  # the process was killed between a later validation and its checkpoint
        checkpoint.save(first.best, {**content, "position": {**content["position"], "update": 8}})
    given = score_weights(continued, sign=-1)
    logging.getLogger("nmt").propagate = True
    try:
        fit(continued, StopAfter(8))
    finally:
        logging.getLogger("nmt").propagate = False
    assert len(given) == 1
    assert (continued.progress.best_update, continued.progress.best_score) == (6, given[0])
    assert checkpoint.load(continued.best)["position"]["update"] == 6
    text = {"missing": "no such checkpoint", "damaged": "best.pt: ", "later": "holds the model of update 8, not of 4"}
    assert f"cannot be validated again: {first.best}" in caplog.text
    assert text[fault] in caplog.text


def test_an_interrupted_measurement_is_made_again(make: Make) -> None:
    fit(make(stored=OLD, valid_every=2), StopAfter(5))
    stopped = make(stored=NEW, valid_every=2)
    before = stopped.last.read_bytes()

    def validation(*arguments: Any) -> None:
        arguments[-1].received = signal.SIGTERM

    stopped.validation = validation  # type: ignore[assignment]
    assert fit(stopped).progress.update == 5
    assert stopped.last.read_bytes() == before
    continued = make(stored=NEW, valid_every=2)
    given = score_weights(continued)
    fit(continued, StopAfter(7))
    assert len(given) == 2


@pytest.mark.parametrize(("metric", "best"), [("bleu", 4), ("loss", 6), ("aer", 2)])
def test_stop_metric_chooses_the_best(make: Make, metric: str, best: int) -> None:
    trainer = make(max_updates=6, valid_every=2, early_stopping_metric=metric)
    values = iter([(9.0, 1.0, 0.1), (8.0, 3.0, 0.3), (7.0, 2.0, 0.2)])
    trainer.validation = lambda *_: dict(zip(("loss", "bleu", "aer"), next(values), strict=True))  # type: ignore[assignment]
    assert fit(trainer).progress.best_update == best


def test_a_missing_stop_metric_is_named(make: Make) -> None:
    trainer = make(early_stopping_metric="aer")
    trainer.validation = lambda *_: {"loss": 1.0, "bleu": 2.0}  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"train.early_stopping_metric=aer: validation gives only loss, bleu"):
        fit(trainer)


@pytest.mark.parametrize(("guard", "what"), [("off", "the training loss"), ("skip", "a weight")])
def test_a_non_finite_loss_or_weight_stops_the_run(make: Make, guard: str, what: str) -> None:
    trainer = fit(make(on_divergence=guard), StopAfter(6))
    before = trainer.last.read_bytes()
    continued = make(on_divergence=guard)
    with torch.no_grad():
        next(continued.model.parameters()).mul_(math.inf)
    with pytest.raises(
        ValueError, match=f"{what} stopped being a finite number by update .*last.pt holds the last good"
    ):
        fit(continued)
    assert continued.last.read_bytes() == before


class Poisoned:
    """An objective that is NaN in some updates; in one the weights are spoiled too, as by a bad update."""

    def __init__(self, trainer: Trainer, updates: Iterable[int], spoiled: int = 0) -> None:
        self.trainer, self.objective, self.updates, self.spoiled = trainer, trainer.objective, set(updates), spoiled
        self.names = trainer.objective.names

    def __call__(self, model: Any, batch: Any, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
        update = self.trainer.progress.update
        if update == self.spoiled:
            with torch.no_grad():
                for parameter in self.trainer.model.parameters():
                    parameter.mul_(7)
        loss, losses = self.objective(model, batch, precision)
        factor = math.nan if update in self.updates else 1.0
        return loss * factor, losses * factor


def poisoned(trainer: Trainer, *arguments: Any) -> Trainer:
    trainer.objective = Poisoned(trainer, *arguments)  # type: ignore[assignment]
    return trainer


def test_skipped_updates_are_counted_and_do_no_harm(make: Make) -> None:
    whole = fit(poisoned(make("whole"), [3, 7, 8]))
    assert all(tensor.isfinite().all() for tensor in whole.model.state_dict().values())
    logged = {row["update"]: row for row in rows(whole) if "loss" in row}
    assert {update: row["updates_skipped"] for update, row in logged.items()} == {5: 1, 10: 3}
    assert whole.anomaly_counts() == {"updates_skipped": 3, "rollbacks": 0, "oom_splits": 0}
    for update in (4, 7):
        fit(poisoned(make("pieces"), [3, 7, 8]), StopAfter(update))
    pieces = fit(poisoned(make("pieces"), [3, 7, 8]))
    assert rows(pieces) == rows(whole)
    assert_same_checkpoints(pieces, whole)


def test_a_log_line_without_an_update_has_no_loss(make: Make) -> None:
    trainer = fit(poisoned(make(max_updates=10), range(1, 6)))
    first, second = [row for row in rows(trainer) if "learning_rate" in row]
    assert "loss" not in first
    assert "gradient_norm" not in first
    assert first["updates_skipped"] == 5
    assert math.isfinite(second["loss"])


def test_a_run_that_diverges_returns_to_its_last_checkpoint(make: Make) -> None:
    options: dict[str, Any] = {
        "on_divergence": "rollback",
        "max_updates": 21,
        "save_every": 5,
        "valid_every": 100,
        "ema_decay": 0.9,
    }
    poison = (range(6, 17), 11)
    whole = poisoned(make("whole", **options), *poison)
    rollback, rollbacks = whole.checkpoints.rollback, []

    def recorded_rollback(device: torch.device) -> int | None:
        restored = rollback(device)
        kept = checkpoint.load(whole.last)
        rollbacks.append((restored, whole.progress.update, whole.progress.epoch, whole.progress.batch))
        assert all(torch.equal(tensor, kept["model"][name]) for name, tensor in whole.model.state_dict().items())
        return restored

    whole.checkpoints.rollback = recorded_rollback  # type: ignore[method-assign]
    fit(whole)
    ((update, *progress),) = rollbacks
    assert update == 10
    plain = fit(make("plain", max_updates=15, valid_every=100)).progress
    assert progress == [15, plain.epoch, plain.batch]  # the data goes on
    assert [row.get("rollbacks") for row in rows(whole) if "learning_rate" in row] == [None, None, 1, 1]
    killed = poisoned(make("killed", **options), *poison)
    kill(killed, "step", lambda trainer, _: trainer.progress.update == 12)
    resumed = fit(poisoned(make("killed", **options), *poison))
    assert rows(resumed) == rows(whole)
    assert_same_checkpoints(resumed, whole)
    with pytest.raises(
        ValueError, match=r"10 updates in a row had to be skipped by update 15: lower optim.learning_rate"
    ):
        fit(poisoned(make("skip", **{**options, "on_divergence": "skip"}), *poison))
    with pytest.raises(
        ValueError, match=r"10 updates in a row had to be skipped by update 10: lower optim.learning_rate"
    ):
        fit(poisoned(make("early", **{**options, "save_every": 100}), range(1, 12)))


class Small:
    """A model on a device that holds at most `max_rows` rows."""

    training = True

    def __init__(self, model: Any, max_rows: int, error: Exception) -> None:
        self.model, self.max_rows, self.error = model, max_rows, error

    def __call__(self, source: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        if source.size(0) > self.max_rows:
            raise self.error
        return self.model(source, *arguments, **named)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_batches_that_do_not_fit_are_split(
    make: Make, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Updates are the same, however small the micro-batches are."""
    monkeypatch.setattr(logging.getLogger("nmt"), "propagate", True)
    options: dict[str, Any] = {"max_updates": 5, "dropout": 0.0, "gradient_accumulation": 2, "valid_every": 100}
    options["optim"] = OptimConfig(learning_rate=1e-3, warmup_updates=2, epsilon=1e-6)
    whole, split = make("whole", **options), make("split", **options)
    split.grad_sync.call = Small(split.model, 9, error)
    fit(whole)
    with caplog.at_level("WARNING"):
        fit(split)
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(split.model.state_dict()[name], tensor, atol=1e-6, rtol=0)
    (row,) = [row for row in rows(split) if "loss" in row]
    # A set: records are captured twice once the logger propagates.
    warnings = [record for record in set(caplog.records) if "computed in two halves" in record.getMessage()]
    assert row["oom_splits"] == split.progress.oom_splits == len(warnings) > 5
    assert row["loss"] == pytest.approx(next(row["loss"] for row in rows(whole) if "loss" in row), abs=1e-5)


def test_a_single_pair_that_does_not_fit_is_an_error(make: Make) -> None:
    trainer = make()
    trainer.grad_sync.call = Small(trainer.model, 0, MemoryError("no memory"))
    with pytest.raises(ValueError, match=r"out of memory on a single pair of \d+ and \d+ tokens .*data.max_length"):
        fit(trainer)


def test_other_errors_pass_through(make: Make) -> None:
    trainer = make()
    trainer.grad_sync.call = Small(trainer.model, 0, RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        fit(trainer)


def test_a_weight_that_is_not_finite_stops_the_run(make: Make) -> None:
    """The last update before a checkpoint may spoil a weight although its loss was finite."""
    trainer = make(ema_decay=0.9, save_every=1)
    steps = trainer.step

    def step(batches: Any) -> Any:
        result = steps(batches)
        if trainer.progress.update == 3:
            with torch.no_grad():
                next(trainer.model.parameters())[0] = math.nan
        return result

    trainer.step = step  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"a weight stopped being a finite number by update 3: .*last good state"):
        fit(trainer)
    last = checkpoint.load(trainer.last)
    assert last["position"]["update"] == 2
    assert all(tensor.isfinite().all() for key in ("model", "average") for tensor in last[key].values())


def test_every_optim_option_reaches_the_update(make: Make) -> None:
    base = OptimConfig(warmup_updates=2, learning_rate=0.01)
    changes = {
        "learning_rate": 0.02,
        "schedule": "inverse_sqrt",
        "warmup_updates": 3,
        "beta1": 0.5,
        "beta2": 0.5,
        "epsilon": 1e-3,
    }
    changes |= {"weight_decay": 0.5, "clip_norm": 1e-3}

    def weights(number: int, config: OptimConfig) -> torch.Tensor:
        trainer = fit(make(f"run{number}", optim=config, max_updates=4, valid_every=100))
        return torch.cat([tensor.flatten() for tensor in trainer.model.state_dict().values()])

    expected = weights(0, base)
    for number, (option, value) in enumerate(changes.items(), start=1):
        assert not torch.equal(weights(number, dataclasses.replace(base, **{option: value})), expected), option


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("label_smoothing", 0.5),
        ("batch_tokens", 300),
        ("gradient_accumulation", 2),
        pytest.param("precision", "bf16", marks=pytest.mark.bf16),
        ("coverage_loss_weight", 1.0),
        ("r_drop_alpha", 1.0),
    ],
)
def test_every_train_option_reaches_the_update(make: Make, option: str, value: object) -> None:
    weights = []
    for name, changes in (("a", {}), ("b", {option: value})):
        model = fit(make(name, max_updates=4, valid_every=100, **changes)).model
        weights.append(torch.cat([tensor.flatten() for tensor in model.state_dict().values()]))
    assert not torch.equal(*weights)


def test_coverage_loss_spreads_attention(make: Make) -> None:
    """With a large weight a model attends less to tokens that it has attended to before."""

    def repeated(trainer: Trainer) -> float:
        total, num_tokens = 0.0, 0
        trainer.model.eval()
        for batch in trainer.batches.epoch(0):
            with torch.no_grad():
                _, record = trainer.model(batch.source, batch.source_mask, batch.inputs, attention=True)
            assert record is not None
            for matrix, labels in zip(record.cross[:, 0, 0], batch.labels, strict=True):
                coverage = torch.zeros(matrix.size(1))
                for row in matrix[labels != PAD]:
                    total += float(torch.minimum(row, coverage).sum())
                    coverage += row
                    num_tokens += 1
        return total / num_tokens

    fast = OptimConfig(learning_rate=0.1, warmup_updates=4, schedule="constant")
    options = {"optim": fast, "dropout": 0.0, "max_updates": 60, "valid_every": 1000, "log_every": 1}
    without, trainer = (
        fit(make(name, coverage_loss_weight=weight, **options)) for name, weight in (("a", 0.0), ("b", 5.0))
    )
    assert repeated(trainer) < 0.7 * repeated(without)
    logged = [row["coverage_loss"] for row in rows(trainer) if "coverage_loss" in row]
    assert len(logged) == 60
    assert logged[0] == pytest.approx(repeated(make("untrained")), rel=0.1)  # of one batch, and of all
    assert logged[-1] == pytest.approx(repeated(trainer), rel=0.1)


class Gated(torch.nn.Module):
    """Two heads with a learned gate, and an inner module with learned scalars."""

    def __init__(self, gate: list[float], inner: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.gate, self.inner = torch.nn.Parameter(torch.tensor(gate)), inner

    def learned_scalars(self) -> dict[str, torch.Tensor]:
        return {"gate": self.gate.sigmoid()}


def test_learned_scalars_are_logged_at_validations(make: Make) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = make(max_updates=5, ema_decay=0.5)
    assert trainer.model.learned_scalars() == {}
    trainer.model.decoder.add_module("one", Gated([0.0, 50.0], inner=Gated([1.0])))
    trainer.model.decoder.add_module("oneness", Gated([0.0]))
    fit(trainer)
    expected = {"decoder.one.gate": [0.5, 1.0], "decoder.oneness.gate": [0.5]}
    assert trainer.model.learned_scalars() == expected
    assert [row["learned_scalars"] for row in rows(trainer) if "valid_loss" in row] == [expected] * 2
    assert not any("learned_scalars" in row for row in rows(trainer) if "loss" in row)
    events = EventAccumulator(str(trainer.directory / "tensorboard"))
    events.Reload()
    tags = [f"z_diagnostics/learned_scalars/decoder.one.gate/{head}" for head in (1, 2)]
    assert set(tags) < set(events.Tags()["scalars"])
    assert [(event.step, event.value) for event in events.Scalars(tags[1])] == [(4, 1.0), (5, 1.0)]
    assert "svg" in training_curves(logger.read_metrics(trainer.directory / "metrics.jsonl"))  # without them


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_half_precisions_follow_fp32(make: Make, half: str) -> None:
    losses = []
    for precision in ("fp32", half):
        trainer = fit(make(precision, precision=precision, max_updates=60, valid_every=1000, dropout=0.0))
        losses.append([row["loss"] for row in rows(trainer) if "loss" in row])
    assert losses[0][-1] < losses[0][0] - 0.5
    assert max(abs(a - b) for a, b in zip(*losses, strict=True)) < 0.05


class Overflowing:
    """An objective whose gradient does not fit into fp32 in some updates, although its losses are finite."""

    def __init__(self, trainer: Trainer, updates: Iterable[int]) -> None:
        self.trainer, self.objective, self.updates = trainer, trainer.objective, set(updates)
        self.names = trainer.objective.names

    def __call__(self, model: Any, batch: Any, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
        loss, losses = self.objective(model, batch, precision)
        return loss * (1e38 if self.trainer.progress.update in self.updates else 1), losses


def overflowing(trainer: Trainer, *updates: int) -> Trainer:
    trainer.objective = Overflowing(trainer, updates)  # type: ignore[assignment]
    return trainer


def test_an_overflow_in_fp16_halves_the_scale_and_changes_no_weight(make: Make) -> None:
    """Nor is it a divergence, however often in a row; it is counted among the skipped updates."""
    options: dict[str, Any] = {"precision": "fp16", "max_updates": 16, "valid_every": 100, "log_every": 4}
    trainer = overflowing(make(**options), *range(2, 14))
    weights, scales = [], []
    step = trainer.step

    def recorded_step(batches: Any) -> Any:
        result = step(batches)
        weights.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})
        scales.append(trainer.scaler.get_scale())
        return result

    trainer.step = recorded_step  # type: ignore[method-assign]
    fit(trainer)
    same = [all(torch.equal(tensor, new[name]) for name, tensor in old.items()) for old, new in pairwise(weights)]
    assert same == [True] * 12 + [False] * 3
    assert scales == [65536.0 / 2 ** min(max(update - 1, 0), 12) for update in range(1, 17)]
    assert trainer.guard.skip_counts() == (12, 0)
    logged = [(row["gradient_scale"], row["updates_skipped"]) for row in rows(trainer) if "learning_rate" in row]
    assert logged == [(2.0**13, 3), (2.0**9, 7), (2.0**5, 11), (2.0**4, 12)]
    off = overflowing(make("off", on_divergence="off", **options), 3)
    fit(off)
    assert all(tensor.isfinite().all() for tensor in off.model.state_dict().values())
    assert off.scaler.get_scale() == 2.0**15
    assert "gradient_scale" not in rows(fit(make("fp32", max_updates=5)))[0]


@pytest.mark.parametrize(
    "stops", [pytest.param([3], marks=pytest.mark.slow), pytest.param([7], marks=pytest.mark.slow), [4, 5, 8]]
)
def test_fp16_continued_equals_uninterrupted(make: Make, stops: list[int]) -> None:
    """Scale and the updates since it changed are those of the uninterrupted run, also after a kill."""
    options: dict[str, Any] = {"precision": "fp16", "gradient_accumulation": 2, "log_every": 2, "ema_decay": 0.9}

    def made(name: str) -> Trainer:
        trainer = overflowing(make(name, **options), 3, 4, 9)
        trainer.scaler.set_growth_interval(3)
        return trainer

    whole = fit(made("whole"))
    assert whole.progress.scaler_state == [2.0**15, 2.0]
    for update in stops:
        fit(made("pieces"), StopAfter(update))
    killed = made("pieces")
    kill(killed, "step", lambda trainer, _: trainer.progress.update == 12)
    resumed = fit(made("pieces"))
    assert rows(resumed) == rows(whole)
    assert_same_checkpoints(resumed, whole)


def test_accumulated_batches_in_fp16_are_those_of_fp32(make: Make) -> None:
    """The scale is taken out of the gradient before it is clipped: neither its norm nor the weights show it."""
    results = []
    for precision in ("fp32", "fp16"):
        optim = OptimConfig(learning_rate=1e-3, epsilon=1e-4, warmup_updates=2, clip_norm=0.05)
        trainer = make(precision, precision=precision, dropout=0.0, gradient_accumulation=3, optim=optim)
        group = list(trainer.batches.epoch(0))[:3]
        norms = [trainer.step(group)[1].item() for _ in range(4)]
        results.append((norms, torch.cat([tensor.flatten() for tensor in trainer.model.parameters()])))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-2)
    assert min(results[0][0]) > 0.05  # so it is clipped
    torch.testing.assert_close(results[1][1], results[0][1], atol=2e-4, rtol=0)


def test_after_a_rollback_the_scale_begins_anew(make: Make) -> None:
    options = {"precision": "fp16", "on_divergence": "rollback", "max_updates": 16, "save_every": 5, "valid_every": 99}
    trainer = poisoned(make(**options), range(6, 16))  # a loss that is not finite halves the scale too
    assert fit(trainer).guard.rollbacks == 1
    assert trainer.scaler.get_scale() == 65536.0


def test_a_state_of_the_scaler_with_too_few_numbers() -> None:
    with pytest.raises(ValueError, match=r"position.scaler_state=\[1.0\]: two numbers are needed"):
        build_scaler(CPU, "fp16", [1.0])
    assert build_scaler(CPU, "fp16", [8.0, 5.0]).state_dict()["_growth_tracker"] == 5
    assert not build_scaler(CPU, "bf16", [8.0, 5.0]).is_enabled()


def test_a_rank_gets_its_share_of_each_batch(make: Make) -> None:
    trainer = make(gradient_accumulation=2)
    whole = next(trainer._updates(MetricAccumulator(trainer.objective.names)))
    trainer.progress, trainer.distributed = TrainProgress(), DistributedContext(rank=1, size=3)
    for share, batch in zip(next(trainer._updates(MetricAccumulator(()))), whole, strict=True):
        assert share.indices.tolist() == batch.indices[1::3].tolist()
        assert share.num_tokens == batch.num_tokens


def test_the_peak_memory_is_that_of_the_run_s_device(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[torch.device] = []
    monkeypatch.setattr(logger, "reset_peak_memory", devices.append)
    trainer = make(max_updates=1)
    fit(trainer)
    assert devices == [trainer.device]


def test_compilations_are_told_in_the_log(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("nmt"), "propagate", True)
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    trainer = make(max_updates=6, log_every=1, valid_every=100)
    trainer.config = dataclasses.replace(trainer.config, compile=True)
    trainer._num_graphs = before
    step = trainer.step

    def compiling_step(batches: Any) -> Any:
        graphs["unique_graphs"] += {2: 3, 5: 1}.get(trainer.progress.update + 1, 0)
        return step(batches)

    trainer.step = compiling_step  # type: ignore[method-assign]
    with caplog.at_level("INFO"):
        fit(trainer)
    graphs["unique_graphs"] = before
    lines = dict.fromkeys(line for line in caplog.messages if "torch.compile" in line)
    assert list(lines) == ["torch.compile made 3 graphs by update 2", "torch.compile made 1 graphs by update 5"]


def test_tensorboard_gets_scalars_texts_and_figures(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("nmt.training.validation.NUM_SAMPLES", 3)
    trainer = fit(make())
    events = EventAccumulator(str(trainer.directory / "tensorboard"), {"histograms": 0})
    events.Reload()
    tags = events.Tags()
    first = [tag for tag in sorted(tags["scalars"]) if tag.startswith(("train/", "valid/"))]
    assert sorted(tags["scalars"])[: len(first)] == first  # the groups that TensorBoard opens
    valid = ["aer", "bleu", "chrf", "loss", "perplexity"]
    assert first == ["train/learning_rate", "train/loss", *(f"valid/{name}" for name in valid)]
    assert {"z_diagnostics/tokens_per_second", "z_diagnostics/gradient_norm"} <= set(tags["scalars"])
    assert all(tag.startswith("z_diagnostics/") for tag in tags["images"] + events.Tags()["histograms"])
    assert {f"z_diagnostics/attention/{i}" for i in (1, 2, 3)} == set(tags["images"])
    measured = [row["update"] for row in rows(trainer) if "entropy" in row]
    # the model is as it was at the last validation
    validation, diagnostics = trainer.validation, DiagnosticsAccumulator()
    assert validation is not None
    pairs = validation.pairs[:NUM_MEASURED]
    for pair in next(Aligner(validation.translator, AlignmentConfig(), AlignmentSource()).align(pairs)):
        diagnostics.add(pair.weights, pair.source_subwords, pair.source)
    result = diagnostics.result()
    assert result is not None
    last = [row for row in rows(trainer) if "attention" in row][-1]
    assert last["update"] == trainer.progress.update
    assert set(last["attention"]) == set(TENSORBOARD_MEASURES)  # without the agreement of heads: there is one
    for name in TENSORBOARD_MEASURES:
        np.testing.assert_allclose(last["attention"][name], result.measures[name], atol=1e-4)
        assert [event.step for event in events.Scalars(f"z_diagnostics/{name}/layer_1/head_1")] == measured
    assert measured == [row["update"] for row in rows(trainer) if "valid_loss" in row]
    assert [event.step for event in events.Histograms("z_diagnostics/entropy/layer_1/head_1/rows")] == measured
    assert {f"sample/{i}/text_summary" for i in (1, 2, 3)} <= set(tags["tensors"])
    (text,) = events.Tensors("sample/1/text_summary")[0].tensor_proto.string_val
    lines = text.decode().split("\n")  # indented, so that nothing in them is Markdown
    assert [line.split(":")[0] for line in lines] == ["    source", "    reference", "    hypothesis"]
    logged = {row["update"]: row["loss"] for row in rows(trainer) if "loss" in row}
    assert {e.step: pytest.approx(e.value, rel=1e-5) for e in events.Scalars("train/loss")} == logged


def test_metrics_rows_are_complete_json(make: Make) -> None:
    trainer = fit(make())
    text = (trainer.directory / "metrics.jsonl").read_text()
    for line in text.rstrip("\n").split("\n"):
        row = json.loads(line)
        assert {"update"} < set(row)
        assert all(math.isfinite(value) for name, value in row.items() if name not in ("entropy", "attention"))
    train = next(row for row in map(json.loads, text.split("\n")[:-1]) if "loss" in row)
    assert set(train) == {
        *("update", "epoch", "loss", "perplexity", "learning_rate", "gradient_norm"),
        *("tokens_per_second", "peak_memory_mb"),
    }


def test_copying_is_learned(tmp_path: Path) -> None:
    """Training end to end on a task whose answer and alignment are known: copying a sentence of symbols."""
    generator = torch.Generator().manual_seed(0)
    lines = [
        " ".join(f"w{i}" for i in torch.randint(0, 12, (int(length),), generator=generator).tolist())
        for length in torch.randint(2, 8, (500,), generator=generator)
    ]
    for split, chosen in (("train", lines[:450]), ("valid", lines[450:])):
        for suffix in ("en", "de"):
            (tmp_path / f"{split}.{suffix}").write_text("".join(f"{line}\n" for line in chosen))
        links = (" ".join(f"{i}-{i}" for i in range(len(line.split()))) for line in chosen)
        (tmp_path / f"{split}.gold").write_text("".join(f"{line}\n" for line in links))
    config = DataConfig(
        format="text",
        train=str(tmp_path / "train"),
        valid=str(tmp_path / "valid"),
        cache_dir=str(tmp_path / "cache"),
        tokenizer=TokenizerConfig(type="word", vocab_size=50),
    )
    tokenizer: Tokenizer = train_or_load_tokenizer(config)
    torch.manual_seed(1)
    model_config = RNNConfig(
        embedding_dim=32, hidden_size=64, dropout=0.0, attention=AttentionConfig(score="scaled", dim=32)
    )
    model = build_model(model_config, tokenizer.source_size, tokenizer.target_size, joint=True)
    translator = Translator(model, tokenizer, SearchConfig(beam_size=2), CPU)
    valid = EvaluationSet.read(config, "valid")
    train = TrainConfig(
        max_updates=500, batch_tokens=600, valid_every=500, log_every=100, label_smoothing=0.0, precision="fp32"
    )
    batches = [BatchLoader(load_corpus(config, s, tokenizer), tokenizer, 600, 1) for s in ("train", "valid")]
    trainer = Trainer(
        model,
        batches[0],
        Validator(translator, batches[1], valid.pairs, valid.gold, MetricsConfig(tokenize="none")),
        train,
        OptimConfig(learning_rate=0.01, warmup_updates=20, schedule="cosine"),
        seed=1,
        device=CPU,
        directory=tmp_path / "run",
        header={"config": {}, "tokenizer": tokenizer.state_dict()},
    )
    fit(trainer)
    (outcome,) = [row for row in rows(trainer) if "valid_bleu" in row]
    assert outcome["valid_bleu"] > 95
    assert outcome["valid_aer"] < 0.1
    assert outcome["valid_perplexity"] < 1.1
    assert valid.pairs[0] == SentencePair(lines[450], lines[450])


def test_a_terminal_shows_a_bar_and_the_log_file_keeps_the_lines(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    logger = logging.getLogger("nmt")
    monkeypatch.setattr(logger, "handlers", [])
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    setup_process()
    with log_file(tmp_path / "train.log"):
        fit(make(valid_every=100))
    assert "update 5  epoch" in (tmp_path / "train.log").read_text()
    assert "update 5  epoch" not in terminal.getvalue()


@pytest.mark.parametrize("best", [True, False])
def test_the_mean_of_checkpoints_is_made_at_the_end(make: Make, best: bool) -> None:
    """It is validated with the weights of the mean; best.pt holds it if it is better; training weights stay."""
    trainer = make(
        max_updates=6, valid_every=2, save_every=2, keep_last_checkpoints=3, average_checkpoints="last",
        early_stopping_metric="loss",
    )  # fmt: skip
    states: list[dict[str, torch.Tensor]] = []

    def validation(model: Any, *_: Any) -> dict[str, float]:
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"loss": [3.0, 2.0, 2.5, 1.0 if best else 2.4][len(states) - 1]}

    trainer.validation = validation  # type: ignore[assignment]
    progress = fit(trainer).progress
    assert len(states) == 4
    held = checkpoint.load(trainer.best)["model"]
    for name, tensor in trainer.model.state_dict().items():
        mean = torch.stack([state[name] for state in states[:3]]).mean(0)
        torch.testing.assert_close(states[3][name], mean, atol=1e-6, rtol=1e-5)
        assert torch.equal(held[name], states[3 if best else 1][name])
        assert torch.equal(tensor, states[2][name])
    assert (progress.best_score, progress.best_update) == ((1.0, 6) if best else (2.0, 4))
    assert progress.best_averaged_updates == ([2, 4, 6] if best else [])
    assert checkpoint.load(trainer.last)["position"]["last_averaged"] == progress.last_averaged == 6
    assert [row["update"] for row in rows(trainer) if "averaged_loss" in row] == [6]
    again = make(
        max_updates=6, valid_every=2, save_every=2, keep_last_checkpoints=3, average_checkpoints="last",
        early_stopping_metric="loss",
    )  # fmt: skip
    again.validation = validation  # type: ignore[assignment]
    assert fit(again).progress == progress
    assert len(states) == 4  # nothing is left to do


def test_no_mean_of_checkpoints_is_made_unless_asked_for(make: Make) -> None:
    """Also where there are several best models that could be averaged."""
    trainer = make(max_updates=4, valid_every=2, save_every=2, keep_best_checkpoints=3, early_stopping_metric="loss")
    validated: list[int] = []
    trainer.validation = lambda model, records, update, *_: validated.append(update) or {"loss": 1.0}  # type: ignore
    progress = fit(trainer).progress
    assert validated == [2, 4]
    assert progress.last_averaged == 0
    assert not [row for row in rows(trainer) if "averaged_loss" in row]


def test_a_plateau_of_the_validation_loss_lowers_the_learning_rate(make: Make) -> None:
    """The rate of every update follows the losses of the validations before it, also in a continued run."""
    optim = OptimConfig(
        schedule="plateau", learning_rate=0.01, warmup_updates=0, plateau_factor=0.5, plateau_patience=0
    )
    rates: dict[int, float] = {}

    def recorded(trainer: Trainer) -> Trainer:
        losses = {2: 2.0, 4: 3.0, 6: 1.0, 8: 1.0, 10: 0.5}
        trainer.validation = lambda model, records, update, *_: {"loss": losses[update], "bleu": 1.0}  # type: ignore[assignment]
        step = trainer.step

        def recorded_step(batches: Any) -> Any:
            result = step(batches)
            rates[trainer.progress.update] = trainer.optimizer.param_groups[0]["lr"]
            return result

        trainer.step = recorded_step  # type: ignore[method-assign]
        return trainer

    fit(recorded(make(optim=optim, max_updates=10, valid_every=2)), StopAfter(5))
    assert max(rates) == 5
    fit(recorded(make(optim=optim, max_updates=10, valid_every=2)))
    factors = {1: 1, 2: 1, 3: 1, 4: 1, 5: 0.5, 6: 0.5, 7: 0.5, 8: 0.5, 9: 0.25, 10: 0.25}
    assert rates == pytest.approx({update: 0.01 * factor for update, factor in factors.items()})


def test_ranks_draw_different_dropout(make: Make) -> None:
    """The same rows give other losses on another rank and in another update, and equal ones where they are repeated."""

    def loss(name: str, rank: int, *, update: int = 1, dropout: float = 0.3) -> float:
        trainer = make(name, dropout=dropout)
        trainer.distributed = DistributedContext(rank=rank)
        trainer.progress.update = update - 1
        losses, _, _ = trainer.step(list(trainer.batches.epoch(0))[:1])
        return losses[0].item()

    drawn = [loss(f"{rank}-{update}", rank, update=update) for rank in range(3) for update in (1, 2)]
    assert len(set(drawn)) == 6
    assert loss("again", 2, update=2) == drawn[-1]
    assert len({loss(f"without {rank}", rank, dropout=0.0) for rank in range(3)}) == 1


def test_a_mean_of_too_few_is_not_tried_again(make: Make) -> None:
    options = {"max_updates": 2, "valid_every": 2, "save_every": 2, "average_checkpoints": "last"}
    progress = fit(make(**options)).progress
    assert progress.last_averaged == 2
    assert checkpoint.load(make(**options).last)["position"]["last_averaged"] == 2
    assert [row["update"] for row in rows(make(**options)) if "averaged_loss" in row] == []


def test_the_validation_loss_is_that_of_the_model_without_dropout(make: Make) -> None:
    """By torch's own cross-entropy, over all tokens of the set; afterwards the model is in training mode again."""
    trainer = make(dropout=0.5)
    assert isinstance(trainer.validation, Validator)
    loss = trainer.validation.loss(trainer.model, "fp32")
    assert trainer.model.training
    assert trainer.validation.loss(trainer.model, "fp32") == loss
    trainer.model.eval()
    total, num_tokens = 0.0, 0
    with torch.no_grad():
        for batch in trainer.validation.batches.epoch(0):
            logits, _ = trainer.model(batch.source, batch.source_mask, batch.inputs)
            labels = batch.labels
            total += torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), labels, ignore_index=PAD, reduction="sum"
            ).item()
            num_tokens += int((labels != PAD).sum())
    assert loss == pytest.approx(total / num_tokens, rel=1e-5)


def test_checkpoints_are_saved_where_they_are_due_and_at_a_stop(make: Make) -> None:
    saved: list[tuple[int, int]] = []

    def recorded(trainer: Trainer) -> Trainer:
        save = trainer.save

        def recorded_save(*arguments: Any, **named: Any) -> None:
            save(*arguments, **named)
            saved.append((trainer.progress.update, checkpoint.load(trainer.last)["position"]["update"]))

        trainer.save = recorded_save  # type: ignore[method-assign]
        trainer.validation = lambda *_: {"loss": 1.0, "bleu": 1.0}  # type: ignore[assignment]
        return trainer

    fit(recorded(make(max_updates=10, save_every=3)), StopAfter(5))
    assert saved == [(3, 3), (5, 5)]
    saved.clear()
    fit(recorded(make(max_updates=10, save_every=3)))
    assert saved == [(6, 6), (9, 9), (10, 10), (10, 10)]  # the end, and once more after its validation


def test_ranks_that_see_other_checkpoints_are_an_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DistributedContext, "all_gather", lambda self, numbers: [list(numbers), [7.0]])
    with pytest.raises(ValueError, match=r"run: not all ranks see the same checkpoints; runs= must be a folder that"):
        make()
