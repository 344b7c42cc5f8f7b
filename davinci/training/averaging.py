"""The average of the weights that a stage may keep beside them (`config.Averages`)."""

from __future__ import annotations

import torch
from torch import Tensor

from davinci.config import Averages
from davinci.model.decoder import Decoder
from davinci.training.fsdp import local


class Average:
    """An average that began at `begin` tokens since initialisation; `model` holds it, float32 as the weights are."""

    def __init__(self, averages: Averages, begin: int, model: Decoder) -> None:
        self.averages, self.begin, self.model = averages, begin, model

    def copy(self, model: Decoder) -> None:
        """Begin with the weights of `model`."""
        for mine, theirs in zip(_tensors(self.model), _tensors(model), strict=True):
            mine.copy_(theirs)

    @torch.no_grad()
    def update(self, model: Decoder, before: int, after: int) -> None:
        """Take in the weights of `model` after the step from `before` to `after` tokens since initialisation."""
        torch._foreach_lerp_(_tensors(self.model), _tensors(model), share(self.averages, self.begin, before, after))


def _tensors(model: Decoder) -> list[Tensor]:
    """What this rank has of a model's weights and of its routers' biases, which are averaged alike: those that balance
    the mean of routers are near the mean of theirs."""
    biases = [one.bias for one in model.experts if one.bias is not None]
    return [local(one) for one in (*model.parameters(), *biases)]


def share(averages: Averages, begin: int, before: int, after: int) -> float:
    """Weight of the newest state in the average, 0 to 1."""
    if averages.half_life_tokens is not None:
        return 1.0 - 2.0 ** ((before - after) / averages.half_life_tokens)
    return (after - before) / (after - begin)
