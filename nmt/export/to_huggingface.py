"""Export of a Transformer as a folder that `AutoModelForSeq2SeqLM` and `AutoTokenizer` of transformers 5 load.

transformers has no general Transformer, but two of its models compute the same as ours: Marian normalizes after the
residual sum, Pegasus before the sublayer. Both need biases, layer norms and a plain feed-forward layer.
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
from nmt.export import vocabularies
from nmt.export.attention_folding import cross_attention, self_attention
from nmt.export.quiet import quiet
from nmt.export.scripts.text import tag_ids
from nmt.export.verification import ExportedModel
from nmt.inference.translator import Translator
from nmt.models.transformer_layers import DecoderLayer

SPECIAL_IDS = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
SPECIAL_IDS |= {"decoder_start_token_id": BOS, "forced_eos_token_id": EOS}
UNUSED_BIAS = -1e9
"""Output bias of ids that pad the smaller of two vocabularies."""


class HFRunner(ExportedModel):
    """The exported model, run by transformers."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        with quiet():
            from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

            self.model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def encode(self, texts: Sequence[str], target_lang: str | None = None) -> list[list[int]]:
        tags = tag_ids(self.manifest, "source", target_lang, None)
        return [[*tags, *self.tokenizer(text)["input_ids"][:-1]] for text in texts]

    @torch.inference_mode()
    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
        rows = []
        for source, target in zip(sources, targets, strict=True):
            inputs = {"input_ids": torch.tensor([[*source, EOS]]), "decoder_input_ids": torch.tensor([[BOS, *target]])}
            labels = torch.tensor([*target, EOS]).unsqueeze(1)
            rows.append(self.model(**inputs).logits[0].log_softmax(-1).gather(1, labels).squeeze(1).numpy())
        return rows


def write(translator: Translator, folder: Path, manifest: dict[str, Any]) -> HFRunner:
    """Write model.safetensors, config.json, generation_config.json and the tokenizer into a folder, and load them.

    The model must have no `formats.unsupported_options`; its table of positions has the manifest's `max_source` rows.
    """
    model: Any = translator.model
    tokenizer, max_length = translator.tokenizer, manifest["max_source"]
    num_ids = tokenizer.target_size
    with quiet():
        from safetensors import SafetensorError
        from transformers import GenerationConfig

        try:
            _convert_model(model, max_length).save_pretrained(folder)
        except SafetensorError as error:  # of a full disk
            raise OSError(0, str(error), str(folder)) from error
        GenerationConfig(
            max_length=max_length,
            num_beams=translator.config.beam_size,
            length_penalty=translator.config.length_penalty,
            suppress_tokens=[PAD, BOS],
            bad_words_ids=[[tag] for tag in range(num_ids - len(tokenizer.tags), num_ids)] or None,  # may be forced
            **SPECIAL_IDS,
            **_forced_tag(manifest),
        ).save_pretrained(folder)
        _write_tokenizer(tokenizer, folder, max_length, manifest)
    return HFRunner(folder, manifest)


def _forced_tag(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the options of generation for the first token of a translation: that of the default, and of any language.

    As of transformers' own models with several languages; {} where translations begin with no tag.
    """
    if "tags" not in manifest:
        return {}
    ids = {language: tag_ids(manifest, "target", language, None) for language in manifest["target languages"]}
    default = ids[manifest["target language"]]
    languages = {language: tags[0] for language, tags in ids.items() if tags}
    return {"forced_bos_token_id": default[0], "lang_to_id": languages} if default else {}


@torch.no_grad()
def _convert_model(model: Any, max_length: int) -> Any:
    """Return Marian or Pegasus with the weights of the model."""
    import transformers

    source, target, output = model.source_embedding.weight, model.target_embedding.weight, model.output.weight
    shared = source is target and output is target
    encoder, decoder, layer = model.encoder, model.decoder, model.encoder.layers[0]
    settings = {
        "d_model": encoder.dim,
        "encoder_layers": len(encoder.layers),
        "decoder_layers": len(decoder.layers),
        "encoder_attention_heads": layer.attention.heads,
        "decoder_attention_heads": decoder.layers[0].attention.heads,
        "encoder_ffn_dim": layer.feed_forward.outer.in_features,
        "decoder_ffn_dim": decoder.layers[0].feed_forward.outer.in_features,
        "activation_function": "gelu" if layer.feed_forward.activation is nn.functional.gelu else "relu",
        "max_position_embeddings": max_length,
        "scale_embedding": True,
        "dropout": encoder.dropout.rate,
        "attention_dropout": layer.attention.dropout.rate,
        "activation_dropout": layer.feed_forward.dropout.rate,
        **SPECIAL_IDS,
    }
    if is_pre := layer.fed.is_pre:
        sizes = [max(len(source), len(target))] * 2
        settings["tie_word_embeddings"] = shared  # Pegasus cannot tie the target side alone
        pegasus = transformers.PegasusConfig(vocab_size=sizes[0], **settings)
        converted: Any = transformers.PegasusForConditionalGeneration(pegasus)
    else:
        sizes = [len(source), len(target)]
        settings |= {"tie_word_embeddings": output is target, "share_encoder_decoder_embeddings": shared}
        marian = transformers.MarianConfig(vocab_size=sizes[0], decoder_vocab_size=sizes[1], **settings)
        converted = transformers.MarianMTModel(marian)
    if is_pre or shared:
        converted.model.shared.weight.copy_(_padded(source, sizes[0]))
    converted.model.encoder.embed_tokens.weight.copy_(_padded(source, sizes[0]))
    converted.model.decoder.embed_tokens.weight.copy_(_padded(target, sizes[1]))
    converted.lm_head.weight.copy_(_padded(output, sizes[1]))
    converted.final_logits_bias.copy_(_padded(model.output.bias, sizes[1], UNUSED_BIAS))
    _copy_stack(converted.model.encoder, encoder)
    _copy_stack(converted.model.decoder, decoder)
    return converted.eval()


def _copy_stack(converted: Any, stack: Any) -> None:
    """Copy the encoder or the decoder. Sinusoids are computed by the library, with the same formula."""
    if stack.positions.table is not None:
        converted.embed_positions.weight.copy_(stack.positions.table)
    if isinstance(stack.norm, nn.LayerNorm):
        converted.layer_norm.load_state_dict(stack.norm.state_dict())
    for copy, layer in zip(converted.layers, stack.layers, strict=True):
        attentions = [(copy.self_attn, self_attention(layer.attention, stack.dim))]
        norms = [(copy.self_attn_layer_norm, layer.attended.norm), (copy.final_layer_norm, layer.fed.norm)]
        if isinstance(layer, DecoderLayer):
            attentions.append((copy.encoder_attn, cross_attention(layer, stack.dim)))
            norms.append((copy.encoder_attn_layer_norm, layer.crossed.norm))
        for attention, projections in attentions:
            for name, linear in zip(("q_proj", "k_proj", "v_proj", "out_proj"), projections, strict=True):
                getattr(attention, name).load_state_dict(linear)
        for norm_copy, norm in norms:
            if isinstance(norm, nn.LayerNorm):  # a model without attention to the source may lack one
                norm_copy.load_state_dict(norm.state_dict())
        copy.fc1.load_state_dict(layer.feed_forward.inner.state_dict())
        copy.fc2.load_state_dict(layer.feed_forward.outer.state_dict())


def _padded(rows: Tensor, size: int, value: float = 0.0) -> Tensor:
    """Return (V, …) padded to (size, …) with rows of `value`."""
    return torch.cat([rows, rows.new_full((size - len(rows), *rows.shape[1:]), value)])


def _write_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int, manifest: dict[str, Any]) -> None:
    from transformers import AddedToken, MarianTokenizer

    vocabularies.write_vocabularies(tokenizer, folder)
    files = {"vocab": (folder / "vocab.json", tokenizer.source)}
    if not tokenizer.joint:
        files["target_vocab_file"] = folder / "target_vocab.json", tokenizer.target
    for file, model in files.values():
        ids = {piece: index for index, piece in enumerate(vocabularies.unique_names(model))}
        file.write_text(json.dumps(ids, ensure_ascii=False, indent=0), encoding="utf-8")
    special: dict[str, Any] = {}
    if tokenizer.tags and (tokenizer.joint or manifest["tags"]["side"] == "target"):  # no decoded text shows them
        names = list(enumerate(vocabularies.unique_names(tokenizer.target)))[-len(tokenizer.tags) :]
        special["added_tokens_decoder"] = {index: AddedToken(name, special=True) for index, name in names}
        special["extra_special_tokens"] = [name for _, name in names]
    MarianTokenizer(
        **special,
        source_spm=str(folder / "source.spm"),
        target_spm=str(folder / "target.spm"),
        **{name: str(file) for name, (file, _) in files.items()},
        separate_vocabs=not tokenizer.joint,
        source_lang=manifest["source language"] or "",
        target_lang=manifest["target language"] or "",
        pad_token=SPECIAL_TOKENS[PAD],
        unk_token=SPECIAL_TOKENS[UNK],
        eos_token=SPECIAL_TOKENS[EOS],
        model_max_length=max_length,
        split_special_tokens=True,  # "</s>" in a text means these four characters
    ).save_pretrained(folder)
