"""Products with weights that stay as they are, laid out for the processor once and not at every product."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.model import numpy_products


class Product:
    """x W^T + b for reading only, in one piece for projections of one input, its outputs in `order`.

    In float32 on a CPU W is kept in blocks, as oneDNN multiplies it, and from the first row that comes alone on also as
    W^T, with which that takes no longer than the weights take to read: the weights are then there twice for as long as
    this object is, beside the decoder's own. Elsewhere, and where this torch has no oneDNN, W stays as it is.
    """

    def __init__(
        self, parts: Sequence[nn.Linear | Tensor], dtype: torch.dtype, order: Tensor | slice = slice(None)
    ) -> None:
        weights = [part.weight if isinstance(part, nn.Linear) else part for part in parts]
        biases = [part.bias for part in parts if isinstance(part, nn.Linear) and part.bias is not None]
        weight = weights[0].detach() if len(weights) == 1 else torch.cat([one.detach() for one in weights])
        self._weight = weight[order].to(dtype)
        self._bias = torch.cat([one.detach() for one in biases])[order].to(dtype) if biases else None
        self._packed = dtype == torch.float32 and self._weight.device.type == "cpu" and _can_pack()
        if self._packed:
            self._weight = _pack(self._weight)
        self._transposed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """[N, outputs] of x [N, inputs], in the weights' precision."""
        if not self._packed:
            return functional.linear(x, self._weight, self._bias)
        if len(x) == 1 and numpy_products.serve(x):
            if self._transposed is None:
                self._transposed = self._weight.to_dense().T.contiguous()
            out = numpy_products.multiply(x, self._transposed)
            return out if self._bias is None else out.add_(self._bias)
        return _multiply(x, self._weight, self._bias)


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    return packed


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    # By its overload: to be found among several takes as long as a small product.
    out: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, "none", [], "")
    return out


@cache
def _can_pack() -> bool:
    """Whether what torch.compile uses for the same is there: operations of torch's without a promise to stay."""
    x, weight = torch.ones(4, 3), torch.arange(6.0).view(2, 3)
    try:
        return torch.equal(_multiply(x, _pack(weight), None), x @ weight.T)
    except (AttributeError, RuntimeError):
        return False
