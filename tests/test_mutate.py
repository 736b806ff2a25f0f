"""scripts/mutate.py: what is changed and what is not, which tests are tried, and a whole run on a small tree."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
SCRIPT = SCRIPTS / "mutate.py"
CODE = '''"""Say 1 < 2."""

import math


def root(value: int = 3, *, twice: bool = False) -> float:
    """Return not 1 and 2."""
    if value < 0 and not twice:
        raise ValueError(f"{value - 1} is below " + str(0))
    return math.pow(value, 2) if twice else value[1:]
'''


@pytest.fixture(scope="module")
def operators() -> Any:
    spec = importlib.util.spec_from_file_location("mutation_operators", SCRIPTS / "mutation_operators.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutation_operators"] = module
    spec.loader.exec_module(module)
    return module


def test_every_kind_of_change_and_no_change_of_text_for_people(operators: Any) -> None:
    mutants = operators.candidates("nmt/root.py", CODE)
    lines = CODE.splitlines()
    results = {(mutant.line, changed.splitlines()[mutant.line - 1].strip()) for mutant in mutants
               if (changed := operators.changed(mutant, CODE))}  # fmt: skip
    assert results == {
        (6, "def root(value: int = 4, *, twice: bool = False) -> float:"),
        (6, "def root(value: int = 2, *, twice: bool = False) -> float:"),
        (6, "def root(value: int = 3, *, twice: bool = True) -> float:"),
        (8, "if (not (value < 0 and (not twice))):"),
        (8, "if (value < 0 or not twice):"),
        (8, "if (value <= 0) and not twice:"),
        (8, "if (value >= 0) and not twice:"),
        (8, "if value < 1 and not twice:"),
        (8, "if value < -1 and not twice:"),
        (8, "if value < 0 and twice:"),
        (9, "pass"),
        (10, "return None"),
        (10, "return math.pow(value, 2) if (not twice) else value[1:]"),
        (10, "return math.pow(2, value) if twice else value[1:]"),
        (10, "return value if twice else value[1:]"),
        (10, "return math.pow(value, 3) if twice else value[1:]"),
        (10, "return math.pow(value, 1) if twice else value[1:]"),
        (10, "return math.pow(value, 2) if twice else value[1 + 1:]"),
        (10, "return math.pow(value, 2) if twice else value[1:-1]"),
        (10, "return math.pow(value, 2) if twice else value[2:]"),
        (10, "return math.pow(value, 2) if twice else value[0:]"),
    }
    assert all(lines[line - 1].strip() != text for line, text in results)
    drawn = operators.sample({"nmt/root.py": CODE}, 3, seed=5)
    assert drawn == operators.sample({"nmt/root.py": CODE}, 3, seed=5)
    assert len({mutant.line for mutant in drawn}) == 3


def test_run_on_a_small_tree(tmp_path: Path) -> None:
    """Lines run by a shared fixture, another process or nothing; the tree is as before; the second run has no work."""
    pytest.importorskip("coverage")
    files = {
        "nmt/sums.py": "import sys\n\n\ndef total(numbers):\n    return sum(numbers)\n\n\ndef double(number):\n"
        "    return number + number\n\n\ndef half(number):\n    return number // 2\n\n\n"
        "if sys.argv[1:] == ['-']:\n    print(total([1, 2]))\n",
        "tests/test_sums.py": "import subprocess, sys\nimport pytest\nfrom nmt import sums\n\n"
        "@pytest.fixture(scope='module')\ndef two():\n    return sums.double(1)\n\n"
        "def test_first(two):\n    assert two\n\n"
        "def test_second(two):\n    assert two == 2\n\ndef test_process():\n"
        "    assert subprocess.check_output([sys.executable, '-m', 'nmt.sums', '-']) == b'3\\n'\n",
        "nmt/__init__.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    command = [
        sys.executable,
        SCRIPT,
        "--root",
        tmp_path,
        "--out",
        tmp_path / "out",
        "--modules",
        "nmt/*.py",
        "--preloaded",
    ]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    results = [json.loads(line) for line in next(tmp_path.glob("out/*/results.jsonl")).read_text().splitlines()]
    outcomes = {result["line"]: result["outcome"] for result in results}
    assert outcomes[5] == outcomes[9] == "killed"
    assert outcomes[13] == "no test"
    assert {result["by"] for result in results if result["line"] == 5} == {"tests/test_sums.py::test_process"}
    assert f"| all | {len(results)} |" in first
    assert "nmt/sums.py" in next(tmp_path.glob("out/*/survivors.diff")).read_text()
    assert {name: (tmp_path / name).read_text() for name in files} == files
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "recorded" in first
    assert "recorded" not in again
    assert "left" not in again
