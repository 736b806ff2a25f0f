"""scripts/ablation_spans.py: its tables agree with scipy's tests, and elements go along the links of the aligner."""

import importlib
import stat
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

SCRIPTS = Path(__file__).parent.parent / "scripts"
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
    return {"block": ("a" if seed < 3 else "b", guided, seed), "score": score, **values}


def test_tables_agree_with_scipy(script: ModuleType) -> None:
    generator = np.random.default_rng(3)
    cells = [(seed, guided, score) for seed in range(5) for guided in (False, True) for score in ("scaled", "dot")]
    runs = [run(script, *cell, generator) for cell in cells]
    f1 = {cell: r["f1"] for cell, r in zip(cells, runs, strict=True)}
    dot, scaled = (
        [f1[seed, guided, score] for seed in range(5) for guided in (False, True)] for score in ("dot", "scaled")
    )
    guided, plain = ([f1[seed, g, score] for seed in range(5) for score in ("scaled", "dot")] for g in (True, False))
    p_values = [float(stats.ttest_rel(*pair).pvalue) for pair in ((dot, scaled), (guided, plain))]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in script.differences(runs, "f1").splitlines()[2:]
    ]
    assert [row[0] for row in rows] == ["`dot` − `scaled`", "guided − plain"]
    assert [row[3] for row in rows] == [f"{p:.4f}" for p in p_values]
    corrected = [max(min(1, 2 * min(p_values)), p) for p in p_values]  # Holm's, of two
    assert [row[4] for row in rows] == [f"{p:.4f}" for p in corrected]
    assert rows[0][2] == f"{sum(np.greater(dot, scaled))} of 10"
    assert rows[0][1].startswith(f"{np.mean(np.subtract(dot, scaled)):+.2f} [")

    groups = [[r for r in runs if r["block"][:2] == (folder, g)] for folder in "ab" for g in (False, True)]
    centred = {
        name: np.concatenate([np.array([r[name] for r in g]) - np.mean([r[name] for r in g]) for g in groups])
        for name in ("f1", "bleu")
    }
    line = next(line for line in script.correlations(runs).splitlines() if "BLEU" in line)
    assert line.split("|")[2].strip() == f"{stats.pearsonr(centred['bleu'], centred['f1'])[0]:+.2f}"
    table = script.means(runs).splitlines()
    assert len(table) == 2 + 8
    first = [r["bleu"] for r in runs if r["block"][:2] == ("a", False) and r["score"] == "scaled"]
    assert table[2].startswith(f"| a, plain | `scaled` | 3 | {np.mean(first):.2f} ± {np.std(first, ddof=1):.2f} |")


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


def test_folders_without_evaluated_runs_are_named(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        script.main([str(tmp_path)])
    assert error.value.code not in (0, None)
