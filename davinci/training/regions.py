"""How a decoder's blocks are computed: compiled or not, their activations kept or computed again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from davinci.config import Execution
from davinci.errors import UserError
from davinci.model.decoder import Decoder

_aten = torch.ops.aten
# What selective checkpointing keeps: what takes long to compute. The rest of a block is norms, rotations and SwiGLU.
_KEPT = [
    _aten.mm.default,
    _aten.addmm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
]


def prepare(decoder: Decoder, execution: Execution) -> None:
    """Make the blocks of `decoder` compute as `execution` says. Comes before the decoder is wrapped over ranks.

    Blocks are compiled one by one: they have one code, so that one compilation serves all, and what FSDP does between
    them stays outside.

    Raises:
        UserError: `compile` without what it takes.
    """
    if execution.compile and not _has_compiler():
        raise UserError("cluster.compile=true needs a C++ compiler, and there is no g++ or clang++ (CXX names one)")
    for block in decoder.model.layers:
        # Its hooks, with which FSDP gathers weights, stay around this.
        block.forward = _computed(block.forward, execution)


def _computed(forward: Callable[..., Any], execution: Execution) -> Callable[..., Any]:
    # No block draws random numbers.
    again = partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
    match execution.activation_checkpointing:
        case "full":
            forward = again
        case "selective":
            forward = partial(again, context_fn=partial(create_selective_checkpoint_contexts, _KEPT))
    if not execution.compile:
        return forward
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # the compiler's code too
    return torch.compile(forward)


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))
