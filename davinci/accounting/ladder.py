"""One dial, the number of parameters, and what follows from it: shape, tokens, batch size, learning rate.

Shapes are those of one family, in the proportions of the paper's model (arXiv 2603.27164, Table 4: 36 layers of 2,048,
perceptron 11,008 wide, heads of 128, two of keys and values, embeddings tied), so that the 3.09B rung is that model.
Tokens follow the compute-optimal 20 a parameter (Hoffmann et al., arXiv 2203.15556, Table 3) or a compute budget;
batch and peak learning rate the compute C = 6 N D by the fits of DeepSeek LLM (arXiv 2401.02954, equation 1):
0.3118 C^-0.1250 for the rate, 0.2920 C^0.3271 tokens for the batch. They were fitted between 1e17 and 2e19 FLOPs, with
AdamW and a multi-step schedule; below and above they are extrapolated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

from davinci.errors import UserError

SMALLEST, LARGEST = 500_000, 10_000_000_000
FEWEST_TOKENS, MOST_TOKENS = 1, 1_000_000  # a parameter
TOLERANCE = 0.08  # a shape may miss the target by so much
_CLOSE = 0.01
_ASPECT = 2048 / 36  # hidden size over layers
_PERCEPTRON = 11008 / 2048  # width of the perceptron over hidden size
_KV_HEADS = 2
_PAPER_TRILLIONS, _PAPER_BATCH = 8, 4096  # tokens of its curriculum, sequences of its largest batch (Table 5)
_FINAL_RATE = 0.1  # of the peak: the paper decays 3e-4 to 3e-5 (Table 5)


@dataclass(frozen=True)
class Rung:
    """A shape of the family, and its parameters (all of them, the tied embedding once)."""

    layers: int
    hidden_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    mlp_intermediate_size: int
    parameters: int


@dataclass(frozen=True)
class Budget:
    """How a rung is trained: tokens, tokens a batch, peak and final learning rate."""

    tokens: int
    batch_tokens: int
    peak_lr: float
    final_lr: float


def head_dim_of(hidden_size: int) -> int:
    """Features of a head: 128 from 1,024 hidden on, as the paper's; 64 from 256 on; 32 below."""
    return 128 if hidden_size >= 1024 else 64 if hidden_size >= 256 else 32


def rung(target: float, vocab_size: int) -> Rung:
    """The shape of the family with `target` parameters: of those within 1% the one nearest to the paper's proportions,
    else the nearest in size.

    Hidden sizes are whole heads (of 32, 64 or 128 features); layers stay within a third of hidden size / 57 (or one),
    the width of the perceptron within a fifth of 5.4 hidden sizes. An odd number of heads shares one of keys and
    values, and is taken only where no even one comes as near.

    Raises:
        UserError: `target` out of range, or none comes within 8% of it (the vocabulary alone may be larger); names the
            nearest that there is.
    """
    family = _family(vocab_size)
    if not SMALLEST <= target <= LARGEST:
        there = [one for one in family if SMALLEST <= one.parameters <= LARGEST] or family
        asked = f"{target:,.0f}" if abs(target) < 1e15 else f"{target:.3g}"
        raise UserError(
            f"scale.parameters: {asked} is off the ladder; {SMALLEST:,} to {LARGEST:,} are accepted, and the "
            f"{_told(_nearest(there, min(max(target, SMALLEST), LARGEST)))}"
        )
    close = [one for one in family if abs(one.parameters - target) <= _CLOSE * target]
    if close:
        return min(close, key=lambda one: (-one.kv_heads, _deviation(one), one.layers, one.mlp_intermediate_size))
    found = _nearest(family, target)
    if abs(found.parameters - target) > TOLERANCE * target:
        raise UserError(
            f"scale.parameters: no shape has {target:,.0f} parameters with a vocabulary of {vocab_size:,}; the "
            f"{_told(found)}"
        )
    return found


def _nearest(shapes: Sequence[Rung], target: float) -> Rung:
    return min(shapes, key=lambda one: (abs(one.parameters - target), _deviation(one), one.layers))


def _told(one: Rung) -> str:
    layers = "1 layer" if one.layers == 1 else f"{one.layers} layers"
    return f"nearest shape has {one.parameters:,} ({layers} of {one.hidden_size})"


def _deviation(one: Rung) -> float:
    """How far a shape is from the paper's proportions: by which factors, as the sum of their logarithms."""
    aspect = one.hidden_size / one.layers / _ASPECT
    width = one.mlp_intermediate_size / one.hidden_size / _PERCEPTRON
    return abs(math.log(aspect)) + abs(math.log(width))


@functools.cache
def _family(vocab_size: int) -> tuple[Rung, ...]:
    shapes = []
    hidden = 64
    while hidden <= 4096:
        middle = hidden / _ASPECT
        spread = max(1.0, middle / 3)
        widths = {round(hidden * _PERCEPTRON * (1 + step / 20) / 32) * 32 for step in range(-4, 5)}
        for layers in range(max(1, round(middle - spread)), round(middle + spread) + 1):
            shapes += [_shape(layers, hidden, width, vocab_size) for width in sorted(widths)]
        hidden += head_dim_of(hidden)
    return tuple(shapes)


def _shape(layers: int, hidden: int, wide: int, vocab_size: int) -> Rung:
    head_dim = head_dim_of(hidden)
    heads = hidden // head_dim
    kv_heads = 1 if heads % _KV_HEADS else _KV_HEADS
    attention = 2 * hidden * (heads + kv_heads) * head_dim
    vectors = 2 * hidden + (heads + 2 * kv_heads) * head_dim  # norms, and biases of query, key and value
    total = layers * (attention + 3 * hidden * wide + vectors) + hidden + hidden * vocab_size
    return Rung(layers, hidden, heads, kv_heads, head_dim, wide, total)


def sequence_length_of(parameters: float) -> int:
    """Tokens of a sequence: the paper's 4,096 from 1B parameters on, 1,024 from 100M, 512 from 20M, 128 below.

    Short sequences are this project's choice: a small model spends most of a long sequence on attention.
    """
    steps = ((1e9, 4096), (1e8, 1024), (2e7, 512))
    return next((length for least, length in steps if parameters >= least), 128)


def budget(one: Rung, tokens_per_parameter: float, flops: float | None, flops_per_token: float) -> Budget:
    """What a rung is trained with.

    Args:
        one: the shape.
        tokens_per_parameter: how many tokens, where `flops` does not say it.
        flops: training FLOPs to be spent, attention included.
        flops_per_token: of this shape (`accounting.flops.train_flops_per_token`).

    Raises:
        UserError: less than one token a parameter, or more than a million.
    """
    given = tokens_per_parameter if flops is None else flops / flops_per_token / one.parameters
    if not FEWEST_TOKENS <= given <= MOST_TOKENS:
        key = "tokens_per_parameter" if flops is None else "flops"
        each = flops_per_token * one.parameters
        raise UserError(
            f"scale.{key}: {one.parameters:,} parameters get {given:.3g} tokens each; {FEWEST_TOKENS:,} to "
            f"{MOST_TOKENS:,} are accepted, which are {FEWEST_TOKENS * each:.3g} to {MOST_TOKENS * each:.3g} FLOPs"
        )
    tokens = one.parameters * tokens_per_parameter if flops is None else flops / flops_per_token
    compute = 6 * one.parameters * tokens
    peak = 0.3118 * compute**-0.1250
    return Budget(round(tokens), round(0.2920 * compute**0.3271), peak, _FINAL_RATE * peak)


def _flops_per_token(one: Rung, vocab_size: int, length: int) -> float:
    """As `accounting.flops.train_flops_per_token` of the rung's model."""
    attention = 2 * one.hidden_size * (one.attention_heads + one.kv_heads) * one.head_dim
    matrices = one.layers * (attention + 3 * one.hidden_size * one.mlp_intermediate_size) + one.hidden_size * vocab_size
    return 6.0 * matrices + 12 * one.layers * one.attention_heads * one.head_dim * length


@functools.cache
def derived(
    target: float, vocab_size: int, tokens_per_parameter: float, flops: float | None
) -> Mapping[str, int | float]:
    """All that follows from the dial, by the names of the config's keys.

    The whole curriculum of the paper, 8T tokens, has the rung's tokens, and its largest batch, 4,096 sequences, the
    rung's batch.
    """
    shape = rung(target, vocab_size)
    length = sequence_length_of(target)
    given = budget(shape, tokens_per_parameter, flops, _flops_per_token(shape, vocab_size, length))
    return MappingProxyType(
        {
            **{key: value for key, value in asdict(shape).items() if key != "parameters"},
            "sequence_length": length,
            "tokens_per_trillion": max(1, round(given.tokens / _PAPER_TRILLIONS)),
            "sequences_per_1024": max(1, round(given.batch_tokens / length * 1024 / _PAPER_BATCH)),
            "peak_lr": given.peak_lr,
            "final_lr": given.final_lr,
        }
    )
