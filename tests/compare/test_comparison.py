"""python -m nmt.compare RUNS: groups, numbers, errors, warnings, and every output format."""

import csv
import dataclasses
import io
import json
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from nmt.cli.configs import Config
from nmt.compare import RunComparison, RunResult, compare_runs, comparison
from nmt.compare.__main__ import main
from nmt.compare.run_results import find_reports, read_run_result
from nmt.compare.tables import SECTIONS, to_latex, to_text
from nmt.config import get_node, to_dict
from nmt.evaluation import metrics
from nmt.evaluation.breakdown import breakdown
from nmt.evaluation.metrics import SIGNIFICANCE_TESTS, MetricsConfig
from nmt.models.transformer import TransformerConfig

WORDS = [f"w{letter}" for letter in "abcdefghijklmnopqr"]


def texts(num: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(4, 25))) for _ in range(num)]


def corrupted(references: list[str], share: float, rng: random.Random) -> list[str]:
    """Replace each word with this probability."""
    return [" ".join(rng.choice(WORDS) if rng.random() < share else w for w in line.split()) for line in references]


def write(
    folder: Path,
    name: str,
    *,
    seed: int = 1,
    share: float = 0.3,
    references: list[str] | None = None,
    hypotheses: list[str] | None = None,
    entropy: float | None = 1.5,
    **changes: Any,
) -> Path:
    """Write the files of a finished run without a model: translations are references with a share of wrong words."""
    references = references or texts(60, 0)
    sources = [line[::-1] for line in references]
    hypotheses = hypotheses or corrupted(references, share, random.Random(f"{name} {seed}"))
    config = Config(name=name, seed=seed)
    for option, value in changes.items():
        parent, _, leaf = option.replace("__", ".").rpartition(".")
        setattr(get_node(config, parent), leaf, value)
    run = folder / name
    report = run / "report"
    report.mkdir(parents=True)
    stored = yaml.safe_dump(to_dict(config))
    (run / "config.yaml").write_text(stored)
    (report / "config.yaml").write_text(stored)
    corpus_scores = metrics.corpus_score(hypotheses, references, config.metrics)
    parts = breakdown(sources, hypotheses, references, config.metrics)
    scores: dict[str, Any] = {metric: score._asdict() for metric, score in corpus_scores.items()}
    scores["intervals"] = {metric: {"mean": 50.0, "half_width": 2.0, "signature": ""} for metric in corpus_scores}
    scores["buckets"] = {"length": {bucket: each._asdict() for bucket, each in parts.buckets["length"].items()}}
    if entropy is not None:
        scores["alignment"] = {"aer": 0.1 + seed / 100}
        by_length = {"0-10": {"entropy": [[entropy, None]]}}
        diagnostics = {"measures": {"entropy": [[entropy, entropy + 1]]}, "by_length": by_length}
        (report / "diagnostics.json").write_text(json.dumps(diagnostics))
    (report / "scores.json").write_text(json.dumps(scores))
    chrf = metrics.sentence_chrf(hypotheses, references, config.metrics)
    rows = zip(sources, references, hypotheses, chrf, strict=True)
    keys = ("source", "reference", "hypothesis", "chrf")
    (report / "sentences.jsonl").write_text(
        "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)
    )
    history = [
        {"update": 10, "loss": 3.0, "tokens_per_second": 100.0, "peak_memory_mb": 50.0},
        {"update": 10, "valid_bleu": 10.0, "seconds": 60.0},
        {"update": 20, "loss": 2.0, "tokens_per_second": 300.0, "peak_memory_mb": 70.0},
        {"update": 20, "valid_bleu": 20.0, "seconds": 90.0 + 30 * seed},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    return run


def study(folder: Path, shares: dict[str, float], seeds: int = 3, **changes: Any) -> list[RunResult]:
    """Write runs of several scores, each with its share of wrong words, and read their results."""
    for score, share in shares.items():
        for seed in range(1, seeds + 1):
            write(folder, f"{score}-{seed}", seed=seed, share=share, model__attention__score=score, **changes)
    reports, left_out = find_reports([str(folder)], "")
    assert left_out == []
    return [read_run_result(report) for report in reports]


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (1, "", 1)
    return err.removeprefix("error: ").rstrip("\n")


def contrast(comparison: RunComparison, group: str, metric: str = "bleu") -> Any:
    (match,) = [c for c in comparison.contrasts if (c.group, c.metric) == (group, metric)]
    return match


def test_groups_over_seeds_and_their_numbers(tmp_path: Path) -> None:
    results = study(tmp_path, {"additive": 0.3, "dot": 0.3, "scaled": 0.6})
    comparison = compare_runs(results, baseline="dot", num_resamples=200, target_bleu=15.0)
    assert comparison.varied == {"model.attention.score": ["additive", "dot", "scaled"]}
    assert [group.label for group in comparison.groups] == ["dot", "additive", "scaled"]
    for group in comparison.groups:
        assert group.seeds == [1, 2, 3]
        values = [
            result.quantities["bleu"] for result in results if result.label.split("/")[-1].startswith(group.label)
        ]
        assert group.summaries["bleu"].values == tuple(values)
        assert group.summaries["bleu"].mean == pytest.approx(statistics.fmean(values))
        assert group.summaries["aer"].mean == pytest.approx(12.0)
        assert group.summaries["entropy"].mean == pytest.approx(2.0)
        assert group.summaries["entropy 0-10"].mean == pytest.approx(1.5)
        assert {name for name in group.summaries if name.startswith("bleu ")} == {
            "bleu 0-10",
            "bleu 11-20",
            "bleu 21-30",
        }
        assert group.summaries["tokens_per_second"].mean == 200.0
        assert group.summaries["peak_memory_mb"].mean == 70.0
        assert group.summaries["minutes"].values == (2.0, 2.5, 3.0)
        assert group.summaries["minutes_to_bleu"].values == (2.0, 2.5, 3.0)
    assert (contrast(comparison, "scaled").differs, contrast(comparison, "additive").differs) == (True, False)
    assert contrast(comparison, "scaled").difference.mean < -10
    assert comparison.warnings == []
    assert compare_runs(results, num_resamples=0).contrasts[0].sentences is None


@pytest.mark.parametrize("kind", ["bootstrap", "randomization"])
def test_p_values_by_seed_are_those_of_sacrebleu(tmp_path: Path, kind: str) -> None:
    from sacrebleu.metrics import BLEU, CHRF
    from sacrebleu.significance import PairedTest

    results = study(tmp_path, {"additive": 0.30, "dot": 0.34}, seeds=2)
    comparison = compare_runs(results, num_resamples=300, significance_test=kind)
    for i, (first, second) in enumerate(zip(results[:2], results[2:], strict=True)):
        systems = [("additive", list(first.hypotheses)), ("dot", list(second.hypotheses))]
        test = PairedTest(
            systems, {"bleu": BLEU(), "chrf": CHRF()}, [list(first.references)], SIGNIFICANCE_TESTS[kind], 300
        )
        _, expected = test()
        for metric, title in (("bleu", "BLEU"), ("chrf", "chrF2")):
            assert contrast(comparison, "dot", metric).per_seed[i] == expected[title][1].p_value


def test_identical_translations_do_not_differ(tmp_path: Path) -> None:
    """sacrebleu's bootstrap gives its smallest p-value for them."""
    lines = corrupted(texts(60, 0), 0.3, random.Random(0))
    for score in ("additive", "dot"):
        write(tmp_path, score, hypotheses=lines, model__attention__score=score)
    comparison = compare_runs(
        [read_run_result(tmp_path / name / "report") for name in ("additive", "dot")], num_resamples=100
    )
    assert contrast(comparison, "dot").per_seed == [1.0]


def test_one_seed_allows_no_claim(tmp_path: Path) -> None:
    comparison = compare_runs(study(tmp_path, {"additive": 0.1, "dot": 0.6}, seeds=1), num_resamples=100)
    dot = contrast(comparison, "dot")
    assert dot.sentences < 0.05
    assert (dot.seeds, dot.differs) == (None, None)
    assert comparison.groups[0].summaries["bleu"].method.startswith("bootstrap over sentences")
    assert any("groups of one seed" in warning for warning in comparison.warnings)


def test_incomparable_scores_are_not_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = str(write(tmp_path, "first"))
    shorter = str(write(tmp_path, "shorter", references=texts(60, 0)[:50]))
    other = str(write(tmp_path, "other", references=[*texts(60, 0)[:59], "another last line"]))
    signature = str(write(tmp_path, "signature", metrics=MetricsConfig(tokenize="char")))
    message = failure(capsys, first, shorter)
    assert message.startswith(
        f"not ranked: {first} and {shorter} were evaluated on different test sets (60 and 50 sent"
    )
    assert "sentence 60 differs" in failure(capsys, first, other)
    message = failure(capsys, first, signature)
    assert f"{first} and {signature} have different signatures of bleu (" in message
    assert "tok:13a" in message
    assert "tok:char" in message


def test_errors_against_different_gold_alignments_are_not_ranked(tmp_path: Path) -> None:
    results = [read_run_result(write(tmp_path, str(seed), seed=seed) / "report") for seed in (1, 2)]
    results = [dataclasses.replace(result, gold="a") for result in results]
    assert compare_runs(results, num_resamples=0).groups
    compare_runs([results[0], dataclasses.replace(results[1], gold="")], num_resamples=0)  # of version 0.4
    with pytest.raises(ValueError, match="were evaluated against different gold alignments"):
        compare_runs([results[0], dataclasses.replace(results[1], gold="b")], num_resamples=0)


def test_other_vocabularies_are_not_ranked_unless_they_were_studied(
    tmp_path: Path,
) -> None:
    results = [
        dataclasses.replace(
            read_run_result(write(tmp_path, f"{size}-{seed}", seed=seed, data__max_length=size) / "report"),
            vocabulary=str(size),
        )
        for size in (100, 200)
        for seed in (1, 2)
    ]
    with pytest.raises(ValueError, match=r"not ranked: .* have different vocabularies"):
        compare_runs(results, num_resamples=0)
    comparison = compare_runs(results, factors=["data.max_length"], num_resamples=0)
    assert [group.label for group in comparison.groups] == ["100", "200"]


def test_warnings(tmp_path: Path) -> None:
    one = write(tmp_path, "one", model__attention__score="dot")
    copy = write(tmp_path, "copy", model__attention__score="dot")
    two = write(tmp_path, "two", seed=2, model__attention__score="scaled", optim__learning_rate=0.5)
    results = [read_run_result(run / "report") for run in (one, copy, two)]
    comparison = compare_runs(results, num_resamples=0)
    warnings = " | ".join(comparison.warnings)
    assert "of the best.pt" not in warnings
    stale = [dataclasses.replace(results[0], is_stale=True), *results[1:]]
    assert f"{one / 'report'} is not of the best.pt that its run has now" in " | ".join(
        compare_runs(stale, num_resamples=0).warnings
    )
    assert f"{copy} has the options and the seed of {one} and is left out" in warnings
    assert "differs in 2 options from score=dot" in warnings
    assert "optim.learning_rate: " in warnings
    assert "not all groups have the same seeds" in warnings
    assert [len(group.results) for group in comparison.groups] == [1, 1]
    warnings = " | ".join(
        compare_runs(results, factors=["model.attention.score"], num_resamples=0, target_bleu=30.0).warnings
    )
    assert "scaled also differs from dot (optim.learning_rate: " in warnings
    assert "dot: 1 of 1 runs had no such BLEU (30)" in warnings


def test_matched_widths_are_no_second_difference(tmp_path: Path) -> None:
    for score, hidden in (("scaled", 256), ("additive", 250)):
        changes = {"model__match": "parameters", "model__match_width": "hidden_size", "model__hidden_size": hidden}
        write(tmp_path, score, model__attention__score=score, **changes)
    comparison = compare_runs(
        [read_run_result(tmp_path / name / "report") for name in ("scaled", "additive")], num_resamples=0
    )
    assert [group.label for group in comparison.groups] == ["scaled", "additive"]
    assert not any("options" in warning and "differs" in warning for warning in comparison.warnings)


def test_which_group_is_the_baseline(tmp_path: Path) -> None:
    for score in ("dot", "scaled"):
        for heads in (1, 2):
            write(tmp_path, f"{score}{heads}", model__attention__score=score, model__attention__heads=heads)
    results = [read_run_result(tmp_path / name / "report") for name in ("dot1", "dot2", "scaled1", "scaled2")]
    for name in ("score=dot, heads=2", str(tmp_path / "dot2")):
        assert compare_runs(results, baseline=name, num_resamples=0).baseline.label == "score=dot, heads=2"
    assert compare_runs(results[:3], baseline="score=scaled", num_resamples=0).baseline.label == "score=scaled, heads=1"
    for name in ("score=dot", "nothing"):
        with pytest.raises(ValueError, match=f"--baseline {name}: must be one of score=dot, heads=1; "):
            compare_runs(results, baseline=name, num_resamples=0)


def test_seeds_are_correlated_by_what_a_group_gains_in_each_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sentences that are easy for every system correlate the scores, but not the differences."""
    results = study(tmp_path / "runs", {"additive": 0.3, "dot": 0.5})
    given: list[Any] = []
    monkeypatch.setattr(comparison, "mean_correlation", lambda rows: given.append(rows) or 0.0)
    compare_runs(results, num_resamples=100)
    gains = [
        [b - a for a, b in zip(first.sentence_chrf, second.sentence_chrf, strict=True)]
        for first, second in zip(results[:3], results[3:], strict=True)
    ]
    assert [[abs(gain) for gain in row] for row in given[0]] == [[abs(gain) for gain in row] for row in gains]


def test_every_format_has_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = study(tmp_path / "runs", {"additive": 0.3, "dot": 0.5})
    mean = f"{statistics.fmean(each.quantities['bleu'] for each in results[3:]):.2f}"
    arguments = [str(tmp_path / "runs"), "--num-resamples", "100"]
    main(arguments)
    text = capsys.readouterr().out
    for suffix, sign in (
        (".txt", text),
        (".md", "| additive |"),
        (".tex", "\\toprule"),
        (".csv", "group,quantity,"),
        (".json", "{"),
    ):
        main([*arguments, "--output", str(tmp_path / f"out{suffix}")])
        written = (tmp_path / f"out{suffix}").read_text(encoding="utf-8")
        assert sign in written
        assert mean in written or suffix in (".csv", ".json")
    with pytest.raises(SystemExit):
        main([*arguments, "--output", str(tmp_path / "out.png")])
    assert "out.png: must end in one of .txt, .md, .tex, .csv, .json, .html" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()
    assert "$-$" in (tmp_path / "out.tex").read_text() or "-0" not in (tmp_path / "out.tex").read_text()
    both = [tmp_path / "again.csv", tmp_path / "page.html"]
    main([*arguments, *(part for file in both for part in ("--output", str(file)))])
    assert both[0].read_bytes() == (tmp_path / "out.csv").read_bytes()
    assert mean in both[1].read_text(encoding="utf-8")
    rows = {
        (row["group"], row["quantity"]): row for row in csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text()))
    }
    content = json.loads((tmp_path / "out.json").read_text())
    comparison = compare_runs(results, num_resamples=100)
    for i, group in enumerate(comparison.groups):
        assert float(rows[group.label, "bleu"]["mean"]) == group.summaries["bleu"].mean
        assert content["groups"][i]["quantities"]["bleu"]["high"] == group.summaries["bleu"].high
    assert (
        float(rows["dot", "bleu"]["p_seeds"]) == content["contrasts"][0]["seeds"] == contrast(comparison, "dot").seeds
    )
    assert rows["dot", "bleu"]["differs"] == str(contrast(comparison, "dot").differs)
    main([*arguments, "--sections", "scores,length"])
    shorter = capsys.readouterr().out
    assert "tokens/s" not in shorter
    assert "paired t-test" not in shorter
    assert "BLEU by words of the source" in shorter


def test_runs_reports_and_folders_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path / "runs", "done")
    (tmp_path / "runs/begun").mkdir()
    (tmp_path / "runs/begun/config.yaml").write_text("seed: 1\n")
    other = write(tmp_path, "other", seed=2)
    assert find_reports([str(tmp_path / "runs"), str(other / "report")], "")[0] == [run / "report", other / "report"]
    main([str(tmp_path / "runs"), str(other), "--num-resamples", "0"])
    assert "runs/begun has no complete report (not finished, or failed) and is left out" in capsys.readouterr().out
    assert "begun has no complete report" in failure(capsys, str(tmp_path / "runs"))
    assert f"{tmp_path / 'nothing'}: no such run" in failure(capsys, str(tmp_path / "nothing"), str(run))
    assert "name the runs" in failure(capsys)
    assert "--sections all: must be some of scores," in failure(capsys, str(run), str(other), "--sections", "all")
    assert "--num-sentences -1: must be 0" in failure(capsys, str(run), str(other), "--num-sentences", "-1")
    assert "--factors wings: wings is no option" in failure(capsys, str(run), str(other), "--factors", "wings")
    assert "of test_long" in failure(capsys, str(run), str(other), "--test-set", "test_long")
    assert "--num-resamples 1: must be 0 (no paired test) or at least 2" in failure(
        capsys, str(run), "--num-resamples", "1"
    )
    whole = {path: path.read_text() for path in (run / "report").iterdir()}
    for name, content in [
        *(("sentences.jsonl", content) for content in ("{", '{"source": "a"}', "3")),
        *(("scores.json", content) for content in ("[]", '{"bleu": {"signature": ""}}', "")),
        *(("diagnostics.json", content) for content in ("{}", '{"measures": ', "[]")),
        *(("config.yaml", content) for content in ("{", "seed: many", "unknown: 1")),
    ]:
        (run / "report" / name).write_text(content)
        message = failure(capsys, str(run), str(other))
        assert str(run / "report") in message, (name, content, message)
        assert "evaluate the run again" in message
        (run / "report" / name).write_text(whole[run / "report" / name])
    (run / "report/config.yaml").unlink()  # as while it is being evaluated again
    assert "has no complete report" in failure(capsys, str(run))


def test_a_continued_run_is_compared_as_it_was_evaluated(tmp_path: Path) -> None:
    run = write(tmp_path, "a", train__max_updates=20)
    before = read_run_result(run / "report")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"update": 30, "valid_bleu": 60.0, "seconds": 6000.0, "peak_memory_mb": 9000.0}) + "\n")
    assert read_run_result(run / "report") == before
    assert before.minutes_to(50.0) is None


def test_kept_checkpoints_matter_only_for_averaging(tmp_path: Path) -> None:
    for seed in (1, 2):
        for average in ("none", "last"):
            for keep in (5, 40):
                changes = {"train__average_checkpoints": average, "train__keep_last_checkpoints": keep}
                write(tmp_path, f"{average}-{keep}-{seed}", seed=seed, **changes)
    results = [read_run_result(report) for report in find_reports([str(tmp_path)], "")[0]]
    comparison = compare_runs(results, num_resamples=0)
    assert {group.label for group in comparison.groups} == {
        "keep_last_checkpoints=5, average_checkpoints=last",
        "keep_last_checkpoints=40, average_checkpoints=last",
        "keep_last_checkpoints=(none), average_checkpoints=none",
    }
    assert sum("is left out" in warning for warning in comparison.warnings) == 2


def test_the_baseline_and_what_was_varied_may_be_any_of_the_runs(tmp_path: Path) -> None:
    study(tmp_path, {"additive": 0.3, "dot": 0.3}, seeds=1)
    results = [
        read_run_result(report)
        for report in find_reports([f"{tmp_path}/./{name}" for name in ("additive-1", "dot-1")], "")[0]
    ]
    assert compare_runs(results, baseline=f"{tmp_path}/./dot-1/", num_resamples=0).baseline.label == "dot"
    other = write(tmp_path, "other", model=TransformerConfig())
    comparison = compare_runs(
        [*results, read_run_result(other / "report")], factors=["model.norm_position"], num_resamples=0
    )
    assert len(comparison.groups) == 3


def test_a_list_of_scores_in_latex(tmp_path: Path) -> None:
    for name, score in (("a", "dot"), ("b", ["additive", "dot"])):
        write(tmp_path, name, model__attention__score=score)
    rows = to_latex(
        compare_runs([read_run_result(report) for report in find_reports([str(tmp_path)], "")[0]], num_resamples=0),
        SECTIONS,
    )
    assert " {}[additive,dot] &" in rows
    assert not [line for line in rows.split("\n") if line.strip().startswith("[")]


def test_other_versions_and_precisions_give_a_warning(tmp_path: Path) -> None:
    one, two = study(tmp_path, {"additive": 0.3, "dot": 0.3}, seeds=1)
    for changes, warning_text in (
        ({"version": "0.2.0"}, "different versions of nmt (0.2.0, 0.3.0)"),
        ({"precision": "bf16"}, "different precisions (bf16, fp32)"),
    ):
        results = [dataclasses.replace(each, version="0.3.0", precision="fp32") for each in (one, two)]
        warned = compare_runs([results[0], dataclasses.replace(results[1], **changes)], num_resamples=0).warnings
        assert [warning for warning in compare_runs(results, num_resamples=0).warnings if "different" in warning] == []
        assert [warning_text in warning for warning in warned if "different" in warning] == [True]


def test_without_a_test_over_sentences_nothing_differs(tmp_path: Path) -> None:
    results = study(tmp_path, {"additive": 0.1, "dot": 0.8})
    comparison = compare_runs(results, num_resamples=0)
    assert contrast(comparison, "dot").seeds < 0.01
    assert contrast(comparison, "dot").differs is None
    assert contrast(comparison, "dot", "aer").differs is False
    assert "not tested over sentences" in to_text(comparison, SECTIONS)
    assert compare_runs(results, num_resamples=100).contrasts[0].differs


@pytest.mark.slow
def test_seeds_without_a_difference_raise_few_alarms(tmp_path: Path) -> None:
    """Test the whole comparison, sacrebleu included. The quality of a run depends on its seed, not on its score."""
    rng = random.Random(5)
    alarms = {"t": 0, "verdict": 0, "sentences": 0}
    rounds = 120
    for number in range(rounds):
        folder = tmp_path / str(number)
        for score in ("additive", "dot"):
            for seed in (1, 2, 3):
                share = 0.4 + rng.gauss(0, 0.06)
                lines = corrupted(texts(60, 0), share, rng)
                write(folder, f"{score}{seed}", seed=seed, hypotheses=lines, model__attention__score=score)
        comparison = compare_runs(
            [read_run_result(report) for report in find_reports([str(folder)], "")[0]], num_resamples=200
        )
        dot = contrast(comparison, "dot")
        alarms["t"] += dot.seeds < 0.05
        alarms["sentences"] += dot.sentences < 0.05
        alarms["verdict"] += bool(dot.differs)
    assert alarms["t"] <= 14  # of 120 at 5 %, binomial: above with a probability of 0.001
    assert alarms["verdict"] <= alarms["t"]
    assert alarms["sentences"] > 20  # which is why it alone is no verdict


@pytest.mark.parametrize("form", ["{}/dot-1", "{}/dot-1/", "{}/./dot-1", "{}//dot-1//"])
def test_the_baseline_is_named_by_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """As it is typed, relative or absolute, with a slash at its end or without."""
    study(tmp_path / "runs", {"additive": 0.3, "dot": 0.3}, seeds=1)
    monkeypatch.chdir(tmp_path)
    for runs in ("runs", str(tmp_path / "runs")):
        main([runs, "--baseline", form.format(runs), "--num-resamples", "0", "--format", "json"])
        assert json.loads(capsys.readouterr().out)["baseline"] == "dot"
    with pytest.raises(SystemExit):
        main(["runs", "--baseline", "runs/dot-2", "--num-resamples", "0"])
    assert "--baseline runs/dot-2: must be one of additive; dot" in capsys.readouterr().err
