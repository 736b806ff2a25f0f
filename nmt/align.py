"""python -m nmt.align: align the words of given texts with a trained model."""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from nmt import alignment
from nmt.alignment import GoldAlignment, HeadSelection, Link, read_gold, symmetrize, write_pharaoh
from nmt.alignment.markup import MarkedText, Matrix, Ranges, parse_markup, project, render, units
from nmt.alignment.writers import AlignedPair, alignment_writers
from nmt.cli.compose import run_command
from nmt.cli.configs import AlignConfig, Config
from nmt.cli.loading import load_reverse, load_translator
from nmt.cli.run_directory import result_folder
from nmt.data import DataConfig
from nmt.data.corpora import of_split
from nmt.data.sources import further_splits
from nmt.data.text_files import check_file, read_parallel
from nmt.evaluation.breakdown import length_correlation_warning
from nmt.evaluation.results import EvaluationSet
from nmt.inference.aligner import Aligner, Texts, aligner_with_selected_head
from nmt.inference.line_translator import json_line
from nmt.inference.translator import Translator
from nmt.runtime.files import write_text
from nmt.runtime.process import setup_process

log = logging.getLogger(__name__ if __name__ != "__main__" else "nmt.align")


def main(config: AlignConfig, overrides: list[str]) -> None:
    """Align `source` and `target`, by default the run's test set, and write the files into `output`."""
    setup_process(config.num_threads)
    translator, options = load_translator(config.checkpoint, config, overrides)
    translator = translator.into(options.data, config.target_lang, config.tag)
    pairs, gold = _read_pairs(config, options.data)
    backward: list[list[Link]] | None = None
    marked, errors = [MarkedText(source, []) for source, _ in pairs], dict[int, str]()
    for i, (source, _) in enumerate(pairs if config.markup else []):
        try:
            marked[i] = parse_markup(source)
        except ValueError as error:
            errors[i] = str(error)
            log.warning("line %d: the target gets no tags: %s", i + 1, error)
    pairs = [(text.text, target) for text, (_, target) in zip(marked, pairs, strict=True)]
    weights = dict[int, Matrix]()  # of both directions, with markup
    selections: dict[str, HeadSelection] = {}
    if config.reverse is not None:
        swapped = [(target, source) for source, target in pairs]
        reverse = load_reverse(config, options.data, overrides)
        aligner, selections["reverse"] = _select_head(config.reverse, *reverse, swapped)
        backward = []
        for chunk in aligner.align(swapped):
            for i, pair in enumerate(chunk if config.markup else [], len(backward)):
                weights[i] = _unit_weights(aligner, pair, (units(pair.source), marked[i].units())).T
            backward += [[(i, j) for j, i in pair.links] for pair in chunk]
    aligner, selections["forward"] = _select_head(config.checkpoint, translator, options, pairs)
    directory = result_folder(config, overrides)
    forward: list[list[Link]] = []
    alignments: list[list[Link]] = []
    with alignment_writers(directory, config.formats, weights=config.save_weights) as write:
        for chunk in aligner.align(pairs):
            for i, pair in enumerate(chunk if config.markup else [], len(forward)):
                weights[i] = weights.get(i, 0) + _unit_weights(aligner, pair, (marked[i].units(), units(pair.target)))
            forward += [pair.links for pair in chunk]
            if backward is not None:
                directions = zip(chunk, backward[len(alignments) : len(forward)], strict=True)
                chunk = [pair._replace(links=symmetrize(pair.links, b, config.symmetrize)) for pair, b in directions]
            alignments += [pair.links for pair in chunk]
            write(chunk)
    sets = {"alignments": alignments}
    if backward is not None:
        sets |= {"forward": forward, "reverse": backward}
        write_pharaoh(directory / "forward.pharaoh", forward)
        write_pharaoh(directory / "reverse.pharaoh", backward)
    if config.markup:
        _write_tagged(directory, [target for _, target in pairs], marked, weights, errors)
    _report(directory, sets, gold, selections, config)


def _write_tagged(
    directory: Path, targets: list[str], marked: list[MarkedText], weights: dict[int, Matrix], errors: dict[int, str]
) -> None:
    """Write tagged.txt, targets with the tags of their sources, and spans.jsonl with the range of each element."""
    tagged, records = [], []
    for i, (target, text) in enumerate(zip(targets, marked, strict=True)):
        spans = project(text, target, weights[i])
        tagged.append(render(target, spans))
        record = {"target": target, "spans": [span.to_json(target) for span in spans]}
        records.append(json_line(record | ({"error": errors[i]} if i in errors else {})))
    write_text(directory / "tagged.txt", "".join(f"{line}\n" for line in tagged))
    write_text(directory / "spans.jsonl", "".join(f"{line}\n" for line in records))


def _unit_weights(aligner: Aligner, pair: AlignedPair, ranges: tuple[Ranges, Ranges]) -> Matrix:
    """Return the attention of a pair between ranges of its source and of its target."""
    (source,), (target,) = aligner.translator.encode_pairs([pair[:2]])
    return aligner.translator.unit_weights(pair[:2], (source, target), pair.weights, ranges, aligner.source)


def _read_pairs(config: AlignConfig, data: DataConfig) -> tuple[Texts, list[GoldAlignment] | None]:
    """Return the sentence pairs, and their gold links or None."""
    if config.source is None or config.target is None:
        splits = {split: of_split(data, split)[0].target_lang for split in further_splits(data, "test")}
        wanted = (split for split, language in splits.items() if config.target_lang in (None, language))
        test = EvaluationSet.read(data, next(wanted))
        return test.pairs, test.gold
    repaired: Counter[str] = Counter()
    source, target = (check_file(Path(path), "") for path in (config.source, config.target))
    blocks = read_parallel(source, target, repaired)
    pairs = [pair for block in blocks for pair in zip(*block, strict=True)]
    if not pairs:
        raise ValueError(f"{config.source}: the file is empty")
    if repaired:
        log.info("repaired in the text: %s", ", ".join(f"{num} {problem}" for problem, num in repaired.items()))
    correlation = length_correlation_warning(*zip(*pairs, strict=True))
    if correlation is not None:
        log.warning(
            "the lengths of %s and %s hardly go together (correlation %.2f): is one of them in another order?",
            *(config.source, config.target, correlation),
        )
    return pairs, read_gold(config.gold, pairs) if config.gold is not None else None


def _select_head(path: str, translator: Translator, options: Config, pairs: Texts) -> tuple[Aligner, HeadSelection]:
    aligner, selection = aligner_with_selected_head(translator, options.alignment, options.data, pairs)
    if selection is None:
        raise ValueError(
            f"{path}: this model has no attention to the source (model.attention.score=none): there is nothing to read "
            "an alignment from; use another run"
        )
    return aligner, selection


def _report(
    directory: Path,
    sets: dict[str, list[list[Link]]],
    gold: list[GoldAlignment] | None,
    selections: dict[str, HeadSelection],
    config: AlignConfig,
) -> None:
    """Write scores.json and log the number of links, their alignment source, and their error where there is gold."""
    scores: dict[str, dict[str, Any]] = {}
    for name, links in sets.items():
        entry = scores[name] = {"num_sentences": len(links), "num_links": sum(map(len, links))}
        entry["source"] = config.source  # see `result_folder`
        selection = selections.get("forward" if name == "alignments" and config.reverse is None else name)
        if selection is not None:
            entry["alignment_source"] = selection.source._asdict()
            entry |= {"alignment_source_text": str(selection.source), "selected_by": selection.selected_by}
        else:
            entry["symmetrize"] = config.symmetrize
        line = f"{entry['num_links']} links of {len(links)} sentence pairs"
        if gold is not None:
            score = alignment.alignment_error_rate(links, gold)
            entry |= score._asdict()
            line += f", AER {100 * score.aer:.1f} %, precision {score.precision:.3f}, recall {score.recall:.3f}"
            line += f", F {score.f1:.3f}"
        log.info("%s: %s", name, line)
    write_text(directory / "scores.json", json.dumps(scores, indent=2, ensure_ascii=False) + "\n")
    log.info("written to %s", directory)


if __name__ == "__main__":
    run_command(main, AlignConfig, "align")
