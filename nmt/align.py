"""python -m nmt.align: aligns the words of given texts with a trained model."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nmt import alignment, checkpoint
from nmt.alignment import AlignmentConfig, GoldAlignment, HeadSelection, Link, read_gold, symmetrize, write_pharaoh
from nmt.alignment.writers import AlignedPair, alignment_writers
from nmt.cli.compose import merge_with_checkpoint, run_command
from nmt.cli.configs import AlignConfig, Config
from nmt.cli.run_directory import result_folder
from nmt.data import DataConfig
from nmt.data.text_files import check_file, read_parallel
from nmt.evaluation.breakdown import length_correlation_warning
from nmt.evaluation.results import EvaluationSet
from nmt.inference.aligner import Aligner, aligner_with_selected_head
from nmt.inference.translator import Translator
from nmt.runtime.device import resolve_device
from nmt.runtime.files import write_text
from nmt.runtime.process import setup_process

log = logging.getLogger(__name__ if __name__ != "__main__" else "nmt.align")

Texts = Sequence[tuple[str, str]]


class AlignmentModel(NamedTuple):
    """A checkpoint: its model and the data it was trained on."""

    translator: Translator
    data: DataConfig
    reading: AlignmentConfig


def main(config: AlignConfig, overrides: list[str]) -> None:
    """Aligns `source` and `target`, by default the run's test set, and writes the files into `output`."""
    setup_process(config.num_threads)
    device = resolve_device(config.device)
    model = _load(config.checkpoint, config, overrides, device)
    pairs, gold = _texts(config, model.data)
    backward: list[list[Link]] | None = None
    choices: dict[str, HeadSelection] = {}
    if config.reverse is not None:
        other = _load(config.reverse, config, overrides, device)
        _check_direction(config, model.data, other.data)
        swapped = [(target, source) for source, target in pairs]
        aligner, choices["reverse"] = _aligner(config.reverse, other, swapped)
        backward = [[(i, j) for j, i in one.links] for part in aligner.align(swapped) for one in part]
    aligner, choices["forward"] = _aligner(config.checkpoint, model, pairs)
    directory = result_folder(config, overrides)
    forward: list[list[Link]] = []
    joined: list[list[Link]] = []
    with alignment_writers(directory, config.formats, weights=config.save_weights) as write:
        for part in aligner.align(pairs):
            forward += [one.links for one in part]
            if backward is not None:
                part = _joined(part, backward[len(joined) :], config.symmetrize)
            joined += [one.links for one in part]
            write(part)
    sets = {"alignments": joined}
    if backward is not None:
        sets |= {"forward": forward, "reverse": backward}
        write_pharaoh(directory / "forward.pharaoh", forward)
        write_pharaoh(directory / "reverse.pharaoh", backward)
    _report(directory, sets, gold, choices, config)


def _load(path: str, config: AlignConfig, overrides: list[str], device: torch.device) -> AlignmentModel:
    content = checkpoint.load(checkpoint.resolve(path), device)
    trained = Config.from_dict(content["config"])
    reading = merge_with_checkpoint(trained, config, overrides).alignment
    return AlignmentModel(Translator.from_checkpoint(content, None, device), trained.data, reading)


def _texts(config: AlignConfig, data: DataConfig) -> tuple[Texts, list[GoldAlignment] | None]:
    """The pairs, and their gold links or None."""
    if config.source is None or config.target is None:
        test = EvaluationSet.read(data, "test")
        return test.pairs, test.gold
    repaired: Counter[str] = Counter()
    for path in (config.source, config.target):
        check_file(Path(path), "")
    blocks = read_parallel(Path(config.source), Path(config.target), repaired)
    pairs = [pair for block in blocks for pair in zip(*block, strict=True)]
    if not pairs:
        raise ValueError(f"{config.source}: the file is empty")
    if repaired:
        log.info("repaired in the text: %s", ", ".join(f"{num} {what}" for what, num in repaired.items()))
    correlation = length_correlation_warning(*zip(*pairs, strict=True))
    if correlation is not None:
        log.warning(
            "the lengths of %s and %s hardly go together (correlation %.2f): is one of them in another order?",
            config.source,
            config.target,
            correlation,
        )
    gold = read_gold(config.gold, pairs) if config.gold is not None else None
    return pairs, gold


def _check_direction(config: AlignConfig, data: DataConfig, other: DataConfig) -> None:
    if (other.source_lang, other.target_lang) != (data.target_lang, data.source_lang):
        raise ValueError(
            f"reverse={config.reverse}: translates {other.source_lang} into {other.target_lang}, {config.checkpoint} "
            f"{data.source_lang} into {data.target_lang}: a run of the other direction is needed"
        )


def _aligner(path: str, loaded: AlignmentModel, pairs: Texts) -> tuple[Aligner, HeadSelection]:
    aligner, choice = aligner_with_selected_head(loaded.translator, loaded.reading, loaded.data, pairs)
    if choice is None:
        raise ValueError(
            f"{path}: this model has no attention to the source (model.attention.score=none): there is nothing to read "
            "an alignment from; use another run"
        )
    return aligner, choice


def _joined(part: Sequence[AlignedPair], backward: Sequence[list[Link]], method: str) -> list[AlignedPair]:
    return [
        one._replace(links=symmetrize(one.links, other, method))
        for one, other in zip(part, backward[: len(part)], strict=True)
    ]


def _report(
    directory: Path,
    sets: dict[str, list[list[Link]]],
    gold: list[GoldAlignment] | None,
    choices: dict[str, HeadSelection],
    config: AlignConfig,
) -> None:
    """scores.json and log lines: how many links, their error where there is gold, and what they were read from."""
    found: dict[str, Any] = {}
    for name, links in sets.items():
        found[name] = {"num_sentences": len(links), "num_links": sum(map(len, links))}
        if name in choices or config.reverse is None:
            choice = choices["forward" if name == "alignments" else name]
            found[name] |= {"alignment_source": choice.reading._asdict(), "alignment_source_text": str(choice.reading)}
            found[name] |= {"selected_by": choice.by}
        else:
            found[name] |= {"symmetrize": config.symmetrize}
        line = f"{found[name]['num_links']} links of {len(links)} sentence pairs"
        if gold is not None:
            score = alignment.alignment_error_rate(links, gold)
            found[name] |= score._asdict()
            line += f", AER {100 * score.aer:.1f} %, precision {score.precision:.3f}, recall {score.recall:.3f}"
            line += f", F {score.f1:.3f}"
        log.info("%s: %s", name, line)
    write_text(directory / "scores.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    log.info("written to %s", directory)


if __name__ == "__main__":
    run_command(main, AlignConfig, "align")
