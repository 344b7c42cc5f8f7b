"""The decoder as evaluation runs it: rows read at once or token by token, and only some tokens asked about.

Shapes: B rows, T tokens, S tokens that may be attended to, N tokens asked about, V vocabulary, H hidden.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as functional
from torch import Tensor

from davinci.model.attention import Attention, Scene, attend_once, attended
from davinci.model.cache import KVCache
from davinci.model.crate import SubspaceAttention
from davinci.model.decoder import Block, Decoder
from davinci.model.latent_attention import LatentAttention
from davinci.model.norm import for_reading
from davinci.model.packed import Product
from davinci.model.parametrisation import width_ratio
from davinci.model.perceptron import Perceptron
from davinci.model.recurrence import Recurrent
from davinci.model.rotary import rotate_neighbours_, side_by_side
from davinci.model.trees import Tree


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
        self._norm = for_reading(model.model.norm)
        # A token costs about 20 H^2 multiplications a layer, attending to another 4 H, at less than half the speed.
        self.worth = None if model.config.is_recurrent else 2 * model.config.hidden_size
        self._turns = torch.complex(model.cosines, model.sines)
        self._layers = [
            _Layer(cast(Block, block), number, self._dtype, model.config.rotary_dim)
            for number, block in enumerate(model.model.layers)
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
        count = tokens.shape[1]
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
        reading = _Reading(tokens.shape, self._turns[places].unsqueeze(-2), mask, cache, slots, width)
        x = functional.embedding(tokens, self._embedding).float().flatten(0, 1)
        for layer in self._layers:
            mixed = layer.mixed(x, reading)
            if layer is self._layers[-1] and asked is not None:
                x, mixed = x[asked], mixed[asked]
            x = layer.finish(x, mixed)
        if cache is not None:
            cache.lengths = cache.lengths + count
        out = self._norm(x)
        if (ratio := width_ratio(self.config)) != 1.0:
            out = out / ratio
        return out.to(self._dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores float32[N, V] of hidden states [N, H]."""
        return self._unembedding(hidden).float()


class _Reading(NamedTuple):
    """What the layers know of the tokens beside their states: their `shape` [B, T], how they are turned, complex64[T or
    B, T, 1, R / 2], the mask as it is added to scores, and where in the cache they stand: at `slots`, attending to its
    first `width`."""

    shape: torch.Size
    turns: Tensor
    mask: Tensor | None
    cache: KVCache | None
    slots: Tensor | slice | None
    width: int


class _Layer:
    """A block's weights, those of one input together."""

    def __init__(self, block: Block, number: int, dtype: torch.dtype, rotary_dim: int) -> None:
        mixing, perceptron = block.mixing, block.mlp
        self._block, self._number, self._dtype = block, number, dtype
        self._norms = {name: for_reading(norm) for name, norm in block.named_children() if name.endswith("layernorm")}
        if isinstance(mixing, Recurrent):
            self._out = Product([mixing.output], dtype)
        else:
            self._heads = (
                _Fused(mixing, dtype, rotary_dim) if isinstance(mixing, Attention) else _Projected(mixing, dtype)
            )
            self._out = Product([mixing.o_proj], dtype)
        if isinstance(perceptron, Perceptron):
            # Each by itself: what is left of it is then one piece of memory, which saves more than a call costs.
            self._inputs = [Product([one], dtype) for one in perceptron.inputs]
            self._activated = perceptron.activated
            self._down = Product([perceptron.down_proj], dtype)

    def mixed(self, x: Tensor, reading: _Reading) -> Tensor:
        """What the mixer of tokens gives for x [B T, H], before its output projection."""
        x = x if self._block.placement == "post" else self._norms["input_layernorm"](x)
        mixing = self._block.mixing
        return self._passed_on(mixing, x, reading) if isinstance(mixing, Recurrent) else self._attended(x, reading)

    def _attended(self, x: Tensor, reading: _Reading) -> Tensor:
        queries, keys, values = self._heads(x, reading.shape, reading.turns)
        if reading.cache is not None and reading.slots is not None:
            keys, values = reading.cache.extend(self._number, keys, values, reading.slots, reading.width)
        else:
            keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        rows, count = reading.shape
        if count == 1:  # heads that share keys stand as if they were tokens: nothing is repeated
            queries = queries.reshape(rows, keys.shape[1], -1, keys.shape[3])
            return attend_once(queries, keys, values, reading.mask, self._heads.scale).reshape(rows, -1)
        found = functional.scaled_dot_product_attention(
            queries.transpose(1, 2),
            keys,
            values,
            attn_mask=reading.mask,
            is_causal=reading.mask is None,
            scale=self._heads.scale,
            enable_gqa=queries.shape[2] != keys.shape[1],
        )
        return found.transpose(1, 2).reshape(rows * count, -1)

    def _passed_on(self, mixing: Recurrent, x: Tensor, reading: _Reading) -> Tensor:
        """The same of a mixer with a state, which the cache keeps."""
        shape, turns, cache = reading.shape, reading.turns, reading.cache
        before = None if cache is None else cache.state(self._number)
        with torch.autocast(x.device.type, self._dtype, enabled=self._dtype != torch.float32):
            found, after = mixing.mix(x.unflatten(0, shape), Scene(turns.real, turns.imag, None, None), before)
        if cache is not None:
            cache.remember(self._number, after)
        return found.flatten(0, 1).to(self._dtype)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The layer's output for tokens x [N, H] whose mixer gave `mixed`."""
        placement, norms, mixed = self._block.placement, self._norms, self._out(mixed)
        if placement == "post":
            x = norms["post_attention_layernorm"](x + mixed)
            return norms["post_feedforward_layernorm"](self._block.onto(x, self._fed(x)))
        if placement == "sandwich":
            x = x + norms["post_attention_layernorm"](mixed)
            fed = self._fed(norms["pre_feedforward_layernorm"](x))
            return self._block.onto(x, norms["post_feedforward_layernorm"](fed))
        x = x + mixed
        return self._block.onto(x, self._fed(norms["post_attention_layernorm"](x)))

    def _fed(self, x: Tensor) -> Tensor:
        """What the perceptron gives for x [N, H]."""
        if not isinstance(self._block.mlp, Perceptron):
            with torch.autocast(x.device.type, self._dtype, enabled=self._dtype != torch.float32):
                return cast(Tensor, self._block.mlp(x))
        x = x.to(self._dtype)
        return self._down(self._activated([product(x) for product in self._inputs]))


class _Fused:
    """Queries, keys and values of plain attention, by one matrix. Features of the first two that are turned together
    stand side by side: scores are the same in any order."""

    def __init__(self, attention: Attention, dtype: torch.dtype, rotary_dim: int) -> None:
        self._dtype, self.scale = dtype, attention.scale
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        self._heads = [part.out_features // attention.head_dim for part in parts]
        self._turned = sum(self._heads[:2])
        order = side_by_side(attention.head_dim, rotary_dim).to(attention.q_proj.weight.device)
        outputs = torch.arange(sum(self._heads) * attention.head_dim, device=order.device).view(-1, attention.head_dim)
        outputs[: self._turned] = outputs[: self._turned, order]
        self._qkv = Product(parts, dtype, outputs.flatten())
        self._norms = [for_reading(one, order) for one in (attention.q_norm, attention.k_norm) if one is not None]

    def __call__(self, x: Tensor, shape: torch.Size, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, heads, D] each, turned by their `turns`, of x [B T, H] of tokens [B, T]."""
        heads = self._qkv(x.to(self._dtype)).view(*shape, sum(self._heads), -1)
        turned, values = heads[:, :, : self._turned].float(), heads[:, :, self._turned :]
        if self._norms:
            normed = [norm(part) for norm, part in zip(self._norms, turned.split(self._heads[:2], dim=2), strict=True)]
            turned = torch.cat(normed, dim=2)
        rotate_neighbours_(turned, turns)
        queries, keys = turned.to(self._dtype).split(self._heads[:2], dim=2)
        return queries, keys, values


class _Projected:
    """Queries, keys and values of latent and of subspace attention. The cache holds them as plain attention's; the
    narrow vector that the former's come from, which would take less room, would have to be widened again at every
    step."""

    scale = None

    def __init__(self, attention: LatentAttention | SubspaceAttention, dtype: torch.dtype) -> None:
        self._attention, self._dtype = attention, dtype

    def __call__(self, x: Tensor, shape: torch.Size, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(x.device.type, self._dtype, enabled=self._dtype != torch.float32):
            queries, keys, values = self._attention.project(x.unflatten(0, shape), turns.real, turns.imag)
        return queries.to(self._dtype), keys.to(self._dtype), values.to(self._dtype)
