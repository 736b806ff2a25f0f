"""Values of options that mean something to the program that reads a comparison."""

import csv
import io
import re
from pathlib import Path

import pytest

from nmt.compare import RunComparison, compare_runs, diff_runs
from nmt.compare.__main__ import main
from nmt.compare.page import page
from nmt.compare.run_results import find_reports, read_run_result
from nmt.compare.tables import SECTIONS, tables, to_csv, to_latex, to_markdown, to_text
from tests.compare.test_comparison import write
from tests.compare.test_run_diff import RunSnapshot
from tests.compare.test_run_diff import write as write_model

VALUES = [
    "plain",
    "=1+1",
    "+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "-2+3",
    "-0.5",
    "a\n\\input{/etc/passwd}",
    "b\r\n=c",
    "50% & $x_1^2$ ~{#} \\",
    "[2pt]",
    "*star*",
    "\x1b[31mred\x07\x9b",
    "\u202eltr\u2028x",
    "a|b `c` _d_ [e](http://a.example)",
    "<img src=x onerror=alert(1)>",
]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> RunComparison:
    folder = tmp_path_factory.mktemp("hostile")
    for i, value in enumerate(VALUES):
        write(folder, f"{i:02d}", data__train=value, references=["a b c d"] * 5)
    reports, _ = find_reports([str(folder)], "")
    return compare_runs([read_run_result(report) for report in reports], num_resamples=2)


def lines_of(text: str) -> list[str]:
    """Split as terminals, spreadsheets and TeX may."""
    return re.split("[\n\r\x0b\x0c\x85\u2028\u2029]", text)


def test_a_terminal_gets_no_control_characters(comparison: RunComparison) -> None:
    text = to_text(comparison, SECTIONS)
    assert re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text) == []
    table = text[text.index("scores on") :].split("\n\n")[1]
    assert len(lines_of(table)) == len(VALUES) + 2
    assert "\N{REPLACEMENT CHARACTER}[31mred" in table


def test_latex_has_one_row_for_each_group_and_the_rest_is_comments(comparison: RunComparison) -> None:
    inside, rows = False, 0
    for line in lines_of(to_latex(comparison, SECTIONS)):
        inside = inside or line.startswith("\\begin{tabular}")
        if inside and line.endswith("\\\\"):
            rows += 1
            row = line.removesuffix("\\\\")
            assert not row.lstrip().startswith(("[", "*"))  # they would belong to the end of the row before
            row = re.sub(r"\\[%&$#_{}]|\\\^\{\}|\\textasciitilde\{\}|\\ensuremath\{[<>]\}", "", row)
            row = re.sub(r"\\textbackslash\{\}|\$\\pm\$|\$-\$|^ *\{\}", "", row)
            assert re.findall(r"[%$#_{}~^\\]", row) == [], line
        elif not inside:
            assert not line or line.startswith("%"), line
        inside = inside and line != "\\end{tabular}"
    assert rows == sum(len(table.rows) + 1 for table in tables(comparison))


def test_spreadsheets_get_no_formula(comparison: RunComparison) -> None:
    rows = list(csv.reader(io.StringIO(to_csv(comparison, SECTIONS), newline="")))
    labels = list(dict.fromkeys(row[0] for row in rows[1:]))
    assert len(labels) == len(VALUES)
    assert {"'=1+1", "'+cmd|' /C calc'!A0", "'@SUM(A1)", "'-2+3", "-0.5", "plain"} <= set(labels)
    cells = [cell for row in rows for cell in row]
    assert [cell for cell in cells if cell[:1] in ("=", "@") or re.match(r"[+-](?![\d.]+(e[+-]\d+)?$)", cell)] == []
    assert len({len(row) for row in rows}) == 1


def test_markdown_has_one_row_for_each_group_and_no_markup(comparison: RunComparison) -> None:
    text = to_markdown(comparison, SECTIONS)
    (table, *_) = [part for part in text.split("\n\n") if part.startswith("|")]
    rows = lines_of(table)
    assert len(rows) == len(VALUES) + 2
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert re.findall(r"(?<!\\)[`*<]|(?<!\\)\]\(", table) == []
    assert r"a\|b \`c\` \_d\_ [e\](http://a.example)" in table


def test_html_shows_the_values(comparison: RunComparison) -> None:
    html = page(comparison, SECTIONS, 1)
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f]", html) == []


def test_names_of_runs_are_printable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a\x1b[31m", "b\nc"):
        write(tmp_path / "runs", name, data__train=name)
    (tmp_path / "runs/d\x1b").mkdir()
    (tmp_path / "runs/d\x1b/config.yaml").write_text("seed: 1\n")
    main([str(tmp_path / "runs"), "--num-resamples", "0"])
    assert "\x1b" not in (text := capsys.readouterr().out)
    assert "d\N{REPLACEMENT CHARACTER} has no complete report" in text
    models = [write_model(tmp_path / "models", name, data__train=f"{name}\x07") for name in ("a\x1b[31m", "b\nc")]
    text = diff_runs([RunSnapshot.read(path) for path in models])
    assert re.findall("[\x00-\x09\x0b-\x1f]", text) == []
    assert "b c" in text
