"""Tables of the study of spans in docs/ablation.md: which score carries an element of markup across best?

    python scripts/ablation_spans.py FOLDER [FOLDER ...]

reads the runs that scripts/ablation_spans.sh leaves in runs/spans_<language>_<architecture>, and prints, in Markdown,

* a row for each folder, guidance and score: means over seeds;
* differences from `scaled`, paired by folder, guidance and seed, with a t-test and Holm's correction;
* what goes with the F1 of spans: correlations over runs, within folder and guidance.

    python scripts/ablation_spans.py --eflomal eflomal-align FOLDER_OF_TEXT LANGUAGE

is the outside authority: it aligns the words and marks of train, valid and test_tagged in both directions with eflomal,
and carries the elements of test_tagged over along these links, as nmt does along attention.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import yaml
from align_with_eflomal import align, read

from nmt.alignment.markup import Ranges, project, units
from nmt.compare.statistics import holm, summarize, t_test
from nmt.data import DataConfig
from nmt.evaluation.results import EvaluationSet
from nmt.evaluation.span_projection import SpanScore, span_score
from nmt.runtime.errors import report_errors

SCORES = ("scaled", "additive", "dot", "general", "cosine", "hybrid")
COLUMNS = {
    "bleu": "BLEU",
    "valid_aer": "AER %",
    "entropy": "entropy",
    "exact": "exact %",
    "f1": "F1",
    "boundary_error": "boundary off by",
    "best_f1": "F1 of the best head",
    "own_f1": "F1, own output",
}
"""Measures of a run. AER is against eflomal's links of the validation set; entropy is of the head that is read."""

Run = dict[str, Any]


def read_run(folder: Path) -> Run:
    """Return the factors and the measures of a run that has been evaluated with markup."""
    report = folder / "report-spans"
    scores = json.loads((report / "scores.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((report / "config.yaml").read_text(encoding="utf-8"))
    validations = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    measures = json.loads((report / "diagnostics.json").read_text(encoding="utf-8"))["measures"]["entropy"]
    source, spans = scores["alignment_source"], scores["spans"]
    layers = measures[source["layer"] - 1 : source["layer"]] if source["layer"] else measures
    heads = [head[source["head"] - 1] if source["head"] else fmean(head) for head in layers]
    return {
        "block": (folder.parent.name, config["train"]["guided_alignment_weight"] > 0, config["seed"]),
        "score": config["model"]["attention"]["score"],
        "bleu": scores["bleu"]["score"],
        "valid_aer": [100 * line["valid_aer"] for line in validations if "valid_aer" in line][-1],
        "entropy": fmean(heads),
        "exact": 100 * spans["references"]["exact"],
        "f1": 100 * spans["references"]["f1"],
        "boundary_error": spans["references"]["boundary_error"],
        "best_f1": 100 * max(head["f1"] for head in spans["heads"] if head["head"]),
        "own_f1": 100 * spans["output"]["f1"],
    }


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, its first column on the left."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def means(runs: Sequence[Run]) -> str:
    """Return the means over seeds by folder, guidance and score, with the standard deviation where there is one."""
    groups = defaultdict[tuple[str, bool, str], list[Run]](list)
    for run in runs:
        groups[(*run["block"][:2], run["score"])].append(run)
    rows = []
    for (folder, guided, score), members in sorted(groups.items(), key=lambda g: (*g[0][:2], SCORES.index(g[0][2]))):
        cells = [summarize([run[name] for run in members]) for name in COLUMNS]
        texts = [f"{c.mean:.2f}" + (f" ± {c.deviation:.2f}" if c.deviation is not None else "") for c in cells]
        name = folder.removeprefix("spans_").replace("_", " ")
        rows.append([f"{name}, {'guided' if guided else 'plain'}", f"`{score}`", str(len(members)), *texts])
    return table(["", "score", "runs", *COLUMNS.values()], rows)


def differences(runs: Sequence[Run], measure: str) -> str:
    """Return the differences of a measure from `scaled`, paired by block, and guided from plain, paired by the rest."""
    values = {(run["block"], run["score"]): run[measure] for run in runs}
    pairs: dict[str, list[float]] = {}
    for score in SCORES[1:]:
        blocks = [block for block, of in values if of == score and (block, "scaled") in values]
        pairs[f"`{score}` − `scaled`"] = [values[block, score] - values[block, "scaled"] for block in blocks]
    plain = {(block, score): ((block[0], False, block[2]), score) for block, score in values if block[1]}
    pairs["guided − plain"] = [values[key] - values[other] for key, other in plain.items() if other in values]
    tested = {name: p for name, found in pairs.items() if (p := t_test(found)) is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    rows = []
    for name in tested:
        found = summarize(pairs[name])
        interval = f"{found.mean:+.2f} [{found.low:.2f}, {found.high:.2f}]"
        better = f"{sum(value > 0 for value in pairs[name])} of {len(pairs[name])}"
        rows.append([name, interval, better, f"{tested[name]:.4f}", f"{corrected[name]:.4f}"])
    return table([COLUMNS[measure], "difference [95 %]", "higher in", "p", "p, Holm"], rows)


def correlations(runs: Sequence[Run], measure: str = "f1") -> str:
    """Return Pearson's correlation of other measures with one, over runs, the mean of the block subtracted."""
    blocks = defaultdict[tuple[str, bool], list[Run]](list)
    for run in runs:
        blocks[run["block"][:2]].append(run)
    parts: dict[str, list[list[float]]] = {name: [] for name in ("f1", "exact", "bleu", "valid_aer", "entropy")}
    guided = [run["block"][1] for members in blocks.values() for run in members]
    for members in blocks.values():
        for name, lists in parts.items():
            mean = fmean(run[name] for run in members)
            lists.append([run[name] - mean for run in members])
    columns = {name: np.concatenate(lists) for name, lists in parts.items()}
    rows = []
    for name in ("exact", "bleu", "valid_aer", "entropy"):
        cells = []
        for kept in (np.ones(len(guided), bool), ~np.array(guided), np.array(guided)):
            x, y = columns[name][kept], columns[measure][kept]
            cells.append(f"{np.corrcoef(x, y)[0, 1]:+.2f}" if len(x) > 2 and x.std() and y.std() else "–")
        rows.append([COLUMNS[name], *cells])
    return table([f"correlation with {COLUMNS[measure]}", f"all {len(guided)} runs", "plain", "guided"], rows)


def authority(folder: Path, language: str, program: str) -> SpanScore:
    """Return how well links by eflomal carry over the elements of test_tagged.

    It sees the words and marks of train, valid and test_tagged; pairs with tags that are not well-formed are left out.
    """

    def words(text: str, ranges: Ranges) -> str:
        return " ".join(text[start:end] for start, end in ranges)

    config = DataConfig(format="text", test=str(folder / "test_tagged"), source_lang="en", target_lang=language)
    marked = EvaluationSet.read(config, "test").without_markup().markup or []
    both = [(source.units(), units(target.text)) for source, target in marked]
    corpora = read([str(folder / "train"), str(folder / "valid")], ("en", language))
    pairs = [(words(s, units(s)), words(t, units(t))) for corpus in corpora for s, t in corpus]
    tested = zip(marked, both, strict=True)
    pairs += [(words(source.text, ours), words(target.text, theirs)) for (source, target), (ours, theirs) in tested]
    links = align(pairs, program, "grow-diag-final-and")[-len(marked) :]
    found = []
    for (source, target), (ours, theirs), of in zip(marked, both, links, strict=True):
        matrix = np.zeros((len(theirs), len(ours)))
        for i, j in of:
            matrix[j, i] = 1
        found.append((project(source, target.text, matrix), target))
    return span_score(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], epilog="More at the head of the file."
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="runs; or, with --eflomal, text and its language")
    parser.add_argument("--eflomal", metavar="PROGRAM", help="carry elements over along links by this eflomal-align")
    options = parser.parse_args(arguments)
    with report_errors():
        if options.eflomal:
            if len(options.folders) != 2:
                raise ValueError("--eflomal: give a folder with train, valid and test_tagged, and the target language")
            folder, language = options.folders
            print(authority(Path(folder), language, options.eflomal))
            return
        files = [file for folder in options.folders for file in sorted(Path(folder).glob("*/report-spans/config.yaml"))]
        if not files:
            raise ValueError(f"{' '.join(options.folders)}: no run with a folder report-spans; see ablation_spans.sh")
        runs = [read_run(file.parent.parent) for file in files]
        tables = [means(runs), *(differences(runs, name) for name in ("f1", "exact", "bleu")), correlations(runs)]
        print("\n\n".join(tables))


if __name__ == "__main__":
    main()
