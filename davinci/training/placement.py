"""A node's model and optimizer on the devices that train them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from davinci.config import Execution, Node
from davinci.model.decoder import Decoder
from davinci.training import fsdp, optimizer, positions, sharded
from davinci.training.averaging import Average
from davinci.training.distributed import ALONE, Ranks, device
from davinci.training.positions import Position, tensors
from davinci.training.regions import prepare
from davinci.training.step import EXAMPLE, Objective, separator_of

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Placed:
    """What is trained.

    Attributes:
        objective: what a step differentiates: `bare`, perhaps wrapped over the ranks.
        bare: what a loss without gradients takes.
        adamw: over the decoder's parameters.
        average: of the weights, with its decoder in another `Objective` like `bare`; None where none is kept.
        in_parts: each rank has a part of every tensor (FSDP), not all of it.
    """

    objective: nn.Module
    bare: Objective
    adamw: AdamW
    average: Average | None
    bare_average: Objective | None
    in_parts: bool

    @property
    def decoder(self) -> Decoder:
        return self.bare.decoder

    @property
    def runs_ahead(self) -> bool:
        """Whether a step goes on after the program does: to read from it is to wait for it."""
        return next(self.decoder.parameters()).is_cuda

    def tensors(self) -> dict[str, Tensor]:
        """All there is to save by name, of each as much as is here."""
        average = None if self.average is None else self.average.model
        return tensors(self.decoder, optimizer.state_tensors(self.decoder, self.adamw), average)

    def whole(self) -> tuple[Decoder, dict[str, Tensor], Decoder | None]:
        """Decoder, moments and average to save, on the first rank; if they are in parts, all ranks have to ask."""
        moments = optimizer.state_tensors(self.decoder, self.adamw)
        average = None if self.average is None else self.average.model
        if not self.in_parts:
            return self.decoder, moments, average
        moments = {name: fsdp.gathered(tensor) for name, tensor in moments.items()}
        return _gathered(self.decoder), moments, None if average is None else _gathered(average)

    def scored(self, score: Callable[[Decoder, Ranks], Sequence[Row]], ranks: Ranks) -> Sequence[Row]:
        """What `score` says of the decoder, at least to the first rank; all ranks have to ask."""
        if not self.in_parts:
            return score(self.decoder, ranks)
        decoder = _gathered(self.decoder)
        if not ranks.is_first:
            return ()
        decoder.set_angles()
        return score(decoder, ALONE)


def place(node: Node, position: Position, ranks: Ranks, execution: Execution) -> Placed:
    """Bring the state at `position` where `execution` says it is trained; every rank calls it.

    Checkpoints are read by the first rank alone, but for those in parts, of which each reads its own.

    Raises:
        UserError: the machine is not what `execution` takes it for, or the checkpoint does not fit the model.
    """
    there = device()
    if there.type == "cuda":
        torch.cuda.set_device(there)
    if execution.parallel == "fsdp" and ranks.world > 1:
        return _in_parts(node, position, ranks, execution, there)
    moments: dict[str, Tensor] = {}
    if ranks.is_first:
        decoder, moments, kept = positions.load(position, node)
    else:
        decoder, kept = Decoder(node.model, node.vocab_size), None
    decoder.to(there)
    prepare(decoder, execution)
    biases = {str(number): one.bias for number, one in enumerate(decoder.experts) if one.bias is not None}
    ranks.broadcast(biases)  # DDP hands out parameters alone
    bare = Objective(decoder, separator_of(node))
    objective = ranks.wrap(bare, (EXAMPLE[0].to(there), EXAMPLE[1].to(there)))
    adamw = optimizer.build(decoder, node.optimizer)
    if position.has_moments and ranks.world > 1:
        moments = moments or optimizer.empty_tensors(decoder)
        moments = {name: moments[name].to(there) for name in sorted(moments)}  # in one order everywhere
        ranks.broadcast(moments)
    optimizer.load_state_tensors(decoder, adamw, moments)
    average = None
    if node.stage.averages is not None and position.average_begin is not None:
        copied = (kept or Decoder(node.model, node.vocab_size)).to(there)
        if not position.has_average:
            copied.load_state_dict(decoder.state_dict())
        ranks.broadcast(copied.state_dict())
        average = Average(node.stage.averages, position.average_begin, copied)
    return Placed(
        objective,
        bare,
        adamw,
        average,
        None if average is None else Objective(average.model, bare.separator),
        in_parts=False,
    )


def _in_parts(node: Node, position: Position, ranks: Ranks, execution: Execution, there: torch.device) -> Placed:
    bare = _split(node, execution, there)
    begin, averages = position.average_begin, node.stage.averages
    bare_average = None if averages is None else _split(node, execution, there)
    moments = optimizer.empty_tensors(bare.decoder) if position.has_moments else {}
    kept = bare_average.decoder if bare_average is not None and position.has_average else None
    into = tensors(bare.decoder, moments, kept)
    if position.folder is not None and position.is_sharded:
        sharded.load(position.folder, into, alone=False)
    else:
        fsdp.hand_out(tensors(*positions.load(position, node)) if ranks.is_first else None, into)
    adamw = optimizer.build(bare.decoder, node.optimizer)
    optimizer.load_state_tensors(bare.decoder, adamw, moments)
    average = None
    if averages is not None and begin is not None and bare_average is not None:
        average = Average(averages, begin, bare_average.decoder)
        if kept is None:
            average.copy(bare.decoder)
    return Placed(bare, bare, adamw, average, bare_average, in_parts=True)


def _split(node: Node, execution: Execution, there: torch.device) -> Objective:
    """A decoder's objective of which every rank has a part, without values."""
    with torch.device("meta"):
        objective = Objective(Decoder(node.model, node.vocab_size), separator_of(node))
    prepare(objective.decoder, execution)
    fsdp.shard(objective, objective.decoder.model.layers, there, node.model.precision)
    with there:
        objective.decoder.set_angles()
    return objective


def _gathered(decoder: Decoder) -> Decoder:
    """The whole of a decoder in parts, on the first rank's CPU."""
    with torch.device("meta"):
        found = Decoder(decoder.config, decoder.vocab_size)
    values = {name: fsdp.gathered(one) for name, one in decoder.state_dict().items()}
    found.load_state_dict(values, strict=False, assign=True)
    return found
