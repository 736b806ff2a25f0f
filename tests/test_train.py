"""Notes in the log before a run trains."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from nmt import train
from nmt.cli.configs import Config
from nmt.data import DataConfig, TokenizerConfig
from nmt.data.vocabulary import UNK, unknown_share
from nmt.models.rnn import RNNConfig
from nmt.search import SearchConfig


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "word",
            [
                "valid: 25 % of the source tokens and 0 % of the target tokens are <unk>",
                "test: 33.3 % of the source tokens and 100 % of the target tokens are <unk>",
            ],
        ),
        ("bpe", []),
    ],
)
def test_unknown_tokens_of_each_text_are_told(tmp_path: Path, kind: str, expected: list[str]) -> None:
    texts = {
        "train": [("the dog sees", "der hund sieht"), ("the cat hears", "die katze hört")],
        "valid": [("the zebra", "der hund"), ("the cat", "die katze")],
        "test": [("the dog barks", "bellt")],
    }
    for split, pairs in texts.items():
        for language, side in (("en", 0), ("de", 1)):
            (tmp_path / f"{split}.{language}").write_text("".join(pair[side] + "\n" for pair in pairs))
    tokenizer = TokenizerConfig(type=kind, vocab_size=280 if kind == "bpe" else 100)
    paths = {split: str(tmp_path / split) for split in texts}
    data = DataConfig(format="text", **paths, cache_dir=str(tmp_path / "cache"), tokenizer=tokenizer)
    config = Config(name="run", runs=str(tmp_path / "runs"), model=RNNConfig(embedding_dim=8, hidden_size=8), data=data)
    assert train._prepare(config).notes == expected
    replaced = dataclasses.replace(config, search=SearchConfig(replace_unknown="copy"))
    unused = ["search.replace_unknown=copy"] if kind == "bpe" else []
    assert [option for option in replaced.unused_options() if "unknown" in option] == unused


def test_share_of_unknown_tokens() -> None:
    assert unknown_share(np.array([4, UNK, 5, UNK])) == 0.5
    assert unknown_share(np.empty(0, np.uint16)) == 0.0
    assert unknown_share(np.repeat(np.array([UNK, 7, 7], np.uint16), 1 << 23)) == pytest.approx(1 / 3)
