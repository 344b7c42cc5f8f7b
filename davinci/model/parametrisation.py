"""Maximal update parametrisation (muP; Yang et al., arXiv 2203.03466) of the decoder, for AdamW.

With n = hidden_size / base_width, by Table 8 there (the form that allows tied embeddings):

======================================  =================  ========  ======================
what                                    initial deviation  times     AdamW's learning rate
======================================  =================  ========  ======================
embedding (and unembedding)             1                  1 (1/n)   1
matrices of the blocks                  1 / sqrt(n)        1         1 / n
gains and biases                        as ever            1         1
======================================  =================  ========  ======================

all relative to the standard parametrisation, which is the same at the base width. Attention's scores are divided by the
width of a head and not by its root (Definition 4.1), times what makes heads of ``base_head_dim`` come out unchanged.
A router is an output of fixed size; as Table 3 has it, it is another matrix of the block but for a deviation of 1 / n.

Every width (perceptron, all heads together) is taken to grow with the hidden size. What decay takes off a matrix in a
step, learning rate times decay, is as at the base width, as with MuAdamW of the authors' package. Adam's eps and the
gradient's clipping stay.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from davinci.config import Model
from davinci.errors import UserError

_ROUTER = ".mlp.gate.weight"


def width_ratio(model: Model) -> float:
    """n: how many times wider than the base; 1 in the standard parametrisation."""
    return model.hidden_size / model.parametrisation.base_width if model.parametrisation.kind == "mup" else 1.0


def attention_scale(model: Model) -> float | None:
    """What scores of queries and keys are multiplied by; None for one over the root of the head's width."""
    if _query_factor(model) == 1.0:
        return None
    return _query_factor(model) * float(model.key_dim**-0.5)


def initial_deviation(name: str, model: Model) -> float:
    """Standard deviation in which the matrix `name` of a decoder begins, before what depth takes off it."""
    if not _is_hidden(name):
        return model.initializer_range
    ratio = width_ratio(model)
    return model.initializer_range / (ratio if name.endswith(_ROUTER) else ratio**0.5)


def learning_rate_factor(name: str, model: Model) -> float:
    """What the learning rate is multiplied by for the matrix `name`."""
    return 1 / width_ratio(model) if _is_hidden(name) else 1.0


def folded(weights: Mapping[str, Tensor], model: Model) -> dict[str, Tensor]:
    """The weights with which a decoder in the standard parametrisation computes the same.

    The output's factor goes into an untied unembedding, else into the last norm; attention's into the queries, or the
    gain of their norm.

    Raises:
        UserError: tied embeddings, and a last norm without a gain.
    """
    found = dict(weights)
    ratio, factor = width_ratio(model), _query_factor(model)
    last = ["lm_head.weight"] if "lm_head.weight" in found else ["model.norm.weight", "model.norm.bias"]
    outputs = [name for name in last if name in found]
    if ratio != 1.0 and not outputs:
        raise UserError(
            f"model {model.name}: the output of muP is divided by {ratio:g}, and with tied embeddings and a last norm "
            "without gain there is no weight to divide; tie_embeddings=false or norm rmsnorm or layernorm are accepted"
        )
    for name in outputs:
        found[name] = found[name] / ratio
    asking = ".self_attn.q_norm." if model.qk_norm.kind == "rms" else ".self_attn.q_proj."
    for name in found:
        if asking in name:
            found[name] = found[name] * factor
    return found


def _query_factor(model: Model) -> float:
    """1 / d instead of 1 / sqrt(d) as a factor of queries: 1 where heads are as wide as the base's."""
    ours = model.parametrisation
    return float((ours.base_head_dim / model.head_dim) ** 0.5) if ours.kind == "mup" else 1.0


def _is_hidden(name: str) -> bool:
    """Whether a matrix is between widths that grow, and not of the vocabulary."""
    return name.startswith("model.layers.")
