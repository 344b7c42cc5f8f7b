"""The decoder as evaluation runs it: rows read at once or token by token, and only some tokens asked about.

Shapes: B rows, T tokens, S tokens that may be attended to, N tokens asked about, V vocabulary, H hidden.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor

from davinci.model.attention import Attention, Scene, attended
from davinci.model.cache import KVCache
from davinci.model.crate import SubspaceAttention
from davinci.model.decoder import Block, Decoder
from davinci.model.latent_attention import LatentAttention
from davinci.model.packed import Product
from davinci.model.parametrisation import width_ratio
from davinci.model.perceptron import Perceptron
from davinci.model.recurrence import Recurrent
from davinci.model.rotary import rotate_part
from davinci.model.trees import Tree

# Scores of which `likeliest` takes the highest at once.
_BLOCK = 64


class Reader:
    """What a decoder computes, for reading only: no gradients, and one matrix for projections that share an input.

    Weights are kept in the model's precision, as they are when it is made; of a decoder trained on, make a new one.
    `worth` is how many tokens are attended to for the cost of reading one; None where a layer passes on a state, which
    goes through each sequence by itself: then no row may be a tree that branches.
    """

    def __init__(self, model: Decoder) -> None:
        self.config = model.config
        self.vocab_size = model.vocab_size
        self.device = model.unembedding.device
        self._dtype = getattr(torch, model.config.precision)
        self._embedding = model.model.embed_tokens.weight.detach()
        self._unembedding = Product([model.unembedding], self._dtype)
        self._norm = model.model.norm
        # A token costs about 20 H^2 multiplications a layer, attending to another 4 H, at less than half the speed.
        self.worth = None if model.config.is_recurrent else 2 * model.config.hidden_size
        self._cosines, self._sines = model.cosines, model.sines
        self._layers = [
            _Layer(cast(Block, block), number, self._dtype) for number, block in enumerate(model.model.layers)
        ]

    @torch.inference_mode()
    def hidden(
        self, tokens: Tensor, cache: KVCache | None = None, tree: Tree | None = None, asked: Tensor | None = None
    ) -> Tensor:
        """Last hidden states [N, H] as the decoder has them, of the asked ones of tokens int64[B, T].

        `asked` int64[N] are their places in the flattened tokens, None all: the last layer is finished for these alone.
        With a cache the tokens continue its rows, and its lengths grow by T. With a `tree` they stand and attend as
        that says. Raises ValueError past ``max_position_embeddings`` or the cache's capacity.
        """
        rows, count = tokens.shape
        limit = self.config.max_position_embeddings
        slots: Tensor | slice | None = None
        mask = None
        window = self.config.window.tokens
        places: Tensor | slice = slice(0, count)
        width = last = count
        if cache is None and tree is None:
            mask = attended(count, window, None, tokens.device)
        if cache is not None:
            shortest, longest = (int(one) for one in cache.lengths.aminmax())
            width = last = longest + count
            if width > cache.capacity:
                raise ValueError(f"{width} tokens do not fit in {cache.capacity} positions")
            at_once = shortest == longest and (count == 1 or longest == 0)
            if at_once and (window is None or width <= window):  # no row differs, and no mask says more than causal
                places = slots = slice(longest, width)
            else:
                places = slots = cache.positions(count)
                attended_to = torch.arange(width, device=tokens.device)
                mask = slots[:, :, None] >= attended_to
                if window is not None and tree is None:
                    mask &= slots[:, :, None] - attended_to < window
                mask = mask[:, None]
        if tree is not None:
            places, mask = tree if window is None else tree.within(window)
            last = int(places.max()) + 1
        if last > limit:
            raise ValueError(f"{last} tokens do not fit in {limit} positions")
        if mask is not None:  # once, and not in every layer
            mask = torch.zeros(mask.shape, dtype=self._dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
        angles = self._cosines[places].unsqueeze(-2), self._sines[places].unsqueeze(-2)
        x = functional.embedding(tokens, self._embedding).float().flatten(0, 1)
        for layer in self._layers:
            mixed = layer.attend(x, rows, angles, mask, cache, slots, width)
            if layer is self._layers[-1] and asked is not None:
                x, mixed = x[asked], mixed[asked]
            x = layer.finish(x, mixed)
        if cache is not None:
            cache.lengths = cache.lengths + count
        out: Tensor = self._norm(x)
        if (ratio := width_ratio(self.config)) != 1.0:
            out = out / ratio
        return out.to(self._dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores float32[N, V] of hidden states [N, H]."""
        return self._unembedding(hidden).float()


class _Layer:
    """A block's weights, those of one input together."""

    def __init__(self, block: Block, number: int, dtype: torch.dtype) -> None:
        mixing, perceptron = block.mixing, block.mlp
        self._block, self._number, self._dtype = block, number, dtype
        if isinstance(mixing, Recurrent):
            self._out = Product([mixing.output], dtype)
        else:
            self._heads = _Fused(mixing, dtype) if isinstance(mixing, Attention) else _Projected(mixing, dtype)
            self._out = Product([mixing.o_proj], dtype)
        if isinstance(perceptron, Perceptron):
            self._up = Product(perceptron.inputs, dtype)
            self._parts, self._activated = len(perceptron.inputs), perceptron.activated
            self._down = Product([perceptron.down_proj], dtype)

    def attend(
        self,
        x: Tensor,
        rows: int,
        angles: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None,
        slots: Tensor | slice | None,
        width: int,
    ) -> Tensor:
        """What the mixer of tokens gives for x [B T, H], before its output projection."""
        block = self._block
        before = x if block.placement == "post" else block.input_layernorm(x)
        if isinstance(block.mixing, Recurrent):
            return self._passed_on(block.mixing, before, rows, angles, cache)
        queries, keys, values = self._heads(before, rows, angles)
        if cache is not None and slots is not None:
            keys, values = cache.extend(self._number, keys, values, slots, width)
        else:
            keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        grouped = queries.shape[2] != keys.shape[1]
        if is_one := queries.shape[1] == 1:  # heads that share keys stand as if they were tokens: nothing is repeated
            queries, grouped = queries.reshape(rows, keys.shape[1], -1, keys.shape[3]), False
        else:
            queries = queries.transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None and not is_one,
            scale=self._heads.scale,
            enable_gqa=grouped,
        )
        return (mixed if is_one else mixed.transpose(1, 2)).reshape(len(x), -1)

    def _passed_on(
        self, mixing: Recurrent, x: Tensor, rows: int, angles: tuple[Tensor, Tensor], cache: KVCache | None
    ) -> Tensor:
        """The same of a mixer with a state, which the cache keeps."""
        before = None if cache is None else cache.state(self._number)
        with torch.autocast(x.device.type, self._dtype, enabled=self._dtype != torch.float32):
            mixed, after = mixing.mix(x.unflatten(0, (rows, -1)), Scene(*angles, None, None), before)
        if cache is not None:
            cache.remember(self._number, after)
        return mixed.flatten(0, 1).to(self._dtype)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The layer's output for tokens x [N, H] whose mixer gave `mixed`."""
        block = self._block
        mixed = self._out(mixed)
        if block.placement == "post":
            x = block.post_attention_layernorm(x + mixed)
            return cast(Tensor, block.post_feedforward_layernorm(block.onto(x, self._fed(x))))
        if block.placement == "sandwich":
            x = x + block.post_attention_layernorm(mixed)
            return block.onto(x, block.post_feedforward_layernorm(self._fed(block.pre_feedforward_layernorm(x))))
        x = x + mixed
        return block.onto(x, self._fed(block.post_attention_layernorm(x)))

    def _fed(self, x: Tensor) -> Tensor:
        """What the perceptron gives for x [N, H]."""
        if not isinstance(self._block.mlp, Perceptron):
            with torch.autocast(x.device.type, self._dtype, enabled=self._dtype != torch.float32):
                return cast(Tensor, self._block.mlp(x))
        parts = self._up(x.to(self._dtype)).chunk(self._parts, dim=-1)
        return self._down(self._activated(list(parts)))


class _Fused:
    """Queries, keys and values of plain attention, by one matrix."""

    def __init__(self, attention: Attention, dtype: torch.dtype) -> None:
        self._dtype, self._head_dim, self.scale = dtype, attention.head_dim, attention.scale
        self._norms = attention.q_norm, attention.k_norm
        self._qkv = Product([attention.q_proj, attention.k_proj, attention.v_proj], dtype)
        self._heads = [one.out_features // attention.head_dim for one in (attention.q_proj, attention.k_proj)]

    def __call__(self, x: Tensor, rows: int, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, heads, D] each, turned by their `angles`, of x [B T, H]."""
        projected = self._qkv(x.to(self._dtype))
        heads = projected.view(rows, -1, sum(self._heads) + self._heads[1], self._head_dim)
        turned, values = heads.split([sum(self._heads), self._heads[1]], dim=2)
        query_norm, key_norm = self._norms
        if query_norm is not None and key_norm is not None:
            queries, keys = turned.split(self._heads, dim=2)
            turned = torch.cat((query_norm(queries), key_norm(keys)), dim=2).to(self._dtype)
        queries, keys = rotate_part(turned, *angles).split(self._heads, dim=2)
        return queries, keys, values


class _Projected:
    """Queries, keys and values of latent and of subspace attention. The cache holds them as plain attention's; the
    narrow vector that the former's come from, which would take less room, would have to be widened again at every
    step."""

    scale = None

    def __init__(self, attention: LatentAttention | SubspaceAttention, dtype: torch.dtype) -> None:
        self._attention, self._dtype = attention, dtype

    def __call__(self, x: Tensor, rows: int, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(x.device.type, self._dtype, enabled=self._dtype != torch.float32):
            queries, keys, values = self._attention.project(x.unflatten(0, (rows, -1)), *angles)
        return queries.to(self._dtype), keys.to(self._dtype), values.to(self._dtype)


def likeliest(logits: Tensor) -> Tensor:
    """int64[N], the first of the highest of scores [N, V]: ``argmax``, which on a CPU takes many times as long."""
    blocks = functional.pad(logits, (0, -logits.shape[-1] % _BLOCK), value=float("-inf")).unflatten(-1, (-1, _BLOCK))
    first = blocks.amax(dim=-1).argmax(dim=-1)
    return first * _BLOCK + blocks[torch.arange(len(first), device=first.device), first].argmax(dim=-1)
