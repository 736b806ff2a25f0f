"""Our Transformer against those of torch and of the transformers package, by weights copied into theirs.

Everything is in float64 where the other side allows it, so that tolerances leave no room for another epsilon, another
form of an activation or another scale.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nmt.attention import AttentionConfig
from nmt.models import TransformerConfig, build_model
from nmt.models.layers import sinusoidal_embedding
from nmt.models.transformer import Transformer
from nmt.models.transformer_layers import EncoderLayer, TransformerEncoderConfig

VOCAB, WIDTH, FEED_FORWARD, HEADS, LONGEST = 23, 16, 24, 4, 12
LAYERS = {"encoder_layers": 2, "decoder_layers": 2}
EXACT = {"rtol": 1e-10, "atol": 1e-11}


def make(norm_position: str, activation: str, positions: str = "sinusoidal", tie: str = "all") -> Transformer:
    """A small model whose parameters, norms and biases too, are all far from their initial values."""
    heads = {
        option: AttentionConfig(heads=HEADS)
        for option in ("encoder_self_attention", "decoder_self_attention", "attention")
    }
    config = TransformerConfig(
        d_model=WIDTH,
        ffn_dim=FEED_FORWARD,
        norm_position=norm_position,
        activation=activation,
        positions=positions,
        max_positions=LONGEST,
        tie_embeddings=tie,
        **LAYERS,
        **heads,
    )
    torch.manual_seed(0)
    model = build_model(config, VOCAB, VOCAB, joint=True)
    assert isinstance(model, Transformer)
    return scrambled(model).double().eval()


def scrambled(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Source (3, 7) with padding and its mask, target inputs (3, 6)."""
    torch.manual_seed(1)
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    return torch.randint(1, VOCAB, (3, 7)) * mask, mask, torch.randint(1, VOCAB, (3, 6))


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """The same tensors, each part of a name that is a key of `names` replaced, one key after the other."""
    result = {}
    for name, tensor in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        result[name] = tensor
    return result


def parts(model: nn.Module) -> dict[str, Tensor]:
    """The state of encoder and decoder, without embeddings and output."""
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(("encoder.", "decoder."))}


# -- torch.nn.Transformer

TORCH = {
    "cross.": "multihead_attn.",
    "attention.": "self_attn.",
    "output.": "out_proj.",
    "attended.norm": "norm1",
    "feed_forward.inner": "linear1",
    "feed_forward.outer": "linear2",
}
TORCH_ENCODER = {"fed.norm": "norm2", **TORCH}
TORCH_DECODER = {"crossed.norm": "norm2", "fed.norm": "norm3", **TORCH}


def torch_state(ours: Transformer) -> dict[str, Tensor]:
    """Our weights under torch's names; its query, key and value projections are one matrix."""
    state = {}
    for side, names in (("encoder", TORCH_ENCODER), ("decoder", TORCH_DECODER)):
        own = renamed(getattr(ours, side).state_dict(), names)
        for query in [name for name in own if ".query." in name]:
            projections = [own.pop(query.replace("query", part)) for part in ("query", "key", "value")]
            own[query.replace("query.", "in_proj_")] = torch.cat(projections)
        state |= {f"{side}.{name}": tensor for name, tensor in own.items()}
    return state


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_is_torchs_transformer(norm_position: str, activation: str) -> None:
    ours, (source, mask, inputs) = make(norm_position, activation), batch()
    theirs = nn.Transformer(
        WIDTH,
        HEADS,
        2,
        2,
        FEED_FORWARD,
        dropout=0.0,
        activation=activation,
        batch_first=True,
        norm_first=norm_position == "pre",
    ).double()
    if norm_position == "post":  # torch has a last norm here too, after the one that ends the last layer
        theirs.encoder.norm = theirs.decoder.norm = None
    theirs.load_state_dict(torch_state(ours))
    features = theirs(
        ours.encoder.positions(ours.source_embedding(source)),
        ours.decoder.positions(ours.target_embedding(inputs)),
        tgt_mask=torch.ones(6, 6, dtype=torch.bool).triu(1),
        src_key_padding_mask=~mask,
        memory_key_padding_mask=~mask,
    )
    logits, _ = ours(source, mask, inputs)
    torch.testing.assert_close(logits, features @ ours.source_embedding.weight.T + ours.output.bias, **EXACT)


# -- The transformers package: Marian is a post-norm Transformer, Pegasus a pre-norm one.

HUGGING_FACE = {
    "encoder.norm": "encoder.layer_norm",
    "decoder.norm": "decoder.layer_norm",
    "positions.table": "embed_positions.weight",
    "attended.norm": "self_attn_layer_norm",
    "crossed.norm": "encoder_attn_layer_norm",
    "fed.norm": "final_layer_norm",
    "feed_forward.inner": "fc1",
    "feed_forward.outer": "fc2",
    "cross.": "encoder_attn.",
    "attention.": "self_attn.",
    "query.": "q_proj.",
    "key.": "k_proj.",
    "value.": "v_proj.",
    "output.": "out_proj.",
}


def hugging_face_state(ours: Transformer) -> dict[str, Tensor]:
    table = sinusoidal_embedding(0, LONGEST, WIDTH, ours.output.weight)
    return {
        "model.encoder.embed_positions.weight": table,
        "model.decoder.embed_positions.weight": table,
        **{f"model.{name}": tensor for name, tensor in renamed(parts(ours), HUGGING_FACE).items()},
        "model.shared.weight": ours.source_embedding.weight,
        "model.encoder.embed_tokens.weight": ours.source_embedding.weight,
        "model.decoder.embed_tokens.weight": ours.target_embedding.weight,
        "lm_head.weight": ours.output.weight,
        "final_logits_bias": ours.output.bias.unsqueeze(0),
    }


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers")


def hugging_face(package: Any, name: str, activation: str) -> Any:
    """An empty Marian or Pegasus of our size, in float64. Nothing is fetched."""
    config = getattr(package, f"{name}Config")(
        vocab_size=VOCAB,
        d_model=WIDTH,
        encoder_ffn_dim=FEED_FORWARD,
        decoder_ffn_dim=FEED_FORWARD,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        max_position_embeddings=LONGEST,
        activation_function=activation,
        scale_embedding=True,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=2,
        attn_implementation="eager",
        **LAYERS,
    )
    model = {"Marian": "MarianMTModel", "Pegasus": "PegasusForConditionalGeneration"}[name]
    return getattr(package, model)(config).double().eval()


def check_against(theirs: Any, ours: Transformer, state: dict[str, Tensor]) -> None:
    """Logits and cross-attention of both, with padding in the source."""
    source, mask, inputs = batch()
    theirs.load_state_dict(state)
    expected = theirs(source, attention_mask=mask, decoder_input_ids=inputs, output_attentions=True)
    logits, record = ours(source, mask, inputs, attention=True)
    torch.testing.assert_close(logits, expected.logits, **EXACT)
    torch.testing.assert_close(record.cross, torch.stack(expected.cross_attentions, dim=1), **EXACT)
    torch.testing.assert_close(ours(source, mask, inputs)[0], expected.logits, **EXACT)


@pytest.mark.parametrize(("name", "norm_position"), [("Marian", "post"), ("Pegasus", "pre")])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_is_marian_and_pegasus(
    transformers: Any, name: str, norm_position: str, positions: str, activation: str
) -> None:
    ours = make(norm_position, activation, positions)
    check_against(hugging_face(transformers, name, activation), ours, hugging_face_state(ours))


@pytest.mark.parametrize(("name", "norm_position"), [("Marian", "post"), ("Pegasus", "pre")])
def test_swiglu_with_an_open_gate_is_their_swish(transformers: Any, name: str, norm_position: str) -> None:
    ours = make(norm_position, "swiglu")
    state = hugging_face_state(ours)
    for key, tensor in state.items():
        if "fc1." in key:  # the second half is the gate: W₃ = 0 and its bias 1 leave silu(W₁ x)
            with torch.no_grad():
                tensor[FEED_FORWARD:] = float(key.endswith("bias"))
            state[key] = tensor[:FEED_FORWARD]
    check_against(hugging_face(transformers, name, "swish"), ours, state)


def test_position_table_is_theirs(transformers: Any) -> None:
    theirs = hugging_face(transformers, "Marian", "relu").model.encoder.embed_positions.weight
    torch.testing.assert_close(
        sinusoidal_embedding(0, LONGEST, WIDTH, theirs), theirs, rtol=0, atol=1e-7
    )  # theirs is float32


def test_one_step_after_the_other_is_their_generation(transformers: Any) -> None:
    """Both with their caches."""
    ours, (source, mask, inputs) = make("post", "relu"), batch()
    theirs = hugging_face(transformers, "Marian", "relu")
    theirs.load_state_dict(hugging_face_state(ours))
    memory = ours.encode(source, mask)
    state, cache = ours.init_state(memory), None
    for token in inputs.unbind(1):
        logits, _, state = ours.step(token, state, memory)
        expected = theirs(
            source, attention_mask=mask, decoder_input_ids=token[:, None], past_key_values=cache, use_cache=True
        )
        cache = expected.past_key_values
        torch.testing.assert_close(logits, expected.logits[:, 0], **EXACT)


LLAMA = {
    "attended.norm": "input_layernorm",
    "fed.norm": "post_attention_layernorm",
    "attention.": "self_attn.",
    "query.": "q_proj.",
    "key.": "k_proj.",
    "value.": "v_proj.",
    "output.": "o_proj.",
    "feed_forward.outer": "mlp.down_proj",
}


def llama_state(ours: EncoderLayer) -> dict[str, Tensor]:
    """Our weights under Llama's names; it keeps the two inner projections of its feed-forward layer apart."""
    state = renamed(ours.state_dict(), LLAMA)
    for kind in ("weight", "bias"):
        inner = state.pop(f"feed_forward.inner.{kind}")
        state[f"mlp.gate_proj.{kind}"], state[f"mlp.up_proj.{kind}"] = inner.chunk(2)
    return state


def test_rms_norm_rotary_and_swiglu_are_llamas(transformers: Any) -> None:
    """One layer in float32, in which Llama computes its norms and angles whatever the model's type is."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = transformers.LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD,
        num_attention_heads=HEADS,
        attention_bias=True,
        mlp_bias=True,
        rms_norm_eps=torch.finfo(torch.float32).eps,  # that of torch's RMSNorm
        attn_implementation="eager",
    )
    ours = scrambled(
        EncoderLayer(
            TransformerEncoderConfig(
                d_model=WIDTH,
                ffn_dim=FEED_FORWARD,
                norm="rms",
                positions="rotary",
                activation="swiglu",
                encoder_self_attention=AttentionConfig(heads=HEADS),
            ),
            0,
        )
    ).eval()
    theirs = llama.LlamaDecoderLayer(config, 0).eval()
    theirs.load_state_dict(llama_state(ours))
    _, mask, _ = batch()
    x = torch.randn(*mask.shape, WIDTH)
    hidden = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))[:, None, None]
    angles = llama.LlamaRotaryEmbedding(config)(x, torch.arange(7).unsqueeze(0))
    expected = theirs(x, attention_mask=hidden, position_embeddings=angles)
    torch.testing.assert_close(ours(x, mask), expected, rtol=1e-5, atol=1e-5)
