"""A stage's learning rate as a function of its own tokens."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, Self, cast

from pydantic import model_validator

from davinci.config.base import Frozen, NotNegative, NotNegativeFloat, Positive, PositiveFloat
from davinci.schedules import Piece

Decay = Literal["linear", "cosine", "exponential", "inverse", "sqrt"]


class LearningRatePiece(Frozen):
    """One stretch of a free-form schedule, from `from_tokens` (stage-relative) to where the next begins.

    `kind` as in `schedules.Piece`; `stop`, the rate at `to_tokens`, is left out where it is constant. `to_tokens` null
    is the end of the stage.
    """

    from_tokens: NotNegative
    to_tokens: Positive | None = None
    kind: Literal["constant"] | Decay
    start: NotNegativeFloat
    stop: NotNegativeFloat | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == "constant") != (self.stop is None):
            raise ValueError("stop, the rate at to_tokens, belongs to every kind but constant, which takes none")
        if self.kind in ("exponential", "inverse") and not (self.start and self.stop):
            raise ValueError(f"kind {self.kind} never reaches 0; start and stop must be positive")
        return self


class LearningRate(Frozen):
    """A stage's learning rate over its own tokens t.

    `start` is the rate after the warmup, ``carry`` the one that the stage before was to end with. The warmup is linear
    from 0 over `warmup_tokens` W.

    ``constant``, ``warmup_constant``: `start` throughout. ``cosine``, ``linear``: after the warmup, from `start` to
    `stop` at the end of the stage. ``inverse_sqrt`` (arXiv 1706.03762, eq. 3; with a timescale and a cooldown arXiv
    2106.04560, section 3.5): ``start sqrt(T / (T + t - W))``, T `timescale_tokens` or else W. ``wsd`` (warmup, stable,
    decay; MiniCPM, arXiv 2404.06395, section 4.2): constant after the warmup. These two then go to `stop` over the last
    `decay_tokens` (which inverse_sqrt may leave out) as `decay` says, see `schedules.Piece`: linear; exponential, as
    MiniCPM; inverse, as WSD-S (arXiv 2410.05192); sqrt (arXiv 2405.18392); cosine. ``pieces``: free form.
    """

    shape: Literal["constant", "warmup_constant", "cosine", "linear", "wsd", "inverse_sqrt", "pieces"]
    start: PositiveFloat | Literal["carry"] | None = None
    stop: NotNegativeFloat | None = None
    warmup_tokens: NotNegative = 0
    decay_tokens: NotNegative = 0
    decay: Decay = "linear"
    timescale_tokens: Positive | None = None
    pieces: tuple[LearningRatePiece, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        shape = self.shape
        decays = shape in ("cosine", "linear", "wsd") or (shape == "inverse_sqrt" and self.decay_tokens > 0)
        if (shape == "pieces") != bool(self.pieces):
            raise ValueError("pieces belong to shape pieces, and it needs them")
        if (shape == "pieces") != (self.start is None):
            raise ValueError(
                f"shape {shape} needs start, a rate or carry" if self.start is None else "shape pieces takes no start"
            )
        if decays and self.stop is None:
            raise ValueError(f"shape {shape} needs stop, the learning rate at the end of the stage")
        if not decays and self.stop not in (None, self.start):
            raise ValueError(
                "shape inverse_sqrt goes to stop over decay_tokens, which are 0"
                if shape == "inverse_sqrt"
                else f"shape {shape} takes no stop; it stays at start"
            )
        if shape in ("constant", "pieces") and self.warmup_tokens:
            raise ValueError(f"shape {shape} takes no warmup_tokens; use warmup_constant or a first piece")
        if (shape == "wsd" and not self.decay_tokens) or (self.decay_tokens and shape not in ("wsd", "inverse_sqrt")):
            raise ValueError(
                "decay_tokens, the length of the decay, belongs to shapes wsd and inverse_sqrt, and wsd needs it"
            )
        if self.decay != "linear" and not self.decay_tokens:
            raise ValueError(f"decay {self.decay} needs decay_tokens, over which a wsd or inverse_sqrt rate decays")
        if self.decay in ("exponential", "inverse") and self.stop == 0:
            raise ValueError(f"decay {self.decay} never reaches 0; stop must be positive")
        if self.timescale_tokens is not None and shape != "inverse_sqrt":
            raise ValueError("timescale_tokens belongs to shape inverse_sqrt")
        if shape == "inverse_sqrt" and not (self.timescale_tokens or self.warmup_tokens):
            raise ValueError("shape inverse_sqrt needs timescale_tokens, or warmup_tokens to take them from")
        return self

    def problem(self, tokens: int) -> str | None:
        """What is wrong with it over a stage of `tokens` tokens; None where nothing is."""
        if self.warmup_tokens + self.decay_tokens > tokens:
            spent = "lr.warmup_tokens" + (" + lr.decay_tokens" if self.decay_tokens else "")
            return f"{spent} {self.warmup_tokens + self.decay_tokens} exceeds the stage's {tokens} tokens"
        ends = [0, *(tokens if piece.to_tokens is None else piece.to_tokens for piece in self.pieces)]
        begins = [*(piece.from_tokens for piece in self.pieces), tokens]
        for index, (end, begin) in enumerate(zip(ends, begins, strict=True) if self.pieces else ()):
            where = f"between lr.pieces.{index - 1} and lr.pieces.{index}"
            if index == 0:
                where = "before lr.pieces.0"
            elif index == len(self.pieces):
                where = f"after lr.pieces.{index - 1}"
            if end < begin:
                return f"lr.pieces leave a gap {where}: no learning rate from token {end} to {begin}"
            if end > begin and index == len(self.pieces):
                return f"lr.pieces.{index - 1}.to_tokens {end} is past the end of the stage ({tokens} tokens)"
            if end > begin:
                return f"lr.pieces overlap {where}: two learning rates from token {begin} to {end}"
        for index, (begin, end) in enumerate(pairwise(begins) if self.pieces else ()):
            if begin >= end:
                return f"lr.pieces.{index} holds no token: from {begin} to {end}"
        return None

    def over(self, tokens: int, begin: int) -> tuple[Piece, ...]:
        """The pieces over a stage of `tokens` tokens, shifted to start at `begin`; a carried `start` must have been
        resolved (`Curriculum.resolved`)."""
        if self.pieces:
            ends = [*(begin + piece.from_tokens for piece in self.pieces[1:]), begin + tokens]
            return tuple(
                Piece(one.kind, begin + one.from_tokens, end, one.start, one.start if one.stop is None else one.stop)
                for one, end in zip(self.pieces, ends, strict=True)
            )
        start = cast(float, self.start)
        warm, end = begin + self.warmup_tokens, begin + tokens
        decay = warm if self.shape in ("cosine", "linear") else end - self.decay_tokens
        pieces = []
        if begin < warm:
            pieces.append(Piece("linear", begin, warm, 0.0, start))
        if warm < decay and self.shape == "inverse_sqrt":
            timescale = self.timescale_tokens or self.warmup_tokens
            pieces.append(Piece.inverse_sqrt(warm, decay, start, timescale))
            start = pieces[-1].stop
        elif warm < decay:
            pieces.append(Piece("constant", warm, decay, start, start))
        if decay < end:
            stop = start if self.stop is None else self.stop
            kind = self.shape if self.shape in ("cosine", "linear") else self.decay
            pieces.append(Piece("constant" if stop == start else kind, decay, end, start, stop))
        return tuple(pieces)
