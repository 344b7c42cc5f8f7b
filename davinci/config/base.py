"""What every part of the config shares: closed, frozen objects, and numbers with bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# Bounds far above what anyone trains, so that a slip of the keyboard is refused before it is laid out in memory.
MOST_TOKENS = 10**15  # the largest public runs saw some 4e13
Tokens = Annotated[int, Field(gt=0, le=MOST_TOKENS)]
MOST_WORDS = 10**7  # the largest public vocabularies have some 260,000
Words = Annotated[int, Field(gt=0, le=MOST_WORDS)]
Rate = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]


class Frozen(BaseModel):
    """Immutable, strict, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
