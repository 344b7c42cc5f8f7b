"""Layers that pass a state on from token to token, and how a text is read in pieces that are each computed at once.

Shapes: B rows, T tokens, heads of N features that a state is addressed by and P that it holds, G groups of heads that
share addresses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.model.attention import Scene

# Tokens of a piece: within one the work grows with the square.
PIECE = 64

# What a layer knows of the tokens it has read, row after row.
State = tuple[Tensor, ...]


class Recurrent(nn.Module, ABC):
    """A mixer of tokens with a state. A document starts from an empty one."""

    @abstractmethod
    def mix(self, x: Tensor, scene: Scene, state: State | None) -> tuple[Tensor, State]:
        """What its last projection gets for x [B, T, H], tokens that come after `state` (None: first ones); and the
        state after them."""

    @property
    @abstractmethod
    def output(self) -> nn.Linear:
        """Its last projection."""

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        out: Tensor = self.output(self.mix(x, scene, None)[0])
        return out


def scan(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    log_decay: Tensor,
    state: Tensor | None = None,
    documents: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = a_t S_(t-1) + k_t v_t^T and y_t = S_t^T q_t, in float32 whatever goes in.

    In pieces, as in Mamba-2 (arXiv 2405.21060, section 6): with d_ij = a_(j+1) … a_i, within a piece
    y_i = sum_(j <= i) d_ij (q_i k_j) v_j, and what came before it is its last state.

    Args:
        queries, keys: [B, T, G, N].
        values: [B, T, heads, P].
        log_decay: log a_t [B, T, heads], at most 0.
        state: S before the first token [B, heads, N, P]; None: 0.
        documents: int64[B, T], each in one stretch; S is 0 before the first token of each. None: one document.

    Returns:
        y [B, T, heads, P], and S after the last token.
    """
    count, shared = values.shape[1], values.shape[2] // keys.shape[2]
    piece = min(PIECE, count)
    queries, keys, values, log_decay = (_pieces(wide(one), piece) for one in (queries, keys, values, log_decay))
    reach = log_decay.cumsum(dim=2).transpose(2, 3)  # [B, pieces, heads, piece]
    within = (reach.unsqueeze(-1) - reach.unsqueeze(-2)).masked_fill(
        ~torch.ones(piece, piece, dtype=torch.bool, device=keys.device).tril(), float("-inf")
    )
    weights = torch.einsum("bcign,bcjgn->bcgij", queries, keys).repeat_interleave(shared, dim=2) * within.exp()
    into, out_of = reach.exp(), (reach[..., -1:] - reach).exp()  # from before a piece to a token, from it to the end
    through = into[..., -1]
    if documents is not None:
        filled = documents[:, -1:].expand(-1, -count % piece)
        numbers = torch.cat((documents, filled), dim=1).unflatten(1, (-1, piece))
        last = numbers[..., -1]
        before = torch.cat((numbers[:, :1, 0], last[:, :-1]), dim=1)
        weights = weights * (numbers[..., :, None] == numbers[..., None, :]).unsqueeze(2)
        into = into * (numbers == before[..., None]).unsqueeze(2)
        out_of = out_of * (numbers == last[..., None]).unsqueeze(2)
        through = through * (before == last)[..., None]
    every_key = keys.repeat_interleave(shared, dim=3)
    written = torch.einsum("bcjhn,bchj,bcjhp->bchnp", every_key, out_of, values)
    if state is None:
        state = torch.zeros_like(written[:, 0])
    states = []
    for kept, new in zip(through.unbind(1), written.unbind(1), strict=True):
        states.append(state)
        state = kept[..., None, None] * state + new
    every_query = queries.repeat_interleave(shared, dim=3)
    found = torch.einsum("bcihn,bchi,bchnp->bcihp", every_query, into, torch.stack(states, dim=1))
    found = found + torch.einsum("bchij,bcjhp->bcihp", weights, values)
    return found.flatten(1, 2)[:, :count], state


def wide(x: Tensor) -> Tensor:
    """x in float32, or in float64 where it is that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _pieces(x: Tensor, piece: int) -> Tensor:
    """x [B, T, …] as [B, pieces, piece, …], filled up with 0: what is filled up neither writes nor lets decay."""
    missing = -x.shape[1] % piece
    if missing:
        x = functional.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))
    return x.unflatten(1, (-1, piece))
