"""The paper's decoder: Qwen2 (arXiv 2407.10671) at any size.

Pre-norm blocks of grouped-query attention with rotary positions and a SwiGLU perceptron, RMSNorm, no biases but
(optionally) those of the query, key and value projections. Parameter names and layouts are Qwen2's.
Shapes: B rows, T tokens, V vocabulary, H hidden.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.config import Mixer, Model
from davinci.model.attention import Attention, Scene, attended
from davinci.model.crate import Ista, SubspaceAttention
from davinci.model.experts import Experts
from davinci.model.kan import Kan
from davinci.model.latent_attention import LatentAttention
from davinci.model.linear_attention import LinearAttention
from davinci.model.norm import make_norm
from davinci.model.parametrisation import initial_deviation, width_ratio
from davinci.model.perceptron import Perceptron
from davinci.model.recurrence import Recurrent
from davinci.model.rotary import angles
from davinci.model.state_space import StateSpace

# Projections that write to the residual stream.
_OUTPUTS = frozenset({"o_proj", "out_proj", "down_proj"})
# By what a layer's mixer of tokens is called in it, as in Qwen2, Qwen3-Next and Mamba-2.
_MIXERS: dict[Mixer, str] = {"attention": "self_attn", "linear": "linear_attn", "ssm": "mixer"}

Mixing = Attention | LatentAttention | SubspaceAttention | Recurrent


class Block(nn.Module):
    """One layer: what mixes tokens, then what mixes features, each with its norms, added to the residual stream.

    Norms are named as in Qwen2 and, where a block has four, as in Gemma 2.
    """

    def __init__(self, model: Model, mixer: Mixer = "attention") -> None:
        super().__init__()
        self.placement = model.placement.kind
        if self.placement != "post":
            self.input_layernorm = make_norm(model)
        self._mixer = _MIXERS[mixer]
        self.add_module(self._mixer, _mixing(model, mixer))
        self.post_attention_layernorm = make_norm(model)
        if self.placement == "sandwich":
            self.pre_feedforward_layernorm = make_norm(model)
        self.mlp = _mlp(model)
        if self.placement != "pre":
            self.post_feedforward_layernorm = make_norm(model)
        self._replaces = isinstance(self.mlp, Ista)

    @property
    def mixing(self) -> Mixing:
        """What mixes tokens."""
        return cast(Mixing, getattr(self, self._mixer))

    def onto(self, x: Tensor, fed: Tensor) -> Tensor:
        """The residual stream x with what the perceptron gave; CRATE's step stands in its place."""
        return fed if self._replaces else x + fed

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        if self.placement == "pre":
            x = x + self.mixing(self.input_layernorm(x), scene)
            out = self.onto(x, self.mlp(self.post_attention_layernorm(x)))
        elif self.placement == "post":
            x = self.post_attention_layernorm(x + self.mixing(x, scene))
            out = cast(Tensor, self.post_feedforward_layernorm(self.onto(x, self.mlp(x))))
        else:
            x = x + self.post_attention_layernorm(self.mixing(self.input_layernorm(x), scene))
            out = self.onto(x, self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x))))
        return out


def _mixing(model: Model, mixer: Mixer) -> Mixing:
    match mixer:
        case "linear":
            return LinearAttention(model)
        case "ssm":
            return StateSpace(model)
        case "attention":
            kinds: dict[str, type[Mixing]] = {"latent": LatentAttention, "subspace": SubspaceAttention}
            return kinds.get(model.attention.kind, Attention)(model)


def _mlp(model: Model) -> Perceptron | Experts | Kan | Ista:
    match model.mlp.kind:
        case "kan":
            return Kan(model)
        case "ista":
            return Ista(model)
        case _:
            return Experts(model) if model.experts.count else Perceptron(model)


class Body(nn.Module):
    """Everything between the tokens and the vocabulary projection; Qwen2's ``model.`` prefix."""

    def __init__(self, model: Model, vocab_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, model.hidden_size)
        self.layers = nn.ModuleList(Block(model, mixer) for mixer in model.layer_mixers)
        # After a block with its norm behind it the stream is normalised already.
        self.norm = nn.Identity() if model.placement.kind == "post" else make_norm(model)


class Decoder(nn.Module):
    """The model. Weights are float32; with ``precision: bfloat16`` the arithmetic runs under autocast.

    Args:
        model: the shape.
        vocab_size: tokens the embedding knows.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, model: Model, vocab_size: int) -> None:
        super().__init__()
        self.config = model
        self.vocab_size = vocab_size
        self.model = Body(model, vocab_size)
        self.lm_head = None if model.tie_embeddings else nn.Linear(model.hidden_size, vocab_size, bias=False)
        self.set_angles()

    def set_angles(self) -> None:
        """Tabulate the rotary angles: the one part of the decoder that is neither trained nor saved."""
        shape = self.config
        positions, scaling = shape.max_position_embeddings, shape.positions.scaling
        cosines, sines = angles(shape.rotary_dim, positions, shape.rope_theta, scaling)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    @property
    def unembedding(self) -> Tensor:
        """Weight of the vocabulary projection, float32[V, H]."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Set every weight from `seed` alone.

        Matrices and embeddings are normal(0, initializer_range), narrower in the blocks of a wide model under muP; the
        two projections that write to the residual stream are narrower by sqrt(2 layers), so that its variance does not
        grow with depth (GPT-2, section 2.3). Norms are 1, biases 0. Tied embeddings need no other care: the final norm
        gives logits of deviation about initializer_range sqrt(H). State-space mixers and CRATE's step start some
        weights as their authors do.
        """
        generator = torch.Generator().manual_seed(seed)
        narrow = math.sqrt(2 * self.config.layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                is_output = not _OUTPUTS.isdisjoint(name.split("."))
                deviation = initial_deviation(name, self.config)
                parameter.normal_(0.0, deviation / narrow if is_output else deviation, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        for module in self.modules():
            if isinstance(module, StateSpace | Ista):
                module.initialise(generator)
            elif isinstance(module, Experts) and module.bias is not None:
                module.bias.zero_()

    def hidden(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """Normalised last hidden states [B, T, H], in the model's precision, of tokens int64[B, T].

        Under muP they are divided by the width's ratio to the base, so that whatever makes scores of them need not.
        With `documents` int64[B, T] a token attends only to earlier ones of the same number; positions count through,
        since rotary attention sees only their differences. Raises ValueError past ``max_position_embeddings``.
        """
        count, limit = tokens.shape[1], self.config.max_position_embeddings
        if count > limit:
            raise ValueError(f"{count} tokens do not fit in {limit} positions")
        mask = attended(count, self.config.window.tokens, documents, tokens.device)
        scene = Scene(self.cosines[:count].unsqueeze(-2), self.sines[:count].unsqueeze(-2), mask, documents)
        mixed = self.config.precision == "bfloat16"
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=mixed):
            x = self.model.embed_tokens(tokens).float()  # also where FSDP gives the weights in bfloat16
            for block in self.model.layers:
                x = block(x, scene)
            out: Tensor = self.model.norm(x)
        if (ratio := width_ratio(self.config)) != 1.0:
            out = out / ratio
        if mixed:
            out = out.bfloat16()
        return out

    @property
    def experts(self) -> list[Experts]:
        """The mixtures of experts, layer after layer."""
        return [module for module in self.modules() if isinstance(module, Experts)]

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores float32[..., V] of hidden states [..., H]."""
        with torch.autocast(hidden.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            return functional.linear(hidden, self.unembedding).float()

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the next token, float32[B, T, V], after each of tokens int64[B, T]."""
        return self.logits(self.hidden(tokens))
