"""Small models with random weights far from their initial values, and tokenizers trained on a few sentences."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nmt.cli.configs import Config
from nmt.data import BOS, PAD, Tokenizer, TokenizerConfig, collate
from nmt.inference.translator import Translator
from nmt.models import MODELS, Seq2Seq, build_model
from nmt.search import SearchConfig

TEXT = (
    ("the old man reads a long book in the garden", "der alte Mann liest ein langes Buch im Garten"),
    ("a small dog sees the green house, and it barks", "ein kleiner Hund sieht das grüne Haus und bellt"),
    ("two children play with the ball today", "zwei Kinder spielen heute mit dem Ball"),
    ("the woman buys seven red apples in a shop", "die Frau kauft sieben rote Äpfel in einem Laden"),
)

Made = tuple[Translator, Config]
Make = Callable[..., Made]


def config_of(architecture: str, options: dict[str, Any]) -> Config:
    """Return the configuration of a small model; options have dots, as {"attention.score": "dot"}."""
    config = Config()
    config.model = MODELS[architecture].config()
    small = {"d_model": 16, "ffn_dim": 24, "embedding_dim": 16, "hidden_size": 16, "max_positions": 64}
    for option, value in {**small, **options}.items():
        *path, last = option.split(".")
        node = config.model
        for part in path:
            node = getattr(node, part)
        if option in options or hasattr(node, last):
            setattr(node, last, value)
    config.model.validate()
    return config


_tokenizers: dict[tuple[str, bool], Tokenizer] = {}


def tokenizer_of(kind: str, joint: bool) -> Tokenizer:
    if (kind, joint) not in _tokenizers:
        size = (330 if joint else 300) if kind in ("unigram", "bpe") else 60
        _tokenizers[kind, joint] = Tokenizer.train(TokenizerConfig(type=kind, vocab_size=size, joint=joint), TEXT)
    return _tokenizers[kind, joint]


def rows_of_words(num: int, seed: int) -> list[list[str]]:
    words = sorted({word for pair in TEXT for word in " ".join(pair).split()})[:12]
    rng = random.Random(seed)
    return [rng.choices(words, k=rng.randint(1, 6)) for _ in range(num)]


def train(model: Seq2Seq, tokenizer: Tokenizer, updates: int) -> None:
    """Train on random rows of words and the same words in reverse."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for update in range(updates):
        rows = rows_of_words(16, update)
        sources = tokenizer.encode_source([" ".join(row) for row in rows])
        batch = collate(sources, tokenizer.encode_target([" ".join(reversed(row)) for row in rows]))
        logits, _ = model(batch.source, batch.source_mask, batch.inputs)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture
def make() -> Make:
    def made(
        architecture: str = "transformer",
        *,
        kind: str = "unigram",
        joint: bool = True,
        seed: int = 0,
        noise: float = 0.2,
        **options: Any,
    ) -> Made:
        config = config_of(architecture, {name.replace("__", "."): value for name, value in options.items()})
        config.data.tokenizer.type, config.data.tokenizer.joint = kind, joint
        config.data.source_lang, config.data.target_lang = "en", "de"
        tokenizer = tokenizer_of(kind, joint)
        torch.manual_seed(seed)
        model = build_model(config.model, tokenizer.source_size, tokenizer.target_size, joint=joint).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=noise)
        return Translator(model, tokenizer, SearchConfig(beam_size=1), torch.device("cpu")), config

    return made


@pytest.fixture
def sources() -> list[str]:
    """Return sources with known and unknown words, several spaces, punctuation and other scripts."""
    return [
        *(source for source, _ in TEXT),
        "a",
        "unbekannte Wörter: Ärger, 123 — ja!",
        "two  spaces and </s> and <unk>",
        "日本語 and emoji 😀",
        "seven red dogs read seven red books and seven red men see the seven red houses",
    ]


_trained: dict[str, Made] = {}


@pytest.fixture
def trained(make: Make) -> Callable[[str], Made]:
    """Return models, by norm position, partly trained to reverse the source, so that their translations end."""

    def made(norm_position: str) -> Made:
        if norm_position not in _trained:
            translator, config = make(
                norm_position=norm_position, tie_embeddings="all", noise=0.0, d_model=32, ffn_dim=64
            )
            train(translator.model, translator.tokenizer, 120)
            with torch.no_grad():
                translator.model.output.bias[[PAD, BOS]] = -30.0  # engines differ in whether these are allowed
            _trained[norm_position] = translator, config
        return _trained[norm_position]

    return made


@pytest.fixture
def rows() -> list[str]:
    """Return sources for `trained` models."""
    return [" ".join(row) for row in rows_of_words(40, -1)]
