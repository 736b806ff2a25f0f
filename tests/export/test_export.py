"""`python -m nmt.export`: the folder, the programs in it, and errors."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nmt import checkpoint
from nmt.cli.compose import run_command, to_dict
from nmt.cli.configs import EXPORTS, ExportConfig
from nmt.data import BOS, EOS, PAD
from nmt.export import export, output_folder, verification
from nmt.export.__main__ import main, print_formats
from nmt.export.formats import FORMATS
from nmt.search import SearchConfig

Make = Any  # see conftest.py
RUNNABLE = ("ctranslate2", "huggingface")


def save(translator: Any, config: Any, path: Path) -> Path:
    config.search = SearchConfig(beam_size=3)
    content = {
        "config": to_dict(config),
        "model": translator.model.state_dict(),
        "tokenizer": translator.tokenizer.state_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, content)
    return path


def isolated(program: Path, data: bytes, *arguments: str) -> tuple[list[str], str]:
    """Run a program of an exported folder without access to this project, in an ASCII locale.

    Returns:
        the lines of its standard output, and its standard error.
    """
    block = (
        "import sys, runpy; sys.modules['nmt'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", block, str(program), *arguments],
        input=data,
        capture_output=True,
        check=False,
        cwd=program.parent,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert done.returncode == 0, done.stderr.decode()
    *lines, rest = done.stdout.decode("utf-8").split("\n")
    assert rest == ""
    return lines, done.stderr.decode()


@pytest.mark.parametrize("name", RUNNABLE)
def test_folder_translates_as_ours(
    name: str, trained: Any, tmp_path: Path, rows: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ctranslate2" if name == "ctranslate2" else "transformers")
    translator, config = trained("pre")
    file = save(translator, config, tmp_path / "runs" / "small" / "checkpoints" / "best.pt")
    output = tmp_path / "out"
    run_command(
        main, ExportConfig, "export", [f"checkpoint={file}", f"format={name}", f"output={output}", "max_length=99"]
    )
    printed = capsys.readouterr().out
    assert f"({name}, " in printed
    assert "log-probabilities differ from ours by at most" in printed
    manifest = json.loads((output / "export.json").read_text())
    assert manifest["format"] == name
    assert manifest["search"]["beam_size"] == 3
    assert (manifest["max_source"], manifest["max_target"]) == (99, 99)
    assert {*manifest["files"], "export.json"} == {path.name for path in output.iterdir()}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    text = "".join(row + "\n" for row in rows)
    translator.config = SearchConfig(beam_size=3)
    ours = translator.translate(rows)
    theirs, _ = isolated(output / "translate.py", text.encode())
    ended = [number for number, translation in enumerate(ours) if not translation.truncated]
    same = sum(theirs[number].strip() == ours[number].text.strip() for number in ended)
    assert len(theirs) == len(rows)
    assert same >= 0.9 * len(ended) > 0.4 * len(rows)


@pytest.mark.parametrize("name", EXPORTS)
def test_every_line_gets_one_line(name: str, make: Make, tmp_path: Path) -> None:
    for module in FORMATS[name].modules:
        pytest.importorskip(module)
    translator, config = make(tie_embeddings="all", seed=1, positions="learned")  # there are 64 of them
    with torch.no_grad():
        translator.model.output.bias[[PAD, BOS, EOS]] = -30.0  # no sentence ends by itself
    translator.config = SearchConfig(beam_size=1, max_length_ratio=2.0, max_length_offset=3)
    export(translator, config, name, tmp_path / "out", 1024)
    lines = ["the old man", "", "  ", b"gr\xff\xc3\xbcn", "a\rb", "a " * 64, "dog " * 12, "ball\r", "a " * 31 + "red"]
    data = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    translations, printed = isolated(tmp_path / "out" / "translate.py", data, "--beam", "1")
    assert [place for place, line in enumerate(translations) if not line] == [1, 2, 5]
    assert len(translations) == len(lines)
    messages = [line for line in printed.splitlines() if "not translated" in line]
    assert messages == [
        "line 6: not translated: its 64 tokens are more than the 63 that the model can read; cut it into sentences"
    ]
    read = ["the old man", "", "  ", "gr\N{REPLACEMENT CHARACTER}ün", "a\rb", "", "dog " * 12, "ball", lines[8]]
    ours = translator.translate([text.strip(" ") for text in read])
    assert max(len(our.tokens) for our in ours) == 63  # the number of positions
    assert len({len(our.tokens) for our in ours}) > 4
    if name != "huggingface":  # its maximum length does not depend on the sentence
        assert translations == [our.text for our in ours]


def test_more_than_1024_tokens_are_read(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    translator, config = make(tie_embeddings="all", seed=1)
    translator.config = SearchConfig(beam_size=1, max_length_ratio=0, max_length_offset=20)
    export(translator, config, "ctranslate2", tmp_path / "out", 3000)
    text = "the old man " * 210 + "sees seven red apples " * 60
    (ids,) = translator.tokenizer.encode_source([text.strip(" ")])
    assert 1500 < len(ids) < 3000
    ours = translator.translate([text, translator.tokenizer.decode_source(ids[:1023])])
    assert ours[0].text != ours[1].text  # otherwise the test would show nothing
    assert isolated(tmp_path / "out" / "translate.py", text.encode())[0] == [ours[0].text]


def test_without_a_table_of_positions_there_is_no_maximum_length(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    translator, config = make(tie_embeddings="all", positions="rotary")
    translator.config = SearchConfig(beam_size=1, max_length_ratio=0, max_length_offset=5)
    export(translator, config, "ctranslate2", tmp_path / "out", 50)
    manifest = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (manifest["max_source"], manifest["max_target"]) == (None, None)
    text = "the old man " * 40
    assert isolated(tmp_path / "out" / "translate.py", text.encode()) == ([translator.translate([text])[0].text], "")


def test_lengths_that_are_not_exported_are_always_reported(trained: Any, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    translator, config = trained("pre")
    translator.config = SearchConfig()
    (note,) = export(translator, config, "huggingface", tmp_path / "out", 2000).notes
    assert note.startswith(
        "search.max_length_ratio=2.0 and search.max_length_offset=10 are not exported: a translation may have 2,000 tok"
    )
    assert note in (tmp_path / "out" / "README.md").read_text()


def test_search_options_that_are_not_exported_are_reported(trained: Any, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    translator, config = trained("pre")
    translator.config = SearchConfig(
        beam_size=4, n_best=2, no_repeat_ngram_size=3, length_normalization="gnmt", max_length_ratio=3.0
    )
    result = export(translator, config, "ctranslate2", tmp_path / "out", 50)
    assert [note.partition(" ")[0] for note in result.notes] == [
        "search.length_normalization=gnmt",
        "search.no_repeat_ngram_size=3",
    ]
    assert "search.no_repeat_ngram_size=3 is not exported" in (tmp_path / "out" / "README.md").read_text()
    translator.config = SearchConfig()
    assert export(translator, config, "ctranslate2", tmp_path / "out", 50).notes == []


def test_a_different_model_is_refused(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ctranslate2")
    translator, config = make()
    correct = verification.log_probs

    def wrong(*arguments: Any) -> list[Any]:
        return [row + 2e-3 * (np.arange(len(row)) == 0) for row in correct(*arguments)]

    monkeypatch.setattr(verification, "log_probs", wrong)
    with pytest.raises(ValueError, match=r"not ours: log-probabilities differ by up to 0.002, more than 0.001"):
        export(translator, config, "ctranslate2", tmp_path / "out", 50)
    assert list(tmp_path.iterdir()) == []


def test_a_different_tokenizer_is_refused(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ctranslate2")
    from nmt.export.to_ctranslate2 import CTranslate2Runner

    translator, config = make()
    monkeypatch.setattr(CTranslate2Runner, "encode", lambda self, texts, _: [[4] for _ in texts])
    with pytest.raises(ValueError, match="the exported tokenizer is not ours"):
        export(translator, config, "ctranslate2", tmp_path / "out", 50)
    assert list(tmp_path.iterdir()) == []


def test_max_length_is_the_number_of_positions(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    from nmt.export.to_ctranslate2 import CTranslate2Runner

    translator, config = make()
    export(translator, config, "ctranslate2", tmp_path / "out", 10)
    loaded = CTranslate2Runner(tmp_path / "out")
    assert loaded.log_probs([[5] * 9], [[5] * 9])
    with pytest.raises(RuntimeError, match="position encodings are defined for positions >= 10"):
        loaded.log_probs([[5] * 10], [[5]])


class TestFolder:
    def test_appears_complete(self, tmp_path: Path) -> None:
        with output_folder.atomic_directory(tmp_path / "a" / "out") as temporary:
            (temporary / "x").write_text("1")
            assert not (tmp_path / "a" / "out").exists()
        assert (tmp_path / "a" / "out" / "x").read_text() == "1"

    def test_or_not_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), output_folder.atomic_directory(tmp_path / "out") as temporary:
            (temporary / "x" / "y").write_text("1")
        assert list(tmp_path.iterdir()) == []

    def test_an_earlier_export_is_replaced_and_kept_when_it_fails(self, tmp_path: Path) -> None:
        output = tmp_path / "out"
        for content in ("1", "2"):
            with output_folder.atomic_directory(output) as temporary:
                (temporary / f"x{content}").write_text(content)
                (temporary / output_folder.MANIFEST).write_text(json.dumps({"files": {f"x{content}": 1}}))
        with pytest.raises(KeyError), output_folder.atomic_directory(output) as temporary:
            raise KeyError
        assert sorted(path.name for path in output.iterdir()) == [output_folder.MANIFEST, "x2"]
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_other_files_are_left_alone(self, tmp_path: Path) -> None:
        output = tmp_path / "out"
        output.mkdir()
        output_folder.check(output)
        (output / "thesis.txt").write_text("mine")
        with (
            pytest.raises(FileExistsError, match=r"holds files that no export wrote \(thesis.txt\)"),
            output_folder.atomic_directory(output),
        ):
            pass
        (output / output_folder.MANIFEST).write_text(json.dumps({"files": {}}))
        with pytest.raises(FileExistsError, match=r"thesis\.txt"):
            output_folder.check(output)
        with pytest.raises(FileExistsError, match="is a file"):
            output_folder.check(output / "thesis.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "checkpoint: must be given"),
        (["checkpoint=x"], "format=: must be one of ctranslate2, huggingface, onnx"),
        (["checkpoint=x", "format=onxx"], "format=onxx: must be one of"),
        (["checkpoint=x", "format=onnx"], "output=: must be given"),
        (["checkpoint=x", "format=onnx", "output=y", "max_length=1"], "max_length=1: must be at least 2"),
        (["checkpoint=x", "format=onnx", "output=y"], "checkpoint=x: no such file or run directory"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(main, ExportConfig, "export", arguments)
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {message}")
    assert printed.count("\n") == 1


def test_formats_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_formats()
    printed = capsys.readouterr().out
    assert "experiment=multi30k_rnn" in printed
    assert "every attention's score" in printed
