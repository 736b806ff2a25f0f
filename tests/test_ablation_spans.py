"""The study of spans: its tables agree with scipy's tests and with the page; elements go along the aligner's links."""

import importlib
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

SCRIPTS = Path(__file__).parent.parent / "scripts"
DOCS = SCRIPTS.parent / "docs"
PROGRAM = """#!{python}
import sys
files = dict(zip(sys.argv[1::2], sys.argv[2::2]))
lines = [[line.split() for line in open(files[flag], encoding="utf-8")] for flag in ("-s", "-t")]
for flag in ("-f", "-r"):
    with open(files[flag], "w") as out:
        for source, target in zip(*lines):
            print(*(f"{{i}}-{{j}}" for i, s in enumerate(source) for j, t in enumerate(target) if s == t), file=out)
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("ablation_spans")


def run(script: ModuleType, seed: int, guided: bool, score: str, generator: np.random.Generator) -> dict[str, object]:
    values = dict(zip(script.COLUMNS, generator.normal(size=len(script.COLUMNS)), strict=True))
    place = {"language": "a" if seed < 3 else "b", "architecture": "rnn", "guided": int(guided), "seed": seed}
    return {**place, "score": score, **values}


def test_tables_agree_with_scipy(script: ModuleType) -> None:
    generator = np.random.default_rng(3)
    cells = [(seed, guided, score) for seed in range(5) for guided in (False, True) for score in ("scaled", "dot")]
    runs = [run(script, *cell, generator) for cell in cells]
    f1 = {cell: r["f1"] for cell, r in zip(cells, runs, strict=True)}
    pairs = {
        f"`dot` − `scaled`, {name}": [[f1[seed, guided, score] for seed in range(5)] for score in ("dot", "scaled")]
        for name, guided in (("plain", False), ("guided", True))
    }
    pairs["guided − plain"] = [
        [f1[seed, guided, score] for seed in range(5) for score in ("scaled", "dot")] for guided in (True, False)
    ]
    p_values = [float(stats.wilcoxon(*pair).pvalue) for pair in pairs.values()]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in script.differences(runs, "f1").splitlines()[2:]
    ]
    assert [row[0] for row in rows] == list(pairs)
    order = np.argsort(p_values)
    steps = np.maximum.accumulate([min(1, (3 - i) * p_values[at]) for i, at in enumerate(order)])  # Holm's
    for row, pair, p_value, corrected in zip(rows, pairs.values(), p_values, steps[np.argsort(order)], strict=True):
        low, high = stats.ttest_rel(*pair).confidence_interval()
        assert row[1:] == [
            f"{np.mean(np.subtract(*pair)):+.2f} [{low:.2f}, {high:.2f}]",
            f"{np.median(np.subtract(*pair)):+.2f}",
            f"{sum(np.greater(*pair))} of {len(pair[0])}",
            f"{p_value:.4f}",
            f"{corrected:.4f}",
        ]

    groups = [[r for r in runs if (r["language"], r["guided"]) == (a, g)] for a in "ab" for g in (False, True)]
    centred = {
        name: np.concatenate([stats.rankdata([r[name] for r in g]) - (len(g) + 1) / 2 for g in groups])
        for name in ("f1", "bleu")
    }
    line = next(line for line in script.correlations(runs).splitlines() if "BLEU" in line)
    assert line.split("|")[2].strip() == f"{stats.pearsonr(centred['bleu'], centred['f1'])[0]:+.2f}"
    built_in = [run(script, seed, False, "dot", generator) | {"language": "builtin"} for seed in (0, 1)]
    for one in runs:
        del one["builtin_aer"]
    joined = script.join([*built_in, *reversed(runs)])
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in script.means(joined).splitlines()[2:]]
    assert [row[:3] for row in table[:3]] == [
        ["a rnn, plain", "`scaled`", "3"],
        ["a rnn, plain", "`dot`", "3"],
        ["a rnn, guided", "`scaled`", "3"],
    ]
    assert table[8][:3] == ["builtin rnn, plain", "`dot`", "2"]
    first = [r["bleu"] for r in runs if (r["language"], r["guided"], r["score"]) == ("a", False, "scaled")]
    assert table[0][3] == f"{np.mean(first):.2f} ± {np.std(first, ddof=1):.2f}"
    assert table[1][5] == f"{(built_in[0]['builtin_aer'] + built_in[1]['builtin_aer']) / 2:.2f}"
    assert table[0][5] == "–"


def test_the_file_of_the_runs_gives_the_same_tables(script: ModuleType, tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    cells = [(seed, guided, score) for seed in range(2) for guided in (False, True) for score in ("scaled", "dot")]
    runs = [run(script, *cell, generator) for cell in cells]
    for one in runs[:4]:
        del one["builtin_aer"]
    script.write(runs, tmp_path / "runs.csv")
    assert script.tables(script.read(tmp_path / "runs.csv")) == script.tables(runs)


@pytest.mark.parametrize(("file", "num_tables"), [("ablation_spans.csv", 5), ("ablation_spans_long.csv", 1)])
def test_the_page_shows_the_tables_of_its_files(script: ModuleType, file: str, num_tables: int) -> None:
    page = (DOCS / "ablation.md").read_text(encoding="utf-8")
    for table in script.tables(script.read(DOCS / file)).split("\n\n")[:num_tables]:
        assert table in page, f"write into docs/ablation.md:\n{table}"


def test_the_picture_has_every_run(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plt = importlib.import_module("matplotlib.pyplot")
    monkeypatch.setattr(plt, "close", lambda _: None)
    runs = script.join(script.read(DOCS / "ablation_spans.csv"))
    script.draw(runs, tmp_path / "spans.png", {"eu": 88.4})
    assert (tmp_path / "spans.png").read_bytes().startswith(b"\x89PNG")
    axes = (figure := plt.gcf()).axes
    assert [axis.get_title() for axis in axes] == ["de rnn", "de transformer", "eu rnn", "eu transformer"]
    assert [len(axis.lines) for axis in axes] == [0, 0, 1, 1]
    drawn = {tuple(point) for axis in axes for dots in axis.collections for point in dots.get_offsets().tolist()}
    assert drawn == {(run["exact"], script.SCORES.index(run["score"])) for run in runs if "exact" in run}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "guided", "eflomal's links"]
    monkeypatch.undo()
    plt.close(figure)


@pytest.mark.slow
def test_the_study_runs_from_text_to_tables(script: ModuleType, tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    for name, size in (("train", 300), ("valid", 10), ("test_tagged", 10)):
        lines = [list(generator.choice(list("abcdefgh"), 5)) for _ in range(size)]
        marked = "<b>{0}</b> {1} {2} {3} {4}" if name == "test_tagged" else "{0} {1} {2} {3} {4}"
        for language, texts in (("en", lines), ("xx", [[w.upper() for w in line] for line in lines])):
            (tmp_path / f"{name}.{language}").write_text("".join(f"{marked.format(*t)}\n" for t in texts))
        if name != "test_tagged":
            (tmp_path / f"{name}.gold").write_text("0-0 1-1 2-2 3-3 4-4\n" * size)
    runs = tmp_path / "runs"
    shared = [f"runs={runs}", "train.max_updates=2", "train.valid_every=2", "optim.warmup_updates=1"]
    shared += ["data.tokenizer.type=word", f"data.cache_dir={tmp_path}/cache", "train.guided_alignment_weight=0.5"]
    shared += ["model.attention.score=scaled,dot"]
    small = ["data.synthetic.train=300", *(f"data.synthetic.{split}=3" for split in ("valid", "test", "long"))]
    for place in (["builtin", *shared, *small], [str(tmp_path), "xx", *shared]):
        environment = os.environ | {"BIN": str(Path(sys.executable).parent), "SEEDS": "1"}
        command = ["bash", str(SCRIPTS / "ablation_spans.sh"), *place]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    found = [run for run in script.join([r for folder in runs.iterdir() for r in script.read(folder)]) if "f1" in run]
    assert [(run["architecture"], run["score"]) for run in found] == [
        (architecture, score) for architecture in ("rnn", "transformer") for score in ("scaled", "dot")
    ]
    for run in found:
        assert {*script.KEYS, *script.COLUMNS} == set(run)
        del run["builtin_aer"]
    assert done.stdout.strip() == script.tables(found)


def test_elements_go_along_the_links_of_the_aligner(script: ModuleType, tmp_path: Path) -> None:
    program = tmp_path / "aligner"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    texts = {
        "train": (["one two three"], ["two one three"]),
        "valid": (["Press OK."], ["OK Press."]),
        "test_tagged": (
            ["press <g1>red key</g1> now, please", "<g1>a</g1> b c d", "<g1>a <g2>b</g1></g2>"],
            ["please, now <g1>key red</g1> press", "b c <g1>d</g1> a", "<g1>a <g2>b</g1></g2>"],
        ),
    }
    for name, sides in texts.items():
        for lines, language in zip(sides, ("en", "xx"), strict=True):
            (tmp_path / f"{name}.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    score = script.authority(tmp_path, "xx", str(program))
    assert (score.num_spans, score.exact) == (2, 0.5)  # the human of the second pair wrapped another word
    assert score.f1 == pytest.approx(2 * 2 / (2 + 2 + 1 + 1))


def test_a_run_counts_once(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(2 * [str(DOCS / "ablation_spans.csv")])
    assert "a run is there twice" in capsys.readouterr().err


def test_a_percentage_that_is_none_is_named(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main([str(DOCS / "ablation_spans.csv"), "--picture", "never.png", "--authority", "de=high"])
    assert "--authority de=high: must be a language and a number" in capsys.readouterr().err


def test_folders_without_evaluated_runs_are_named(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        script.main([str(tmp_path)])
    assert error.value.code not in (0, None)
