"""Tune, then compare: which value of one key each variant of a sweep does best with, and the variants at their own.

The first sweep has every variant with every value of a key, such as `scale.peak_lr`. A value is picked by the held-out
loss alone (bits a byte, the mean over domains, at the end), no benchmark is looked at. The second sweep trains the
picked arms with seeds that no pick has seen: what a lucky pick gained on its own seed is not in what is reported. The
held-out text is the same in both; what of a pick is due to that text stays in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.load import Sweep
from analysis.pooling import pooling_efficiency
from analysis.statistics import Estimate, Sample, estimate, holm
from analysis.tables import Table, Value, points
from davinci.accounting.flops import train_flops_per_token
from davinci.accounting.power import LEVEL
from davinci.accounting.shapes import active_parameters, parameters
from davinci.config import Run
from davinci.errors import UserError
from davinci.planning.sweep import Arm


@dataclass(frozen=True)
class Pick:
    """What was picked for one variant.

    Attributes:
        variant: the arm's overrides without the key's, as they stand in the sweep.
        label: the arm's, without the key's value.
        losses: value -> held-out bits a byte; NaN where the run is not finished.
        value: the one with the lowest; None where a run is not finished.
        is_baseline: whether it is the baseline's variant.
    """

    variant: tuple[str, ...]
    label: str
    losses: Mapping[str, float]
    value: str | None
    is_baseline: bool

    @property
    def at_edge(self) -> bool:
        """Whether the best value is the lowest or the highest tried, so that a better one may lie beyond."""
        values = sorted(self.losses, key=float)
        return self.value in (values[0], values[-1])


def lowest(losses: Mapping[str, float]) -> str | None:
    """The value with the lowest loss, the smaller of two equals; None while one is missing, since a pick among fewer
    would not be fair. A run whose loss is infinite has been run, and has lost."""
    if any(math.isnan(loss) for loss in losses.values()):
        return None
    return min(losses, key=lambda value: (losses[value], float(value)))


def bits_per_byte(sweep: Sweep) -> dict[tuple[str, int], float]:
    """(arm, seed) -> held-out bits a byte of the trained weights at the end, the mean over domains; NaN where the end
    has none yet."""
    held = sweep.heldout
    found = {}
    for run in sweep.plan.runs:
        last = run.nodes[-1]
        rows = held[(held["node"] == last) & ~held["averaged"].astype(bool)] if len(held) else held
        rows = rows[rows["tokens"] == sweep.plan.nodes[last].end] if len(rows) else rows
        value = float(rows["bits_per_byte"].mean()) if len(rows) else math.nan
        diverged = len(rows) > 0 and math.isnan(value)
        found[run.arm, run.seed] = math.inf if diverged else value
    return found


def picks(sweep: Sweep, key: str) -> list[Pick]:
    """The pick of every variant, in the order of the arms; over several seeds by their mean.

    Raises:
        UserError: the sweep's arms do not set `key`.
    """
    losses = bits_per_byte(sweep)
    variants: dict[tuple[str, ...], dict[str, Arm]] = {}
    for arm in sweep.plan.arms:
        own = [text for text in arm.overrides if text.startswith(f"{key}=")]
        if not own:
            raise UserError(f"sweep {sweep.plan.sweep}: arm {arm.label!r} does not set {key}; tune a key of its grid")
        rest = tuple(text for text in arm.overrides if text not in own)
        variants.setdefault(rest, {})[own[-1].partition("=")[2]] = arm
    found = []
    for rest, arms in variants.items():
        mean = {
            value: float(np.mean([losses[arm.label, seed] for seed in sweep.plan.seeds])) for value, arm in arms.items()
        }
        value, arm = next(iter(arms.items()))
        label = arm.label.removesuffix(f" {key.rpartition('.')[2]}={value}")
        found.append(Pick(rest, label, mean, lowest(mean), any(one.is_baseline for one in arms.values())))
    return found


def picks_table(found: Sequence[Pick], key: str) -> Table:
    """A variant a row: the held-out loss at every value, the picked one strong."""
    values = sorted({value for one in found for value in one.losses}, key=float)
    lines = [
        (
            Value(one.label),
            *(_loss(one.losses.get(value, math.nan), value == one.value) for value in values),
            Value("not finished", "missing") if one.value is None else Value("edge" if one.at_edge else ""),
        )
        for one in found
    ]
    return Table(
        title=f"Held-out bits a byte by {key}",
        headers=("Variant", *values, ""),
        stubs=1,
        groups=(tuple(lines),),
        notes=("Edge: the best is the lowest or highest tried; a better one may lie beyond.",)
        * any(one.at_edge for one in found),
        data=tuple({"variant": one.label, "value": one.value, **dict(one.losses)} for one in found),
    )


def comparing_file(file: Mapping[str, Any], found: Sequence[Pick], key: str, seeds: Sequence[int]) -> dict[str, Any]:
    """The sweep file that compares the variants at what was picked for them, with `seeds`.

    Args:
        file: content of the sweep file that was tuned by.

    Raises:
        UserError: a variant is not tuned yet.
    """
    unfinished = [one.label for one in found if one.value is None]
    if unfinished:
        raise UserError(f"{len(unfinished)} of {len(found)} variants are not tuned yet: {', '.join(unfinished[:5])}")
    grid = {name: values for name, values in file.get("grid", {}).items() if name != key}
    changed = {
        "arms": {one.label: [*one.variant, f"{key}={one.value}"] for one in found},
        "baseline": next(one.label for one in found if one.is_baseline),
        "seeds": list(seeds),
    }
    return {name: value for name, value in {**file, **changed, "grid": grid}.items() if value}


@dataclass(frozen=True)
class Compared:
    """A variant at its own value: bits a byte, the difference to the baseline paired by seed, p after Holm."""

    label: str
    config: Run
    level: Estimate | None
    difference: Estimate | None
    p: float
    seeds: int


def compared(sweep: Sweep) -> list[Compared]:
    """Every arm of the second sweep. Seeds that are not finished are left out, and counted."""
    losses = bits_per_byte(sweep)
    samples = {}
    for arm in sweep.plan.arms:
        own = {seed: losses[arm.label, seed] for seed in sweep.plan.seeds if math.isfinite(losses[arm.label, seed])}
        if own:
            samples[arm.label] = Sample(tuple(own), np.array(list(own.values())), None)
    base = next(arm.label for arm in sweep.plan.arms if arm.is_baseline)
    gaps = {}
    for label, sample in samples.items():
        if label != base and base in samples and (gap := sample.minus(samples[base])) is not None:
            gaps[label] = gap
    levels, differences = _estimated(samples), _estimated(gaps)
    adjusted = dict(zip(differences, holm([float(one.p) for one in differences.values()]), strict=True))
    return [
        Compared(
            arm.label,
            arm.config,
            levels.get(arm.label),
            differences.get(arm.label),
            adjusted.get(arm.label, math.nan),
            len(samples[arm.label].seeds) if arm.label in samples else 0,
        )
        for arm in sweep.plan.arms
    ]


def _estimated(cells: Mapping[str, Sample]) -> dict[str, Estimate]:
    """Intervals, the variance pooled over variants: they share the order of the data, and differences the baseline."""
    return estimate(cells, pooling_efficiency([list(cells.values())]))


def compared_table(sweep: Sweep, key: str) -> Table:
    """Variant, its value, size, cost, and what it came to against the baseline."""
    found = compared(sweep)
    base = next(arm for arm in sweep.plan.arms if arm.is_baseline).config
    wanted, seeds = _flops(base), len(sweep.plan.seeds)
    lines, data = [], []
    for one in found:
        model, flops = one.config.model, _flops(one.config)
        value = _value(one.config, key)
        sizes = parameters(model, model.vocab_size), active_parameters(model, model.vocab_size)
        gap = one.difference
        verdict = "" if gap is None or not gap.covers else _verdict(float(gap.mean), one.p)
        lines.append(
            (
                Value(one.label),
                Value(f"{value:g}"),
                *(Value(f"{size:,}") for size in sizes),
                Value(f"{flops / 1e6:.3f}"),
                Value(f"{points(100 * (flops / wanted - 1), signed=True, decimals=2)}%"),
                Value("not finished", "missing")
                if one.level is None
                else Value(_interval(one.level, one.seeds, seeds)),
                Value("") if gap is None else Value(_interval(gap, one.seeds, seeds, signed=True)),
                Value(verdict, "plain" if verdict in ("better", "worse") else "faint"),
            )
        )
        data.append(
            {
                "variant": one.label,
                "value": value,
                "parameters": sizes[0],
                "active": sizes[1],
                "flops_per_token": flops,
                "match": flops / wanted - 1,
                "bits_per_byte": None if one.level is None else float(one.level.mean),
                "difference": None if gap is None else float(gap.mean),
                "half": None if gap is None else float(gap.half_width),
                "p": one.p,
                "seeds": one.seeds,
                "verdict": verdict,
            }
        )
    last = key.rpartition(".")[2]
    return Table(
        title="Variants, each at its own picked value",
        headers=(
            "Variant",
            last,
            "parameters",
            "active",
            "MFLOPs/token",
            "match",
            "bits/byte",
            "Δ baseline",
            "verdict",
        ),
        stubs=1,
        groups=(tuple(lines),),
        notes=(
            "± half of the 95% interval over seeds (t, variance pooled over variants; differences paired by seed). "
            "None of these seeds had a part in the pick. Verdicts after Holm over the table.",
        ),
        data=tuple(data),
    )


def _verdict(difference: float, p: float) -> str:
    if math.isnan(p) or p >= 1 - LEVEL:
        return "≈ noise"
    return "better" if difference < 0 else "worse"


def _interval(found: Estimate, seeds: int, planned: int, *, signed: bool = False) -> str:
    text = points(float(found.mean), signed=signed, decimals=3)
    if found.covers:
        text += f" ± {float(found.half_width):.3f}"
    return text if seeds == planned else f"{text} [{seeds}/{planned}]"


def _loss(loss: float, is_best: bool) -> Value:
    if math.isnan(loss):
        return Value("–", "missing")
    return Value("diverged" if math.isinf(loss) else f"{loss:.3f}", "strong" if is_best else "plain")


def _value(config: Run, key: str) -> float:
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    return float(found)


def _flops(config: Run) -> float:
    """Training FLOPs a token, the mean over the curriculum."""
    stages = config.curriculum.stages.values()
    model = config.model
    each = [one.tokens * train_flops_per_token(model, model.vocab_size, one.sequence_length) for one in stages]
    return sum(each) / sum(one.tokens for one in stages)
