"""A Transformer as a CTranslate2 model, through the library's specification API."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nmt.data.vocabulary import BOS, EOS, SPECIALS, UNK
from nmt.export import vocabularies
from nmt.export.attention_folding import Matrices, Matrix, cross_attention, linear, self_attention
from nmt.export.scripts.text import Text
from nmt.export.scripts.translate_ctranslate2 import vocabulary
from nmt.inference.translator import Translator
from nmt.models.layers import FeedForward, Positions, sinusoids
from nmt.models.transformer import Transformer, TransformerDecoder, TransformerEncoder
from nmt.models.transformer_layers import DecoderLayer, EncoderLayer, Residual

L = TypeVar("L", bound=nn.Module)


def write(translator: Translator, folder: Path, longest: int) -> None:
    """Writes model.bin, config.json and the vocabularies into a folder that exists.

    Args:
        translator: a model that `formats.obstacles` lets through.
        folder: where to.
        longest: rows of the table of sinusoids, in tokens.
    """
    from ctranslate2.specs import TransformerSpec

    model = translator.model
    assert isinstance(model, Transformer)
    encoder, decoder = model.encoder, model.decoder
    assert isinstance(encoder, TransformerEncoder)
    assert isinstance(decoder, TransformerDecoder)
    first = _layers(encoder.layers, EncoderLayer)[0]
    spec = TransformerSpec(_encoder(encoder, model, longest), _decoder(decoder, model, longest))
    spec.config.decoder_start_token = SPECIALS[BOS]
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = SPECIALS[BOS], SPECIALS[EOS], SPECIALS[UNK]
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = _epsilon(first.fed.norm)
    spec.register_source_vocabulary(vocabularies.names(translator.tokenizer.source))
    spec.register_target_vocabulary(vocabularies.names(translator.tokenizer.target))
    spec.validate()
    spec.optimize()
    spec.save(str(folder))


class Loaded:
    """What was written, as its own engine reads it."""

    def __init__(self, folder: Path) -> None:
        import ctranslate2

        self.engine = ctranslate2.Translator(str(folder), device="cpu", compute_type="float32", intra_threads=1)
        self.text = Text(folder, "source")
        self.names = [vocabulary(folder, side) for side in vocabularies.SIDES]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without end token."""
        return [self.text.encode(text) for text in texts]

    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
        """Log-probabilities of every target's tokens and its end token."""
        named = [
            [[names[index] for index in ids] for ids in side]
            for names, side in zip(self.names, (sources, targets), strict=True)
        ]
        return [np.array(result.log_probs) for result in self.engine.score_batch(*named)]


def _encoder(encoder: TransformerEncoder, model: Transformer, longest: int) -> Any:
    from ctranslate2.specs.transformer_spec import TransformerEncoderSpec

    layers = _layers(encoder.layers, EncoderLayer)
    spec = TransformerEncoderSpec(len(layers), layers[0].attention.heads, **_options(layers[0], encoder.positions))
    _embeddings(spec, spec.embeddings[0], model.source_embedding.weight, encoder.positions, longest)
    for own, layer in zip(spec.layer, layers, strict=True):
        _self_attention(own.self_attention, self_attention(layer.attention, encoder.dim), layer)
        _norm(own.self_attention.layer_norm, layer.attended.norm)
        _feed_forward(own.ffn, layer.feed_forward, layer.fed)
    if layers[0].fed.is_pre:
        _norm(spec.layer_norm, encoder.norm)
    return spec


def _decoder(decoder: TransformerDecoder, model: Transformer, longest: int) -> Any:
    from ctranslate2.specs.transformer_spec import TransformerDecoderSpec

    layers = _layers(decoder.layers, DecoderLayer)
    heads = layers[0].attention.heads
    # what `return_attention` gives: the mean over all heads of the last layer
    alignment = {"alignment_layer": -1, "alignment_heads": heads}
    spec = TransformerDecoderSpec(len(layers), heads, **alignment, **_options(layers[0], decoder.positions))
    _embeddings(spec, spec.embeddings, model.target_embedding.weight, decoder.positions, longest)
    for own, layer in zip(spec.layer, layers, strict=True):
        _self_attention(own.self_attention, self_attention(layer.attention, decoder.dim), layer)
        _norm(own.self_attention.layer_norm, layer.attended.norm)
        cross = cross_attention(layer, decoder.dim).divided(decoder.dim // heads)
        _put(own.attention.linear[0], cross.query)
        _put(own.attention.linear[1], cross.key, cross.value)
        _put(own.attention.linear[2], cross.output)
        _norm(own.attention.layer_norm, layer.crossed.norm, like=layer.fed.norm)
        _feed_forward(own.ffn, layer.feed_forward, layer.fed)
    if layers[0].fed.is_pre:
        _norm(spec.layer_norm, decoder.norm)
    _put(spec.projection, linear(model.output))
    return spec


def _layers(layers: nn.ModuleList, kind: type[L]) -> list[L]:
    return [layer for layer in layers if isinstance(layer, kind)]


def _options(layer: EncoderLayer | DecoderLayer, positions: nn.Module) -> dict[str, Any]:
    """The arguments of an encoder's or decoder's specification."""
    from ctranslate2.specs.common_spec import Activation

    activations = {nn.functional.relu: Activation.RELU, nn.functional.gelu: Activation.GELU}
    return {
        "pre_norm": layer.fed.is_pre,
        "rms_norm": isinstance(layer.fed.norm, nn.RMSNorm),
        "activation": activations.get(layer.feed_forward.activation, Activation.SWISH),
        "ffn_glu": layer.feed_forward.is_gated,
        "rotary_dim": 0 if layer.attention.rotary else None,  # 0: all of a head
        "rotary_interleave": False,
    }


def _embeddings(spec: Any, own: Any, weight: Tensor, positions: Positions, longest: int) -> None:
    width = weight.size(1)
    own.weight = _array(weight)
    own.multiply_by_sqrt_depth = True
    spec.scale_embeddings = np.float32(width**0.5)
    if positions.kind == "rotary":
        if hasattr(spec, "position_encodings"):
            delattr(spec, "position_encodings")
        return
    table = sinusoids(0, longest, width, weight) if positions.table is None else positions.table
    spec.position_encodings.encodings = _array(table)


def _self_attention(own: Any, matrices: Matrices, layer: EncoderLayer | DecoderLayer) -> None:
    matrices = matrices.divided(matrices.query.weight.size(1) // layer.attention.heads)
    _put(own.linear[0], matrices.query, matrices.key, matrices.value)
    _put(own.linear[1], matrices.output)


def _feed_forward(own: Any, feed_forward: FeedForward, residual: Residual) -> None:
    inner = linear(feed_forward.inner)
    if feed_forward.is_gated:
        activated, gate = (Matrix(*parts) for parts in zip(inner.weight.chunk(2), inner.bias.chunk(2), strict=True))
        _put(own.linear_0, activated)
        _put(own.linear_0_noact, gate)
    else:
        _put(own.linear_0, inner)
    _put(own.linear_1, linear(feed_forward.outer))
    _norm(own.layer_norm, residual.norm)


def _norm(own: Any, norm: nn.Module, like: nn.Module | None = None) -> None:
    """A norm; where the model has none because nothing depends on it, one that is like another."""
    norm = like if isinstance(norm, nn.Identity) and like is not None else norm
    assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
    own.gamma = _array(norm.weight)
    if isinstance(norm, nn.LayerNorm):
        own.beta = _array(norm.bias)


def _epsilon(norm: nn.Module) -> float:
    assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
    assert norm.eps is not None
    return norm.eps


def _put(own: Any, *matrices: Matrix) -> None:
    """Matrices of the same input, one below the other."""
    own.weight = _array(torch.cat([matrix.weight for matrix in matrices]))
    own.bias = _array(torch.cat([matrix.bias for matrix in matrices]))


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().contiguous().numpy()
