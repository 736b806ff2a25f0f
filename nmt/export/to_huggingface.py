"""A Transformer as a directory that `AutoModelForSeq2SeqLM` and `AutoTokenizer` of transformers 5 load.

transformers has no general Transformer, but two of its models have the arithmetic of ours under other names: Marian
puts norms after the sum, Pegasus before the part. Both want biases, layer norms and a plain feed-forward layer.
"""

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nmt.data.vocabulary import BOS, EOS, PAD, SPECIALS, UNK
from nmt.export import vocabularies
from nmt.export.attention_folding import Matrices, Matrix, cross_attention, linear, self_attention
from nmt.inference.translator import Translator
from nmt.models.layers import FeedForward
from nmt.models.transformer import Transformer, TransformerDecoder, TransformerEncoder
from nmt.models.transformer_layers import DecoderLayer, EncoderLayer
from nmt.search import SearchConfig

UNUSED = -1e9
"""Output bias of ids that fill up the shorter of two vocabularies."""


def write(translator: Translator, folder: Path, longest: int, languages: tuple[str, str]) -> None:
    """Writes model.safetensors, config.json, generation_config.json and the tokenizer into a folder that exists.

    Args:
        translator: a model that `formats.obstacles` lets through.
        folder: where to.
        longest: rows of the table of sinusoids, in tokens.
        languages: source and target, such as ("en", "de"); for the tokenizer's settings only.
    """
    model = translator.model
    assert isinstance(model, Transformer)
    assert isinstance(model.encoder, TransformerEncoder)
    table = model.encoder.positions.table
    longest = longest if table is None else table.size(0)
    with quiet():
        _model(model, longest).save_pretrained(folder)
        _generation(translator.config, longest).save_pretrained(folder)
        _tokenizer(translator, folder, longest, languages)


class Loaded:
    """What was written, as its own library reads it."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        with quiet():
            self.model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without end token."""
        return [self.tokenizer(text)["input_ids"][:-1] for text in texts]

    @torch.inference_mode()
    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
        """Log-probabilities of every target's tokens and its end token."""
        found = []
        for source, target in zip(sources, targets, strict=True):
            given = torch.tensor([[*source, EOS]]), torch.tensor([[BOS, *target]])
            logits = self.model(input_ids=given[0], decoder_input_ids=given[1]).logits[0]
            labels = torch.tensor([*target, EOS]).unsqueeze(1)
            found.append(logits.log_softmax(-1).gather(1, labels).squeeze(1).numpy())
        return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars, and without advice that is meant for other people's models."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


@torch.no_grad()
def _model(model: Transformer, longest: int) -> Any:
    """The weights in the other library's model."""
    import transformers

    encoder, decoder = model.encoder, model.decoder
    assert isinstance(encoder, TransformerEncoder)
    assert isinstance(decoder, TransformerDecoder)
    source, target, output = model.source_embedding.weight, model.target_embedding.weight, model.output.weight
    pre = isinstance(encoder.norm, nn.LayerNorm)
    shared = source is target and output is target
    sizes = [max(source.size(0), target.size(0))] * 2 if pre else [source.size(0), target.size(0)]
    settings = _settings(encoder, decoder, longest) | {"vocab_size": sizes[0], "tie_word_embeddings": output is target}
    if pre:
        settings["tie_word_embeddings"] = shared  # Pegasus has no tie of the target side alone
        config: Any = transformers.PegasusConfig(**settings)
        other: Any = transformers.PegasusForConditionalGeneration(config)
    else:
        settings |= {"share_encoder_decoder_embeddings": shared, "decoder_vocab_size": sizes[1]}
        config = transformers.MarianConfig(**settings)
        other = transformers.MarianMTModel(config)
    parts = other.model
    if pre or shared:
        parts.shared.weight.copy_(_padded(source, sizes[0]))
    parts.encoder.embed_tokens.weight.copy_(_padded(source, sizes[0]))
    parts.decoder.embed_tokens.weight.copy_(_padded(target, sizes[1]))
    other.lm_head.weight.copy_(_padded(output, sizes[1]))
    other.final_logits_bias.copy_(_padded(model.output.bias, sizes[1], UNUSED))
    _encoder(parts.encoder, encoder)
    _decoder(parts.decoder, decoder)
    return other.eval()


def _settings(encoder: TransformerEncoder, decoder: TransformerDecoder, longest: int) -> dict[str, Any]:
    first = _first(encoder)
    activation = "gelu" if first.feed_forward.activation is nn.functional.gelu else "relu"
    return {
        "d_model": encoder.dim,
        "encoder_layers": len(encoder.layers),
        "decoder_layers": len(decoder.layers),
        "encoder_attention_heads": first.attention.heads,
        "decoder_attention_heads": _first(decoder).attention.heads,
        "encoder_ffn_dim": first.feed_forward.outer.in_features,
        "decoder_ffn_dim": _first(decoder).feed_forward.outer.in_features,
        "activation_function": activation,
        "max_position_embeddings": longest,
        "scale_embedding": True,
        "dropout": encoder.dropout.rate,
        "attention_dropout": first.attention.dropout.rate,
        "activation_dropout": first.feed_forward.dropout.rate,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "decoder_start_token_id": BOS,
        "forced_eos_token_id": EOS,
    }


def _first(part: TransformerEncoder | TransformerDecoder) -> EncoderLayer | DecoderLayer:
    layer = part.layers[0]
    assert isinstance(layer, EncoderLayer | DecoderLayer)
    return layer


def _encoder(other: Any, encoder: TransformerEncoder) -> None:
    _ends(other, encoder)
    for own, layer in zip(other.layers, encoder.layers, strict=True):
        assert isinstance(layer, EncoderLayer)
        _attention(own.self_attn, self_attention(layer.attention, encoder.dim), layer.attention.heads)
        _norm(own.self_attn_layer_norm, layer.attended.norm)
        _feed_forward(own, layer.feed_forward)
        _norm(own.final_layer_norm, layer.fed.norm)


def _decoder(other: Any, decoder: TransformerDecoder) -> None:
    _ends(other, decoder)
    for own, layer in zip(other.layers, decoder.layers, strict=True):
        assert isinstance(layer, DecoderLayer)
        heads = layer.attention.heads
        _attention(own.self_attn, self_attention(layer.attention, decoder.dim), heads)
        _norm(own.self_attn_layer_norm, layer.attended.norm)
        _attention(own.encoder_attn, cross_attention(layer, decoder.dim), heads)
        _norm(own.encoder_attn_layer_norm, layer.crossed.norm)
        _feed_forward(own, layer.feed_forward)
        _norm(own.final_layer_norm, layer.fed.norm)


def _ends(other: Any, part: TransformerEncoder | TransformerDecoder) -> None:
    """Positions and the last norm. Sinusoids are the other library's own, by the same formula."""
    if part.positions.table is not None:
        other.embed_positions.weight.copy_(part.positions.table)
    if not isinstance(part.norm, nn.Identity):
        _norm(other.layer_norm, part.norm)


def _attention(own: Any, matrices: Matrices, heads: int) -> None:
    matrices = matrices.divided(matrices.query.weight.size(1) // heads)
    for name, matrix in zip(("q_proj", "k_proj", "v_proj", "out_proj"), matrices, strict=True):
        _put(getattr(own, name), matrix)


def _feed_forward(own: Any, feed_forward: FeedForward) -> None:
    _put(own.fc1, linear(feed_forward.inner))
    _put(own.fc2, linear(feed_forward.outer))


def _put(own: nn.Linear, matrix: Matrix) -> None:
    own.weight.copy_(matrix.weight)
    own.bias.copy_(matrix.bias)


def _norm(own: nn.LayerNorm, norm: nn.Module) -> None:
    """A norm that the model left out, because nothing depends on it, stays as it is."""
    if isinstance(norm, nn.LayerNorm):
        own.load_state_dict(norm.state_dict())


def _padded(rows: Tensor, size: int, value: float = 0.0) -> Tensor:
    """(V, …) with rows of `value` after it, (size, …)."""
    filled = rows.new_full((size, *rows.shape[1:]), value)
    filled[: rows.size(0)] = rows
    return filled


def _generation(search: SearchConfig, longest: int) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        max_length=longest,
        num_beams=search.beam,
        length_penalty=search.length_penalty,
        decoder_start_token_id=BOS,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        forced_eos_token_id=EOS,
        suppress_tokens=[PAD, BOS],
    )


def _tokenizer(translator: Translator, folder: Path, longest: int, languages: tuple[str, str]) -> None:
    from transformers import MarianTokenizer

    tokenizer = translator.tokenizer
    vocabularies.write(tokenizer, folder)
    files = (
        {"vocab": "vocab.json"}
        if tokenizer.joint
        else {"vocab": "vocab.json", "target_vocab_file": "target_vocab.json"}
    )
    for file, model in zip(files.values(), (tokenizer.source, tokenizer.target), strict=False):
        numbered = {piece: index for index, piece in enumerate(vocabularies.pieces(model))}
        (folder / file).write_text(json.dumps(numbered, ensure_ascii=False, indent=0), encoding="utf-8")
    other = MarianTokenizer(
        source_spm=str(folder / "source.spm"),
        target_spm=str(folder / "target.spm"),
        **{name: str(folder / file) for name, file in files.items()},
        separate_vocabs=not tokenizer.joint,
        source_lang=languages[0],
        target_lang=languages[1],
        pad_token=SPECIALS[PAD],
        unk_token=SPECIALS[UNK],
        eos_token=SPECIALS[EOS],
        model_max_length=longest,
        split_special_tokens=True,  # a text that says "</s>" means these four characters
    )
    other.save_pretrained(folder)
