"""Export of a Transformer to CTranslate2, through the library's specification API."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nmt.data.vocabulary import BOS, EOS, SPECIAL_TOKENS, UNK
from nmt.export import vocabularies
from nmt.export.attention_folding import Linear, cross_attention, self_attention
from nmt.export.scripts.translate_ctranslate2 import vocabulary
from nmt.export.verification import ExportedModel
from nmt.inference.translator import Translator
from nmt.models.layers import sinusoidal_embedding
from nmt.models.transformer_layers import DecoderLayer


class CTranslate2Runner(ExportedModel):
    """The exported model, run by CTranslate2."""

    def __init__(self, folder: Path) -> None:
        import ctranslate2

        self.folder = folder
        self.engine = ctranslate2.Translator(str(folder), device="cpu", compute_type="float32", intra_threads=1)
        self.names = [vocabulary(folder, side) for side in vocabularies.SIDES]

    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
        tokens = [
            [[names[index] for index in ids] for ids in side]
            for names, side in zip(self.names, (sources, targets), strict=True)
        ]
        return [np.array(result.log_probs) for result in self.engine.score_batch(*tokens)]


def write(translator: Translator, folder: Path, manifest: dict[str, Any]) -> CTranslate2Runner:
    """Write model.bin, config.json and the vocabularies into an existing folder, and load them.

    The model must have no `formats.unsupported_options`; a table of sinusoids has the manifest's `max_source` rows.
    """
    from ctranslate2.specs import transformer_spec

    vocabularies.write_vocabularies(translator.tokenizer, folder)
    model: Any = translator.model
    encoder, decoder = model.encoder.layers, model.decoder.layers
    options, heads = _options(encoder[0]), decoder[0].attention.heads
    spec = transformer_spec.TransformerSpec(
        transformer_spec.TransformerEncoderSpec(len(encoder), encoder[0].attention.heads, **options),
        # `return_attention` gives the mean over all heads of the last layer
        transformer_spec.TransformerDecoderSpec(
            len(decoder), heads, alignment_layer=-1, alignment_heads=heads, **options
        ),
    )
    rows = manifest["max_source"]
    _set_stack(spec.encoder, spec.encoder.embeddings[0], model.source_embedding.weight, model.encoder, rows)
    _set_stack(spec.decoder, spec.decoder.embeddings, model.target_embedding.weight, model.decoder, rows)
    _set_linear(spec.decoder.projection, model.output.state_dict())
    for name, index in (("decoder_start", BOS), ("bos", BOS), ("eos", EOS), ("unk", UNK)):
        setattr(spec.config, f"{name}_token", SPECIAL_TOKENS[index])
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = encoder[0].fed.norm.eps
    spec.register_source_vocabulary(vocabularies.unique_names(translator.tokenizer.source))
    spec.register_target_vocabulary(vocabularies.unique_names(translator.tokenizer.target))
    spec.validate()
    spec.optimize()
    spec.save(str(folder))
    return CTranslate2Runner(folder)


def _options(layer: Any) -> dict[str, Any]:
    """Return the arguments that the specifications of encoder and decoder share, from any layer."""
    from ctranslate2.specs.common_spec import Activation

    activations = {nn.functional.relu: Activation.RELU, nn.functional.gelu: Activation.GELU}
    return {
        "pre_norm": layer.fed.is_pre,
        "rms_norm": isinstance(layer.fed.norm, nn.RMSNorm),
        "activation": activations.get(layer.feed_forward.activation, Activation.SWISH),
        "ffn_glu": layer.feed_forward.is_gated,
        "rotary_dim": 0 if layer.attention.rotary else None,  # 0: all dimensions of a head
        "rotary_interleave": False,
    }


def _set_stack(spec: Any, embeddings: Any, weight: Tensor, stack: Any, rows: int) -> None:
    """Set the weights of the encoder or the decoder; a table of sinusoids has this many rows."""
    embeddings.weight = _array(weight)
    embeddings.multiply_by_sqrt_depth = True
    spec.scale_embeddings = np.float32(stack.dim**0.5)
    if stack.positions.kind != "rotary":
        table = stack.positions.table
        table = sinusoidal_embedding(0, rows, stack.dim, weight) if table is None else table
        spec.position_encodings.encodings = _array(table)
    elif hasattr(spec, "position_encodings"):
        del spec.position_encodings
    for layer_spec, layer in zip(spec.layer, stack.layers, strict=True):
        query, key, value, output = self_attention(layer.attention, stack.dim)
        _set_linear(layer_spec.self_attention.linear[0], query, key, value)
        _set_linear(layer_spec.self_attention.linear[1], output)
        _set_norm(layer_spec.self_attention.layer_norm, layer.attended.norm)
        if isinstance(layer, DecoderLayer):
            query, key, value, output = cross_attention(layer, stack.dim)
            for linear, parts in zip(layer_spec.attention.linear, ([query], [key, value], [output]), strict=True):
                _set_linear(linear, *parts)
            # a model without attention to the source may lack the norm, and then any will do
            has_norm = not isinstance(layer.crossed.norm, nn.Identity)
            _set_norm(layer_spec.attention.layer_norm, layer.crossed.norm if has_norm else layer.fed.norm)
        inner = layer.feed_forward.inner.state_dict()
        if layer.feed_forward.is_gated:
            inner, gate = ({name: part.chunk(2)[half] for name, part in inner.items()} for half in (0, 1))
            _set_linear(layer_spec.ffn.linear_0_noact, gate)
        _set_linear(layer_spec.ffn.linear_0, inner)
        _set_linear(layer_spec.ffn.linear_1, layer.feed_forward.outer.state_dict())
        _set_norm(layer_spec.ffn.layer_norm, layer.fed.norm)
    if stack.layers[0].fed.is_pre:
        _set_norm(spec.layer_norm, stack.norm)


def _set_norm(spec: Any, norm: Any) -> None:
    spec.gamma = _array(norm.weight)
    if isinstance(norm, nn.LayerNorm):
        spec.beta = _array(norm.bias)


def _set_linear(spec: Any, *parts: Linear) -> None:
    """Set linear layers of the same input, their rows one after the other."""
    spec.weight, spec.bias = (_array(torch.cat([part[name] for part in parts])) for name in ("weight", "bias"))


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().contiguous().numpy()
