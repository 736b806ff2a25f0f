"""python -m nmt.clean: clean a parallel corpus by a table of filters."""

import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nmt import checkpoint
from nmt.cli.compose import run_command
from nmt.cli.configs import CleanConfig, Config
from nmt.config import to_dict
from nmt.data.cleaning.filters import DUPLICATES, FILTERS, MODELS, Learned, PairBlock
from nmt.data.cleaning.hashing import HashTable
from nmt.data.cleaning.lexicon import Floats, Lexicon
from nmt.data.cleaning.text_block import Hashes, TextBlock
from nmt.data.corpora import directions
from nmt.data.fingerprints import file_fingerprint
from nmt.data.language_id import LanguageIdentifier
from nmt.data.preprocessing import format_counts
from nmt.data.reservoir_sampling import reservoir_sample
from nmt.data.sources import Block
from nmt.data.text_files import check_file, read_lines, read_parallel
from nmt.evaluation.report.cleaning import Tally, cleaning_page
from nmt.inference.translator import Translator
from nmt.runtime.compression import atomic_output
from nmt.runtime.device import resolve_device
from nmt.runtime.files import atomic_write, write_text
from nmt.runtime.process import setup_process
from nmt.runtime.progress import show_stage

log = logging.getLogger(__name__ if __name__ != "__main__" else "nmt.clean")

MIN_PAIRS, SAMPLE_PAIRS, SAMPLE_CHARACTERS = 1000, 100_000, 8_000_000
"""Pairs below which nothing is learned from a corpus, and how much of a large one is learned from."""
ASSOCIATION, TOLERATED = 0.2, 0.003
"""Association that pairs need (see `PairScores`), unless many more pairs would lack it than seem to be unrelated."""


def main(config: CleanConfig, overrides: list[str]) -> None:
    """Read the corpus to learn from it, then measure every pair, and write what is kept and what is not."""
    setup_process(config.num_threads)
    files = check_file(Path(config.source), ""), check_file(Path(config.target), "")
    ends = (config.source_lang, config.target_lang, "rejected.tsv", "html")
    outputs = [Path(f"{config.output}.{end}") for end in ends]
    if taken := {path.resolve() for path in outputs} & {file.resolve() for file in files}:
        raise ValueError(f"output={config.output}: would overwrite {taken.pop()}, which is read; name another prefix")
    given = {"test_overlap": config.tests, "model": config.checkpoint, "dual": config.reverse}
    chosen = {name: getattr(config.filters, name) for name in FILTERS if given.get(name, True)}
    tally = Tally({name: options for name, options in chosen.items() if options.enabled})
    names, repaired, sets = list(tally.options), Counter[str](), {name: HashTable() for name in DUPLICATES}
    models = _load_models(config)
    learned, num_pairs, about = _learn(config, files)
    log.info("%s", about)
    key = repr([to_dict(config), *(file_fingerprint(file).sha256 for file in files)])
    scores = Path(f"{config.output}.scores-{hashlib.sha256(key.encode()).hexdigest()[:16]}")
    with ExitStack() as stack:
        *texts, rejected = (stack.enter_context(atomic_output(path)) for path in outputs[:3])
        rejected.write(b"line\tfilter\tvalue\tsource\ttarget\n")
        show = stack.enter_context(show_stage("cleaning", num_pairs))
        for block, values, hashes in _measure(read_parallel(*files, repaired), learned, names):
            for row, name in enumerate(names):
                kept = np.flatnonzero(~tally.rejected(values).any(0))  # by the filters so far
                if name in DUPLICATES:
                    values[row, kept] = ~sets[name].add(hashes[name][kept])
                elif name in MODELS:
                    pairs = [(block[0][i], block[1][i], ()) for i in kept]
                    path = scores / f"{tally.num_pairs}-{len(pairs)}.npy"
                    values[row, kept] = _model_values(path, models, pairs)[MODELS.index(name)]
            start, reasons = tally.num_pairs + 1, tally.add(values, block)
            for lines, file in zip(block, texts, strict=True):
                kept_lines = (f"{line}\n" for line, reason in zip(lines, reasons, strict=True) if reason < 0)
                file.write("".join(kept_lines).encode())
            for i in np.flatnonzero(reasons >= 0):
                columns = start + i, names[reasons[i]], f"{values[reasons[i], i]:.6g}", block[0][i], block[1][i]
                rejected.write("\t".join(str(column).replace("\t", " ") for column in columns).encode() + b"\n")
            show(tally.num_pairs)
        write_text(outputs[3], cleaning_page(config.output, tally, about))
    shutil.rmtree(scores, ignore_errors=True)
    counts = {name: int(num) for name, num in zip(names, tally.reasons, strict=True) if num}
    log.info("kept %d of %d pairs; rejected: %s", tally.num_kept, tally.num_pairs, format_counts(counts) or "none")
    log.info("repaired: %s", format_counts(repaired) or "nothing")


def _learn(config: CleanConfig, files: tuple[Path, Path]) -> tuple[Learned, int, str]:
    """Return what the filters need to know of the corpus, its number of pairs, and a sentence about it."""
    languages, hashes = (config.source_lang, config.target_lang), []
    for language in languages:
        paths = [check_file(Path(f"{prefix}.{language}"), " (of tests=)") for prefix in config.tests]
        lines = [line for path in paths for block in read_lines(path, Counter()) for line in block]
        hashes.append(np.unique(TextBlock([*lines, "\0"]).normalized_hashes))
    with show_stage("reading"):
        pairs = (pair for block in read_parallel(*files, Counter()) for pair in zip(*block, strict=True))
        sample, num_pairs = reservoir_sample(pairs, SAMPLE_PAIRS, SAMPLE_CHARACTERS)
    learned, unique = Learned(languages, hashes), list(dict.fromkeys(sample))
    if len(unique) < MIN_PAIRS:
        return learned, num_pairs, f"{num_pairs} pairs are too few for the filters language, truncation and lexical"
    with show_stage("learning"):
        sources, targets = map(list, zip(*unique, strict=True))
        own, part = PairBlock(sources, targets, learned), range(0, len(unique), 10)
        unrelated = [sources[i] for i in part], [targets[i - len(unique) // 2] for i in part]
        both = PairBlock(sources + unrelated[0], targets + unrelated[1], learned)  # these are as familiar as the others
        lexicon, ratios = Lexicon(both.sides), own.length_ratio
        found = lexicon.score(both.sides).association
        low, found = np.nanmedian(found[len(unique) :]), found[: len(unique)]
        share = min(
            2 * 2 * float(np.mean(found < low)) + TOLERATED, 1.0
        )  # twice that of unrelated pairs, half are below
        has_letters = all(side.num_letters.any() for side in own.sides)
        learned = learned._replace(
            identifier=LanguageIdentifier.train({languages[0]: sources, languages[1]: targets})
            if has_letters
            else None,
            lexicon=lexicon,
            length_ratio=(
                median := float(np.median(ratios)),
                max(1.4826 * float(np.median(abs(ratios - median))), 0.1),
            ),
            association=float(np.nan_to_num(min(ASSOCIATION, np.nanquantile(found, share)))),
        )
    text = f"Languages are identified by character trigrams of {len(unique):,} pairs of the corpus itself"
    return learned, num_pairs, f"{text}; words need an association of {learned.association:.2f} nats."


def _measure(blocks: Iterator[Block], learned: Learned, names: Sequence[str]) -> Iterator[Any]:
    """Yield each block with its values, (F, N), and hashes, in order, whatever the number of threads."""

    def measure(block: Block) -> tuple[Block, Floats, dict[str, Hashes]]:
        pairs = PairBlock(*block, learned)
        values = [pairs.nothing if (of := FILTERS[name].measure) is None else of(pairs) for name in names]
        return block, np.stack(values), {name: DUPLICATES[name](pairs) for name in names if name in DUPLICATES}

    with ThreadPool(threads := torch.get_num_threads()) as pool:
        while several := list(islice(blocks, 8 * threads)):
            yield from pool.imap(measure, several)


def _load_models(config: CleanConfig) -> list[Translator]:
    """Return the model, and the one of the other direction, as far as they are given."""
    models = list[Translator]()
    for path in filter(None, (config.checkpoint, config.reverse)):
        content = checkpoint.load(checkpoint.resolve(path), device := resolve_device(config.device))
        trained = Config.from_checkpoint(content)
        own = (config.source_lang, config.target_lang)[:: -1 if models else 1]
        if own not in (known := directions(trained.data)):
            text = ", ".join(f"{source} into {target}" for source, target in known)
            raise ValueError(
                f"{'reverse' if models else 'checkpoint'}={path}: translates {text}, the corpus is of "
                f"{config.source_lang} and {config.target_lang}: a run of {own[0]} into {own[1]} is needed"
            )
        models.append(Translator.from_checkpoint(content, trained.search, device).into(trained.data, own[1]))
    return models


def _model_values(path: Path, models: Sequence[Translator], pairs: Sequence[Any]) -> Floats:
    """Return the values of `MODELS` of some pairs, nan where there is no score, from a file where they are kept."""
    if not path.exists():
        scores = models[0].score(pairs, *models[1:])
        rows = [(np.exp(s.per_token), s.dual or np.nan) if s.error is None else (np.nan, np.nan) for s in scores]
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.array(rows).reshape(-1, 2).T)
    return np.asarray(np.load(path))


if __name__ == "__main__":
    run_command(main, CleanConfig, "clean")
