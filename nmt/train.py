"""python -m nmt.train: trains a model in a run directory and evaluates its best checkpoint."""

import dataclasses
import logging
import signal
from pathlib import Path

import torch

from nmt import checkpoint, evaluator, models, records, runtime
from nmt.attention import NONE
from nmt.config import command, save_yaml, to_yaml
from nmt.data import Batches, Corpus, Tokenizer, load_tokenizer, prepare
from nmt.data.writer import counts
from nmt.files import write_text
from nmt.match import matched
from nmt.options import to_primitive
from nmt.report.page import SplitReport
from nmt.runs import check_continuation, command_line
from nmt.schema import Config
from nmt.stop import StopSignal
from nmt.trainer import Trainer
from nmt.translator import Translator
from nmt.validation import Validation

log = logging.getLogger(__name__ if __name__ != "__main__" else "nmt.train")


def main(config: Config, overrides: list[str]) -> None:
    """Trains and evaluates; continues a run that was interrupted. Exits with 128 + N when signal N stopped it."""
    runtime.prepare(config.threads)
    device = runtime.device(config.device)
    config, tokenizer, how_matched = _sized(config)
    assert config.name is not None
    directory = Path(config.runs) / config.name
    corpora = {split: prepare(config.data, split, tokenizer) for split in ("train", "valid")}
    tests = evaluator.evaluation_sets(config.data)  # a mistake in them shows now, not after training
    torch.manual_seed(config.seed)
    model = models.build(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint).to(device)
    translator = Translator(model, tokenizer, config.search, device)
    validation = _validation(config, translator, corpora["valid"], tokenizer)
    given = command_line("train", overrides)
    directory.mkdir(parents=True, exist_ok=True)
    with runtime.log_file(directory / "train.log"), StopSignal() as stop:
        save_yaml(config, directory / "config.yaml")
        write_text(directory / "command.txt", given + "\n")
        trainer = Trainer(
            model,
            Batches(corpora["train"], tokenizer, config.train.batch_tokens, config.seed),
            validation,
            config.train,
            config.optim,
            seed=config.seed,
            device=device,
            directory=directory,
            header={"config": to_primitive(config), "tokenizer": tokenizer.state()},
        )
        begin = trainer.position.update
        log.info(
            "%s: %s, %d parameters, %s on %s with %d threads; %s",
            directory,
            config.model.architecture,
            sum(p.numel() for p in model.parameters()),
            trainer.precision,
            device,
            torch.get_num_threads(),
            f"continues at update {begin}" if begin else f"{len(corpora['train'])} training pairs",
        )
        if how_matched:
            log.info("%s", how_matched)
        if idle := models.without_effect(config.model):
            log.warning("without effect beside the other options: %s", ", ".join(idle))
        for name, corpus in corpora.items():
            # said on standard error when they were prepared; here for the run's own log file
            kept = f"{len(corpus)} of {corpus.num_read} pairs"
            changed = (counts(corpus.dropped) or "none", counts(corpus.repaired) or "none")
            log.debug("%s: %s; dropped: %s; repaired: %s", name, kept, *changed)
        position = trainer.fit(stop)
        if stop.requested:
            name = signal.Signals(stop.received).name
            saved = "%s: saved at update %d (%s); the same command continues: %s"
            log.info(saved, name, position.update, trainer.last, given)
            raise SystemExit(128 + stop.received)
        minutes = position.seconds / 60
        log.info(
            "%s after %d updates, %.1f minutes; best at update %d",
            position.finished,
            position.update,
            minutes,
            position.best_update,
        )
        best = checkpoint.load(trainer.best, device)
        about = evaluator.About(
            name=config.name,
            command=given,
            config=to_yaml(config),
            history=records.read(directory / "metrics.jsonl"),
            data=[_split(name, corpus) for name, corpus in corpora.items()],
        )
        translator = Translator.from_checkpoint(best, config.search, device)
        evaluator.evaluate_sets(translator, config.metrics, tests, directory / "report", about)


def _sized(config: Config) -> tuple[Config, Tokenizer, str]:
    """The configuration with matched widths (see `nmt.match`), the tokenizer, and a sentence about the match or "".

    Raises:
        ValueError: it would continue a run that was started with other options, or nothing matches.
    """
    last = Path(config.runs) / str(config.name) / "checkpoints" / "last.pt"
    begun = checkpoint.load(last)["config"] if last.exists() else None
    if begun is not None and config.model.match == NONE:
        check_continuation(begun, to_primitive(config))  # before anything is made
    tokenizer = load_tokenizer(config.data)
    model, text = matched(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    config = dataclasses.replace(config, model=model)
    if begun is not None:  # it holds matched widths
        check_continuation(begun, to_primitive(config))
    return config, tokenizer, text


def _validation(config: Config, translator: Translator, corpus: Corpus, tokenizer: Tokenizer) -> Validation:
    valid = evaluator.EvaluationSet.read(config.data, "valid")
    first = config.train.valid_sentences or len(valid.pairs)
    gold = valid.gold[:first] if valid.gold is not None else None
    batches = Batches(corpus, tokenizer, config.train.batch_tokens, config.seed)
    return Validation(translator, batches, valid.pairs[:first], gold, config.metrics)


def _split(name: str, corpus: Corpus) -> SplitReport:
    return SplitReport(name, corpus.num_read, len(corpus), corpus.dropped, corpus.repaired)


if __name__ == "__main__":
    command(main, Config, "train")
