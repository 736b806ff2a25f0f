"""`python -m nmt.train`: train a model in a run directory and evaluate its best checkpoint."""

import contextlib
import dataclasses
import importlib
import logging
import signal
import sys
import types
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from nmt import checkpoint, data, models
from nmt.cli.compose import run_command, save_yaml, to_yaml
from nmt.cli.configs import Config
from nmt.cli.continuation import check_continuation, data_fingerprints
from nmt.cli.run_directory import command_line, remove_temp_files
from nmt.config import conceal, to_dict
from nmt.data import BatchLoader, DataConfig, EncodedCorpus, SentencePair, Tokenizer, TokenizerConfig
from nmt.data.batch_sampler import max_length
from nmt.data.cleaning.overlap import overlaps
from nmt.data.corpora import of_split, reserved_names
from nmt.data.fingerprints import check_unchanged
from nmt.data.mixing import make_mixture
from nmt.data.preprocessing import format_counts
from nmt.data.sources import read_location, validation_splits
from nmt.data.streaming import StreamLoader
from nmt.data.terms import TermAnnotator
from nmt.data.vocabulary import unknown_share
from nmt.evaluation.evaluator import Evaluator
from nmt.evaluation.metrics import build_metrics
from nmt.evaluation.report.identity import model_facts
from nmt.evaluation.report.page import ReportData, SplitStats
from nmt.evaluation.results import EvaluationSet, load_test_sets
from nmt.inference.translator import Translator
from nmt.models import Seq2Seq
from nmt.models.flops import build_on_meta
from nmt.models.parameter_matching import match_parameters
from nmt.plugins import loaded, unowned
from nmt.runtime.device import deterministic_algorithms, resolve_device, resolve_precision
from nmt.runtime.errors import error_message
from nmt.runtime.files import directory_lock, remove_stale_temp_files, write_text
from nmt.runtime.logs import log_file
from nmt.runtime.process import setup_process
from nmt.training import auto_batch_size, distributed, launcher, logger
from nmt.training.config import AUTO
from nmt.training.distributed import DistributedContext
from nmt.training.forecast import shortfalls
from nmt.training.signals import GracefulShutdown
from nmt.training.trainer import Trainer
from nmt.training.validation import Validator
from nmt.training.warm_start import Parent, parts_table, run_fingerprints, warm_start

log = logging.getLogger("nmt.train")


class _CallableModule(types.ModuleType):  # `nmt.train(…)` in Python: `nmt.api.train`, a layer above
    def __call__(self, *overrides: str, **options: Any) -> object:
        return importlib.import_module("nmt.api").train(*overrides, **options)


sys.modules[__name__].__class__ = _CallableModule


class ResolvedConfig(NamedTuple):
    """The configuration and what follows from it before any text is prepared.

    config: with matched widths, the options of an inherited tokenizer, and the batch size of a run that is continued.
    notes: for the log: choices made for the user.
    parent: the model whose weights a new run begins with.
    origin: `Parent.describe` of a new or continued run that has a parent.
    """

    config: Config
    tokenizer: Tokenizer
    notes: list[str]
    parent: Parent | None
    origin: dict[str, str]


class TrainingSetup(NamedTuple):
    """Everything a run needs besides the model."""

    resolved: ResolvedConfig
    config: Config  # that of `resolved`, with an automatic batch size
    tokenizer: Tokenizer
    corpora: dict[str, EncodedCorpus]
    valid: dict[str, EvaluationSet]  # by split; the first chooses the checkpoint
    tests: list[EvaluationSet]
    texts: dict[str, list[list[str]]]  # for each split a list of [file or data set, SHA-256], as it was prepared
    notes: list[str]  # for the log: choices made for the user
    loaded: Collection[str] = ()  # tensors of the model that are the parent's


def main(config: Config, overrides: list[str]) -> None:
    """Train and evaluate a run, continuing it after an interruption; exit with 128 + N after signal N."""
    kind = resolve_device(config.device).type
    for section, name in (("train", config.train.precision), ("search", config.search.precision)):
        if name != "auto":  # which is measured later, with the number of threads of the run
            resolve_precision(name, torch.device(kind), f"{section}.precision")
    if config.train.devices > 1 and not distributed.is_launched():
        distributed.check_devices(config.train.devices, kind)
        launcher.launch_ranks(main, (config, overrides), config.train.devices)
        return
    command, directory = command_line("train", overrides), Path(config.runs) / str(config.name)
    with _joined_process(config, kind) as ranks:
        device = ranks.device(resolve_device(config.device))
        stamp = checkpoint.file_stamp(directory / "checkpoints")
        with ranks.main_process_first():
            setup = _prepare(config)
        _check_same_text(setup, ranks)
        model, setup = _make_model(setup, device, ranks)
        with _lock_run_directory(directory, stamp, ranks), GracefulShutdown(ranks.size > 1) as shutdown:
            trainer = _make_trainer(setup, model, device, ranks)
            if ranks.is_main:  # after every check
                save_yaml(setup.config, directory / "config.yaml")
                write_text(directory / "command.txt", command + "\n")
            _log_header(trainer, setup)
            progress = trainer.fit(shutdown)
            with ranks.leave_together():
                shutdown.stop_at_once("everything is saved, and the same command goes on from there")
                if shutdown.received:  # perhaps at the end, by the main process alone
                    name = signal.Signals(shutdown.received).name
                    message = "%s: saved at update %d (%s); the same command continues: %s"
                    log.info(message, name, progress.update, trainer.last, command)
                    raise SystemExit(128 + shutdown.received)
                if ranks.is_main:
                    try:
                        _evaluate(trainer, setup, command)
                    except OSError as error:
                        text = "the training is complete and saved, and the same command evaluates again"
                        raise OSError(f"{error_message(error)}; {text}") from error


@contextlib.contextmanager
def _joined_process(config: Config, kind: str) -> Iterator[DistributedContext]:
    """Set this process up as one of the run's; only the main process logs."""
    with deterministic_algorithms(config.train.deterministic):  # before CUDA begins
        ranks = distributed.init_distributed(config.train.devices, kind)
        with launcher.report_lost_rank(ranks.size > 1):
            setup_process(ranks.threads(config.num_threads))
            if not ranks.is_main:
                logging.getLogger("nmt").setLevel(logging.CRITICAL)
            yield ranks
    if ranks.size > 1:
        distributed.leave_at_exit()


def _make_model(setup: TrainingSetup, device: torch.device, ranks: DistributedContext) -> tuple[Seq2Seq, TrainingSetup]:
    """Build the model on its device, and find the batch size where it is automatic."""
    config, tokenizer = setup.config, setup.tokenizer
    torch.manual_seed(config.seed)
    model = models.build_model(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    if (parent := setup.resolved.parent) is not None:
        loaded, notes = warm_start(model, parent, config.init, tokenizer)
        setup = setup._replace(loaded=loaded, notes=[*setup.notes, *notes])
    model.to(device)
    if config.train.batch_tokens == AUTO:
        corpus, size = setup.corpora.get("train"), (config.data.shuffle_buffer, config.data.max_length)
        size = size if corpus is None else (len(corpus), corpus.max_length)
        batch_tokens = auto_batch_size.find_batch_tokens(model, size, config.train, device, ranks)
        setup.notes.append(f"train.batch_tokens=auto: {batch_tokens} tokens, as much as fits into memory")
        setup = setup._replace(config=_with_batch_tokens(config, batch_tokens))
    return model, setup


def _make_trainer(setup: TrainingSetup, model: Seq2Seq, device: torch.device, ranks: DistributedContext) -> Trainer:
    config, tokenizer = setup.config, setup.tokenizer
    plugins, corpus = {"plugins": list(map(list, loaded(config.plugins)))}, setup.corpora.get("train")
    directory, options = Path(config.runs) / str(config.name), (config.train.batch_tokens, config.seed)
    if corpus is None:
        batches: BatchLoader = StreamLoader(config.data, tokenizer, *options, directory / "stream.jsonl", device)
    else:
        mixture = make_mixture(config.data, corpus, *options, config.train.gradient_accumulation)
        terms = TermAnnotator(corpus, tokenizer, rate) if (rate := config.data.augment.terms) else None
        if not config.train.guided_alignment_weight:
            corpus = dataclasses.replace(corpus, links=None)
        batches = BatchLoader(corpus, tokenizer, *options, device=device, mixture=mixture, terms=terms)
    return Trainer(
        model,
        batches,
        _make_validator(setup, model, device),
        config.train,
        config.optim,
        seed=config.seed,
        device=device,
        directory=directory,
        header={
            "config": to_dict(config),
            "tokenizer": tokenizer.state_dict(),
            "texts": setup.texts,
            "splits": [[name, c.num_read, len(c), c.dropped, c.repaired] for name, c in setup.corpora.items()],
        }
        | ({"corpora": corpus.bounds} if corpus is not None and corpus.bounds else {})
        | plugins
        | ({"parent": setup.resolved.origin} if setup.resolved.origin else {}),
        distributed=ranks,
    )


def _prepare(config: Config) -> TrainingSetup:
    """Prepare everything but the model, so that any mistake is reported before training."""
    _check_not_mixed(config.data)
    remove_stale_temp_files(Path(config.data.cache_dir))
    texts = data_fingerprints(config)
    resolved = _resolve_config(config)
    config, tokenizer = resolved.config, resolved.tokenizer
    splits = validation_splits(config.data, config.train.early_stopping_set)
    prepared = ["train"] * (not config.data.streaming) + splits
    corpora = {split: data.load_corpus(config.data, split, tokenizer) for split in prepared}
    if config.train.guided_alignment_weight or config.data.augment.terms:
        options = config.data, corpora["train"], tokenizer
        corpora["train"] = data.attach_alignments(*options, files=config.reads_alignments)
    tests = load_test_sets(config.data)
    build_metrics(config.metrics)  # a plugin's name may be taken
    valid = {split: EvaluationSet.read(config.data, split) for split in splits}
    if config.train.early_stopping_metric == "aer" and valid[splits[0]].gold is None:
        text = ", ".join(data.resolve_split(config.data, splits[0]))
        raise ValueError(
            f"train.early_stopping_metric=aer: the validation text {text} has no word alignment beside it "
            "(PREFIX.gold; for one file, its name with .gold); add it, or choose bleu, chrf or loss"
        )
    for split, files in data_fingerprints(config).items():  # tokenizer, corpora and references are of the same text
        check_unchanged(texts[split], files)
    digests = {split: [[conceal(file.name, config), file.sha256] for file in files] for split, files in texts.items()}
    setup = TrainingSetup(resolved, config, tokenizer, corpora, valid, tests, digests, list(resolved.notes))
    if not config.data.streaming:  # whose text is not read before training
        for text in overlaps(config.data, splits, {test.split: test.pairs for test in tests}):
            log.warning("%s", text)
    chooses = splits[0] if "@" not in splits[0] else "the mean over all directions"
    setup.notes.extend([f"{chooses} chooses the best checkpoint, of {', '.join(splits)}"] * (len(splits) > 1))
    _check_lengths(setup)
    setup.notes.extend(_vocabulary_notes(config.data.tokenizer, tokenizer))
    setup.notes.extend(_unknown_shares(setup))
    return setup


def _check_not_mixed(config: DataConfig) -> None:
    """Raise ValueError when some texts are given and the rest would be of the built-in pair."""
    texts = {f"data.{split}": getattr(config, split) for split in ("train", "valid", "test")}
    given = [f"{name}={text}" for name, text in texts.items() if text]
    if config.format == "builtin" and given and not all(texts.values()):
        missing = " and ".join(name for name, text in texts.items() if not text)
        raise ValueError(
            f"{given[0]}: without {missing} the rest would be of the built-in pair; for texts of your own write "
            "data=text too (or tsv, jsonl, parquet)"
        )


def _check_same_text(setup: TrainingSetup, ranks: DistributedContext) -> None:
    """Raise ValueError when this rank has prepared other text than the main process, as on a machine with old files."""
    for split, files in ranks.broadcast(setup.texts).items():
        if [digest for _, digest in files] != [digest for _, digest in setup.texts[split]]:
            raise ValueError(
                f"data.{split}: process {ranks.rank} has read other text than process 0; every machine needs the same"
            )


def _vocabulary_notes(options: TokenizerConfig, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield a note about each vocabulary that is smaller than asked for, or not of the training text."""
    sizes = [tokenizer.source_size] if tokenizer.joint else [tokenizer.source_size, tokenizer.target_size]
    for file, digest, size in zip(options.model, tokenizer.files, sizes, strict=False):
        yield f"{file}: {tokenizer.type} model, {size} entries, SHA-256 {digest}"
    if not options.model and data.TOKENIZERS[options.type].is_subword and min(sizes) < options.vocab_size:
        most = " and ".join(map(str, sizes))
        yield f"data.tokenizer.vocab_size={options.vocab_size}: the text gives {most} at most, which are used"


def _unknown_shares(setup: TrainingSetup) -> Iterator[str]:
    """Yield a note about each text with tokens that are not in the vocabulary."""
    tokenizer = setup.tokenizer
    if not (tokenizer.source.has_unknown or tokenizer.target.has_unknown):
        return
    texts: list[tuple[str, NDArray[Any], NDArray[Any]]]
    texts = [(name, corpus.source.ids, corpus.target.ids) for name, corpus in setup.corpora.items()]
    for test in setup.tests:
        sources, targets = zip(*test.pairs, strict=True)
        ids = tokenizer.encode_source_flat(sources)[0], tokenizer.encode_target_flat(targets)[0]
        texts.append((test.name, *ids))
    for name, *sides in texts:
        source, target = (100 * unknown_share(side) for side in sides)
        if source or target:
            yield f"{name}: {source:.3g} % of the source tokens and {target:.3g} % of the target tokens are <unk>"
    for corpus in setup.corpora.values():
        corpus.drop_page_cache()


def _check_lengths(setup: TrainingSetup) -> None:
    """Raise ValueError when a sentence that the model will process is longer than its learned positions."""
    config, tokenizer = setup.config, setup.tokenizer
    model = build_on_meta(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    sides = ((model.max_source_length, tokenizer.encode_source), (model.max_target_length, tokenizer.encode_target))
    for side, (limit, encode) in enumerate(sides):
        if limit is None:
            continue
        sentences = [
            (len(ids) + 1, split, row)  # with the end token
            for split, pairs in _evaluated_pairs(setup, side)
            for row, ids in enumerate(encode([pair[side] for pair in pairs]))
        ]
        length, split, row = max(sentences, key=lambda sentence: sentence[0])
        if length > limit:
            raise ValueError(
                f"{_sentence_location(config.data, split, side, row)}: {length} tokens, the end token counted, are "
                f"more than model.max_positions={limit}, the learned positions; raise it to {length} or more, set "
                "model.positions=sinusoidal or rotary, or take the sentence out"
            )
        for name, corpus in setup.corpora.items():
            length = max_length((corpus.source, corpus.target)[side].offsets) + 1
            corpus.drop_page_cache()
            if length > limit:
                raise ValueError(
                    f"data.{name}: the longest {('source', 'target')[side]} has {length} tokens, the end token "
                    f"counted, more than model.max_positions={limit}, the learned positions; raise it to {length} or "
                    f"more, or leave out what is longer with data.max_length={limit - 1}"
                )


def _evaluated_pairs(setup: TrainingSetup, side: int) -> Iterator[tuple[str, list[SentencePair]]]:
    """Yield the split of each set that is evaluated, and its pairs whose sources (0) or targets (1) the model reads."""
    config, tests = setup.config, setup.tests
    for split, valid in setup.valid.items():
        num_valid = config.train.valid_bleu_sentences or len(valid.pairs)
        yield split, valid.pairs[: max(num_valid, config.alignment.selection_pairs)]
    for test in tests:
        reads_all = side == 0 or test.gold is not None  # otherwise only the importance of heads needs references
        yield test.split, test.pairs if reads_all else test.pairs[: config.alignment.head_importance_pairs]


def _sentence_location(config: DataConfig, split: str, side: int, row: int) -> str:
    """Return the file and line of a sentence of a split: "text/test.de: line 3"."""
    locations, (config, _) = data.resolve_split(config, split), of_split(config, split)
    for part in locations:
        num_pairs = sum(len(sources) for sources, _ in read_location(config, part, Counter()))
        if row < num_pairs:
            break
        row -= num_pairs
    files = data.SOURCES[config.format].files(config, part)
    return f"{files[-side] if files else f'{config.hf_dataset or config.format} ({part})'}: line {row + 1}"


@contextlib.contextmanager
def _lock_run_directory(directory: Path, stamp: object, ranks: DistributedContext) -> Iterator[None]:
    """Reserve the run directory in the main process, and log to its file.

    Raises:
        BlockingIOError: another process uses the directory.
        ValueError: the checkpoints have another `checkpoint.file_stamp`: another process has used the directory.
    """
    if not ranks.is_main:
        yield
        return
    with directory_lock(directory), log_file(directory / "train.log"):
        if checkpoint.file_stamp(directory / "checkpoints") != stamp:
            raise ValueError(f"{directory}: another process has trained there in the meantime; give the command again")
        remove_temp_files(directory)
        yield


def _log_header(trainer: Trainer, setup: TrainingSetup) -> None:
    """Log the model, the device, the notes and the options without effect."""
    config, corpora, begin = setup.config, setup.corpora, trainer.progress.update
    size = trainer.distributed.size
    pairs = f"{len(corpora['train'])} training pairs" if "train" in corpora else "training pairs of a stream"
    log.info(
        "%s: %s, %d parameters, %s on %s with %d threads; %s",
        trainer.directory,
        config.model.architecture,
        sum(p.numel() for p in trainer.model.parameters()),
        trainer.precision,
        f"{size} × {trainer.device.type}" if size > 1 else trainer.device,
        torch.get_num_threads(),
        f"continues at update {begin}" if begin else pairs,
    )
    notes = list(setup.notes)
    if config.train.deterministic:
        notes.append("train.deterministic=true: slower, and more memory; by how much is not yet measured on a GPU")
    is_recurrent = any(isinstance(module, torch.nn.RNNBase) for module in trainer.model.modules())
    if is_recurrent and trainer.precision == "bf16" and trainer.device.type == "cuda":
        notes.append("cuDNN has no recurrent layers in bf16: they run in fp32, with TF32 where the GPU has it")
    for note in notes:
        log.info("%s", note)
    if setup.loaded or config.optim.lr_scales:
        for line in parts_table(trainer.model, setup.loaded):
            log.info("%s", line)
    for entry in unowned():
        log.warning(
            "%s: no plugin has it, so no other process can use this run; put it into a file: plugins=FILE", entry
        )
    if unused := config.unused_options():
        log.warning("without effect beside the other options: %s", ", ".join(unused))
    for name, corpus in corpora.items():  # for the log file; they were logged to standard error when prepared
        kept = f"{len(corpus)} of {corpus.num_read} pairs"
        changed = (format_counts(corpus.dropped) or "none", format_counts(corpus.repaired) or "none")
        log.debug("%s: %s; dropped: %s; repaired: %s", name, kept, *changed)


def _evaluate(trainer: Trainer, setup: TrainingSetup, command: str) -> None:
    """Log a summary of the training, and evaluate the best checkpoint."""
    progress, config = trainer.progress, setup.config
    averaged = ", ".join(map(str, progress.best_averaged_updates))
    best = f"best is the mean of updates {averaged}" if averaged else f"best at update {progress.best_update}"
    minutes = progress.seconds / 60
    log.info("%s after %d updates, %.1f minutes; %s", progress.stop_reason, progress.update, minutes, best)
    anomalies = {name.replace("_", " "): number for name, number in trainer.anomaly_counts().items() if number}
    if anomalies:
        log.info("in the whole run: %s", format_counts(anomalies))
    cause = f"the run ended at update {progress.update} ({progress.stop_reason})"
    notes = shortfalls(config.optim, progress.update, trainer.last_update, cause)
    batches = trainer.batches
    streamed = [batches.statistics(progress.epoch, progress.batch)] if isinstance(batches, StreamLoader) else []
    about = ReportData(
        name=str(config.name),
        notes=[f"{text[0].upper()}{text[1:]}." for text in notes],
        command=command,
        config=to_yaml(config),
        history=logger.read_metrics(trainer.directory / "metrics.jsonl"),
        data=[SplitStats(*split) for split in [*streamed, *trainer.header["splits"]]],
        fingerprints=run_fingerprints(trainer.header),
        corpora=trainer.header.get("corpora", {}),
    )
    content = checkpoint.load(trainer.best, trainer.device)
    translator = Translator.from_checkpoint(content, config.search, trainer.device)
    about.facts = model_facts([content], [config], translator, about.history)
    evaluator = Evaluator(translator, config.metrics, config.alignment, config.data)
    results = evaluator.evaluate_sets(setup.tests, trainer.directory / "report", about, checkpoint_path=trainer.best)
    if not setup.tests:
        log.info("there is no report without a test set; data.test=… names one, also to python -m nmt.evaluate")
    scores = {f"{result.name}/{name}": value for result in results for name, value in result.flat_scores().items()}
    defaults = to_dict(Config(model=type(config.model)()))
    logger.log_hparams(trainer.directory, to_dict(config), defaults, scores, progress.update)


def _resolve_config(config: Config) -> ResolvedConfig:
    """Return the configuration with matched widths, the tokenizer, and where the run begins.

    Raises:
        ValueError: the run was started with other options, or no width matches.
    """
    latest = checkpoint.latest_valid(Path(config.runs) / str(config.name) / "checkpoints")
    stored = latest.content["config"] if latest is not None else None
    parent = None if config.init.checkpoint is None or stored is not None else Parent.load(config.init.checkpoint)
    content = parent.content if parent is not None else latest.content if latest is not None else {}
    tokenizer, notes = None, []
    if config.init.checkpoint is not None and config.init.vocabulary == "keep":
        config, tokenizer, note = _inherit_tokenizer(config, content)
        notes.append(note)
    if stored is not None and config.train.batch_tokens == AUTO:  # it was measured when the run was started
        config = _with_batch_tokens(config, stored["train"]["batch_tokens"])
    if stored is not None and config.model.match == "none":
        check_continuation(stored, to_dict(config))  # before the tokenizer is trained
    if latest is not None and config.data.tokenizer.model and tokenizer is None:  # the run has its own copy
        tokenizer = Tokenizer.from_state_dict(latest.content["tokenizer"])
    elif tokenizer is None:
        tokenizer = data.train_or_load_tokenizer(config.data)
    model, note = match_parameters(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    config = dataclasses.replace(config, model=model)
    if stored is not None:  # its widths are matched ones
        check_continuation(stored, to_dict(config))
    origin = content.get("parent", {}) if parent is None else parent.describe()
    return ResolvedConfig(config, tokenizer, [*notes, note] if note else notes, parent, origin)


def _inherit_tokenizer(config: Config, content: dict[str, Any]) -> tuple[Config, Tokenizer, str]:
    """Return the tokenizer of a checkpoint, of the run's parent or its own, its options, and a note."""
    with checkpoint.interpreting(content):
        tokenizer = Tokenizer.from_state_dict(content["tokenizer"])
        trained = Config.from_dict(content["config"]).data
    options, tags, place = trained.tokenizer, tokenizer.tags, config.data.tags
    if missing := [tag for tag in reserved_names(config.data) if tag not in tags]:
        has = f"has {', '.join(tags)}" if tags else "has no tags"
        raise ValueError(
            f"init.vocabulary=keep: the directions and corpora of this run need the tag {missing[0]}, and the parent "
            f"{has}; init.vocabulary=map adds it to a new vocabulary"
        )
    if tags and place not in ("none", trained.tags):
        raise ValueError(f"data.tags={place}: the parent has its tags elsewhere; set data.tags={trained.tags}, or none")
    given, default = config.data.tokenizer, data.TokenizerConfig()
    tokenizer.subword_regularization = options.subword_regularization = given.subword_regularization
    values = dataclasses.asdict(given).items()
    unused = [name for name, value in values if value not in (getattr(options, name), getattr(default, name))]
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, tokenizer=options))
    config.validate()
    without = "".join(f"; data.tokenizer.{name} has no effect (init.vocabulary=map makes a new one)" for name in unused)
    return config, tokenizer, f"the vocabulary is that of init.checkpoint={config.init.checkpoint}{without}"


def _with_batch_tokens(config: Config, batch_tokens: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_tokens=batch_tokens))


def _make_validator(setup: TrainingSetup, model: Seq2Seq, device: torch.device) -> Validator:
    config, tokenizer, validators = setup.config, setup.tokenizer, dict[str, Validator]()
    trained = Translator(model, tokenizer, config.search, device)
    for split, valid in setup.valid.items():
        translator = trained.into(config.data, valid.target_lang)
        num = config.train.valid_bleu_sentences or len(valid.pairs)
        gold = valid.gold[:num] if valid.gold is not None else None
        batches = BatchLoader(setup.corpora[split], tokenizer, config.train.batch_tokens, config.seed, device=device)
        further = [texts[:num] for texts in valid.further]
        options = config.metrics.for_language(valid.target_lang), config.alignment
        validators[split] = Validator(translator, batches, valid.pairs[:num], gold, *options, further)
    (split, first), *others = validators.items()
    first.others = {split.removeprefix("valid:").removeprefix("valid@"): other for split, other in others}
    first.direction = split.partition("@")[2]
    return first


if __name__ == "__main__":
    run_command(main, Config, "train")
