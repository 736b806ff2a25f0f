"""python -m nmt.score and nmt.load(…).score: files, pipes, n-best lists, and user errors."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import nmt
from nmt import checkpoint, score
from nmt.attention import AttentionConfig
from nmt.cli.compose import run_command
from nmt.cli.configs import Config, ScoreConfig
from nmt.config import to_dict
from nmt.data import DataConfig, Tokenizer, TokenizerConfig, text_files
from nmt.inference.translator import Translator
from nmt.models import build_model
from nmt.models.rnn import RNNConfig
from nmt.models.transformer import TransformerConfig
from nmt.search import SearchConfig

TEXTS = [f"the {a} {b} sees {c} things ." for a in "abc" for b in ("dog", "cat") for c in "xy"]
PAIRS = [(text, text.upper()) for text in TEXTS]
SOURCES, TARGETS = zip(*PAIRS, strict=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts and checkpoints of models from en into de; back.pt is one of the other direction."""
    folder = tmp_path_factory.mktemp("score")
    tokenizer = Tokenizer.train(TokenizerConfig(type="bpe", vocab_size=300), PAIRS)
    sizes = tokenizer.source_size, tokenizer.target_size
    heads = AttentionConfig(heads=2)
    for seed, (name, config) in enumerate(
        {
            "a": RNNConfig(embedding_dim=8, hidden_size=8, attention=AttentionConfig(score="scaled", dim=8)),
            "b": RNNConfig(embedding_dim=8, hidden_size=8, attention=AttentionConfig(score="none")),
            "back": RNNConfig(embedding_dim=8, hidden_size=8, attention=AttentionConfig(score="dot", dim=8)),
            "short": TransformerConfig(
                d_model=8,
                ffn_dim=8,
                positions="learned",
                max_positions=22,
                attention=heads,
                encoder_self_attention=heads,
                decoder_self_attention=heads,
            ),
        }.items()
    ):
        torch.manual_seed(seed)
        model = build_model(config, *sizes, joint=True)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
        languages = ("de", "en") if name == "back" else ("en", "de")
        data = DataConfig(source_lang=languages[0], target_lang=languages[1])
        search = SearchConfig(
            beam_size=4, max_length_ratio=0.3, max_length_offset=3, coverage_penalty=0.1 * (name == "a")
        )
        stored = to_dict(Config(data=data, model=config, search=search))
        content = {"config": stored, "tokenizer": tokenizer.state_dict(), "model": model.state_dict()}
        checkpoint.save(folder / f"{name}.pt", content)
    other = Tokenizer.train(TokenizerConfig(type="bpe", vocab_size=295), PAIRS)
    model = build_model(RNNConfig(embedding_dim=8, hidden_size=8), other.source_size, other.target_size, joint=True)
    stored = to_dict(Config(model=RNNConfig(embedding_dim=8, hidden_size=8)))
    content = {"config": stored, "tokenizer": other.state_dict(), "model": model.state_dict()}
    checkpoint.save(folder / "other.pt", content)
    for name, lines in (("t.en", SOURCES), ("t.de", TARGETS)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture
def cwd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str, text: str | bytes = b"") -> tuple[int, str, str]:
    """Return exit code, output and standard error of the command, with `text` as standard input."""
    Path("stdin").write_bytes(text.encode() if isinstance(text, str) else text)
    stdout, logger = io.TextIOWrapper(io.BytesIO(), "utf-8"), logging.getLogger("nmt")
    before, logger.handlers = logger.handlers, []
    code = 0
    with (
        contextlib.redirect_stderr(io.StringIO()) as err,
        Path("stdin").open() as stdin,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stdout", stdout)
        try:
            run_command(score.main, ScoreConfig, "score", ["device=cpu", "num_threads=1", *arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            logger.handlers = before
    stdout.flush()
    return code, stdout.buffer.getvalue().decode(), err.getvalue()  # type: ignore[attr-defined]


def test_forms_of_input_and_output_have_the_same_numbers(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["checkpoint=a.pt", "source=t.en", "target=t.de"]
    code, out, err = call(monkeypatch, *files)
    rows = [line.split("\t") for line in out.splitlines()]
    expected = nmt.load("a.pt", device="cpu").score(SOURCES, TARGETS)
    assert (code, len(rows)) == (0, len(PAIRS))
    for row, result in zip(rows, expected, strict=True):
        assert [float(item) for item in row] == pytest.approx(list(result[:6]), abs=1e-6)
    total, num = sum(result.log_prob for result in expected), sum(result.num_tokens for result in expected)
    assert f"{len(PAIRS)} lines, {num} tokens with the end tokens: perplexity " in err
    assert float(err.split()[-1]) == pytest.approx(2.718281828459045 ** (-total / num), rel=1e-5)
    tsv = "".join(f"{source}\t{target}\r\n" for source, target in PAIRS)
    assert call(monkeypatch, "checkpoint=a.pt", text=tsv)[1] == out
    records = "".join(json.dumps({"source": source, "target": target}) + "\n" for source, target in PAIRS)
    assert call(monkeypatch, "checkpoint=a.pt", text="\ufeff" + records)[1] == out
    assert call(monkeypatch, *files, "output=numbers.tsv")[1] == ""
    assert (cwd / "numbers.tsv").read_text() == out
    with_texts = call(monkeypatch, "checkpoint=a.pt", "format=tsv", text=tsv)[1]
    pairs = zip(out.splitlines(), PAIRS, strict=True)
    assert with_texts == "".join(f"{row}\t{source}\t{target}\n" for row, (source, target) in pairs)
    found = [json.loads(line) for line in call(monkeypatch, *files, "format=jsonl")[1].splitlines()]
    for number, (record, result, pair) in enumerate(zip(found, expected, PAIRS, strict=True), 1):
        fields = {name: value for name, value in result._asdict().items() if value is not None}
        assert record == {"line": number, "number": 1, "source": pair[0], "target": pair[1], **fields}
    monkeypatch.setattr(score, "LINES_AT_ONCE", 5)
    assert call(monkeypatch, *files, "search.batch_size=1")[1] == out
    brace = f"{tsv}{{\tb\n"  # the first line says what the input is
    assert call(monkeypatch, "checkpoint=a.pt", text=brace)[1].startswith(out)
    assert call(monkeypatch, "checkpoint=a.pt", text=records * 2)[1] == out * 2


def test_nothing_is_written_of_files_of_different_lengths(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK_LINES", 4)
    (cwd / "one_less.de").write_text("".join(f"{line}\n" for line in TARGETS[1:]))
    code, out, err = call(monkeypatch, "checkpoint=a.pt", "source=t.en", "target=one_less.de")
    assert (code, out) == (1, "")
    assert "t.en has 12 lines and one_less.de has 11" in err


def test_an_ensemble_and_the_other_direction(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, back = (nmt.load(f"{name}.pt", device="cpu") for name in ("a", "b", "back"))
    both = nmt.load(["a.pt", "b.pt"], device="cpu", coverage_penalty=0)
    expected = both.score(SOURCES, TARGETS, back)
    for first, second, result in zip(one.score(SOURCES, TARGETS), two.score(SOURCES, TARGETS), expected, strict=True):
        pairs = zip(first.token_log_probs, second.token_log_probs, strict=True)
        means = [torch.tensor(pair).exp().mean().log().item() for pair in pairs]
        assert list(result.token_log_probs) == pytest.approx(means, abs=1e-5)
    arguments = ["checkpoint=[a.pt,b.pt]", "source=t.en", "target=t.de", "reverse=back.pt"]
    rows = [[float(item) for item in line.split("\t")] for line in call(monkeypatch, *arguments)[1].splitlines()]
    for row, result, backward in zip(rows, expected, back.score(TARGETS, SOURCES), strict=True):
        assert row == pytest.approx(list(result[:9]), abs=1e-6)
        assert row[6] == pytest.approx(backward.log_prob, abs=1e-6)


def test_n_best_lists_are_scored_and_reranked(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    options = ["checkpoint=a.pt", "device=cpu", "num_threads=1", "format=jsonl", "search.coverage_penalty=0"]
    for n_best in ("search.n_best=4", "search.n_best=1"):
        command = [sys.executable, "-m", "nmt.translate", *options, n_best]
        text = "".join(f"{source}\n" for source in ("\t", *SOURCES)).encode()
        lines = subprocess.run(command, input=text, env=environment, check=True, capture_output=True).stdout
        found = [json.loads(line) for line in call(monkeypatch, *options, text=lines)[1].splitlines()]
        n_bests = [
            (record["line"], item)
            for line in lines.splitlines()
            for record in [json.loads(line)]
            for item in record.get("n_best", [{**record, "text": record["translation"]}])
        ]
        assert [(record["line"], record["target"]) for record in found] == [(n, item["text"]) for n, item in n_bests]
        for record, (_, item) in zip(found, n_bests, strict=True):
            assert record["log_prob"] == pytest.approx(item["log_prob"], abs=1e-4)
            assert record["score"] == pytest.approx(item["score"], abs=1e-4)
    # another model ranks otherwise; its score decides, with a model of the other direction the mean
    targets = [TARGETS[i] for i in (3, 8, 0, 5)] + ["THE"]
    text = "\t".join([SOURCES[3], *targets])
    for reverse in ([], ["reverse=back.pt"]):
        options = ["checkpoint=b.pt", *reverse, "search.length_penalty=0.4"]
        plain = [json.loads(line) for line in call(monkeypatch, *options, "format=jsonl", text=text)[1].splitlines()]
        ranked = [
            json.loads(line)
            for line in call(monkeypatch, *options, "format=jsonl", "rerank=true", text=text)[1].splitlines()
        ]
        assert [record["number"] for record in plain] == [1, 2, 3, 4, 5]
        key = "mean_score" if reverse else "score"
        assert ranked == sorted(plain, key=lambda record: -record[key])
        assert ranked != plain
        assert ranked[0]["score"] == pytest.approx(ranked[0]["log_prob"] / ranked[0]["num_tokens"] ** 0.4)
        rows = call(monkeypatch, *options, "rerank=true", text=text)[1].splitlines()
        assert [row.split("\t")[-1] for row in rows] == [record["target"] for record in ranked]


def test_input_is_scored_as_it_comes(cwd: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "nmt.score", "checkpoint=a.pt", "device=cpu", "num_threads=1", "format=tsv"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        for source, target in PAIRS[:2]:
            process.stdin.write(f"{source}\t{target}\n".encode())
            process.stdin.flush()
            assert process.stdout.readline().decode().rstrip("\n").split("\t")[-2:] == [source, target]
        rest, err = process.communicate(b"a dog\t\n")
        assert rest.decode().endswith("\ta dog\t\n")
        assert process.returncode == 0
        assert b"3 lines" in err


def test_a_pair_that_is_too_long_has_no_score(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = " ".join(SOURCES)
    text = f"a dog\tTHE\n{long}\tTHE\na dog\t{long}\nthe\tA\n"
    code, out, err = call(monkeypatch, "checkpoint=short.pt", text=text)
    first, *middle, last, end = out.split("\n")
    assert (code, middle, end) == (0, ["", ""], "")
    assert min(len(first), len(last)) > 20
    assert [line.partition(" tokens")[0][:50] for line in err.splitlines() if line.startswith("line ")]
    assert [line[:30] for line in err.splitlines() if "max_positions=22" in line] == [
        "line 2: not scored: a sentence",
        "line 3: not scored: a sentence",
    ]
    records = [
        json.loads(line) for line in call(monkeypatch, "checkpoint=short.pt", "format=jsonl", text=text)[1].splitlines()
    ]
    assert [record["log_prob"] is None for record in records] == [False, True, True, False]
    assert set(records[1]) == {"line", "number", "source", "target", "log_prob", "error"}
    assert "longer than model.max_positions=22" in records[1]["error"]
    ranked = call(monkeypatch, "checkpoint=short.pt", "rerank=true", text=f"a dog\t{long}\tTHE\tA\n")[1].splitlines()
    assert [row.split("\t")[-1] == long for row in ranked] == [False, False, True]
    result = nmt.load("short.pt", device="cpu").score([long, "a"], ["THE", "A"])
    assert [bool(item.error) for item in result] == [True, False]


ERRORS: dict[str, tuple[list[str], str | bytes, list[str]]] = {
    "different lengths": (
        ["source=t.en", "target=short.de"],
        "",
        ["t.en has 12 lines and short.de has 11", "line 12 of"],
    ),
    "no such file": (["source=t.en", "target=none.de"], "", ["none.de: no such file"]),
    "an empty file": (["source=t.en", "target=empty.de"], "", ["empty.de: the file is empty"]),
    "one side only": (
        ["source=t.en"],
        "",
        ["source, target: give both, or neither, for pairs"],
    ),
    "the other side only": (["target=t.de"], "", ["source, target: give both, or neither, for pairs"]),
    "no target": ([], "a\tb\nc\n", ["standard input, line 2: needs a source and a target: source TAB target"]),
    "no target in JSON": (
        [],
        '{"source": "a", "target": "b"}\n{"source": "a"}\n',
        ["line 2: needs a source and a target"],
    ),
    "no target in a list": ([], '{"source": "a", "targets": []}', ["line 1: needs a source and a target"]),
    "a number as target": ([], '{"source": "a", "targets": [5]}', ["line 1: needs a source and a target"]),
    "no source": ([], '{"target": "a"}', ["line 1: needs a source and a target"]),
    "no object": ([], '{"source": "a", "target": "b"}\n[1]\n', ["line 2: needs a source and a target"]),
    "broken JSON": (
        [],
        '{"source": "a", "target": "b"}\n{"source": "a",\n',
        ["standard input, line 2: cannot be read ("],
    ),
    "not UTF-8": ([], b"a\tb\n\xff\tb\n", ["standard input, line 2: cannot be read ('utf-8' codec"]),
    "an endless line": ([], "x" * (1 << 21), ["standard input, line 1: needs a source and a target"]),
    "the same direction": (
        ["reverse=b.pt"],
        "a\tb",
        ["reverse=b.pt: translates en into de, a.pt en into de: a run of the"],
    ),
    "another vocabulary": (["checkpoint=[a.pt,other.pt]"], "a\tb", ["number 2 of the list has another vocabulary"]),
    "a folder as output": (["output=."], "a\tb", ["output=.: must be a file"]),
    "no output": (["output="], "a\tb", ["output=: must be a file"]),
    "an unknown format": (["format=csv"], "", ["format=csv: must be one of text, jsonl, tsv"]),
    "a missing run": (["reverse=nowhere"], "a\tb", ["nowhere: no such file or run directory"]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_mistakes_are_one_sentence(name: str, cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cwd / "short.de").write_text("".join(f"{line}\n" for line in TARGETS[1:]))
    (cwd / "empty.de").write_text("")
    arguments, text, parts = ERRORS[name]
    output = [] if any("output" in item for item in arguments) else ["output=never.tsv"]
    code, out, err = call(monkeypatch, "checkpoint=a.pt", *arguments, *output, text=text)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    for part in parts:
        assert part in err
    assert not (cwd / "never.tsv").exists()
    assert [path for path in cwd.iterdir() if path.name.endswith(".tmp")] == []


def test_a_pipe_as_file_is_an_error(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("pipe")
    code, _, err = call(monkeypatch, "checkpoint=a.pt", "source=t.en", "target=pipe")
    assert (code, err) == (1, "error: pipe: the file is empty; a pipe of pairs is read from standard input\n")
    (cwd / "pipe").unlink()


def test_from_python(cwd: Path) -> None:
    model = nmt.load("a.pt", device="cpu")
    results = model.score(SOURCES, iter(TARGETS))
    assert model.score(SOURCES[0], TARGETS[0]) == results[0]
    assert model.score(SOURCES[0], list(TARGETS[:2])) == [results[0], *model.score([SOURCES[0]], [TARGETS[1]])]
    translated = model.translate(SOURCES[2])
    (same,) = model._translator.score([(SOURCES[2], translated.text, translated.subwords)])
    assert same.log_prob == pytest.approx(translated.n_best[0].log_prob, abs=1e-4)
    with pytest.raises(ValueError, match="score: 2 source texts and 1 target texts; as many are needed"):
        model.score(["a", "b"], ["a"])
    with pytest.raises(TypeError, match="5: a text is needed"):
        model.score("a", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"reverse=b.pt: translates en into de, a.pt en into de"):
        model.score("a", "b", nmt.load("b.pt", device="cpu"))
    assert isinstance(model._translator, Translator)
