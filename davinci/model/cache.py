"""Keys and values of what a batch has read, each row with its own length."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor

from davinci.config import Model


class KVCache:
    """Room for `capacity` tokens in each of `rows` rows.

    `lengths` int64[rows] says how many tokens of a row count. The next token of a row is written there, whatever stands
    there: to forget a row's padding after a forward pass, set `lengths` back.
    """

    def __init__(self, model: Model, rows: int, capacity: int, device: torch.device | str = "cpu") -> None:
        # A head's tokens stand together: what a step attends to is then read in one piece.
        shape = (rows, model.key_value_heads, capacity, model.head_dim)
        dtype = getattr(torch, model.precision)
        # Zeros, not empty: a masked NaN would still poison the attention's weighted sum.
        self._keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(model.layers)]
        self._values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(model.layers)]
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.capacity = capacity

    def positions(self, count: int) -> Tensor:
        """Where the next `count` tokens of each row stand, int64[rows, count]."""
        return self.lengths[:, None] + torch.arange(count, device=self.lengths.device)

    def extend(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Write keys and values [rows, count, kv_heads, head_dim] at `positions`; return a row's first `width`,
        as [rows, kv_heads, width, head_dim]."""
        rows = torch.arange(len(self.lengths), device=self.lengths.device)[:, None]
        self._keys[layer][rows, :, positions] = keys.to(self._keys[layer].dtype)
        self._values[layer][rows, :, positions] = values.to(self._values[layer].dtype)
        return self._keys[layer][:, :, :width], self._values[layer][:, :, :width]

    def repeated(self, rows: int, room: int) -> KVCache:
        """A cache of `rows` rows that all have read what our one row has, each with room for `room` tokens more."""
        wider = copy(self)
        shape = (rows, self._keys[0].shape[1], self.capacity + room, self._keys[0].shape[3])
        wider._keys = [_widened(keys, shape) for keys in self._keys]
        wider._values = [_widened(values, shape) for values in self._values]
        wider.lengths = self.lengths.expand(rows)
        wider.capacity = self.capacity + room
        return wider

    def follow(
        self, rows: Sequence[int], source: KVCache, others: Sequence[int], paths: Sequence[Sequence[int]], common: int
    ) -> None:
        """Write into each of `rows` what `source` holds in its row of `others`: the first `common` tokens, then those
        on its path of `paths`, counted from there."""
        count = max(map(len, paths))
        padded = np.zeros((len(rows), common + count), dtype=np.int64)
        padded[:, :common] = np.arange(common)
        for number, path in enumerate(paths):
            padded[number, common : common + len(path)] = path
            padded[number, common : common + len(path)] += common
        device, heads = self.lengths.device, self._keys[0].shape[1]
        mine = torch.tensor(rows, device=device)
        starts = (np.asarray(others)[:, None] * heads + np.arange(heads)) * source.capacity
        places = torch.from_numpy((starts[:, :, None] + padded[:, None]).ravel()).to(device)
        for target, origin in zip([*self._keys, *self._values], [*source._keys, *source._values], strict=True):
            taken = origin.flatten(0, 2).index_select(0, places)
            target[mine, :, : common + count] = taken.view(len(rows), heads, common + count, -1)

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows (int64 indices), in this order."""
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]
        self.lengths = self.lengths[rows]


def _widened(part: Tensor, shape: tuple[int, ...]) -> Tensor:
    wide = part.new_zeros(shape)
    wide[:, :, : part.shape[2]] = part
    return wide
