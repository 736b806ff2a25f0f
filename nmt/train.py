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
from nmt.cli.compose import run_command, save_yaml, to_yaml
from nmt.cli.configs import Config
from nmt.cli.continuation import check_continuation, data_fingerprints
from nmt.cli.run_directory import command_line, remove_temp_files
from nmt.config import to_dict
from nmt.data import (
    SOURCES,
    BatchLoader,
    DataConfig,
    EncodedCorpus,
    SentencePair,
    Tokenizer,
    attach_alignments,
    extra_test_sets,
    load_corpus,
    resolve_split,
    train_or_load_tokenizer,
)
from nmt.data.batch_sampler import max_length
from nmt.data.preprocessing import format_counts
from nmt.data.sources import read_split_part
from nmt.evaluation import evaluator
from nmt.evaluation.evaluator import EvaluationSet
from nmt.evaluation.report.page import SplitStats
from nmt.inference.translator import Translator
from nmt.models.flops import build_on_meta
from nmt.models.parameter_matching import match_parameters
from nmt.runtime.device import resolve_device
from nmt.runtime.files import directory_lock, remove_stale_temp_files, write_text
from nmt.runtime.logs import log_file
from nmt.runtime.process import setup_process
from nmt.training import auto_batch_size, distributed, launcher, logger
from nmt.training.config import AUTO
from nmt.training.distributed import DistributedContext
from nmt.training.signals import GracefulShutdown
from nmt.training.trainer import Trainer
from nmt.training.validation import Validator

log = logging.getLogger("nmt.train")


class TrainingSetup(NamedTuple):
    """What a run needs before there is a model."""

    config: Config  # with matched widths, and the batch size of the run that is continued
    tokenizer: Tokenizer
    corpora: dict[str, EncodedCorpus]
    valid: EvaluationSet
    tests: list[EvaluationSet]
    notes: list[str]  # sentences about what was chosen for the user


def main(config: Config, overrides: list[str]) -> None:
    """Trains and evaluates; continues a run that was interrupted. Exits with 128 + N when signal N stopped it."""
    kind = resolve_device(config.device).type
    if config.train.devices > 1 and not distributed.is_launched():
        distributed.check_devices(config.train.devices, kind)
        launcher.launch_ranks(main, (config, overrides), config.train.devices)
        return
    ranks = distributed.init_distributed(config.train.devices, kind)
    with launcher.report_lost_rank(ranks.size > 1):
        setup_process(ranks.threads(config.num_threads))
        if not ranks.is_main:
            logging.getLogger("nmt").setLevel(logging.CRITICAL)  # the first one speaks for all
        device = ranks.device(resolve_device(config.device))
        directory = Path(config.runs) / str(config.name)
        begun = checkpoint.signature(directory / "checkpoints")
        with ranks.main_process_first():
            prepared = _prepare(config)
        config, tokenizer, corpora = prepared.config, prepared.tokenizer, prepared.corpora
        torch.manual_seed(config.seed)
        model = models.build_model(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
        model.to(device)
        if config.train.batch_tokens == AUTO:
            found = auto_batch_size.find_batch_tokens(model, corpora["train"], config.train, device, ranks)
            config = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_tokens=found))
            prepared.notes.append(f"train.batch_tokens=auto: {found} tokens, as much as the memory holds")
        given = command_line("train", overrides)
        with _owned(directory, begun, ranks), GracefulShutdown(ranks.size > 1) as stop:
            trainer = Trainer(
                model,
                BatchLoader(corpora["train"], tokenizer, config.train.batch_tokens, config.seed, device=device),
                _validation(prepared, config, model, device),
                config.train,
                config.optim,
                seed=config.seed,
                device=device,
                directory=directory,
                header={
                    "config": to_dict(config),
                    "tokenizer": tokenizer.state_dict(),
                    "texts": data_fingerprints(config),
                },
                distributed=ranks,
            )
            if ranks.is_main:  # and nothing has been refused
                save_yaml(config, directory / "config.yaml")
                write_text(directory / "command.txt", given + "\n")
            _introduce(trainer, prepared)
            position = trainer.fit(stop)
            if stop.requested or stop.received:  # the first rank may have been alone at the end
                name = signal.Signals(stop.received).name
                saved = "%s: saved at update %d (%s); the same command continues: %s"
                log.info(saved, name, position.update, trainer.last, given)
                raise SystemExit(128 + stop.received)
            if ranks.is_main:
                _finish(trainer, prepared._replace(config=config), given)


def _prepare(config: Config) -> TrainingSetup:
    """Everything but the model; mistakes in any of it show now, not after training."""
    remove_stale_temp_files(Path(config.data.cache_dir))
    config, tokenizer, how_matched = _sized(config)
    corpora = {split: load_corpus(config.data, split, tokenizer) for split in ("train", "valid")}
    if config.train.guided_alignment_weight:
        corpora["train"] = attach_alignments(config.data, corpora["train"], tokenizer)
    tests = evaluator.load_test_sets(config.data)
    valid = EvaluationSet.read(config.data, "valid")
    if config.train.early_stopping_metric == "aer" and valid.gold is None:
        raise ValueError(
            f"train.early_stopping_metric=aer: the validation text {', '.join(resolve_split(config.data, 'valid'))} "
            "has no word "
            "alignment beside it (PREFIX.gold; for one file, its name with .gold); add it, or choose bleu, chrf or loss"
        )
    prepared = TrainingSetup(config, tokenizer, corpora, valid, tests, [how_matched] if how_matched else [])
    _check_lengths(prepared)
    return prepared


def _check_lengths(prepared: TrainingSetup) -> None:
    """Raises ValueError when a sentence that the model will be given is longer than its learned positions."""
    config, tokenizer = prepared.config, prepared.tokenizer
    model = build_on_meta(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
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
            length = max_length((corpus.source, corpus.target)[side].offsets) + 1
            corpus.drop_page_cache()
            if length > most:
                raise ValueError(
                    f"data.{name}: the longest {('source', 'target')[side]} has {length} tokens, the end token "
                    f"counted, more than model.max_positions={most}, the learned positions; raise it to {length} or "
                    f"more, or leave out what is longer with data.max_length={most - 1}"
                )


def _given(prepared: TrainingSetup, side: int) -> Iterator[tuple[str, list[SentencePair]]]:
    """The split of each set that is evaluated, and the pairs of it whose sources (0) or targets (1) the model reads."""
    config, valid, tests = prepared.config, prepared.valid, prepared.tests
    first = config.train.valid_bleu_sentences or len(valid.pairs)
    yield "valid", valid.pairs[: max(first, config.alignment.selection_pairs)]
    more = extra_test_sets(config.data)
    for split, test in zip([*["test"][: len(tests) - len(more)], *more], tests, strict=True):
        all_read = side == 0 or test.gold is not None  # else the importance of heads is all that needs references
        yield split, test.pairs if all_read else test.pairs[: config.alignment.head_importance_pairs]


def _place(data: DataConfig, split: str, side: int, row: int) -> str:
    """Where a sentence of a split stands: "text/test.de: line 3"."""
    for place in resolve_split(data, split):
        num = sum(len(sources) for sources, _ in read_split_part(data, place, Counter()))
        if row < num:
            break
        row -= num
    files = SOURCES[data.format].files(data, place)
    return f"{files[-side] if files else f'{data.hf_dataset} ({place})'}: line {row + 1}"


@contextlib.contextmanager
def _owned(directory: Path, begun: object, ranks: DistributedContext) -> Iterator[None]:
    """The run directory is this run's own, in which the first rank writes.

    Args:
        begun: `checkpoint.stamp` of the checkpoints that the run was found to continue.

    Raises:
        ValueError: it is another's, or was in the meantime.
    """
    if not ranks.is_main:
        yield
        return
    with directory_lock(directory), log_file(directory / "train.log"):
        if checkpoint.signature(directory / "checkpoints") != begun:
            raise ValueError(f"{directory}: another process has trained there in the meantime; give the command again")
        remove_temp_files(directory)
        yield


def _introduce(trainer: Trainer, prepared: TrainingSetup) -> None:
    """The first lines of the log."""
    config, corpora, begin = prepared.config, prepared.corpora, trainer.progress.update
    size = trainer.distributed.size
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
    if idle := config.unused_options():
        log.warning("without effect beside the other options: %s", ", ".join(idle))
    for name, corpus in corpora.items():
        # said on standard error when they were prepared; here for the run's own log file
        kept = f"{len(corpus)} of {corpus.num_read} pairs"
        changed = (format_counts(corpus.dropped) or "none", format_counts(corpus.repaired) or "none")
        log.debug("%s: %s; dropped: %s; repaired: %s", name, kept, *changed)


def _finish(trainer: Trainer, prepared: TrainingSetup, given: str) -> None:
    """The last line, and the evaluation of the best checkpoint."""
    position, config = trainer.progress, prepared.config
    best = f"best at update {position.best_update}"
    if position.best_averaged_updates:
        best = f"best is the mean of updates {', '.join(map(str, position.best_averaged_updates))}"
    minutes = position.seconds / 60
    log.info("%s after %d updates, %.1f minutes; %s", position.stop_reason, position.update, minutes, best)
    if unusual := format_counts(
        {name.replace("_", " "): number for name, number in trainer.anomaly_counts().items() if number}
    ):
        log.info("in the whole run: %s", unusual)
    about = evaluator.About(
        name=str(config.name),
        command=given,
        config=to_yaml(config),
        history=logger.read_metrics(trainer.directory / "metrics.jsonl"),
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
    found = {f"{result.name}/{name}": value for result in results for name, value in result.flat_scores().items()}
    logger.log_hparams(trainer.directory, to_dict(config), found, position.update)


def _sized(config: Config) -> tuple[Config, Tokenizer, str]:
    """The configuration with matched widths , the tokenizer, and a sentence about the match or "".

    Raises:
        ValueError: it would continue a run that was started with other options, or nothing matches.
    """
    found = checkpoint.latest_valid(Path(config.runs) / str(config.name) / "checkpoints")
    begun = found.content["config"] if found is not None else None
    if begun is not None and config.train.batch_tokens == AUTO:  # measured when the run was begun
        train = dataclasses.replace(config.train, batch_tokens=begun["train"]["batch_tokens"])
        config = dataclasses.replace(config, train=train)
    if begun is not None and config.model.match == NONE:
        check_continuation(begun, to_dict(config))  # before anything is made
    tokenizer = train_or_load_tokenizer(config.data)
    model, text = match_parameters(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    config = dataclasses.replace(config, model=model)
    if begun is not None:  # it holds matched widths
        check_continuation(begun, to_dict(config))
    return config, tokenizer, text


def _validation(prepared: TrainingSetup, config: Config, model: models.Seq2Seq, device: torch.device) -> Validator:
    translator = Translator(model, prepared.tokenizer, config.search, device)
    valid = prepared.valid
    first = config.train.valid_bleu_sentences or len(valid.pairs)
    gold = valid.gold[:first] if valid.gold is not None else None
    batches = BatchLoader(
        prepared.corpora["valid"], prepared.tokenizer, config.train.batch_tokens, config.seed, device=device
    )
    return Validator(translator, batches, valid.pairs[:first], gold, config.metrics, config.alignment)


def _split(name: str, corpus: EncodedCorpus) -> SplitStats:
    return SplitStats(name, corpus.num_read, len(corpus), corpus.dropped, corpus.repaired)


if __name__ == "__main__":
    run_command(main, Config, "train")
