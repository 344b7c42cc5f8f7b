"""What a batch has read, each row with its own length: keys and values, and the states of layers that pass one on."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor

from davinci.config import Model
from davinci.model.recurrence import State


class KVCache:
    """Room for `capacity` tokens in each of `rows` rows.

    `lengths` int64[rows] says how many tokens of a row count. The next token of a row is written there, whatever stands
    there: to forget a row's padding after a forward pass, set `lengths` back. A state forgets nothing: where a model
    is recurrent, rows that are read together and go on have to be of one length.
    """

    def __init__(self, model: Model, rows: int, capacity: int, device: torch.device | str = "cpu") -> None:
        # A head's tokens stand together: what a step attends to is then read in one piece.
        shape = (rows, model.key_value_heads, capacity)
        dtype = getattr(torch, model.precision)
        # Zeros, not empty: a masked NaN would still poison the attention's weighted sum.
        layers = [layer for layer, mixer in enumerate(model.layer_mixers) if mixer == "attention"]
        self._keys = {layer: torch.zeros(*shape, model.key_dim, dtype=dtype, device=device) for layer in layers}
        self._values = {layer: torch.zeros(*shape, model.head_dim, dtype=dtype, device=device) for layer in layers}
        self._states: dict[int, State] = {}
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.capacity = capacity

    def positions(self, count: int) -> Tensor:
        """Where the next `count` tokens of each row stand, int64[rows, count]."""
        return self.lengths[:, None] + torch.arange(count, device=self.lengths.device)

    def extend(
        self, layer: int, keys: Tensor, values: Tensor, positions: Tensor | slice, width: int
    ) -> tuple[Tensor, Tensor]:
        """Write keys [rows, count, heads, key_dim] and values [rows, count, heads, head_dim] at `positions`, a slice
        where they are those of every row; return a row's first `width`, as [rows, heads, width, …]."""
        for kept, new in ((self._keys[layer], keys), (self._values[layer], values)):
            if isinstance(positions, slice):
                kept[:, :, positions] = new.transpose(1, 2)
            else:
                rows = torch.arange(len(self.lengths), device=self.lengths.device)[:, None]
                kept[rows, :, positions] = new.to(kept.dtype)
        return self._keys[layer][:, :, :width], self._values[layer][:, :, :width]

    def state(self, layer: int) -> State | None:
        """What a layer passes on of what the rows have read; None before it read anything."""
        return self._states.get(layer)

    def remember(self, layer: int, state: State) -> None:
        """Set what a layer passes on, tensors [rows, …]."""
        self._states[layer] = state

    def repeated(self, rows: int, room: int) -> KVCache:
        """A cache of `rows` rows that all have read what our one row has, each with room for `room` tokens more."""
        wider = copy(self)
        wider._keys = {layer: _widened(keys, rows, room) for layer, keys in self._keys.items()}
        wider._values = {layer: _widened(values, rows, room) for layer, values in self._values.items()}
        wider._states = {
            layer: tuple(part.expand(rows, *part.shape[1:]) for part in state) for layer, state in self._states.items()
        }
        wider.lengths = self.lengths.expand(rows)
        wider.capacity = self.capacity + room
        return wider

    def follow(
        self, rows: Sequence[int], source: KVCache, others: Sequence[int], paths: Sequence[Sequence[int]], common: int
    ) -> None:
        """Write into each of `rows` what `source` holds in its row of `others`: the first `common` tokens, then those
        on its path of `paths`, counted from there. Of states, which have no path, those after its last token."""
        mine = torch.tensor(rows, device=self.lengths.device)
        for layer, state in source._states.items():
            self._states.setdefault(layer, tuple(part.new_zeros(len(self.lengths), *part.shape[1:]) for part in state))
            for target, origin in zip(self._states[layer], state, strict=True):
                target[mine] = origin[torch.tensor(others, device=mine.device)]
        if not self._keys:
            return
        count = max(map(len, paths))
        padded = np.zeros((len(rows), common + count), dtype=np.int64)
        padded[:, :common] = np.arange(common)
        for number, path in enumerate(paths):
            padded[number, common : common + len(path)] = path
            padded[number, common : common + len(path)] += common
        device, heads = self.lengths.device, next(iter(self._keys.values())).shape[1]
        starts = (np.asarray(others)[:, None] * heads + np.arange(heads)) * source.capacity
        places = torch.from_numpy((starts[:, :, None] + padded[:, None]).ravel()).to(device)
        for mine_of, its in ((self._keys, source._keys), (self._values, source._values)):
            for layer, target in mine_of.items():
                taken = its[layer].flatten(0, 2).index_select(0, places)
                target[mine, :, : common + count] = taken.view(len(rows), heads, common + count, -1)

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows (int64 indices), in this order."""
        self._keys = {layer: keys[rows] for layer, keys in self._keys.items()}
        self._values = {layer: values[rows] for layer, values in self._values.items()}
        self._states = {layer: tuple(part[rows] for part in state) for layer, state in self._states.items()}
        self.lengths = self.lengths[rows]


def _widened(part: Tensor, rows: int, room: int) -> Tensor:
    _, heads, capacity, features = part.shape
    wide = part.new_zeros(rows, heads, capacity + room, features)
    wide[:, :, : part.shape[2]] = part
    return wide
