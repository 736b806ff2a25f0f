"""Whole updates of the trainer on pretended CUDA: weights as on the CPU, no waits, and a budget of launches."""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pretended_cuda as cuda
import torch
from cases import VOCABULARY, attention, config, model
from kernels import pretend
from report import run_checks
from torch import Tensor

from nmt.data import (
    AlignmentTargets,
    Batch,
    DataConfig,
    TokenizerConfig,
    batch_to_device,
    collate,
    load_corpus,
    train_or_load_tokenizer,
)
from nmt.data.batching import BatchLoader
from nmt.data.synthetic.dataset import SyntheticConfig
from nmt.evaluation.metrics import MetricsConfig
from nmt.evaluation.results import EvaluationSet
from nmt.inference.translator import Translator
from nmt.models import build_model
from nmt.search import SearchConfig
from nmt.training.losses import cross_entropy, output_cross_entropy, symmetric_kl
from nmt.training.objective import LossConfig, TrainingObjective
from nmt.training.optim import OptimConfig
from nmt.training.signals import GracefulShutdown
from nmt.training.trainer import TrainConfig, Trainer
from nmt.training.validation import Validator

PAIRS, LENGTH = 8, 12
"""A batch: sentences of this many tokens, some one shorter. Launches of a loop grow with the length."""

MODELS: dict[str, Any] = {
    "transformer": config("transformer", decoder_layers=2, encoder_layers=2),
    "transformer, additive": config("transformer", attention=attention("additive")),
    "luong lstm": config("rnn", cell="lstm", decoder="luong", attention=attention("additive")),
    "luong gru, local_p": config("rnn", cell="gru", decoder="luong", attention=attention(heads=1, window="local_p")),
    "input_feeding gru": config("rnn", cell="gru", decoder="input_feeding", attention=attention("additive")),
    "bahdanau lstm, coverage": config("rnn", decoder="bahdanau", attention=attention("additive", coverage=True)),
    "rnn_transformer, entmax15": config("rnn_transformer", attention=attention("hybrid", normalizer="entmax15")),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulation, ema, guard": {"gradient_accumulation": 2, "ema_decay": 0.9, "max_grad_norm_ratio": 5.0},
    "every loss": {
        "coverage_loss_weight": 0.1, "guided_alignment_weight": 0.5, "r_drop_alpha": 1.0, "word_dropout": 0.2,
        "target_word_dropout": 0.2,
    },
}  # fmt: skip
BUDGETS: dict[str, tuple[int, ...]] = {
    "transformer": (520, 1087, 697),
    "transformer, additive": (487, 1006, 609),
    "luong lstm": (233, 443, 350),
    "luong gru, local_p": (277, 530, 383),
    "input_feeding gru": (1131, 2241, 1263),
    "bahdanau lstm, coverage": (1317, 2614, 1449),
    "rnn_transformer, entmax15": (531, 1085, 653),
}
"""Launches of an update in bf16 for each of OPTIONS, measured on 2026-11-29 and a tenth added; to be lowered."""
LOSS_BUDGET = 10
"""Launches of a loss and its gradient, for any number of tokens that fits into one chunk."""


def batches(number: int) -> list[Batch]:
    """Return batches of an equal shape, with word alignments."""
    generator = torch.Generator().manual_seed(number)
    made = []
    for _ in range(number):
        sides = [
            [torch.randint(4, VOCABULARY, (LENGTH - row % 2,), generator=generator).tolist() for row in range(PAIRS)]
            for _ in range(2)
        ]
        links = torch.stack([torch.arange(PAIRS).repeat(2), torch.arange(2 * PAIRS) % 5, torch.arange(2 * PAIRS) % 7])
        made.append(collate(*sides)._replace(links=AlignmentTargets(links, torch.full((2 * PAIRS,), 0.5))))
    return made


def pinned(batch: Batch) -> Batch:
    """Return a batch as `BatchLoader` makes it for a GPU."""
    assert batch.links is not None
    links = AlignmentTargets(*(tensor.pin_memory() for tensor in batch.links))
    return Batch(*(tensor.pin_memory() for tensor in batch[:5]), *batch[5:7], links)


def trainer(name: str, options: dict[str, Any], precision: str, device: torch.device) -> Trainer:
    made = model(MODELS[name]).to(device).train()
    return Trainer(
        made,
        cast(BatchLoader, None),
        None,
        TrainConfig(max_updates=8, precision=precision, **options),
        OptimConfig(warmup_updates=2, learning_rate=0.01, epsilon=1e-2),  # no gradient of rounding alone moves a weight
        seed=3,
        device=device,
        directory=Path("unused"),
        header={},
    )


def updates(trained: Trainer, number: int, device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """Make updates; yield what each returns."""
    accumulated = trained.config.gradient_accumulation
    data = batches(number * accumulated)
    if device.type == "cuda":
        data = [pinned(batch) for batch in data]
    for first in range(0, len(data), accumulated):
        yield trained.step(data[first : first + accumulated])


def check_updates(name: str, option: str, counted: dict[str, Any]) -> None:
    """Hold three updates in fp32 equal to those on a CPU, and the third in bf16 to its budget, without waits."""
    options, cpu = OPTIONS[option], torch.device("cpu")
    here = trainer(name, options, "fp32", cpu)
    losses = list(updates(here, 3, cpu))
    with cuda.device():
        pretend(triton=True)
        there = trainer(name, options, "fp32", cuda.CUDA)
        found = list(updates(there, 3, cuda.CUDA))
        torch.testing.assert_close(cuda.values(found), losses, rtol=1e-3, atol=1e-4)
        weights = [[cuda.values(p).detach() for p in made.model.parameters()] for made in (there, here)]
        torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
        low = trainer(name, options, "bf16", cuda.CUDA)
        steps = updates(low, 3, cuda.CUDA)
        next(steps), next(steps)
        with cuda.counted() as counts:
            next(steps)
        counted[f"{name}: {option}"] = counts.launches.total()
        assert not counts.waits, counts.summary()
        budget = BUDGETS[name][list(OPTIONS).index(option)]
        assert counts.launches.total() <= budget, f"{counts.launches.total()} launches, {budget} are allowed"


def check_loss(name: str, counted: dict[str, Any]) -> None:
    """Hold a loss on 2,000 tokens and its gradient to the budget; its value and gradient equal the CPU's."""
    torch.manual_seed(0)
    layer, features = torch.nn.Linear(8, VOCABULARY), torch.randn(2000, 8)
    labels = torch.randint(1, VOCABULARY, (2000,))
    functions: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
        "cross_entropy": lambda layer, x, labels: cross_entropy(layer(x), labels, smoothing=0.1)[0],
        "output_cross_entropy": lambda layer, x, labels: output_cross_entropy(layer, x, labels, smoothing=0.1)[0],
        "symmetric_kl": lambda layer, x, labels: symmetric_kl(layer(x)),
    }
    wanted = functions[name](layer, features, labels)
    wanted_grads = torch.autograd.grad(wanted, list(layer.parameters()))
    with cuda.device():
        pretend(triton=True)
        there, x, ids = layer.to("cuda"), features.cuda(), labels.cuda()
        with cuda.counted() as counts:
            found = functions[name](there, x, ids)
            grads = torch.autograd.grad(found, list(there.parameters()))
    torch.testing.assert_close(cuda.values(found), wanted.detach(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(cuda.values(grads), wanted_grads, rtol=1e-3, atol=1e-3)
    counted[name] = counts.launches.total()
    assert not counts.waits, counts.summary()
    layer_itself = 0 if name == "output_cross_entropy" else 4  # a product forward, two backward and the bias
    assert counts.launches.total() <= LOSS_BUDGET + layer_itself, f"{counts.launches.total()} launches: {counts}"


def check_precision(cell: str) -> None:
    """In bf16 no recurrent layer computes in fp16, and gradients of a loss of 1e-7 are as of one of 1."""
    made = model(config("rnn", cell=cell, decoder="luong")).train()
    pairs = batches(1)[0]
    gradients = []
    with cuda.device():
        pretend(triton=True)
        made.to("cuda")
        moved = batch_to_device(pairs, cuda.CUDA)
        objective = TrainingObjective(LossConfig(), fused=True)
        for scale in (1.0, 1e-7):
            with cuda.counted() as counts:
                loss, _ = objective(made, moved, "bf16")
                grads = torch.autograd.grad(scale * loss / pairs.num_tokens, list(made.encoder.parameters()))
            gradients.append([cuda.values(grad).double() / scale for grad in grads])
            assert not any("float16" in name.split() for name in counts.launches), counts.launches
    for small, grad in zip(gradients[1], gradients[0], strict=True):
        assert (small - grad).norm() <= 0.02 * grad.norm(), (small.norm(), grad.norm())


def check_other_precision(name: str, precision: str, counted: dict[str, Any]) -> None:
    """Updates in a precision that a CPU may not have are near those in fp32, and wait for nothing."""
    losses = []
    with cuda.device():
        pretend(triton=True)
        for each in ("fp32", precision):
            trained = trainer(name, OPTIONS["plain"], each, cuda.CUDA)
            with cuda.counted() as counts:
                losses.append([float(cuda.values(loss)[0]) for loss, *_ in updates(trained, 4, cuda.CUDA)])
            assert not counts.waits, counts.summary()
    counted[f"{name}, four updates in {precision}"] = counts.launches.total()
    for found, expected in zip(*losses, strict=True):
        assert abs(found - expected) <= 0.02 * expected, losses


def check_run(cell: str, *, stop_early: bool) -> None:
    """Run the trainer from its data to validation, checkpoints and back from them."""
    with tempfile.TemporaryDirectory() as folder, cuda.device():
        pretend(triton=True)
        data = DataConfig(
            synthetic=SyntheticConfig(train=80, valid=4, test=2, long=2),
            cache_dir=f"{folder}/cache",
            tokenizer=TokenizerConfig(type="word", vocab_size=3000),
        )
        tokenizer = train_or_load_tokenizer(data)
        sizes = tokenizer.source_size, tokenizer.target_size
        valid = EvaluationSet.read(data, "valid")
        options = TrainConfig(
            max_updates=6, batch_tokens=300, log_every=2, valid_every=3, save_every=3, precision="bf16", ema_decay=0.9,
            valid_bleu_sentences=2,
        )  # fmt: skip

        def made(updates: int) -> Trainer:
            torch.manual_seed(3)
            fresh = build_model(config("rnn", cell=cell, attention=attention("additive")), *sizes, joint=True).to(
                "cuda"
            )
            corpora = [load_corpus(data, split, tokenizer) for split in ("train", "valid")]
            loaders = [BatchLoader(corpus, tokenizer, 300, 3, device=cuda.CUDA, prefetch=0) for corpus in corpora]
            translator = Translator(fresh, tokenizer, SearchConfig(beam_size=2, max_length_offset=2), cuda.CUDA)
            directory = Path(folder, "run")
            directory.mkdir(exist_ok=True)
            return Trainer(
                fresh,
                loaders[0],
                Validator(translator, loaders[1], valid.pairs, valid.gold, MetricsConfig()),
                dataclasses.replace(options, max_updates=updates),
                OptimConfig(warmup_updates=2, learning_rate=0.01),
                seed=3,
                device=cuda.CUDA,
                directory=directory,
                header={"config": {}, "tokenizer": tokenizer.state_dict()},
            )

        first = made(3 if stop_early else 6)
        with cuda.counted() as counts:  # batches of the loader are pinned
            for batch in islice(first.batches.epoch(1), 2):
                first.step([batch])
        assert not counts.waits, counts.summary()
        first.progress.update = 0
        first.fit(GracefulShutdown())
        again = made(6)
        assert again.progress.update == first.progress.update
        again.fit(GracefulShutdown())
        assert again.progress.update == 6, again.progress
        weights = np.concatenate([cuda.values(p).numpy().ravel() for p in again.model.parameters()])
        assert np.isfinite(weights).all()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="two models, every option once, and the losses")
    options = parser.parse_args()
    torch.set_num_threads(1)
    counted: dict[str, Any] = {}
    names = ["transformer", "input_feeding gru"] if options.fast else list(MODELS)
    checks: dict[str, Callable[[], None]] = {}
    for name in names:
        for option in OPTIONS:
            checks[f"update {name}: {option}"] = lambda n=name, o=option: check_updates(n, o, counted)
    for loss in ("cross_entropy", "output_cross_entropy", "symmetric_kl"):
        checks[f"loss {loss}"] = lambda loss=loss: check_loss(loss, counted)
    for cell in ("lstm", "gru"):
        checks[f"precision {cell}"] = lambda cell=cell: check_precision(cell)
    for precision in ("tf32", "fp16"):
        for name in names[:: 3 if options.fast else 1]:
            label = f"update in {precision}: {name}"
            checks[label] = lambda n=name, p=precision: check_other_precision(n, p, counted)
    if not options.fast:
        for cell, stop_early in (("lstm", True), ("gru", False)):
            checks[f"run {cell}"] = lambda c=cell, s=stop_early: check_run(c, stop_early=s)
    run_checks(checks, launches=lambda: counted)


if __name__ == "__main__":
    main()
