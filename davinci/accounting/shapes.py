"""Parameter counts of a decoder from its shape."""

from __future__ import annotations

from collections.abc import Callable

from davinci.config import Mixer, Model

# Norms of a layer, by where they stand; and whether one follows the last layer.
_NORMS = {"pre": 2, "post": 2, "sandwich": 4}
# Vectors that a norm is trained with.
_NORM_VECTORS = {"rmsnorm": 1, "layernorm": 2, "nonparametric": 0}


def parameters(model: Model, vocab_size: int) -> int:
    """Number of trainable parameters (biases on q, k, v, and in state-space mixers)."""
    unused = model.layers * (_mlp(model) - _multiplied_mlp(model))
    return matmul_parameters(model, vocab_size) + unused + _embedding_only(model, vocab_size) + _vectors(model)


def active_parameters(model: Model, vocab_size: int) -> int:
    """Those of them that a token passes through: of the experts, the chosen and the shared ones."""
    return parameters(model, vocab_size) - model.layers * (_mlp(model) - _active_mlp(model))


def matmul_parameters(model: Model, vocab_size: int) -> int:
    """Parameters that take part in a matrix product for a token, as often as they do: of experts the active ones; and
    the unembedding."""
    mixers = sum(_MATRICES[mixer](model) for mixer in model.layer_mixers)
    return mixers + model.layers * _multiplied_mlp(model) + model.hidden_size * vocab_size


def _linear_attention(model: Model) -> int:
    """Of a layer: queries, keys, values, gate and output of linear attention."""
    return 5 * model.hidden_size * model.attention_heads * model.head_dim


def _state_space(model: Model) -> int:
    """Of a layer: the projections and the convolution of a state-space mixer."""
    width = model.state_heads * model.head_dim
    projections = model.hidden_size * (2 * width + model.convolved + model.state_heads)
    return projections + model.convolved * model.mixers.convolution


def _attention(model: Model) -> int:
    """Of a layer: the matrices of attention."""
    heads = model.attention_heads
    if model.attention.kind == "subspace":
        return 2 * model.hidden_size * heads * model.head_dim
    if not model.is_latent:
        return 2 * model.hidden_size * (heads + model.key_value_heads) * model.head_dim
    wide, narrow = heads * model.key_dim, model.attention.query_rank
    queries = model.hidden_size * wide if narrow is None else narrow * (model.hidden_size + wide)
    latent = model.hidden_size * (model.latent_rank + model.latent_rope_dim)
    return queries + latent + heads * model.head_dim * (2 * model.latent_rank + model.hidden_size)


_MATRICES: dict[Mixer, Callable[[Model], int]] = {
    "attention": _attention,
    "linear": _linear_attention,
    "ssm": _state_space,
}


def _mlp(model: Model) -> int:
    """Of a layer: the perceptron, or all experts with their router."""
    return _experts(model, model.experts.count)


def _active_mlp(model: Model) -> int:
    """Of a layer, what a token passes through."""
    return _experts(model, model.experts.chosen)


def _multiplied_mlp(model: Model) -> int:
    """Of a layer, what a token is multiplied with: CRATE's one matrix twice."""
    return _active_mlp(model) * (2 if model.mlp.kind == "ista" else 1)


def _experts(model: Model, used: int) -> int:
    if model.mlp.kind == "ista":
        return model.hidden_size**2
    matrices = model.mlp.matrices
    if not model.experts.count:
        return matrices * model.hidden_size * model.mlp_intermediate_size
    width = (used + model.experts.shared) * model.expert_width
    return matrices * model.hidden_size * width + model.hidden_size * model.experts.count


def _embedding_only(model: Model, vocab_size: int) -> int:
    """An untied input embedding is looked up, not multiplied."""
    return 0 if model.tie_embeddings else model.hidden_size * vocab_size


def _vectors(model: Model) -> int:
    norms = _NORMS[model.placement.kind] * model.layers + (model.placement.kind != "post")
    own = 2 * model.head_dim if model.qk_norm.kind == "rms" else 0
    if model.is_latent:
        own = model.latent_rank + (model.attention.query_rank or 0)
    elif model.has_biases:
        own += (model.attention_heads + 2 * model.key_value_heads) * model.head_dim
    # Of a state-space mixer: the convolution's biases; step, decay and skip of each head; the norm.
    state_space = model.convolved + (3 + model.head_dim) * model.state_heads
    mixers = model.layer_mixers
    inside = mixers.count("attention") * own + mixers.count("ssm") * state_space
    return norms * _NORM_VECTORS[model.norm.kind] * model.hidden_size + inside
