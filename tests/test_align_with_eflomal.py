"""scripts/align_with_eflomal.py, with a program in place of eflomal that reads and writes the same files."""

import importlib.util
import shutil
import stat
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nmt.alignment import alignment_error_rate, read_pharaoh
from nmt.alignment.pharaoh import GoldAlignment

SCRIPT = Path(__file__).parent.parent / "scripts" / "align_with_eflomal.py"
PROGRAM = """#!{python}
import sys
files = dict(zip(sys.argv[1::2], sys.argv[2::2]))
source, target = ([line.split() for line in open(files[flag], encoding="utf-8")] for flag in ("-s", "-t"))
assert len(source) == len(target) and all(source) and all(target)
for flag, best in (("-f", 0), ("-r", 1)):
    with open(files[flag], "w") as out:
        for s, t in zip(source, target):
            links = [(i, j) for i, word in enumerate(s) for j, other in enumerate(t) if word == other]
            print(*(f"{{i}}-{{j}}" for i, j in links[best * (len(links) > 2):]), file=out)
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("align_with_eflomal", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "aligner"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def write(folder: Path, name: str, pairs: list[tuple[str, str]]) -> str:
    for side, language in enumerate(("en", "xx")):
        (folder / f"{name}.{language}").write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize("text", ["Tom's U.S. dog, (big) !", "a\u00a0b c\u3000d …", " two  spaces ", "", "« 3,5 »"])
def test_what_the_aligner_sees_has_the_words_of_the_text(script: ModuleType, text: str) -> None:
    words = [word for word in text.split(" ") if word]
    assert len(script.normalize(text).split()) == len(words)
    assert script.normalize("The dog's (bone), ... 3.5!") == "the dog's bone ... 3.5"


def test_each_prefix_gets_a_line_for_each_pair(script: ModuleType, program: str, tmp_path: Path) -> None:
    first = write(tmp_path, "first", [("a b", "B A."), ("", "x"), ("u\u00a0v w", "w u\u00a0v")])
    second = write(tmp_path, "second", [("p q r", "r q p")])
    arguments = ["--languages", "en", "xx", "--output", str(tmp_path / "out"), "--eflomal", program]
    script.main([*arguments, "--method", "union", first, second])
    assert read_pharaoh(tmp_path / "out/first.pharaoh") == [[(0, 1), (1, 0)], [], [(0, 1), (1, 0)]]
    assert read_pharaoh(tmp_path / "out/second.pharaoh") == [[(0, 2), (1, 1), (2, 0)]]
    script.main([*arguments, "--method", "intersection", second])
    assert read_pharaoh(tmp_path / "out/second.pharaoh") == [[(1, 1), (2, 0)]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--eflomal", "/no/such/program"], "no such program; pip install eflomal"),
        (["--eflomal", shutil.which("false") or "false"], "failed with exit code 1"),
    ],
)
def test_a_mistake_is_one_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    prefix = write(tmp_path, "text", [("a", "b")])
    with pytest.raises(SystemExit, match="1"):
        script.main(["--languages", "en", "xx", "--output", str(tmp_path / "out"), *options, prefix])
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("eflomal-align") is None, reason="needs eflomal")
def test_eflomal_itself_finds_a_lexicon(script: ModuleType, tmp_path: Path) -> None:
    pairs = [
        (" ".join(f"s{(n * k) % 7}" for k in (1, 2, 3)), " ".join(f"t{(n * k) % 7}" for k in (3, 1, 2)))
        for n in range(1, 200)
    ]
    links = script.align(pairs, "eflomal-align", "grow-diag-final-and")
    truth = frozenset({(0, 1), (1, 2), (2, 0)})
    plain = [number for number in range(len(pairs)) if (number + 1) % 7]
    assert (
        alignment_error_rate([links[number] for number in plain], [GoldAlignment(truth, truth)] * len(plain)).aer < 0.1
    )
