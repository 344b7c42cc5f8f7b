"""The decoder and its optimizer."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from davinci.config.base import Frozen, NotNegativeFloat, Positive, PositiveFloat


class Model(Frozen):
    """A decoder's shape."""

    name: str
    layers: Positive
    hidden_size: Positive
    attention_heads: Positive
    kv_heads: Positive
    head_dim: Positive
    mlp_intermediate_size: Positive
    vocab_size: Positive
    max_position_embeddings: Positive
    rope_theta: PositiveFloat
    norm_eps: PositiveFloat
    qkv_bias: bool
    tie_embeddings: bool
    initializer_range: PositiveFloat
    precision: Literal["float32", "bfloat16"]

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.attention_heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide attention_heads {self.attention_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even for RoPE")
        return self


class Optimizer(Frozen):
    """AdamW (arXiv 1711.05101); `weight_decay` applies to matrices, not to norms and biases.

    `spikes` says what becomes of a step whose loss or gradient norm stands far above those before it
    (`training.spikes`): it is recorded, or recorded and left out of the training.
    """

    name: Literal["adamw"]
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    eps: PositiveFloat
    weight_decay: NotNegativeFloat
    gradient_clip: PositiveFloat
    spikes: Literal["report", "skip"] = "report"
