"""Several processes (ranks) that train one node together, by torch.distributed.

Rank r of W takes rows r, r + W, … of each batch. Every rank holds the whole model and the sum of all ranks' gradients,
so that all take the same step; or a part of each (see `fsdp`). The order of the data does not depend on W; the weights
do, by rounding.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from davinci.config import Node
from davinci.errors import RankLost, UserError

# How long the first rank waits for the others to start.
JOIN = timedelta(minutes=15)
# How long a rank waits for another that is alive: the first may be evaluating, or waiting for a lock. A rank that died
# is noticed at once, by its closed connection.
PATIENCE = timedelta(days=30)

# How long the first rank waits for the others to hear why it leaves.
HEARING = timedelta(minutes=1)

_WORDS, _HEARD = "davinci/words", "davinci/heard/"
# Below the ports that Linux hands to outgoing connections.
_FIRST_PORT, _PORTS = 10_000, 22_000

Number = TypeVar("Number", np.int64, np.float64)


@dataclass(frozen=True)
class Ranks:
    """The ranks of this job, as seen by rank `rank`. Alone, every method is free and changes nothing."""

    rank: int = 0
    world: int = 1
    store: Any = None  # torch's key-value store, through which the ranks found each other

    @property
    def is_first(self) -> bool:
        """Whether this rank reads and writes the store for all."""
        return self.rank == 0

    @property
    def _is_alone(self) -> bool:
        return self.world == 1

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank: the same answer on all."""
        if self._is_alone:
            return flag
        found = torch.tensor(int(flag))
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def share(self, value: Any) -> Any:
        """What the first rank gave as `value` (picklable; the ranks of a job trust each other)."""
        if self._is_alone:
            return value
        box = [value if self.is_first else None]
        dist.broadcast_object_list(box)
        return box[0]

    def broadcast(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite `tensors`, of the same names and shapes everywhere, with the first rank's."""
        if not self._is_alone:
            for tensor in tensors.values():
                dist.broadcast(tensor, src=0)

    def interleave(self, mine: NDArray[Number], size: int) -> NDArray[Number]:
        """The whole [..., size] of which this rank has columns rank, rank + world, … (`mine`); exact."""
        if self._is_alone:
            return mine
        whole = np.zeros((*mine.shape[:-1], size), dtype=mine.dtype)
        whole[..., self.rank :: self.world] = mine
        dist.all_reduce(torch.from_numpy(whole))
        return whole

    def total(self, mine: Tensor) -> Tensor:
        """The sum of all ranks' `mine`, the same on all; exact of integers."""
        if self._is_alone:
            return mine
        total = mine.clone()
        dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.any(False)

    def wrap(self, module: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
        """`module` with the first rank's weights, such that its backward pass leaves the sum of all ranks' gradients.

        The sum, not DDP's mean: ranks differ in how many targets they have, and the loss is already divided by the
        count over all of them. `example` is an input; the first output is what is differentiated.
        """
        if self._is_alone:
            return module
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="`broadcast_buffers` is deprecated"
            )  # torch 2.6 has no other name
            wrapped = DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)
        # A lambda, since DDP refuses annotations that are strings.
        wrapped.register_comm_hook(None, lambda state, bucket: _summed(bucket.buffer()))
        # After its first backward pass DDP puts the gradients in the order in which they came, and what a sum over
        # ranks rounds to depends on the place in the buffer. Had that pass a part in training, a resumed one would
        # differ from an uninterrupted one.
        wrapped(*example)[0].backward()
        wrapped.zero_grad(set_to_none=True)
        return wrapped

    def require_same(self, module: nn.Module, what: str) -> None:
        """Raise RuntimeError where the ranks' weights differ: machines that round differently drift apart."""
        if self._is_alone:
            return
        mine = torch.stack([parameter.detach().view(torch.int32).sum() for parameter in module.state_dict().values()])
        first = mine.clone()
        dist.broadcast(first, src=0)
        if self.any(not torch.equal(mine, first)):
            raise RuntimeError(f"{what}: the ranks' weights differ; run all ranks on processors of one kind")

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Where a collective fails because another rank left, raise what that rank `leave`d as a UserError.

        Raises:
            RankLost: it left without a word.
        """
        try:
            yield
        except RuntimeError as error:
            if self._is_alone or not _is_loss(error):
                raise
            with suppress(RuntimeError):  # The first rank keeps the words, and may be gone itself.
                if self.store.check([_WORDS]):
                    words = str(self.store.get(_WORDS), "utf-8")
                    self.store.set(f"{_HEARD}{self.rank}", "")
                    raise UserError(words) from None
            raise RankLost(f"rank {self.rank}: another rank ended without a word") from error

    def leave(self, words: str) -> None:
        """Leave the ranks for good, with what the others raise the next time they work together."""
        if self._is_alone:
            return
        with suppress(RuntimeError):  # The others may be gone themselves.
            is_told = self.store.check([_WORDS])
            if not is_told:
                self.store.set(_WORDS, words)
                self.store.get(_WORDS)  # Now it is there, before the connections close.
            dist.destroy_process_group()
            if self.is_first and not is_told:  # The words end with this process.
                self.store.wait([f"{_HEARD}{rank}" for rank in range(1, self.world)], HEARING)


ALONE = Ranks()


def _summed(buffer: Tensor) -> torch.futures.Future[Tensor]:
    """The sum of all ranks' `buffer`, waited for: a callback in Python would deadlock with the destructors of a process
    group that is left while work is pending."""
    dist.all_reduce(buffer)
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(buffer)
    return done


def _is_loss(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)


def require_rows(node: Node, world: int) -> None:
    """Raise UserError where a step of `node` has fewer sequences than there are ranks."""
    fewest = node.stage.smallest_batch
    if fewest < world:
        raise UserError(
            f"node {node.id}: {world} ranks, but stage {node.stage_name} has steps of {fewest} sequences; start at "
            f"most {fewest} (cluster.nodes x cluster.tasks_per_node)"
        )


def device() -> torch.device:
    """What this process trains on: of the GPUs it sees one, by its place on the node, or the CPU where it sees none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


@contextmanager
def join(environment: Mapping[str, str] = os.environ) -> Iterator[Ranks]:
    """The ranks that torchrun or srun started beside this process; `ALONE` where none.

    gloo carries what is on the CPU, NCCL what is on a GPU.
    """
    found = _torch_variables(environment)
    if int(found.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    os.environ.update(found)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
        backend = "cpu:gloo,cuda:nccl"
    store, rank, world = next(rendezvous("env://", timeout=JOIN))
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    try:
        yield Ranks(rank, world, store)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _torch_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What ``env://`` reads: set by torchrun, else from the variables that srun gives each task of a step.

    Those of the step, not of the job: a shell inside an allocation has the job's too. Jobs get ports by their ids, so
    that two on one node have different ones.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if "RANK" in environment:
        missing = [name for name in names if name not in environment]
        if missing:
            raise UserError(f"RANK is set but {', '.join(missing)} not: start the ranks with torchrun or srun")
        return {name: environment[name] for name in names}
    world = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if world == "1":
        return {}
    port = _FIRST_PORT + int(environment["SLURM_JOB_ID"]) % _PORTS
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": world,
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": environment["SLURM_LAUNCH_NODE_IPADDR"],
        "MASTER_PORT": environment.get("MASTER_PORT", str(port)),
    }
