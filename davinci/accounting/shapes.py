"""Parameter counts of a decoder from its shape."""

from __future__ import annotations

from davinci.config import Model

# Norms of a layer, by where they stand; and whether one follows the last layer.
_NORMS = {"pre": 2, "post": 2, "sandwich": 4}
# Vectors that a norm is trained with.
_NORM_VECTORS = {"rmsnorm": 1, "layernorm": 2, "nonparametric": 0}


def parameters(model: Model, vocab_size: int) -> int:
    """Number of trainable parameters (biases on q, k, v only)."""
    return matmul_parameters(model, vocab_size) + _embedding_only(model, vocab_size) + _vectors(model)


def matmul_parameters(model: Model, vocab_size: int) -> int:
    """Parameters that take part in a matrix product for every token, the unembedding included."""
    queries = model.attention_heads * model.head_dim
    keys = model.key_value_heads * model.head_dim
    attention = model.hidden_size * (2 * queries + 2 * keys)
    mlp = (3 if model.mlp.is_gated else 2) * model.hidden_size * model.mlp_intermediate_size
    return model.layers * (attention + mlp) + model.hidden_size * vocab_size


def _embedding_only(model: Model, vocab_size: int) -> int:
    """An untied input embedding is looked up, not multiplied."""
    return 0 if model.tie_embeddings else model.hidden_size * vocab_size


def _vectors(model: Model) -> int:
    norms = _NORMS[model.placement.kind] * model.layers + (model.placement.kind != "post")
    biases = (model.attention_heads + 2 * model.key_value_heads) * model.head_dim if model.qkv_bias else 0
    of_heads = 2 * model.head_dim if model.qk_norm.kind == "rms" else 0
    return norms * _NORM_VECTORS[model.norm.kind] * model.hidden_size + model.layers * (biases + of_heads)
