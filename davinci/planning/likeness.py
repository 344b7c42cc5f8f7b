"""Which runs scatter alike from seed to seed, so that the noise of some speaks of others."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from davinci.accounting.shapes import parameters
from davinci.config import Model, Run

FACTOR = 2  # in parameters, and in tokens


@dataclass(frozen=True)
class Likeness:
    """What makes runs scatter alike: scale, kind of layers, parameters, tokens of the curriculum."""

    scale: str
    layers: tuple[Any, ...]
    parameters: int
    tokens: int

    @classmethod
    def of(cls, config: Run) -> Likeness:
        tokens = sum(stage.tokens for stage in config.curriculum.stages.values())
        return cls(config.scale.name, *_shape(config.model), tokens)

    @classmethod
    def of_plain(cls, config: Mapping[str, Any]) -> Likeness:
        """That of a run's config as plain data, of which no more is read than that takes."""
        tokens = sum(stage["tokens"] for stage in config["curriculum"]["stages"].values())
        return cls(config["scale"]["name"], *_shape_of(json.dumps(config["model"])), tokens)

    def is_like(self, others: Iterable[Likeness]) -> bool:
        """Whether one of `others` is of the same scale and layers, and no more than `FACTOR` larger or smaller."""
        return any(
            (self.scale, self.layers) == (one.scale, one.layers)
            and _is_near(self.parameters, one.parameters)
            and _is_near(self.tokens, one.tokens)
            for one in others
        )


def _is_near(one: int, other: int) -> bool:
    return max(one, other) <= FACTOR * min(one, other)


@functools.lru_cache(maxsize=4096)
def _shape_of(model: str) -> tuple[tuple[Any, ...], int]:
    return _shape(Model.model_validate_json(model))


@functools.lru_cache(maxsize=4096)
def _shape(model: Model) -> tuple[tuple[Any, ...], int]:
    """Kind of layers, and parameters."""
    kinds = (model.attention.kind, model.norm.kind, model.placement.kind, model.mlp.kind)
    layers = (*kinds, model.mixers.pattern, model.experts.count > 0)
    return layers, parameters(model, model.vocab_size)
