"""Tables of the study of spans in docs/ablation.md: which score carries an element of markup across best?

    python scripts/ablation_spans.py FOLDER_OR_CSV ... [--csv FILE] [--picture FILE [--authority de=77.4 ...]]

reads the runs that scripts/ablation_spans.sh leaves in runs/spans_<language>_<architecture>, or the file that --csv
wrote from them (docs/ablation_spans.csv is that of the page), and prints, in Markdown,

* a row for each language, architecture, guidance and score: means over seeds;
* differences from `scaled`, paired by language, architecture, guidance and seed, with Wilcoxon's signed-rank test and
  Holm's correction;
* what goes with the F1 of spans: Spearman's correlations over runs, within language, architecture and guidance.

The picture shows the exact spans of every run, and as a line those that eflomal's links give in a language.

    python scripts/ablation_spans.py --eflomal eflomal-align FOLDER_OF_TEXT LANGUAGE

is the outside authority: it aligns the words and marks of train, valid and test_tagged in both directions with eflomal,
and carries the elements of test_tagged over along these links, as nmt does along attention.
"""

import argparse
import csv
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import yaml
from align_with_eflomal import align
from align_with_eflomal import read as read_text
from scipy.stats import rankdata, wilcoxon
from tabulate import tabulate

from nmt.alignment.markup import Ranges, project, units
from nmt.compare.statistics import holm, summarize
from nmt.data import DataConfig
from nmt.evaluation.results import EvaluationSet
from nmt.evaluation.span_projection import SpanScore, span_score
from nmt.runtime.errors import report_errors
from nmt.runtime.files import atomic_write, write_text

SCORES = ("scaled", "additive", "dot", "general", "cosine", "hybrid")
BUILT_IN = "builtin"
KEYS = ("language", "architecture", "guided", "seed", "score")
COLUMNS = {
    "bleu": "BLEU",
    "valid_aer": "AER %",
    "builtin_aer": "AER %, built-in",
    "entropy": "entropy",
    "exact": "exact %",
    "f1": "F1",
    "boundary_error": "boundary off by",
    "best_f1": "F1 of the best head",
    "own_f1": "F1, own output",
}
"""Measures of a run. AER is against eflomal's links of the validation set; on the built-in pair, of runs with the same
settings, against the true links of its test set. Entropy is of the head that is read."""

Run = dict[str, Any]


def read_run(folder: Path) -> Run:
    """Return the factors and the measures of a run: of one of real text that has been evaluated with markup."""
    is_real = (folder / "report-spans").is_dir()
    report = folder / ("report-spans" if is_real else "report")
    scores = json.loads((report / "scores.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((report / "config.yaml").read_text(encoding="utf-8"))
    run: Run = {
        "language": config["data"]["target_lang"] if is_real else BUILT_IN,
        "architecture": config["model"]["architecture"],
        "guided": int(config["train"]["guided_alignment_weight"] > 0),
        "seed": config["seed"],
        "score": config["model"]["attention"]["score"],
        "bleu": scores["bleu"]["score"],
    }
    if not is_real:
        return run | {"builtin_aer": 100 * scores["alignment"]["aer"]}
    validations = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    measures = json.loads((report / "diagnostics.json").read_text(encoding="utf-8"))["measures"]["entropy"]
    source, spans = scores["alignment_source"], scores["spans"]
    layers = measures[source["layer"] - 1 : source["layer"]] if source["layer"] else measures
    return run | {
        "valid_aer": [100 * line["valid_aer"] for line in validations if "valid_aer" in line][-1],
        "entropy": fmean(head[source["head"] - 1] if source["head"] else fmean(head) for head in layers),
        "exact": 100 * spans["references"]["exact"],
        "f1": 100 * spans["references"]["f1"],
        "boundary_error": spans["references"]["boundary_error"],
        "best_f1": 100 * max(head["f1"] for head in spans["heads"] if head["head"]),
        "own_f1": 100 * spans["output"]["f1"],
    }


def read(path: Path) -> list[Run]:
    """Return the runs of a folder, or of a file that `write` has written."""
    if path.is_dir():
        folders = [file.parents[1] for file in path.rglob("report-spans/config.yaml")]
        return [
            read_run(folder) for folder in sorted(folders or [f.parents[1] for f in path.rglob("report/config.yaml")])
        ]
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {k: v if k in ("language", "architecture", "score") else float(v) for k, v in row.items() if v != ""}
            for row in csv.DictReader(file)
        ]


def write(runs: Sequence[Run], path: Path) -> None:
    """Write the factors and measures of runs as CSV."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, [*KEYS, *COLUMNS], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(runs)
    write_text(path, lines.getvalue())


def join(runs: Sequence[Run]) -> list[Run]:
    """Return runs in the order of the tables, those of real text with the mean AER of the same settings, built-in."""
    order = sorted(runs, key=lambda run: (*group(run), SCORES.index(run["score"]), run["seed"]))
    aer = defaultdict[tuple[Any, ...], list[float]](list)
    for run in order:
        if run["language"] == BUILT_IN:
            aer[*group(run)[1:], run["score"]].append(run["builtin_aer"])
    means = {setting: fmean(values) for setting, values in aer.items()}
    added = [means.get((*group(run)[1:], run["score"])) for run in order]
    return [run if mean is None else {"builtin_aer": mean} | run for run, mean in zip(order, added, strict=True)]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, its first column on the left."""
    columns = ["left", *["right"] * (len(header) - 1)]
    return str(tabulate(rows, header, tablefmt="pipe", colalign=columns, disable_numparse=True))


def group(run: Run) -> tuple[str, str, float]:
    """Return what correlations are computed within."""
    return run["language"], run["architecture"], run["guided"]


def means(runs: Sequence[Run]) -> str:
    """Return the means over seeds by group and score, with the standard deviation where there is one."""
    groups = defaultdict[tuple[Any, ...], list[Run]](list)
    for run in runs:
        groups[*group(run), run["score"]].append(run)
    rows = []
    for (language, architecture, guided, score), members in groups.items():
        cells = []
        for name in COLUMNS:
            values = [run[name] for run in members if name in run]
            if not values:
                cells.append("–")
                continue
            cell = summarize(values)
            is_mean = cell.deviation is None or (name == "builtin_aer" and language != BUILT_IN)
            cells.append(f"{cell.mean:.2f}" if is_mean else f"{cell.mean:.2f} ± {cell.deviation:.2f}")
        name = f"{language} {architecture}, {'guided' if guided else 'plain'}"
        rows.append([name, f"`{score}`", str(len(members)), *cells])
    return table(["", "score", "runs", *COLUMNS.values()], rows)


def differences(runs: Sequence[Run], measure: str) -> str:
    """Return differences of a measure from `scaled`, and of guided from plain, paired by all other factors."""
    values = {(*group(run), run["seed"], run["score"]): run[measure] for run in runs}
    pairs: dict[str, list[float]] = {}
    for guided, score in product((0, 1), SCORES[1:]):
        pairs[f"`{score}` − `scaled`, {'guided' if guided else 'plain'}"] = [
            value - values[*key, guided, seed, "scaled"]
            for (*key, is_guided, seed, of), value in values.items()
            if (is_guided, of) == (guided, score) and (*key, guided, seed, "scaled") in values
        ]
    pairs["guided − plain"] = [
        value - values[*key, 0, *rest]
        for (*key, guided, seed, score), value in values.items()
        if guided and (*key, 0, *(rest := (seed, score))) in values
    ]
    tested = {name: float(wilcoxon(found).pvalue) for name, found in pairs.items() if any(found)}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    rows = []
    for name in tested:
        found = summarize(pairs[name])
        interval = f"{found.mean:+.2f}" + (f" [{found.low:.2f}, {found.high:.2f}]" if len(pairs[name]) > 1 else "")
        better = f"{sum(value > 0 for value in pairs[name])} of {len(pairs[name])}"
        p_values = [f"{p:.4f}" if p >= 0.0001 else "< 0.0001" for p in (tested[name], corrected[name])]
        rows.append([name, interval, f"{median(pairs[name]):+.2f}", better, *p_values])
    return table([COLUMNS[measure], "mean [95 %]", "median", "higher in", "p", "p, Holm"], rows)


def correlations(runs: Sequence[Run], measure: str = "f1") -> str:
    """Return Spearman's correlation of other measures with one, over runs, ranked within their groups."""
    rows = []
    for name in ("exact", "bleu", "valid_aer", "builtin_aer", "entropy"):
        groups = defaultdict[tuple[Any, ...], list[tuple[float, float]]](list)
        for run in runs:
            if name in run:
                groups[group(run)].append((run[name], run[measure]))
        cells = []
        for kept in ((0, 1), (0,), (1,)):
            ranks = [rankdata(found, axis=0) for key, found in groups.items() if key[2] in kept]
            centred = [rank - rank.mean(0) for rank in ranks]
            x, y = np.concatenate(centred).T if centred else np.zeros((2, 0))
            cells.append(f"{np.corrcoef(x, y)[0, 1]:+.2f}" if len(x) > 2 and x.std() and y.std() else "–")
        rows.append([COLUMNS[name], *cells])
    return table([f"correlation with {COLUMNS[measure]}", f"all {len(runs)} runs", "plain", "guided"], rows)


def tables(runs: Sequence[Run]) -> str:
    """Return all tables."""
    every = join(runs)
    marked = [run for run in every if "f1" in run]
    found = [means(every), *(differences(marked, name) for name in ("f1", "exact", "bleu")), correlations(marked)]
    return "\n\n".join(found if marked else found[:1])


def draw(runs: Sequence[Run], path: Path, authority: dict[str, float]) -> None:
    """Draw the exact spans of each run of real text, a panel for each language and architecture, and the `authority`
    of a language in percent as a line."""
    import matplotlib.pyplot as plt

    runs = [run for run in runs if "exact" in run]
    if not (panels := sorted({group(run)[:2] for run in runs})):
        raise ValueError(f"--picture {path}: there is no run of real text to draw")
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.6 * len(panels), 2.9), sharey=True, sharex=True, squeeze=False
    )
    for panel, axis in zip(panels, axes[0], strict=True):
        for guided, marker in ((0, {"facecolors": "none", "edgecolors": "C0"}), (1, {"color": "C1", "marker": "D"})):
            found = [run for run in runs if group(run) == (*panel, guided)]
            places = [SCORES.index(run["score"]) for run in found]
            label = "guided" if guided else "plain"
            axis.scatter([run["exact"] for run in found], places, label=label, s=26, alpha=0.8, zorder=2, **marker)
        if panel[0] in authority:
            axis.axvline(authority[panel[0]], color="0.3", linestyle="--", label="eflomal's links")
        axis.set(title=" ".join(panel), xlabel=COLUMNS["exact"], yticks=range(len(SCORES)), yticklabels=SCORES)
        axis.grid(axis="y", color="0.9")
    axes[0, 0].invert_yaxis()
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    with atomic_write(path) as file:
        figure.savefig(file, dpi=110, format=path.suffix.removeprefix(".") or "png")
    plt.close(figure)


def authority(folder: Path, language: str, program: str) -> SpanScore:
    """Return how well links by eflomal carry over the elements of test_tagged.

    It sees the words and marks of train, valid and test_tagged; pairs with tags that are not well-formed are left out.
    """

    def words(text: str, ranges: Ranges) -> str:
        return " ".join(text[start:end] for start, end in ranges)

    config = DataConfig(format="text", test=str(folder / "test_tagged"), source_lang="en", target_lang=language)
    marked = EvaluationSet.read(config, "test").without_markup().markup or []
    both = [(source.units(), units(target.text)) for source, target in marked]
    corpora = read_text([str(folder / "train"), str(folder / "valid")], ("en", language))
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


def _percentages(values: Sequence[str]) -> dict[str, float]:
    """Return numbers by language, given as de=77.4."""
    found = {}
    for value in values:
        language, _, number = value.partition("=")
        try:
            found[language] = float(number)
        except ValueError:
            raise ValueError(f"--authority {value}: must be a language and a number, such as de=77.4") from None
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], epilog="More at the head of the file."
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="runs; or, with --eflomal, text and its language")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the measures of each run to FILE, too")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="draw the exact spans of each run")
    parser.add_argument(
        "--authority", metavar="LANGUAGE=PERCENT", nargs="+", default=[], help="exact spans by eflomal, to draw"
    )
    parser.add_argument("--eflomal", metavar="PROGRAM", help="carry elements over along links by this eflomal-align")
    options = parser.parse_args(arguments)
    with report_errors():
        if options.eflomal:
            if len(options.paths) != 2:
                raise ValueError("--eflomal: give a folder with train, valid and test_tagged, and the target language")
            folder, language = options.paths
            print(authority(Path(folder), language, options.eflomal))
            return
        percentages = _percentages(options.authority)
        runs = [run for path in options.paths for run in read(Path(path))]
        if not runs:
            raise ValueError(f"{' '.join(options.paths)}: no run with a folder report-spans; see ablation_spans.sh")
        if len({(*group(run), run["seed"], run["score"]) for run in runs}) < len(runs):
            raise ValueError(f"{' '.join(options.paths)}: a run is there twice; give each folder or file once")
        print(tables(runs))
        if options.csv:
            write(runs, options.csv)
        if options.picture:
            draw(join(runs), options.picture, percentages)


if __name__ == "__main__":
    main()
