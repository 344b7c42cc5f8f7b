"""Floating-point operations of training."""

from __future__ import annotations

from davinci.accounting.shapes import matmul_parameters
from davinci.config import Model


def train_flops_per_token(model: Model, vocab_size: int, sequence_length: int) -> float:
    """Forward and backward FLOPs a token, recomputation not counted.

    6 N + 12 L H Q T with N the parameters in matrix products, L layers, H heads, Q head dimension and T the sequence
    length: PaLM (arXiv 2204.02311), appendix B. Attention is counted in full, the causal half not subtracted, as there.
    """
    attention = 12 * model.layers * model.attention_heads * model.head_dim * sequence_length
    return float(6 * matmul_parameters(model, vocab_size) + attention)
