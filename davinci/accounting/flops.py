"""Floating-point operations of training and of evaluation."""

from __future__ import annotations

from davinci.accounting.shapes import matmul_parameters
from davinci.config import Mixer, Model


def train_flops_per_token(model: Model, vocab_size: int, sequence_length: int) -> float:
    """Forward and backward FLOPs a token, recomputation not counted.

    6 N + 12 L H Q T with N the parameters in matrix products, L layers, H heads, Q head dimension (where keys are wider
    than values: the mean of both) and T the sequence length, or the window where that is shorter: PaLM (arXiv
    2204.02311), appendix B. Attention is counted in full, the causal half not subtracted, as there.

    A layer with a state has in the place of its attention 12 H Q S, S the features of a state for each of a head: a
    token is written into the state and read from it, a multiplication and an addition each, in the recurrent form
    whatever the length (Mamba-2, arXiv 2405.21060, section 6, counts O(T Q S) so). What training in pieces does more is
    not counted.
    """
    in_view = min(sequence_length, model.window.tokens or sequence_length)
    each: dict[Mixer, int] = {
        "attention": 6 * model.attention_heads * (model.key_dim + model.head_dim) * in_view,
        "linear": 12 * model.attention_heads * model.head_dim * model.head_dim,
        "ssm": 12 * model.state_heads * model.head_dim * model.mixers.state,
    }
    return float(6 * matmul_parameters(model, vocab_size) + sum(each[mixer] for mixer in model.layer_mixers))


def forward_flops_per_token(model: Model, vocab_size: int, context: int) -> float:
    """FLOPs of reading or of writing one token with `context` tokens in view: a third of `train_flops_per_token`.

    Forward is 2 of the 6 FLOPs a parameter and token, backward the other 4 (Kaplan et al., arXiv 2001.08361, section
    2.1). With a key-value cache a written token costs what a read one does. The unembedding is counted for every token,
    though candidates are scored at few of them: an upper bound.
    """
    return train_flops_per_token(model, vocab_size, context) / 3
