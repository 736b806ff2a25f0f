"""The programs in an exported folder read every kind of tokenizer as this project does."""

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

import nmt.export
from nmt.data import Tokenizer, TokenizerConfig
from nmt.export import vocabularies

LINES = ["a b@@ <T>c", "der <T> hund und die  katze", "b c <TT> <s>", "im haus unter dem baum"]
TEXTS = [*LINES, "<T>", "hund  <T> neu", "d<TT>er <T>"]


def codec(folder: Path, tokenizer: Tokenizer) -> Any:
    vocabularies.write_vocabularies(tokenizer, folder)
    (folder / "export.json").write_text(json.dumps({"tokenizer": tokenizer.type}))
    path = Path(nmt.export.__file__).parent / "scripts/text.py"
    spec = importlib.util.spec_from_file_location("exported_text", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TextCodec(folder, "source")


def own_model(folder: Path) -> list[str]:
    model = io.BytesIO()
    options = {"vocab_size": 31, "user_defined_symbols": ["<x>"], "pad_id": 6, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(LINES), model_writer=model, **options)
    (folder / "own.model").write_bytes(model.getvalue())
    return [str(folder / "own.model")]


@pytest.mark.parametrize("kind", ["unigram", "bpe", "word", "char", "pretokenized", "own"])
def test_the_same_ids_and_texts(tmp_path: Path, kind: str) -> None:
    if kind == "own":
        tokenizer = Tokenizer.load(TokenizerConfig(model=own_model(tmp_path), symbols=["<T>", "<TT>"]))
    else:
        options = TokenizerConfig(type=kind, vocab_size=330, symbols=["<T>", "<TT>"])
        tokenizer = Tokenizer.train(options, [(line, line) for line in LINES])
    exported = codec(tmp_path, tokenizer)
    for text, ids in zip(TEXTS, tokenizer.encode_source(TEXTS), strict=True):
        assert exported.encode(text) == ids
        assert exported.decode(ids) == tokenizer.decode_source(ids)


def test_transformers_reads_symbols_and_models_of_others(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from nmt.export.to_huggingface import _write_tokenizer

    tokenizer = Tokenizer.load(TokenizerConfig(model=own_model(tmp_path), symbols=["<T>", "<TT>"]))
    _write_tokenizer(tokenizer, tmp_path, 64, {"source language": "en", "target language": "de"})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "marian"}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text, ids in zip(TEXTS, tokenizer.encode_source(TEXTS), strict=True):
        assert theirs(text)["input_ids"][:-1] == ids
