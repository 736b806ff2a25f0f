"""Export to CTranslate2: the same log-probabilities and translations."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmt.data import Tokenizer, TokenizerConfig
from nmt.export import verification, vocabularies
from nmt.export.to_ctranslate2 import CTranslate2Runner, write
from nmt.inference.translator import Translator
from nmt.search import SearchConfig

pytest.importorskip("ctranslate2")

Make = Any  # see conftest.py
LONGEST = 64
EVERYTHING = list(
    itertools.product(
        ("pre", "post"), ("relu", "gelu", "swiglu"), ("layer", "rms"), ("sinusoidal", "learned", "rotary")
    )
)


def exported(translator: Translator, folder: Path) -> CTranslate2Runner:
    manifest = {"tokenizer": translator.tokenizer.type, "max_source": LONGEST}
    (folder / "export.json").write_text(json.dumps(manifest))
    return write(translator, folder, manifest)


@pytest.mark.parametrize("number", range(len(EVERYTHING)))
def test_every_option_computes_the_same(number: int, make: Make, tmp_path: Path) -> None:
    norm_position, activation, norm, positions = EVERYTHING[number]
    tie, joint = [("all", True), ("output", False), ("none", True), ("output", True)][number % 4]
    translator, _ = make(
        seed=number,
        joint=joint,
        kind=("unigram", "bpe", "word", "char")[number % 4],
        norm_position=norm_position,
        activation=activation,
        norm=norm,
        positions=positions,
        tie_embeddings=tie,
        encoder_layers=1 + number % 2,
        decoder_layers=2 - number % 2,
    )
    assert verification.max_log_prob_difference(translator, exported(translator, tmp_path), LONGEST) < 1e-4


ATTENTIONS: dict[str, dict[str, Any]] = {
    "dot": {"attention__score": "dot", "encoder_self_attention__score": "dot", "decoder_self_attention__score": "dot"},
    "numbers": {
        "attention__divisor": "2.5",
        "encoder_self_attention__divisor": "learned",
        "decoder_self_attention__divisor": "learned",
    },
    "general": {
        "attention__score": "general",
        "encoder_self_attention__score": "general",
        "decoder_self_attention__score": "general",
    },
    "a score per head": {"attention__score": ["dot", "general", "scaled", "general"]},
    "a score per layer": {"attention__per_layer": [{"score": "general"}, {"score": "none"}]},
    "no projection": {
        "attention__project_qk": False,
        "encoder_self_attention__project_qk": False,
        "encoder_self_attention__score": "general",
    },
    "narrow": {"attention__dim": 8, "encoder_self_attention__dim": 4, "decoder_self_attention__dim": 12},
    "one head, two in the encoder": {
        "attention__heads": 1,
        "decoder_self_attention__heads": 1,
        "encoder_self_attention__heads": 2,
    },
    "no attention to the source": {"attention__score": "none"},
    "rotary dot": {
        "positions": "rotary",
        "encoder_self_attention__score": "dot",
        "decoder_self_attention__divisor": "learned",
    },
    "rotary, nothing projected": {"positions": "rotary", "decoder_self_attention__project_qk": False},
}


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_inner_products_become_plain_attention(name: str, norm_position: str, make: Make, tmp_path: Path) -> None:
    translator, _ = make(norm_position=norm_position, tie_embeddings="all", **ATTENTIONS[name])
    assert verification.max_log_prob_difference(translator, exported(translator, tmp_path), LONGEST) < 1e-4


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_translations_and_their_scores(
    norm_position: str, beam: int, trained: Any, tmp_path: Path, rows: list[str]
) -> None:
    translator, _ = trained(norm_position)
    loaded = exported(translator, tmp_path)
    pieces = vocabularies.unique_names(translator.tokenizer.source)
    tokens = [[pieces[index] for index in ids] for ids in translator.tokenizer.encode_source(rows)]
    translator.config = SearchConfig(beam_size=beam, max_length_ratio=0, max_length_offset=40)
    ours = translator.translate(rows)
    theirs = loaded.engine.translate_batch(
        tokens,
        beam_size=beam,
        patience=1 if beam == 1 else 20,
        length_penalty=1,
        min_decoding_length=0,
        max_decoding_length=41,
        return_scores=True,
    )
    # CTranslate2 scores truncated hypotheses without an end token
    both = [
        (our, result.hypotheses[0], result.scores[0])
        for our, result in zip(ours, theirs, strict=True)
        if not our.truncated and len(result.hypotheses[0]) < 40
    ]
    assert len(both) > len(rows) / 2
    same = [
        (our.score, their) for our, hypothesis, their in both if [pieces[index] for index in our.tokens] == hypothesis
    ]
    assert len(same) >= 0.9 * len(both)
    assert all(their == pytest.approx(our, abs=1e-4) for our, their in same)
    assert all(their < our.score + 1e-4 for our, _, their in both)  # different hypotheses are no better than ours


def test_names_are_distinct_when_a_word_is_a_special_token() -> None:
    pairs = [("<s> <s> a </s> b", "<unk> a <pad> b")]
    tokenizer = Tokenizer.train(TokenizerConfig(type="word", vocab_size=20), pairs)
    names = vocabularies.unique_names(tokenizer.source)
    assert len(set(names)) == len(names) == tokenizer.source_size
    assert names[:4] == ["<pad>", "<unk>", "<s>", "</s>"]
    assert {"a", "b"} < set(names)


def test_attention_is_the_mean_of_the_last_layer(make: Make, tmp_path: Path, sources: list[str]) -> None:
    translator, _ = make(tie_embeddings="all", decoder_layers=2)
    loaded = exported(translator, tmp_path)
    pieces = vocabularies.unique_names(translator.tokenizer.source)
    ids = translator.tokenizer.encode_source(sources[:1])
    (result,) = loaded.engine.translate_batch(
        [[pieces[index] for index in ids[0]]], beam_size=1, return_attention=True, max_decoding_length=20
    )
    target = [pieces.index(piece) for piece in result.hypotheses[0]]
    ((_, weights),) = translator.attention_weights(ids, [target])
    theirs = np.array(result.attention[0])
    assert np.abs(weights[-1].mean(0)[: len(theirs), : theirs.shape[1]] - theirs).max() < 1e-5
