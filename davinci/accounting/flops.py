"""Floating-point operations of training and of evaluation."""

from __future__ import annotations

from davinci.accounting.shapes import matmul_parameters
from davinci.config import Model


def train_flops_per_token(model: Model, vocab_size: int, sequence_length: int) -> float:
    """Forward and backward FLOPs a token, recomputation not counted.

    6 N + 12 L H Q T with N the parameters in matrix products, L layers, H heads, Q head dimension and T the sequence
    length, or the window where that is shorter: PaLM (arXiv 2204.02311), appendix B. Attention is counted in full, the
    causal half not subtracted, as there.
    """
    in_view = min(sequence_length, model.window.tokens or sequence_length)
    attention = 12 * model.layers * model.attention_heads * model.head_dim * in_view
    return float(6 * matmul_parameters(model, vocab_size) + attention)


def forward_flops_per_token(model: Model, vocab_size: int, context: int) -> float:
    """FLOPs of reading or of writing one token with `context` tokens in view: a third of `train_flops_per_token`.

    Forward is 2 of the 6 FLOPs a parameter and token, backward the other 4 (Kaplan et al., arXiv 2001.08361, section
    2.1). With a key-value cache a written token costs what a read one does. The unembedding is counted for every token,
    though candidates are scored at few of them: an upper bound.
    """
    return train_flops_per_token(model, vocab_size, context) / 3
