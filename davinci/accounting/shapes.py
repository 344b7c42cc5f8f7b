"""Parameter counts of a decoder from its shape."""

from __future__ import annotations

from davinci.config import Model


def parameters(model: Model, vocab_size: int) -> int:
    """Number of trainable parameters (Qwen2 layout: biases on q, k, v only; RMSNorm gains)."""
    return matmul_parameters(model, vocab_size) + _embedding_only(model, vocab_size) + _vectors(model)


def matmul_parameters(model: Model, vocab_size: int) -> int:
    """Parameters that take part in a matrix product for every token, the unembedding included."""
    queries = model.attention_heads * model.head_dim
    keys = model.kv_heads * model.head_dim
    attention = model.hidden_size * (2 * queries + 2 * keys)
    mlp = 3 * model.hidden_size * model.mlp_intermediate_size
    return model.layers * (attention + mlp) + model.hidden_size * vocab_size


def _embedding_only(model: Model, vocab_size: int) -> int:
    """An untied input embedding is looked up, not multiplied."""
    return 0 if model.tie_embeddings else model.hidden_size * vocab_size


def _vectors(model: Model) -> int:
    norms = (2 * model.layers + 1) * model.hidden_size
    biases = (model.attention_heads + 2 * model.kv_heads) * model.head_dim if model.qkv_bias else 0
    return norms + model.layers * biases
