"""The average of the weights that a stage may keep beside them (`config.Averages`)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from davinci.config import Averages, Node
from davinci.model.decoder import Decoder
from davinci.model.weights import AVERAGE, load_weights
from davinci.training.distributed import Ranks


class Average:
    """An average that began at `begin` tokens since initialisation; `model` holds it, float32 as the weights are."""

    def __init__(self, averages: Averages, begin: int, model: Decoder) -> None:
        self.averages, self.begin, self.model = averages, begin, model

    @torch.no_grad()
    def update(self, model: nn.Module, before: int, after: int) -> None:
        """Take in the weights of `model` after the step from `before` to `after` tokens since initialisation."""
        torch._foreach_lerp_(
            list(self.model.parameters()),
            [parameter.detach() for parameter in model.parameters()],
            share(self.averages, self.begin, before, after),
        )


def share(averages: Averages, begin: int, before: int, after: int) -> float:
    """Weight of the newest state in the average, 0 to 1."""
    if averages.half_life_tokens is not None:
        return 1.0 - 2.0 ** ((before - after) / averages.half_life_tokens)
    return (after - before) / (after - begin)


def start(node: Node, model: Decoder, tokens: int, folder: Path | None, saved_begin: int | None) -> Average | None:
    """The average that `node` keeps, at `tokens`: the one in the checkpoint `folder`, which began at `saved_begin`, or
    a new one that begins with the weights of `model`; None where the stage keeps none."""
    averages = node.stage.averages
    if averages is None:
        return None
    kept = Decoder(node.model, node.vocab_size)
    begins = tokens == node.stage_begin
    if folder is not None and saved_begin is not None and not (begins and averages.state == "reset"):
        load_weights(kept, folder, AVERAGE)
        return Average(averages, saved_begin, kept)
    kept.load_state_dict(model.state_dict())
    return Average(averages, tokens, kept)


def shared(average: Average | None, node: Node, ranks: Ranks) -> Average | None:
    """The first rank's average on every rank."""
    begin = ranks.share(average and average.begin)
    if begin is None or node.stage.averages is None:
        return None
    if average is None:
        average = Average(node.stage.averages, begin, Decoder(node.model, node.vocab_size))
    ranks.broadcast({name: parameter.detach() for name, parameter in average.model.named_parameters()})
    return average
