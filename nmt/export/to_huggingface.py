"""A Transformer as a directory that `AutoModelForSeq2SeqLM` and `AutoTokenizer` of transformers 5 load.

transformers has no general Transformer, but two of its models have the arithmetic of ours under other names: Marian
puts norms after the sum, Pegasus before the part. Both want biases, layer norms and a plain feed-forward layer.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nmt.data import Tokenizer
from nmt.data.vocabulary import BOS, EOS, PAD, SPECIAL_TOKENS, UNK
from nmt.export import verification, vocabularies
from nmt.export.attention_folding import Projections, cross_attention, self_attention
from nmt.export.quiet import quiet
from nmt.inference.translator import Translator
from nmt.models.transformer_layers import DecoderLayer

SYMBOLS = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
UNUSED = -1e9
"""Output bias of ids that pad the smaller of two vocabularies."""


def write(translator: Translator, folder: Path, longest: int, languages: tuple[str, str]) -> None:
    """Write model.safetensors, config.json, generation_config.json and the tokenizer into an existing folder.

    Args:
        translator: a model without `formats.obstacles`.
        folder: where to write.
        longest: rows of the table of sinusoids, in tokens.
        languages: source and target, such as ("en", "de"); for the tokenizer's settings only.
    """
    model: Any = translator.model
    table = model.encoder.positions.table
    longest = longest if table is None else len(table)
    with quiet():
        from transformers import GenerationConfig

        _model(model, longest).save_pretrained(folder)
        GenerationConfig(
            max_length=longest,
            num_beams=translator.config.beam_size,
            length_penalty=translator.config.length_penalty,
            decoder_start_token_id=BOS,
            forced_eos_token_id=EOS,
            suppress_tokens=[PAD, BOS],
            **SYMBOLS,
        ).save_pretrained(folder)
        _write_tokenizer(translator.tokenizer, folder, longest, languages)


class HFRunner(verification.ExportedModel):
    """The exported model, run by transformers."""

    def __init__(self, folder: Path) -> None:
        with quiet():
            from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

            self.model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.tokenizer(text)["input_ids"][:-1] for text in texts]

    @torch.inference_mode()
    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
        rows = []
        for source, target in zip(sources, targets, strict=True):
            inputs = {"input_ids": torch.tensor([[*source, EOS]]), "decoder_input_ids": torch.tensor([[BOS, *target]])}
            labels = torch.tensor([*target, EOS]).unsqueeze(1)
            rows.append(self.model(**inputs).logits[0].log_softmax(-1).gather(1, labels).squeeze(1).numpy())
        return rows


@torch.no_grad()
def _model(model: Any, longest: int) -> Any:
    """Return Marian or Pegasus with the weights of the model."""
    import transformers

    source, target, output = model.source_embedding.weight, model.target_embedding.weight, model.output.weight
    shared = source is target and output is target
    settings = _settings(model.encoder, model.decoder, longest)
    if is_pre := model.encoder.layers[0].fed.is_pre:
        sizes = [max(len(source), len(target))] * 2
        settings["tie_word_embeddings"] = shared  # Pegasus cannot tie the target side alone
        other: Any = transformers.PegasusForConditionalGeneration(
            transformers.PegasusConfig(vocab_size=sizes[0], **settings)
        )
    else:
        sizes = [len(source), len(target)]
        settings |= {"tie_word_embeddings": output is target, "share_encoder_decoder_embeddings": shared}
        other = transformers.MarianMTModel(
            transformers.MarianConfig(vocab_size=sizes[0], decoder_vocab_size=sizes[1], **settings)
        )
    if is_pre or shared:
        other.model.shared.weight.copy_(_padded(source, sizes[0]))
    other.model.encoder.embed_tokens.weight.copy_(_padded(source, sizes[0]))
    other.model.decoder.embed_tokens.weight.copy_(_padded(target, sizes[1]))
    other.lm_head.weight.copy_(_padded(output, sizes[1]))
    other.final_logits_bias.copy_(_padded(model.output.bias, sizes[1], UNUSED))
    _copy_half(other.model.encoder, model.encoder)
    _copy_half(other.model.decoder, model.decoder)
    return other.eval()


def _settings(encoder: Any, decoder: Any, longest: int) -> dict[str, Any]:
    """Return what the configurations of Marian and Pegasus have in common."""
    first = encoder.layers[0]
    return {
        "d_model": encoder.dim,
        "encoder_layers": len(encoder.layers),
        "decoder_layers": len(decoder.layers),
        "encoder_attention_heads": first.attention.heads,
        "decoder_attention_heads": decoder.layers[0].attention.heads,
        "encoder_ffn_dim": first.feed_forward.outer.in_features,
        "decoder_ffn_dim": decoder.layers[0].feed_forward.outer.in_features,
        "activation_function": "gelu" if first.feed_forward.activation is nn.functional.gelu else "relu",
        "max_position_embeddings": longest,
        "scale_embedding": True,
        "dropout": encoder.dropout.rate,
        "attention_dropout": first.attention.dropout.rate,
        "activation_dropout": first.feed_forward.dropout.rate,
        "decoder_start_token_id": BOS,
        "forced_eos_token_id": EOS,
        **SYMBOLS,
    }


def _copy_half(other: Any, half: Any) -> None:
    """Copy the encoder or the decoder. Sinusoids are the other library's own, by the same formula."""
    if half.positions.table is not None:
        other.embed_positions.weight.copy_(half.positions.table)
    if isinstance(half.norm, nn.LayerNorm):
        other.layer_norm.load_state_dict(half.norm.state_dict())
    for to, layer in zip(other.layers, half.layers, strict=True):
        _copy_attention(to.self_attn, self_attention(layer.attention, half.dim))
        norms = [(to.self_attn_layer_norm, layer.attended.norm), (to.final_layer_norm, layer.fed.norm)]
        if isinstance(layer, DecoderLayer):
            _copy_attention(to.encoder_attn, cross_attention(layer, half.dim))
            norms.append((to.encoder_attn_layer_norm, layer.crossed.norm))
        for other_norm, norm in norms:
            if isinstance(norm, nn.LayerNorm):  # without attention to the source the model may lack one
                other_norm.load_state_dict(norm.state_dict())
        to.fc1.load_state_dict(layer.feed_forward.inner.state_dict())
        to.fc2.load_state_dict(layer.feed_forward.outer.state_dict())


def _copy_attention(other: Any, projections: Projections) -> None:
    for name, linear in zip(("q_proj", "k_proj", "v_proj", "out_proj"), projections, strict=True):
        getattr(other, name).load_state_dict(linear)


def _padded(rows: Tensor, size: int, value: float = 0.0) -> Tensor:
    """Return (V, …) with rows of `value` after it, (size, …)."""
    padded = rows.new_full((size, *rows.shape[1:]), value)
    padded[: len(rows)] = rows
    return padded


def _write_tokenizer(tokenizer: Tokenizer, folder: Path, longest: int, languages: tuple[str, str]) -> None:
    from transformers import MarianTokenizer

    vocabularies.write(tokenizer, folder)
    files = {"vocab": folder / "vocab.json"}
    if not tokenizer.joint:
        files["target_vocab_file"] = folder / "target_vocab.json"
    for file, model in zip(files.values(), (tokenizer.source, tokenizer.target), strict=False):
        ids = {piece: index for index, piece in enumerate(vocabularies.pieces(model))}
        file.write_text(json.dumps(ids, ensure_ascii=False, indent=0), encoding="utf-8")
    MarianTokenizer(
        source_spm=str(folder / "source.spm"),
        target_spm=str(folder / "target.spm"),
        **{name: str(file) for name, file in files.items()},
        separate_vocabs=not tokenizer.joint,
        source_lang=languages[0],
        target_lang=languages[1],
        pad_token=SPECIAL_TOKENS[PAD],
        unk_token=SPECIAL_TOKENS[UNK],
        eos_token=SPECIAL_TOKENS[EOS],
        model_max_length=longest,
        split_special_tokens=True,  # a text that says "</s>" means these four characters
    ).save_pretrained(folder)
