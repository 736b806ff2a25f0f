"""python -m nmt.clean: clean a parallel corpus by a table of filters."""

import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nmt.alignment.writers import words_known
from nmt.cli.compose import run_command
from nmt.cli.configs import CleanConfig
from nmt.cli.loading import load_translator
from nmt.config import to_dict
from nmt.data.cleaning.filters import FILTERS, MODELS, Learned, PairBlock, truncation
from nmt.data.cleaning.hashing import HashSet
from nmt.data.cleaning.lexicon import Floats, Lexicon
from nmt.data.cleaning.text_block import Hashes, TextBlock
from nmt.data.corpora import directions
from nmt.data.fingerprints import file_fingerprint
from nmt.data.language_id import installed_identifier, trigram_identifier
from nmt.data.preprocessing import format_counts
from nmt.data.reservoir_sampling import reservoir_sample
from nmt.data.sources import Block
from nmt.data.text_files import check_file, read_lines, read_parallel
from nmt.evaluation.report.cleaning import Tally, cleaning_page
from nmt.inference.aligner import Texts
from nmt.inference.translator import Translator
from nmt.runtime.compression import atomic_output
from nmt.runtime.files import atomic_write, write_text
from nmt.runtime.process import setup_process
from nmt.runtime.progress import show_stage

log = logging.getLogger(__name__ if __name__ != "__main__" else "nmt.clean")

MIN_PAIRS, SAMPLE_PAIRS, SAMPLE_CHARACTERS = 1000, 100_000, 8_000_000
"""Pairs below which nothing is learned from a corpus, and how much of a large one is learned from."""
ASSOCIATION, FREE = 0.2, 0.0015
"""Association that pairs need (see `PairScores`), unless many more would lack it than seem to be unrelated; share of
translations so free that they seem so."""
WHOLE, TOLERANCE = 0.03, 3.5
"""Share of seemingly truncated pairs below which these are free translations, and evidence they may then have."""


def main(config: CleanConfig, overrides: list[str]) -> None:
    """Read the corpus to learn from it, then measure every pair, and write what is kept and what is not."""
    setup_process(config.num_threads)
    files = check_file(Path(config.source), ""), check_file(Path(config.target), "")
    ends = (config.source_lang, config.target_lang, "rejected.tsv", "html")
    outputs = [Path(f"{config.output}.{end}") for end in ends]
    if taken := {path.resolve() for path in outputs} & {file.resolve() for file in files}:
        raise ValueError(f"output={config.output}: would overwrite {taken.pop()}, which is read; name another prefix")
    given = {"test_overlap": config.tests, **dict.fromkeys(MODELS, config.checkpoint), "dual": config.reverse}
    chosen = {name: getattr(config.filters, name) for name in FILTERS if given.get(name, True)}
    tally = Tally({name: options for name, options in chosen.items() if options.enabled})
    names, repaired = list(tally.options), Counter[str]()
    seen = {name: HashSet() for name in names if FILTERS[name].hashes}
    models = _load_models(config) if {*names} & {*MODELS} else []
    learned, num_pairs, about = _learn(config, files)
    log.info("%s", about)
    key = repr([to_dict(config), *(file_fingerprint(file).sha256 for file in files)])
    scores = Path(f"{config.output}.scores-{hashlib.sha256(key.encode()).hexdigest()[:16]}")
    with ExitStack() as stack:
        *texts, rejected = (stack.enter_context(atomic_output(path)) for path in outputs[:3])
        rejected.write(b"line\tfilter\tvalue\tsource\ttarget\n")
        show = stack.enter_context(show_stage("cleaning", num_pairs))
        for block, values, hashes in _measure(read_parallel(*files, repaired), learned, names):
            for name, known in seen.items():  # of the pairs that the filters so far keep, as the models below
                kept = np.flatnonzero(~tally.rejected(values))
                values[names.index(name), kept] = ~known.add(hashes[name][kept])
            if models and len(kept := np.flatnonzero(~tally.rejected(values))):
                pairs = [(block[0][i], block[1][i]) for i in kept]
                found = _model_values(scores / f"{tally.num_pairs}.npy", models, pairs, "coverage" in names)
                for name in {*names} & {*MODELS}:
                    values[names.index(name), kept] = found[MODELS.index(name)]
            start, reasons = tally.num_pairs + 1, tally.add(values, block)
            for lines, file in zip(block, texts, strict=True):
                file.write("".join(f"{lines[i]}\n" for i in np.flatnonzero(reasons < 0)).encode())
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
    learned, unique = Learned(languages, hashes, installed_identifier(languages)), list(dict.fromkeys(sample))
    if len(unique) < MIN_PAIRS:
        names = "truncation and lexical" if learned.identifier else "language, truncation and lexical"
        return learned, num_pairs, f"Too few different pairs ({len(unique)} of {MIN_PAIRS}) for the filters {names}"
    with show_stage("learning"):
        sources, targets = map(list, zip(*unique, strict=True))
        if learned.identifier is None:
            with suppress(ValueError):  # a side has no letters
                texts = {languages[0]: sources, languages[1]: targets}
                learned = learned._replace(identifier=trigram_identifier(texts, "corpus itself"))
        part = range(0, len(unique), 10)
        unrelated = [sources[i] for i in part], [targets[i - len(unique) // 2] for i in part]
        both = PairBlock(sources + unrelated[0], targets + unrelated[1])  # these are as familiar as the others
        own = slice(len(unique))
        both.learned = learned._replace(lexicon=Lexicon(both.sides), length_ratio=_spread(both.length_ratio[own], 0.1))
        found, (median, deviation) = both.lexical.association[own], _spread(both.lexical.association[own])
        below = np.mean(found < np.nanmedian(both.lexical.association[len(unique) :]))  # half of those unrelated
        share = np.clip(4 * (below - FREE), 0, 1)  # at most twice as many as seem to be unrelated
        needed = min(ASSOCIATION, max(float(np.nanquantile(found, share)), median - 4 * deviation))
        is_whole = np.mean(truncation(both)[own] > config.filters.truncation.max) < WHOLE
        learned = both.learned._replace(association=needed, tolerance=TOLERANCE * is_whole)
    text = f"Words need an association of {needed:.2f} nats; truncation counts from {learned.tolerance} nats on"
    text += f"; languages are identified by {learned.identifier.name}" if learned.identifier else ""
    return learned, num_pairs, f"{text}."


def _spread(values: Floats, least: float = 0.0) -> tuple[float, float]:
    """Return the median and the robust deviation, at least `least`, of what is not nan."""
    median = float(np.nanmedian(values))
    return median, max(1.4826 * float(np.nanmedian(abs(values - median))), least)


def _measure(blocks: Iterator[Block], learned: Learned, names: Sequence[str]) -> Iterator[Any]:
    """Yield each block with its values, (F, N), and hashes, in order, whatever the number of threads."""

    def measure(block: Block) -> tuple[Block, Floats, dict[str, Hashes]]:
        pairs, filters = PairBlock(*block, learned=learned), {name: FILTERS[name] for name in names}
        values = [pairs.nothing if kind.measure is None else kind.measure(pairs) for kind in filters.values()]
        return block, np.stack(values), {name: kind.hashes(pairs) for name, kind in filters.items() if kind.hashes}

    with ThreadPool(threads := torch.get_num_threads()) as pool:
        while several := list(islice(blocks, 8 * threads)):
            yield from pool.imap(measure, several)


def _load_models(config: CleanConfig) -> list[Translator]:
    """Return the model, and the one of the other direction, as far as they are given."""
    models = list[Translator]()
    corpus = f"the corpus is of {config.source_lang} and {config.target_lang}"
    for option, path in (("checkpoint", config.checkpoint), ("reverse", config.reverse)):
        if path:
            translator, trained = load_translator(path, config)
            source, target = (config.source_lang, config.target_lang)[:: -1 if models else 1]
            if (source, target) not in (known := directions(trained.data)):
                text = ", ".join(" into ".join(direction) for direction in known)
                raise ValueError(
                    f"{option}={path}: translates {text}, {corpus}: a run of {source} into {target} is needed"
                )
            models.append(translator.into(trained.data, target))
    return models


def _model_values(path: Path, models: Sequence[Translator], pairs: Texts, coverage: bool) -> Floats:
    """Return the values of `MODELS` of K pairs, (3, K), nan where there are none, from a file where they are kept."""
    if not path.exists():
        scores = models[0].score([(*pair, ()) for pair in pairs], *models[1:])
        values = np.full((len(MODELS), len(pairs)), np.nan)
        scored = [i for i, score in enumerate(scores) if score.error is None]
        values[0, scored] = [np.exp(scores[i].per_token) for i in scored]
        values[1, scored] = _coverage(models[0], [pairs[i] for i in scored]) if coverage else np.nan
        values[2, scored] = [scores[i].dual or np.nan for i in scored]
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, values)
    return np.asarray(np.load(path))


def _coverage(model: Translator, pairs: Texts) -> Floats:
    """Return the share of the words of each pair that have a link, on the worse side; nan where words are not known."""
    values, (sources, targets) = np.full(len(pairs), np.nan), model.encode_pairs(pairs)
    for i, weights in model.attention_weights(sources, targets):
        words = model.pair_words(pairs[i], sources[i], targets[i])
        if all(map(words_known, pairs[i], words)):
            links = model.stored_source.source.links(weights, *words[::-1])
            sides = zip(zip(*links, strict=True), words, strict=True) if links else ()
            values[i] = min((len({*linked}) / len({*all_words} - {-1}) for linked, all_words in sides), default=0.0)
    return values


if __name__ == "__main__":
    run_command(main, CleanConfig, "clean")
