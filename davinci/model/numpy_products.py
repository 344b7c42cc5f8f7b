"""Products of a text that is written token by token, by numpy's BLAS: on a CPU torch's takes several times as long for
a small one, and half as long again for one row."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def serve(x: Tensor) -> bool:
    """Whether they are of use for x: its threads are not torch's, so where torch has several they are not."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and torch.get_num_threads() == 1


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """``torch.matmul`` of what `serve` is true of."""
    with np.errstate(all="ignore"):  # weights that have diverged give NaN without a warning, as with torch
        return torch.from_numpy(np.matmul(a.numpy(), b.numpy()))
