"""The summary of compare.html: its title, the dot plot against the numbers, and what is said of too few seeds."""

import csv
import dataclasses
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from nmt.compare import RunComparison, compare_runs
from nmt.compare.page import page
from nmt.compare.plots import MARKS
from nmt.compare.run_results import find_reports, read_run_result
from nmt.compare.statistics import TOO_FEW, summarize
from nmt.compare.tables import FORMATS, SECTIONS, tables
from tests.compare.test_comparison import study, write


def dot_plot(html: str, metric: str) -> ElementTree.Element:
    (svg,) = re.findall(
        rf'<figure class="card dots" data-metric="{re.escape(metric)}">.*?(<svg.*?</svg>)', html, re.DOTALL
    )
    return ElementTree.fromstring(svg)


def x_of(mark: ElementTree.Element) -> float:
    return float(mark.get("cx") or re.findall(r"translate\(([-\d.]+) ", mark.get("transform", ""))[0])


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_positions_are_the_numbers(make_comparison, seeds: int) -> None:
    comparison = make_comparison(seeds=seeds)
    html = page(comparison, SECTIONS, 0)
    for metric in ("bleu", "chrf", "aer"):
        svg = dot_plot(html, metric)
        ticks = svg.findall("text")
        positions = [float(line.get("x1", "")) for line in svg.findall("line[@class='grid']")]
        scale = np.polyfit(positions, [float((tick.text or "").replace(",", "")) for tick in ticks], 1)
        tolerance = abs(scale[0]) * 0.2  # positions are rounded to a tenth of a unit
        groups = [group for group in comparison.groups if metric in group.summaries]
        rows = svg.findall("g")
        assert len(rows) == len(groups) == (2 if metric == "aer" else 3)
        heights = []
        for row, group in zip(rows, groups, strict=True):
            summary = group.summaries[metric]
            assert row.get("data-group") == str(comparison.groups.index(group))
            key, mean = row.findall("path[@class='mark']")
            assert key.get("d") == mean.get("d") == MARKS[comparison.groups.index(group)]
            assert np.polyval(scale, x_of(mean)) == pytest.approx(summary.mean, abs=tolerance)
            circles = row.findall("circle")
            values = [np.polyval(scale, x_of(circle)) for circle in circles]
            assert values == pytest.approx(summary.values, abs=tolerance)
            expected = [f"seed {seed}: {value:.2f}" for seed, value in zip(group.seeds, summary.values, strict=True)]
            assert [circle.findtext("title") for circle in circles] == expected
            whiskers = row.findall("path[@class='whisker']")
            assert len(whiskers) == (seeds == 4)
            for whisker in whiskers:
                ends = [float(x) for x in re.findall(r"[MH]([-\d.]+)", whisker.get("d", ""))]
                assert np.polyval(scale, ends) == pytest.approx([summary.low, summary.high], abs=tolerance)
            texts = [part for text in row.findall("text") for part in text.itertext()]
            assert texts == [group.label + " (baseline)" * (group is comparison.baseline), f"{summary.mean:.2f}"]
            heights.append(float(re.findall(r" ([\d.]+)\)", mean.get("transform", ""))[0]))
            for text in [*expected, f"{group.label}: mean {summary.mean:.2f}"]:
                assert text in svg.get("aria-label", "")
                assert text in (row.findtext("title") or "")
        assert heights == sorted(set(heights))
        (line,) = svg.findall("line[@class='baseline']")
        assert line.get("x1") == line.get("x2") == str(x_of(rows[0].findall("path[@class='mark']")[1]))


def test_the_main_metric_is_first_and_the_order_is_from_the_result_to_the_details(make_comparison) -> None:
    html = page(make_comparison(), SECTIONS)
    assert re.findall(r'data-metric="(.*?)"', html) == ["bleu", "chrf", "aer"]
    assert re.findall(r'<option value="(\w+)">', html)[:3] == ["bleu", "chrf", "aer"]
    order = ["summary", "scores", "sentences", "length", "training", "cost", "options"]
    assert re.findall(r'<section id="(\w+)">', html) == order
    details = re.search(r"<details><summary>p-values: how likely.*?\?</summary>(.*?)</details>", html, re.DOTALL)
    assert "Holm seeds" in details.group(1)
    assert "Holm seeds" not in html.replace(details.group(0), "")
    without = page(make_comparison(("dot", "general")), ["scores"], 0)
    assert "p-values" not in without
    assert TOO_FEW in without


# --- the title ---


def title(comparison: RunComparison) -> str:
    html = page(comparison, ["scores"], 0)
    (heading,), (window,) = re.findall("<h1.*?>(.*?)</h1>", html), re.findall("<title>(.*?) – comparison</title>", html)
    assert heading == window
    return str(heading)


def compared(folder: Path, **options) -> RunComparison:
    results = [read_run_result(report) for report in find_reports([str(folder)], "")[0]]
    return compare_runs(results, num_resamples=0, **options)


def test_the_title_says_what_was_varied(make_comparison, tmp_path: Path) -> None:
    assert title(make_comparison()) == "model.attention.score: additive, scaled, none — 6 runs, 2 seeds"
    assert title(make_comparison(("dot", "general"), seeds=1)) == "model.attention.score: dot, general — 2 runs, 1 seed"
    for seed in (1, 2):
        write(tmp_path / "seeds", str(seed), seed=seed)
    assert title(compared(tmp_path / "seeds")) == "only seeds — 2 runs, 2 seeds"
    for i, value in enumerate(["a" * 50, "<b>" + "b" * 50]):
        for seed in range(1, i + 2):
            changes = {
                "data__train": value,
                "model__attention__score": "dot" if i else "scaled",
                "train__max_updates": 5 + i,
            }
            write(tmp_path / "several", f"{i}-{seed}", seed=seed, **changes)
    several = compared(tmp_path / "several")
    assert (
        title(several)
        == "data.train: 2 values; model.attention.score: scaled, dot; 1 more option — 3 runs, 1 to 2 seeds"
    )
    factor = compared(tmp_path / "several", factors=["train.max_updates"])
    assert title(factor).startswith("train.max_updates: 5, 6; data.train: 2 values; 1 more option — ")


# --- too few seeds ---


@pytest.mark.parametrize("seeds", [2, 3])
def test_too_few_seeds_is_said_in_words_and_only_then(tmp_path: Path, seeds: int) -> None:
    results = study(tmp_path, {"additive": 0.3, "dot": 0.5}, seeds=seeds)
    comparison = compare_runs(results, num_resamples=10)
    summary = comparison.groups[1].summaries["bleu"]
    ends = f"[{summary.low:.2f}, {summary.high:.2f}]"
    for name in ("text", "markdown", "latex"):
        text = FORMATS[name](comparison, SECTIONS)
        row = next(line for line in text.splitlines() if re.search(r"\bdot\b.*±|\bdot\b.*pm", line))
        assert (TOO_FEW in row, TOO_FEW in text, ends in text) == (seeds < 3, seeds < 3, seeds == 3), name
        assert f"{summary.mean:.2f}" in row
    html = page(comparison, SECTIONS)
    assert (f"<td>{seeds} ({TOO_FEW})</td>" in html, TOO_FEW in html, ends in html) == (
        seeds < 3,
        seeds < 3,
        seeds == 3,
    )
    rows = csv.DictReader(io.StringIO(FORMATS["csv"](comparison, SECTIONS)))
    (row,) = [row for row in rows if (row["group"], row["quantity"]) == ("dot", "bleu")]
    assert (float(row["low"]), float(row["high"])) == (summary.low, summary.high)
    stored = json.loads(FORMATS["json"](comparison, SECTIONS))["groups"][1]["quantities"]["bleu"]
    assert (stored["low"], stored["high"]) == (summary.low, summary.high)


def test_a_group_of_few_seeds_among_others_and_one_seed(tmp_path: Path) -> None:
    results = study(tmp_path / "some", {"additive": 0.3, "dot": 0.5})[:-1]
    table = tables(compare_runs(results, num_resamples=0))[0]
    assert [row[-1] for row in table.rows] == ["3", f"2 ({TOO_FEW})"]
    assert "t over 3 seeds]" in table.title
    html = page(compare_runs(results, num_resamples=0), SECTIONS, 0)
    assert "lines 95 % intervals of the mean (t over 3 seeds). Dashed: " in html
    assert f"Without a line: {TOO_FEW}." in html
    one = study(tmp_path / "one", {"additive": 0.3, "dot": 0.5}, seeds=1)
    assert [row[-1] for row in tables(compare_runs(one, num_resamples=0))[0].rows] == ["1", "1"]  # over sentences
    bare = [dataclasses.replace(result, intervals={}) for result in one]
    assert [row[-1] for row in tables(compare_runs(bare, num_resamples=0))[0].rows] == [f"1 ({TOO_FEW})"] * 2


def test_which_intervals_are_shown() -> None:
    assert summarize([20.0, 110.0]).interval is None
    three = summarize([20.0, 21.0, 22.0])
    assert three.interval == (three.low, three.high)
    assert summarize([20.0]).interval is None
    assert summarize([20.0], (20.0, 2.0)).interval == (18.0, 22.0)
