"""python -m nmt.train: trains a model in a run directory and evaluates its best checkpoint."""

import contextlib
import dataclasses
import logging
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from nmt import checkpoint, models
from nmt.attention import NONE
from nmt.cli.compose import command, save_yaml, to_yaml
from nmt.cli.configs import Config
from nmt.cli.run_directory import check_continuation, clean, command_line, texts
from nmt.data import (
    SOURCES,
    Batches,
    Corpus,
    DataConfig,
    Pair,
    Tokenizer,
    attach,
    load_tokenizer,
    locations,
    more_tests,
    prepare,
)
from nmt.data.batch_sampler import longest
from nmt.data.preprocessing import counts
from nmt.data.sources import read_location
from nmt.evaluation import evaluator
from nmt.evaluation.evaluator import EvaluationSet
from nmt.evaluation.report.page import SplitReport
from nmt.inference.translator import Translator
from nmt.models.flops import on_meta
from nmt.models.parameter_matching import matched
from nmt.options import to_primitive
from nmt.runtime.device import resolve_device
from nmt.runtime.files import locked, remove_leftovers, write_text
from nmt.runtime.logs import log_file
from nmt.runtime.process import setup_process
from nmt.training import auto_batch_size, distributed, launcher, logger
from nmt.training.config import AUTO
from nmt.training.distributed import Ranks
from nmt.training.signals import StopSignal
from nmt.training.trainer import Trainer
from nmt.training.validation import Validation

log = logging.getLogger("nmt.train")


class Prepared(NamedTuple):
    """What a run needs before there is a model."""

    config: Config  # with matched widths, and the batch size of the run that is continued
    tokenizer: Tokenizer
    corpora: dict[str, Corpus]
    valid: EvaluationSet
    tests: list[EvaluationSet]
    notes: list[str]  # sentences about what was chosen for the user


def main(config: Config, overrides: list[str]) -> None:
    """Trains and evaluates; continues a run that was interrupted. Exits with 128 + N when signal N stopped it."""
    kind = resolve_device(config.device).type
    if config.train.devices > 1 and not distributed.is_rank():
        distributed.check_devices(config.train.devices, kind)
        launcher.run(main, (config, overrides), config.train.devices)
        return
    ranks = distributed.join(config.train.devices, kind)
    with launcher.missing_ranks(ranks.size > 1):
        setup_process(ranks.threads(config.threads))
        if not ranks.is_first:
            logging.getLogger("nmt").setLevel(logging.CRITICAL)  # the first one speaks for all
        device = ranks.device(resolve_device(config.device))
        directory = Path(config.runs) / str(config.name)
        begun = checkpoint.stamp(directory / "checkpoints")
        with ranks.in_turn():
            prepared = _prepare(config)
        config, tokenizer, corpora = prepared.config, prepared.tokenizer, prepared.corpora
        torch.manual_seed(config.seed)
        model = models.build(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
        model.to(device)
        if config.train.batch_tokens == AUTO:
            found = auto_batch_size.largest(model, corpora["train"], config.train, device, ranks)
            config = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_tokens=found))
            prepared.notes.append(f"train.batch_tokens=auto: {found} tokens, as much as the memory holds")
        given = command_line("train", overrides)
        with _owned(directory, begun, ranks), StopSignal(ranks.size > 1) as stop:
            trainer = Trainer(
                model,
                Batches(corpora["train"], tokenizer, config.train.batch_tokens, config.seed, device=device),
                _validation(prepared, config, model, device),
                config.train,
                config.optim,
                seed=config.seed,
                device=device,
                directory=directory,
                header={"config": to_primitive(config), "tokenizer": tokenizer.state(), "texts": texts(config)},
                ranks=ranks,
            )
            if ranks.is_first:  # and nothing has been refused
                save_yaml(config, directory / "config.yaml")
                write_text(directory / "command.txt", given + "\n")
            _introduce(trainer, prepared)
            position = trainer.fit(stop)
            if stop.requested or stop.received:  # the first rank may have been alone at the end
                name = signal.Signals(stop.received).name
                saved = "%s: saved at update %d (%s); the same command continues: %s"
                log.info(saved, name, position.update, trainer.last, given)
                raise SystemExit(128 + stop.received)
            if ranks.is_first:
                _finish(trainer, prepared._replace(config=config), given)


def _prepare(config: Config) -> Prepared:
    """Everything but the model; mistakes in any of it show now, not after training."""
    remove_leftovers(Path(config.data.cache))
    config, tokenizer, how_matched = _sized(config)
    corpora = {split: prepare(config.data, split, tokenizer) for split in ("train", "valid")}
    if config.train.guided_alignment:
        corpora["train"] = attach(config.data, corpora["train"], tokenizer)
    tests = evaluator.evaluation_sets(config.data)
    valid = EvaluationSet.read(config.data, "valid")
    if config.train.stop_metric == "aer" and valid.gold is None:
        raise ValueError(
            f"train.stop_metric=aer: the validation text {', '.join(locations(config.data, 'valid'))} has no word "
            "alignment beside it (PREFIX.gold; for one file, its name with .gold); add it, or choose bleu, chrf or loss"
        )
    prepared = Prepared(config, tokenizer, corpora, valid, tests, [how_matched] if how_matched else [])
    _check_lengths(prepared)
    return prepared


def _check_lengths(prepared: Prepared) -> None:
    """Raises ValueError when a sentence that the model will be given is longer than its learned positions."""
    config, tokenizer = prepared.config, prepared.tokenizer
    model = on_meta(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    sides = ((model.max_source, tokenizer.encode_source), (model.max_target, tokenizer.encode_target))
    for side, (most, encode) in enumerate(sides):
        if most is None:
            continue
        found = [
            (len(ids) + 1, split, row)  # with the end token
            for split, pairs in _given(prepared, side)
            for row, ids in enumerate(encode([pair[side] for pair in pairs]))
        ]
        length, split, row = max(found, key=lambda each: each[0])
        if length > most:
            raise ValueError(
                f"{_place(config.data, split, side, row)}: {length} tokens, the end token counted, are more than "
                f"model.max_positions={most}, the learned positions; raise it to {length} or more, set "
                "model.positions=sinusoidal or rotary, or take the sentence out"
            )
        for name, corpus in prepared.corpora.items():
            length = longest((corpus.source, corpus.target)[side].offsets) + 1
            corpus.release()
            if length > most:
                raise ValueError(
                    f"data.{name}: the longest {('source', 'target')[side]} has {length} tokens, the end token "
                    f"counted, more than model.max_positions={most}, the learned positions; raise it to {length} or "
                    f"more, or leave out what is longer with data.max_length={most - 1}"
                )


def _given(prepared: Prepared, side: int) -> Iterator[tuple[str, list[Pair]]]:
    """The split of each set that is evaluated, and the pairs of it whose sources (0) or targets (1) the model reads."""
    config, valid, tests = prepared.config, prepared.valid, prepared.tests
    first = config.train.valid_sentences or len(valid.pairs)
    yield "valid", valid.pairs[: max(first, config.alignment.choose_on)]
    more = more_tests(config.data)
    for split, test in zip([*["test"][: len(tests) - len(more)], *more], tests, strict=True):
        all_read = side == 0 or test.gold is not None  # else the importance of heads is all that needs references
        yield split, test.pairs if all_read else test.pairs[: config.alignment.importance_on]


def _place(data: DataConfig, split: str, side: int, row: int) -> str:
    """Where a sentence of a split stands: "text/test.de: line 3"."""
    for place in locations(data, split):
        num = sum(len(sources) for sources, _ in read_location(data, place, Counter()))
        if row < num:
            break
        row -= num
    files = SOURCES[data.kind].files(data, place)
    return f"{files[-side] if files else f'{data.path} ({place})'}: line {row + 1}"


@contextlib.contextmanager
def _owned(directory: Path, begun: object, ranks: Ranks) -> Iterator[None]:
    """The run directory is this run's own, in which the first rank writes.

    Args:
        begun: `checkpoint.stamp` of the checkpoints that the run was found to continue.

    Raises:
        ValueError: it is another's, or was in the meantime.
    """
    if not ranks.is_first:
        yield
        return
    with locked(directory), log_file(directory / "train.log"):
        if checkpoint.stamp(directory / "checkpoints") != begun:
            raise ValueError(f"{directory}: another process has trained there in the meantime; give the command again")
        clean(directory)
        yield


def _introduce(trainer: Trainer, prepared: Prepared) -> None:
    """The first lines of the log."""
    config, corpora, begin = prepared.config, prepared.corpora, trainer.position.update
    size = trainer.ranks.size
    log.info(
        "%s: %s, %d parameters, %s on %s with %d threads; %s",
        trainer.directory,
        config.model.architecture,
        sum(p.numel() for p in trainer.model.parameters()),
        trainer.precision,
        f"{size} × {trainer.device.type}" if size > 1 else trainer.device,
        torch.get_num_threads(),
        f"continues at update {begin}" if begin else f"{len(corpora['train'])} training pairs",
    )
    for note in prepared.notes:
        log.info("%s", note)
    if idle := config.idle():
        log.warning("without effect beside the other options: %s", ", ".join(idle))
    for name, corpus in corpora.items():
        # said on standard error when they were prepared; here for the run's own log file
        kept = f"{len(corpus)} of {corpus.num_read} pairs"
        changed = (counts(corpus.dropped) or "none", counts(corpus.repaired) or "none")
        log.debug("%s: %s; dropped: %s; repaired: %s", name, kept, *changed)


def _finish(trainer: Trainer, prepared: Prepared, given: str) -> None:
    """The last line, and the evaluation of the best checkpoint."""
    position, config = trainer.position, prepared.config
    best = f"best at update {position.best_update}"
    if position.best_mean:
        best = f"best is the mean of updates {', '.join(map(str, position.best_mean))}"
    minutes = position.seconds / 60
    log.info("%s after %d updates, %.1f minutes; %s", position.finished, position.update, minutes, best)
    if unusual := counts(
        {name.replace("_", " "): number for name, number in trainer.anomaly_counts().items() if number}
    ):
        log.info("in the whole run: %s", unusual)
    about = evaluator.About(
        name=str(config.name),
        command=given,
        config=to_yaml(config),
        history=logger.read(trainer.directory / "metrics.jsonl"),
        data=[_split(name, corpus) for name, corpus in prepared.corpora.items()],
        texts=trainer.header["texts"],
    )
    translator = Translator.from_checkpoint(
        checkpoint.load(trainer.best, trainer.device), config.search, trainer.device
    )
    results = evaluator.evaluate_sets(
        translator,
        config.metrics,
        prepared.tests,
        trainer.directory / "report",
        about,
        reading=config.alignment,
        data=config.data,
        carrier=trainer.best,
    )
    found = {f"{result.name}/{name}": value for result in results for name, value in result.numbers().items()}
    logger.log_hparams(trainer.directory, to_primitive(config), found, position.update)


def _sized(config: Config) -> tuple[Config, Tokenizer, str]:
    """The configuration with matched widths , the tokenizer, and a sentence about the match or "".

    Raises:
        ValueError: it would continue a run that was started with other options, or nothing matches.
    """
    found = checkpoint.newest(Path(config.runs) / str(config.name) / "checkpoints")
    begun = found.content["config"] if found is not None else None
    if begun is not None and config.train.batch_tokens == AUTO:  # measured when the run was begun
        train = dataclasses.replace(config.train, batch_tokens=begun["train"]["batch_tokens"])
        config = dataclasses.replace(config, train=train)
    if begun is not None and config.model.match == NONE:
        check_continuation(begun, to_primitive(config))  # before anything is made
    tokenizer = load_tokenizer(config.data)
    model, text = matched(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    config = dataclasses.replace(config, model=model)
    if begun is not None:  # it holds matched widths
        check_continuation(begun, to_primitive(config))
    return config, tokenizer, text


def _validation(prepared: Prepared, config: Config, model: models.Seq2Seq, device: torch.device) -> Validation:
    translator = Translator(model, prepared.tokenizer, config.search, device)
    valid = prepared.valid
    first = config.train.valid_sentences or len(valid.pairs)
    gold = valid.gold[:first] if valid.gold is not None else None
    batches = Batches(
        prepared.corpora["valid"], prepared.tokenizer, config.train.batch_tokens, config.seed, device=device
    )
    return Validation(translator, batches, valid.pairs[:first], gold, config.metrics, config.alignment)


def _split(name: str, corpus: Corpus) -> SplitReport:
    return SplitReport(name, corpus.num_read, len(corpus), corpus.dropped, corpus.repaired)


if __name__ == "__main__":
    command(main, Config, "train")
