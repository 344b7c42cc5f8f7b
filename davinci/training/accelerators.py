"""Whether the accelerators that a run asks for are there: it must not train on processors without a word."""

from __future__ import annotations

import os
import platform

import torch

from davinci.errors import UserError
from davinci.training.distributed import ALONE, Ranks


def require_gpus(asked: int, ranks: Ranks = ALONE) -> None:
    """Have every rank see an accelerator where `asked` a node were asked for; all ranks have to ask.

    Raises:
        UserError: this rank sees none, or another said so.
    """
    if asked and not torch.cuda.is_available():
        raise UserError(
            f"cluster.gpus_per_node: {asked} asked for, but torch sees none on {platform.node()} ({_why()}); "
            "cluster.gpus_per_node=0 trains on processors"
        )
    if asked:
        with ranks.blamed():
            ranks.barrier()


def _why() -> str:
    """What is known of the reason, with what to look at."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built for processors alone: install a build for CUDA or ROCm"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    said = "is not set" if visible is None else f"is {visible!r}"
    return f"CUDA_VISIBLE_DEVICES {said}: see whether nvidia-smi lists one and its driver is as new as torch's CUDA"
