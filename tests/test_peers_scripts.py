"""scripts/peers, without the other programs: the arrays written for them compute what our model computes."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from torch import Tensor

from nmt.cli.configs import Config
from nmt.data import BOS, EOS, PAD, UNK, Tokenizer, TokenizerConfig, collate
from nmt.data.config import DataConfig
from nmt.models import MODELS, Seq2Seq, build_model
from nmt.models.layers import sinusoidal_embedding

FOLDER = Path(__file__).parent.parent / "scripts" / "peers"
SIZE, WIDTH, HEADS = 12, 8, 2
Part = Callable[[str, int, str, str], tuple[Tensor, Tensor]]
JOEYNMT = {
    "encoder self": "src_src_att.{}_layer",
    "decoder self": "trg_trg_att.{}_layer",
    "decoder context": "src_trg_att.{}_layer",
    "ffn": "feed_forward.pwff_layer.{}",
    "encoder self norm": "layer_norm",
    "decoder self norm": "x_layer_norm",
    "decoder context norm": "dec_layer_norm",
    "ffn norm": "feed_forward.layer_norm",
}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"peers_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def convert() -> ModuleType:
    return load("convert")


def made(**options: object) -> tuple[Config, Seq2Seq]:
    config = Config()
    config.model = MODELS["transformer"].config()
    small = {"d_model": WIDTH, "ffn_dim": 12, "encoder_layers": 2, "decoder_layers": 3, "tie_embeddings": "all"}
    for name, value in ({"norm_position": "post", **small} | options).items():
        setattr(config.model, name, value)
    for name in ("attention", "encoder_self_attention", "decoder_self_attention"):
        getattr(config.model, name).heads = HEADS
    torch.manual_seed(3)
    model = build_model(config.model, SIZE, SIZE, joint=True).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return config, model


def attend(part: Part, side: str, number: int, kind: str, x: Tensor, states: Tensor, bias: Tensor | float) -> Tensor:
    query, key, value = (
        (given @ matrix + vector).unflatten(1, (HEADS, -1)).transpose(0, 1)
        for given, (matrix, vector) in zip(
            (x, states, states), (part(side, number, kind, s) for s in "qkv"), strict=True
        )
    )
    weights = (query @ key.transpose(1, 2) / (WIDTH / HEADS) ** 0.5 + bias).softmax(-1)
    matrix, vector = part(side, number, kind, "o")
    return (weights @ value).transpose(0, 1).flatten(1) @ matrix + vector


def transformer(part: Part, source: Tensor, target: Tensor) -> Tensor:
    """The Transformer of Vaswani et al. (2017) on embedded sentences (S, D) and (T, D) -> (T, D)."""

    def layers(side: str, num: int, x: Tensor, memory: Tensor | None) -> Tensor:
        later = torch.full((len(x), len(x)), -torch.inf).triu(1) if side == "decoder" else 0.0
        for number in range(num):
            for kind in ("self", "context", "ffn"):
                if kind == "ffn":
                    (first, a), (second, b) = part(side, number, kind, "1"), part(side, number, kind, "2")
                    y = (x @ first + a).relu() @ second + b
                elif kind == "self":
                    y = attend(part, side, number, kind, x, x, later)
                elif memory is None:
                    continue
                else:
                    y = attend(part, side, number, kind, x, memory, 0.0)
                scale, bias = part(side, number, kind, "norm")
                x = torch.nn.functional.layer_norm(x + y, [WIDTH]) * scale + bias
        return x

    return layers("decoder", 3, target, layers("encoder", 2, source, None))


def positions(num: int) -> Tensor:
    return sinusoidal_embedding(0, num, WIDTH, torch.zeros(1))


@pytest.mark.parametrize("program", ["marian", "joeynmt"])
def test_the_written_arrays_compute_our_model(program: str, convert: ModuleType) -> None:
    _, model = made()
    source, target = [5, 9, 4, 7], [8, 4, 11]
    batch = collate([source], [target])
    with torch.no_grad():
        expected = model(batch.source, batch.source_mask, batch.inputs)[0][0].log_softmax(-1)
        arrays = getattr(convert, {"marian": "marian_arrays", "joeynmt": "joeynmt_state"}[program])(model)

    def marian(side: str, number: int, kind: str, suffix: str) -> tuple[Tensor, Tensor]:
        name = f"{side}_l{number + 1}_{kind}_"
        if suffix == "norm":
            name += "ffn_ln_" if kind == "ffn" else "Wo_ln_"
            return arrays[f"{name}scale"], arrays[f"{name}bias"]
        return arrays[f"{name}W{suffix}"], arrays[f"{name}b{suffix}"]

    def joeynmt(side: str, number: int, kind: str, suffix: str) -> tuple[Tensor, Tensor]:
        key = kind if kind == "ffn" else f"{side} {kind}"
        if suffix == "norm":
            name = JOEYNMT[f"{key} norm"]
        else:
            name = JOEYNMT[key].format({"1": "0", "2": "3", "o": "output"}.get(suffix, suffix))
        weight, bias = (arrays[f"{side}.layers.{number}.{name}.{each}"] for each in ("weight", "bias"))
        return (weight if suffix == "norm" else weight.T), bias

    with torch.no_grad():
        if program == "marian":  # </s> 0, <unk> 1, <pad> 2, <s> 3; zeros before the first token
            table, bias = arrays["Wemb"] * WIDTH**0.5, arrays["decoder_ff_logit_out_b"]
            inputs = torch.cat([torch.zeros(1, WIDTH), table[target]])
            features = transformer(marian, table[[*source, 0]] + positions(5), inputs + positions(4))
            logits = features @ arrays["Wemb"].T + bias
        else:  # <unk> 0, <pad> 1, <s> 2, </s> 3
            table = arrays["src_embed.lut.weight"] * WIDTH**0.5
            assert torch.equal(arrays["encoder.pe.pe"][0, :4], positions(4))
            features = transformer(joeynmt, table[[*source, 3]] + positions(5), table[[2, *target]] + positions(4))
            logits = features @ arrays["decoder.output_layer.weight"].T + arrays["decoder.output_layer.bias"]
    ours = [{"marian": [2, 1, 3, 0], "joeynmt": [1, 0, 2, 3]}[program][index] for index in (PAD, UNK, BOS, EOS)]
    torch.testing.assert_close(logits.log_softmax(-1)[:, [*ours, *range(4, SIZE)]], expected, atol=2e-5, rtol=1e-4)


def test_marians_arrays_have_its_names_and_shapes(convert: ModuleType) -> None:
    arrays = convert.marian_arrays(made()[1])
    assert len(arrays) == 2 + 2 * 16 + 3 * 26
    assert arrays["Wemb"].shape == (SIZE, WIDTH)
    assert arrays["decoder_l3_ffn_W1"].shape == (WIDTH, 12)
    assert arrays["decoder_l3_context_Wo_ln_scale"].shape == arrays["encoder_l2_self_bq"].shape == (1, WIDTH)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm_position": "pre"}, "model.norm_position=pre (needed: post)"),
        (
            {"positions": "rotary", "activation": "gelu"},
            "model.positions=rotary (needed: sinusoidal), model.activation",
        ),
        ({"tie_embeddings": "output"}, "model.tie_embeddings=output (needed: all)"),
    ],
)
def test_other_models_are_refused_in_a_sentence(options: dict[str, object], words: str, convert: ModuleType) -> None:
    with pytest.raises(ValueError, match=re.escape(f"the other programs cannot hold this model: {words}")):
        convert.ensure_convertible(*made(**options))


def test_what_cannot_be_folded_is_refused_too(convert: ModuleType) -> None:
    config, model = made()
    convert.ensure_convertible(config, model)
    model.get_submodule("encoder.layers.1.attention").heads = 1  # type: ignore[assignment]
    with pytest.raises(ValueError, match="differ in heads"):
        convert.ensure_convertible(config, model)
    config.data.tokenizer.type = "word"
    with pytest.raises(ValueError, match=r"tokenizer\.type=word"):
        convert.ensure_convertible(config, made()[1])


def test_subwords_and_vocabularies_are_those_of_the_tokenizer(convert: ModuleType, tmp_path: Path) -> None:
    text = [("a red dog", "ein roter Hund"), (" ", "leer"), ("two red dogs", "zwei rote Hunde")]
    for side, lines in zip(("en", "de"), zip(*text, strict=True), strict=True):
        (tmp_path / f"test.{side}").write_text("\n".join([*lines, ""]), encoding="utf-8")
    tokenizer = Tokenizer.train(TokenizerConfig(vocab_size=280), text)
    data = DataConfig(test=str(tmp_path / "test"), source_lang="en", target_lang="de")
    names = convert.write_data(data, tokenizer, tmp_path, ["test"])
    joeynmt = (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    marian = yaml.safe_load((tmp_path / "vocab.yml").read_text(encoding="utf-8"))
    assert joeynmt[:4] == ["<unk>", "<pad>", "<s>", "</s>"]
    assert joeynmt[4:] == names[4:] == sorted(marian, key=marian.get)[4:]
    assert [marian[name] for name in ("</s>", "<unk>", names[4])] == [0, 1, 4]
    lines = (tmp_path / "test.source").read_text(encoding="utf-8").split("\n")[:-1]
    ids = [[names.index(piece) for piece in line.split(" ")] for line in lines]
    assert [tokenizer.decode_source(row) for row in ids] == ["a red dog", "two red dogs"]
    assert (tmp_path / "test.reference").read_text(encoding="utf-8") == "ein roter Hund\nzwei rote Hunde\n"


def test_the_table_has_the_ratios_of_each_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("nmt", 30), ("marian", 20), ("nmt", 10), ("marian", 10)]
    lines = [json.dumps({"program": name, "target tokens/s": rate, "load": 0.5}) for name, rate in rows]
    (tmp_path / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    load("table").main(str(tmp_path / "train.jsonl"), "marian")
    printed = capsys.readouterr().out
    assert "| nmt | 30, 10 | 1.25 (1.00 to 1.50) |" in printed
    assert "| marian | 20, 10 | 1.00 (1.00 to 1.00) |" in printed
    assert "load 0.5 before" in printed
