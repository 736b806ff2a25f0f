"""Export to transformers: the same log-probabilities, and the same translations from `generate`."""

import itertools
import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt.data import EOS, PAD
from nmt.export import verification
from nmt.export.output_folder import atomic_directory
from nmt.export.to_huggingface import HFRunner, write
from nmt.inference.translator import Translator
from nmt.runtime.errors import error_message
from nmt.search import SearchConfig

pytest.importorskip("transformers")

Make = Any  # see conftest.py
LONGEST = 64
PRODUCT = [
    (norm_position, activation, tie, joint)
    for norm_position, activation, (tie, joint) in itertools.product(
        ("pre", "post"),
        ("relu", "gelu"),
        (("all", True), ("output", True), ("none", True), ("output", False), ("none", False)),
    )
]


def exported(translator: Translator, folder: Path) -> HFRunner:
    manifest = {"max_source": LONGEST, "source language": "en", "target language": "de"}
    return write(translator, folder, manifest)


@pytest.mark.parametrize("number", range(len(PRODUCT)))
def test_every_option_computes_the_same(number: int, make: Make, tmp_path: Path) -> None:
    norm_position, activation, tie, joint = PRODUCT[number]
    positions = "learned" if norm_position == "pre" and number % 2 else "sinusoidal"
    translator, _ = make(
        seed=number,
        joint=joint,
        kind=("unigram", "bpe")[number % 2],
        norm_position=norm_position,
        activation=activation,
        positions=positions,
        tie_embeddings=tie,
        encoder_layers=1 + number % 2,
        decoder_layers=2 - number % 2,
    )
    loaded = exported(translator, tmp_path)
    assert verification.max_log_prob_difference(translator, loaded, LONGEST) < 1e-4
    assert (
        type(loaded.model).__name__
        == {
            "pre": "PegasusForConditionalGeneration",
            "post": "MarianMTModel",
        }[norm_position]
    )
    assert list(tmp_path.glob("*.safetensors"))
    assert not list(tmp_path.glob("*.bin"))


ATTENTIONS: dict[str, dict[str, Any]] = {
    "dot and a number": {
        "attention__score": "dot",
        "encoder_self_attention__divisor": "3",
        "decoder_self_attention__divisor": "learned",
    },
    "general": {
        "attention__score": "general",
        "encoder_self_attention__score": ["dot", "general", "general", "scaled"],
    },
    "layers": {"attention__per_layer": [{"score": "none"}, {"project_qk": False}]},
    "narrow": {"attention__dim": 8, "encoder_self_attention__dim": 4, "decoder_self_attention__dim": 12},
    "heads": {"attention__heads": 2, "decoder_self_attention__heads": 2, "encoder_self_attention__heads": 8},
}


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_inner_products_become_plain_attention(name: str, norm_position: str, make: Make, tmp_path: Path) -> None:
    translator, _ = make(norm_position=norm_position, tie_embeddings="all", **ATTENTIONS[name])
    assert verification.max_log_prob_difference(translator, exported(translator, tmp_path), LONGEST) < 1e-4


@pytest.mark.parametrize(("beam", "length_penalty"), [(1, 1.0), (4, 1.0), (5, 0.6), (3, 0.0)])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_generate_gives_our_translations(
    norm_position: str, beam: int, length_penalty: float, trained: Any, tmp_path: Path, rows: list[str]
) -> None:
    translator, _ = trained(norm_position)
    translator.config = SearchConfig(
        beam_size=beam, length_penalty=length_penalty, max_length_ratio=0, max_length_offset=40
    )
    loaded = exported(translator, tmp_path)
    batch = loaded.tokenizer(rows, return_tensors="pt", padding=True)
    settings = loaded.model.generation_config
    assert (settings.num_beams, settings.length_penalty) == (beam, length_penalty)
    with torch.inference_mode():
        # "never": until no better one is possible, as ours; 40 tokens, the begin token and the end token
        early_stopping: Any = "never" if beam > 1 else False
        generated = loaded.model.generate(
            **batch, early_stopping=early_stopping, max_length=42, return_dict_in_generate=True, output_scores=True
        )
    ours, theirs = (
        translator.translate(rows),
        loaded.tokenizer.batch_decode(generated.sequences, skip_special_tokens=True),
    )
    # a forced end token costs nothing in transformers, but does in ours
    both = [
        number
        for number, ids in enumerate(generated.sequences)
        if not ours[number].truncated and (ids != PAD).sum() < 42
    ]
    same = [number for number in both if ours[number].text.strip() == theirs[number]]
    assert len(both) > len(rows) / 2
    assert len(same) >= (0.9 if length_penalty == 1 else 0.7) * len(both)
    if beam > 1:
        for number in both:  # different ones are no better than ours: transformers considers fewer ends per step
            assert float(generated.sequences_scores[number]) < ours[number].score + 1e-4
        for number in same:
            assert float(generated.sequences_scores[number]) == pytest.approx(ours[number].score, abs=1e-4)


def test_the_longest_length_ends_with_the_end_token(make: Make, tmp_path: Path) -> None:
    translator, _ = make(tie_embeddings="all")
    with torch.no_grad():
        translator.model.output.bias[EOS] = -30.0
    loaded = exported(translator, tmp_path)
    generated = loaded.model.generate(**loaded.tokenizer(["a dog"], return_tensors="pt"), num_beams=2)
    assert generated.shape[1] == LONGEST
    assert generated[0, -1] == EOS


def test_tokenizer_encodes_and_decodes_as_ours(make: Make, tmp_path: Path, sources: list[str]) -> None:
    translator, _ = make(joint=False, tie_embeddings="none", norm_position="post")
    loaded = exported(translator, tmp_path)
    texts = [*sources, "", " ", "  begins with spaces", "ends with one ", "tab\tand \N{NO-BREAK SPACE} space", "</s>"]
    assert loaded.encode(texts) == translator.tokenizer.encode_source(texts)
    targets = translator.tokenizer.encode_target(texts)
    assert loaded.tokenizer(text_target=texts)["input_ids"] == [[*ids, EOS] for ids in targets]
    for ids in targets:
        ours = translator.tokenizer.decode_target(ids)
        assert loaded.tokenizer.decode([*ids, EOS], skip_special_tokens=True) == ours.strip()
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (settings["source_lang"], settings["target_lang"], settings["model_max_length"]) == ("en", "de", LONGEST)


def test_a_full_disk_is_an_error_that_names_the_folder(make: Make, tmp_path: Path) -> None:
    """As on a full disk, a file cannot grow beyond some size; the library has an exception of its own for it."""
    translator, _ = make()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def export_with_too_little_room() -> None:
        with atomic_directory(tmp_path / "model") as folder:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
            try:
                exported(translator, folder)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with pytest.raises(OSError, match="File too large") as raised:
        export_with_too_little_room()
    assert type(raised.value.__cause__).__name__ == "SafetensorError"
    assert error_message(raised.value).startswith(f"{tmp_path}/model: ")
    assert list(tmp_path.iterdir()) == []
