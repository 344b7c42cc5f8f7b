"""FSDP2: of weights, gradients and moments a part on each rank, by torch's `fully_shard` (arXiv 2304.11277).

The whole of a block's weights is gathered when it is about to be used, in the forward pass and again in the backward
pass. The parts are DTensors, split along their first dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from davinci.errors import UserError


def shard(objective: nn.Module, blocks: Iterable[nn.Module], device: torch.device, precision: str) -> None:
    """Split the parameters of `objective`, which is on torch's meta device, over all ranks; their values are not set.

    `blocks` of it are gathered one by one, what remains as one more. The master weights, what is added up over ranks
    and the moments are float32; with `precision` bfloat16, weights are gathered and used in it. A backward pass leaves
    the sum of all ranks' gradients: ranks differ in how many targets they have, and the loss is already divided by the
    count over all of them.

    Raises:
        UserError: torch is too old to sum without dividing.
    """
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise UserError(f"cluster.parallel=fsdp needs torch 2.8 or later, this is {torch.__version__}; ddp is accepted")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy()
    if precision == "bfloat16":
        # The residual stream stays float32, as it does under autocast.
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for module in (*blocks, objective):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
    objective.to_empty(device=device)


def hand_out(values: Mapping[str, Tensor] | None, into: Mapping[str, Tensor]) -> None:
    """Fill the tensors of `into`, in whole or in part here, from those the first rank has as `values` (else None)."""
    for name, target in into.items():
        value = torch.empty(target.shape, dtype=target.dtype) if values is None else values[name].to(target.dtype)
        value = value.to(target.device).contiguous()
        if isinstance(target, DTensor):
            target.copy_(distribute_tensor(value, target.device_mesh, target.placements))
        else:
            dist.broadcast(value, src=0)
            target.copy_(value)


def whole(tensor: Tensor) -> Tensor:
    """`tensor`, put together from the parts of all ranks if it is in parts: then all have to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(parameter: Tensor) -> Tensor:
    """What this rank has of `parameter`, without gradient."""
    parameter = parameter.detach()
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def gathered(tensor: Tensor) -> Tensor:
    """The `whole` of `tensor` on the first rank's CPU; elsewhere its shape alone."""
    return whole(tensor).to("meta" if dist.get_rank() else "cpu")


def synchronised(objective: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """In the last of a step's backward passes the ranks add up what they have; until then each adds up its own."""
    if isinstance(objective, FSDPModule):
        objective.set_requires_gradient_sync(is_last)
    elif isinstance(objective, DistributedDataParallel) and not is_last:
        return objective.no_sync()
    return nullcontext()
