"""A cut model computes what the whole one does for the tokens that it has, and is an ordinary checkpoint."""

import contextlib
import dataclasses
import gzip
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt import checkpoint, train, translate, trim
from nmt.cli.compose import run_command
from nmt.cli.configs import Config, TranslateConfig, TrimConfig
from nmt.config import to_dict
from nmt.data import EOS, DataConfig, SentencePair, Tokenizer, TokenizerConfig, batch_to_device, collate
from nmt.inference.translator import Translator
from nmt.models import MODELS, build_model
from nmt.search import SearchConfig

CPU = torch.device("cpu")
WORDS = ["dog", "cat", "house", "tree", "sleeps", "runs", "under", "over", "small", "big"]
SOURCES = [f"the {first} {second} and the {third}" for first in WORDS for second in WORDS[::2] for third in WORDS[::3]]
TARGETS = [text.upper() for text in SOURCES]
MAINS: dict[str, tuple[Any, Any]] = {
    "trim": (trim.main, TrimConfig),
    "train": (train.main, Config),
    "translate": (translate.main, TranslateConfig),
}


def call(name: str, *arguments: str) -> tuple[int, str, str]:
    """Return the exit code, standard output and standard error of a command called in this process."""
    logger, code = logging.getLogger("nmt"), 0
    before, logger.handlers = logger.handlers, []
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            run_command(*MAINS[name], name, list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            logger.handlers = before
    return code, out.getvalue(), err.getvalue()


def write_checkpoint(path: Path, model: Any, tokenizer: TokenizerConfig, **more: Any) -> Translator:
    trained = Tokenizer.train(tokenizer, map(SentencePair, SOURCES, TARGETS))
    search = SearchConfig(beam_size=1, max_length_ratio=0.0, max_length_offset=12)
    config = Config(model=model, search=search, data=DataConfig(tokenizer=tokenizer))
    torch.manual_seed(3)
    built = build_model(model, trained.source_size, trained.target_size, joint=trained.joint)
    content = {"config": to_dict(config), "tokenizer": trained.state_dict(), "model": built.state_dict(), **more}
    checkpoint.save(path, content)
    return Translator.from_checkpoint(checkpoint.load(path), None, CPU)


def small(architecture: str, **options: Any) -> Any:
    config = MODELS[architecture].config(**options)
    sizes = {"d_model": 16, "ffn_dim": 16, "embedding_dim": 16, "hidden_size": 16, "dropout": 0.0}
    return dataclasses.replace(config, **{name: size for name, size in sizes.items() if hasattr(config, name)})


def logits(translator: Translator, sources: list[list[int]], targets: list[list[int]]) -> torch.Tensor:
    batch = batch_to_device(collate(sources, targets), CPU)
    with torch.no_grad():
        result, _ = translator.model(batch.source, batch.source_mask, batch.inputs)
    return result


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("tie", ["none", "output", "all"])
@pytest.mark.parametrize("architecture", MODELS)
def test_the_same_numbers(tmp_path: Path, architecture: str, tie: str, joint: bool) -> None:
    if tie == "all" and not joint:
        pytest.skip("needs one vocabulary")
    path, output = tmp_path / "whole.pt", tmp_path / "small.pt"
    tokenizer = TokenizerConfig(vocab_size=330, joint=joint)
    whole = write_checkpoint(path, small(architecture, tie_embeddings=tie), tokenizer)
    (tmp_path / "s").write_text("\n".join(SOURCES[:3]))
    (tmp_path / "t").write_text("\n".join(TARGETS[5:9]))
    code, printed, err = call("trim", f"checkpoint={path}", f"text=[{tmp_path}/s,{tmp_path}/t]", f"output={output}")
    assert (code, err) == (0, "")
    cut = Translator.from_checkpoint(checkpoint.load(output), None, CPU)
    assert 260 < cut.tokenizer.source_size < whole.tokenizer.source_size
    assert cut.tokenizer.joint == joint
    for translator in (whole, cut):
        assert f"{translator.tokenizer.source_size:,} source and {translator.tokenizer.target_size:,} target" in printed
    pairs = list(zip(SOURCES[:3], TARGETS[5:8], strict=True))
    before, after = whole.encode_pairs(pairs), cut.encode_pairs(pairs)
    names = whole.tokenizer.target_subwords(range(whole.tokenizer.target_size))
    kept = [names.index(name) for name in cut.tokenizer.target_subwords(range(cut.tokenizer.target_size))]
    assert [[kept[index] for index in row] for row in after[1]] == before[1]
    assert torch.equal(logits(cut, *after), logits(whole, *before)[..., kept])
    tied = [len({tensor.data_ptr() for tensor in t.model.state_dict().values()}) for t in (whole, cut)]
    assert tied[0] == tied[1]
    stored = checkpoint.load(output)["model"]  # tied tensors are stored once
    assert len({tensor.data_ptr() for tensor in stored.values()}) == tied[0]


@pytest.mark.parametrize("joint", [True, False])
def test_the_same_translations(tmp_path: Path, joint: bool) -> None:
    """By greedy search, when the translations are of what is kept; a target that is not given stays whole."""
    path, sources = tmp_path / "whole.pt", SOURCES[::7]
    model = small("transformer")
    whole = write_checkpoint(path, model, TokenizerConfig(type="word", joint=joint), optimizer={"a": 1}, notes=["b"])
    before = [translation.text for translation in whole.translate(sources)]
    with gzip.open(tmp_path / "s.gz", "wt") as file:
        file.write("\n".join(sources))
    (tmp_path / "t").write_text("\n".join(before))
    assert call("trim", str(path), f"text=[{tmp_path}/s,{tmp_path}/t]", f"output={tmp_path}/small.pt")[0] == 0
    content = checkpoint.load(tmp_path / "small.pt")
    assert content["notes"] == ["b"]
    assert "optimizer" not in content
    cut = Translator.from_checkpoint(content, None, CPU)
    assert [translation.text for translation in cut.translate(sources)] == before
    assert cut.tokenizer.target_size < whole.tokenizer.target_size
    (tmp_path / "one").write_text(sources[0])
    code, _, err = call("trim", str(path), f"text={tmp_path}/one", f"output={tmp_path}/source.pt")
    if joint:  # nothing could be written in the target language
        assert "one vocabulary, so that a text in the target language is needed too" in err
        assert not (tmp_path / "source.pt").exists()
    else:
        assert code == 0
        source_only = Translator.from_checkpoint(checkpoint.load(tmp_path / "source.pt"), None, CPU)
        assert source_only.tokenizer.target_size == whole.tokenizer.target_size
        assert source_only.tokenizer.source_size < whole.tokenizer.source_size
        assert [translation.text for translation in source_only.translate(sources[:1])] == before[:1]


def test_it_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    from nmt.export import export

    path = tmp_path / "whole.pt"
    write_checkpoint(path, small("transformer"), TokenizerConfig(type="bpe", vocab_size=330, symbols=["<T>"]))
    (tmp_path / "s").write_text("<T>" + SOURCES[0])
    assert call("trim", str(path), f"text=[{tmp_path}/s,{tmp_path}/s]", f"output={tmp_path}/small.pt")[0] == 0
    content = checkpoint.load(tmp_path / "small.pt")
    translator = Translator.from_checkpoint(content, None, CPU)
    exported = export(translator, Config.from_checkpoint(content), "ctranslate2", tmp_path / "exported", 64)
    assert exported.difference < 1e-3


def test_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    write_checkpoint(path, small("rnn"), TokenizerConfig(type="char", joint=False))
    (tmp_path / "s").write_text("a\n")
    (tmp_path / "blank").write_text(" \n\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "damaged.pt").write_bytes(path.read_bytes()[:-900])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"text " * 99)[:-3])
    content = checkpoint.load(path)
    checkpoint.save(tmp_path / "other.pt", content | {"model": {**content["model"], "x": torch.ones(1)}})

    def sentence(text: str, model: str = "whole.pt", output: str = "small.pt") -> str:
        options = [f"checkpoint={tmp_path / model}", f"text={text}", f"output={tmp_path / output}"]
        code, out, err = call("trim", *options)
        assert (code, out) == (1, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert not (tmp_path / "small.pt").exists()
        return err.removeprefix("error: ").rstrip("\n")

    assert sentence(f"{tmp_path}/none").startswith(f"{tmp_path}/none: no such file")
    assert sentence(f"{tmp_path}/empty") == f"{tmp_path}/empty: the file is empty"
    assert sentence(f"{tmp_path}/blank").startswith(f"{tmp_path}/blank: holds no text")
    assert "damaged or incomplete" in sentence(f"{tmp_path}/cut")
    assert "its checksum is" in sentence(f"{tmp_path}/s", "damaged.pt") or "truncated" in sentence(
        f"{tmp_path}/s", "damaged.pt"
    )
    assert "x is none of it" in sentence(f"{tmp_path}/s", "other.pt")
    assert "no such file or run directory" in sentence(f"{tmp_path}/s", "none.pt")
    (tmp_path / "taken.pt").write_text("mine")
    assert "taken.pt: exists already" in sentence(f"{tmp_path}/s", output="taken.pt")
    assert (tmp_path / "taken.pt").read_text() == "mine"
    assert sentence("") == sentence(f"[{tmp_path}/s,b,c]")
    assert "text=SOURCE or text=[SOURCE,TARGET]" in sentence("[]")


def test_a_tokenizer_of_a_plugin_without_cut(tmp_path: Path) -> None:
    from nmt.data.vocabulary import TokenizerModel

    class Mine(TokenizerModel):
        surfaces = [None, b"<unk>", None, None]  # noqa: RUF012

    with pytest.raises(ValueError, match="of the class Mine cannot be cut"):
        Mine().cut({1})


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the arguments of a short training on compressed text, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, part in (("train", slice(0, 150)), ("valid", slice(150, 156))):
        for language, lines in (("en", SOURCES), ("de", TARGETS)):
            Path(f"{name}.{language}.gz").write_bytes(gzip.compress("\n".join(lines[part]).encode()))
    names = ["data=text", "data.train=train", "data.valid=valid", "data.source_lang=en", "data.target_lang=de"]
    sizes = ["model.embedding_dim=8", "model.hidden_size=8", "model.attention.dim=8", "train.batch_tokens=300"]
    return [*names, *sizes, "train.early_stopping_metric=loss", "num_threads=1", "device=cpu", "name=run"]


def test_a_run_keeps_the_model_of_its_tokenizer(texts: list[str]) -> None:
    """It continues when the file is gone."""
    import sentencepiece

    model = io.BytesIO()
    lines = iter([*SOURCES, *TARGETS])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, vocab_size=70, model_type="bpe", minloglevel=2
    )
    Path("own.model").write_bytes(model.getvalue())
    options = [*texts, "data.tokenizer.model=own.model"]
    code, _, err = call("train", *options, "train.max_updates=2")
    assert code == 0, err
    assert "own.model: bpe model, 71 entries, SHA-256 " in Path("runs/run/train.log").read_text()
    Path("own.model").unlink()
    code, _, err = call("train", *options, "train.max_updates=3")
    assert code == 0, err
    content = checkpoint.load(checkpoint.resolve("runs/run"))
    assert Tokenizer.from_state_dict(content["tokenizer"]).type == "bpe"
    assert call("train", *options, "name=other")[2].startswith("error: own.model: No such file")


def test_a_small_text_gives_the_largest_vocabulary(texts: list[str]) -> None:
    """And files are translated into files, compressed or not, as streams are."""
    code, _, err = call("train", *texts, "train.max_updates=2")
    assert code == 0, err
    assert "data.tokenizer.vocab_size=8000: the text gives " in Path("runs/run/train.log").read_text()
    code, _, err = call("train", *texts, "name=exact", "data.tokenizer.exact_size=true")
    assert code == 1
    assert "data.tokenizer.vocab_size=8000: more unigram subwords than the training text can give" in err
    Path("in").write_bytes("\ufeffthe dog\r\n\nthe \u2028 cat".encode())
    Path("in2.xz").write_bytes(__import__("lzma").compress(Path("in").read_bytes()))
    readers: list[Callable[[], bytes]] = [Path("a").read_bytes, lambda: gzip.decompress(Path("b.gz").read_bytes())]
    for name, output, read in zip(("in", "in2"), ("a", "b.gz"), readers, strict=True):
        code, out, err = call("translate", "runs/run", f"input={name}", f"output={output}", "num_threads=1")
        assert (code, out) == (0, "")
        assert "byte-order mark" in err
        assert read().count(b"\n") == 3
        assert read() == readers[0]()
    assert call("translate", "runs/run", "input=in", "output=c", "format=jsonl")[0] == 0
    assert [line.startswith(b'{"line": ') for line in Path("c").read_bytes().splitlines()] == [True] * 3
    Path("cut.gz").write_bytes(gzip.compress(b"the dog\n" * 9)[:-4])
    code, out, err = call("translate", "runs/run", "input=cut", "output=d.gz")
    assert (code, out) == (1, "")
    assert err.startswith("error: cut.gz: the compressed file is damaged or incomplete")
    assert not list(Path().glob("*d.gz*"))
    assert call("translate", "runs/run", "input=none")[2].startswith("error: none: no such file")
    assert "output=: the file needs a name" in call("translate", "runs/run", "input=in", "output=")[2]
    assert EOS == 3


@pytest.mark.parametrize("joint", [True, False])
def test_tags_stay(joint: bool, tmp_path: Path) -> None:
    model = small("transformer")
    words = TokenizerConfig(type="word", vocab_size=60, joint=joint)
    trained = Tokenizer.train(words, map(SentencePair, SOURCES, TARGETS)).with_tags(["<2de>", "<2fr>", "<2en>"])
    data = DataConfig(format="text", train="train", languages=["en", "de", "fr"], tags="decoder", tokenizer=words)
    config = Config(model=model, search=SearchConfig(beam_size=1, max_length_offset=5), data=data)
    torch.manual_seed(3)
    built = build_model(model, trained.source_size, trained.target_size, joint=joint)
    content = {"config": to_dict(config), "tokenizer": trained.state_dict(), "model": built.state_dict()}
    checkpoint.save(tmp_path / "whole.pt", content)
    texts = [tmp_path / "text.en", tmp_path / "text.de"]
    for path, lines in zip(texts, (SOURCES[:4], TARGETS[:4]), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    names = f"text=[{texts[0]},{texts[1]}]"
    assert call("trim", f"checkpoint={tmp_path}/whole.pt", names, f"output={tmp_path}/cut.pt")[0] == 0
    whole, cut = (
        Translator.from_checkpoint(checkpoint.load(tmp_path / name), None, CPU) for name in ("whole.pt", "cut.pt")
    )
    assert cut.tokenizer.tags == whole.tokenizer.tags
    assert cut.tokenizer.target_size < whole.tokenizer.target_size
    for language in ("de", "fr", "en"):
        views = [translator.into(data, language) for translator in (whole, cut)]
        pairs = [(SOURCES[0], TARGETS[1], ()), (SOURCES[2], TARGETS[3], ())]
        tags = [view.tokenizer.target_subwords(view.tokenizer.prefixes[1]) for view in views]
        assert tags == [[f"<2{language}>"]] * 2
        logits = []
        for view in views:
            sources, targets = view.encode_pairs([pair[:2] for pair in pairs])
            batch = collate(sources, targets)
            with torch.no_grad():
                logits.append(view.model.eval()(batch.source, batch.source_mask, batch.inputs)[0][:, :, EOS])
        torch.testing.assert_close(logits[0], logits[1])  # before the softmax, which has fewer entries
