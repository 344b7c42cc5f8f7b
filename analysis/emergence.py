"""When capabilities emerge: probes against chance over the token axis.

A capability has emerged at the first token count from which on, to the last one probed and over at least `FEWEST`
passes, the lower end of the accuracy's 95% Wilson interval (Wilson 1927, JASA 22:209, over the items) stays above
chance. An arm's accuracy is the mean over its seeds: they answer the same items, so that more seeds make the mean
steadier but add no items to the interval.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.load import Sweep
from analysis.tables import Table, Value, percent
from davinci.evaluation.probe_key import set_key
from davinci.planning.identity import human_tokens

FEWEST = 2
Z = 1.959964


@dataclass(frozen=True)
class Pass:
    """One capability at one token count: accuracy and margin (nats) are means over seeds, `low` the interval's end."""

    tokens: int
    accuracy: float
    low: float
    margin: float
    seeds: int


@dataclass(frozen=True)
class Course:
    """One capability of one arm over its probes; `emerged` is None where it has not by the last one."""

    arm: str
    capability: str
    items: int
    chance: float
    passes: tuple[Pass, ...]
    emerged: int | None


def courses(sweep: Sweep) -> list[Course]:
    """Every arm's capabilities, in the order of arms and then of names; empty where nothing was probed.

    Only token counts count that every seed of the arm with probes has reached.
    """
    found = []
    for arm in sweep.plan.arms:
        probes = arm.config.evaluation.probes
        if probes is None:
            continue
        key = set_key(probes)
        runs = [run for run in sweep.plan.runs if run.arm == arm.label]
        by_run = []
        for run in runs:
            rows: dict[tuple[str, int], dict[str, float]] = {}
            for node in run.nodes:
                for row in sweep.probes.get(node, ()):
                    if row["suite"] == key:
                        rows[str(row["capability"]), int(row["tokens"])] = row
            if rows:
                by_run.append(rows)
        if by_run:
            found += _courses(arm.label, by_run)
    return found


def _courses(arm: str, by_run: Sequence[dict[tuple[str, int], dict[str, float]]]) -> list[Course]:
    places: dict[str, list[int]] = defaultdict(list)
    for capability, tokens in sorted(set.intersection(*(set(rows) for rows in by_run))):
        places[capability].append(tokens)
    found = []
    for capability, at in places.items():
        passes = []
        for tokens in at:
            rows = [rows[capability, tokens] for rows in by_run]
            accuracy = sum(row["accuracy"] for row in rows) / len(rows)
            low = wilson_low(accuracy, int(rows[0]["items"]))
            margin = sum(row["margin"] for row in rows) / len(rows)
            passes.append(Pass(tokens, accuracy, low, margin, len(rows)))
        chance, items = float(rows[0]["chance"]), int(rows[0]["items"])
        found.append(Course(arm, capability, items, chance, tuple(passes), emergence(passes, chance)))
    return found


def emergence(passes: Sequence[Pass], chance: float) -> int | None:
    """The first token count of the stretch above chance that lasts to the end; None where there is none."""
    last = 0
    while last < len(passes) and passes[-1 - last].low > chance:
        last += 1
    return passes[-last].tokens if last >= FEWEST else None


def wilson_low(share: float, items: int) -> float:
    """Lower end of the 95% Wilson interval of a share of `items`."""
    centre = share + Z**2 / (2 * items)
    spread = Z * math.sqrt(share * (1 - share) / items + Z**2 / (4 * items**2))
    return (centre - spread) / (1 + Z**2 / items)


def order(found: Sequence[Course]) -> list[str]:
    """Capabilities as the timeline shows them: the earliest to emerge first, then by how far above chance they end."""

    def rank(capability: str) -> tuple[float, float, str]:
        own = [one for one in found if one.capability == capability]
        when = [one.emerged if one.emerged is not None else math.inf for one in own]
        return min(when), -max(above_chance(one.passes[-1].accuracy, one.chance) for one in own), capability

    return sorted({one.capability for one in found}, key=rank)


def above_chance(accuracy: float, chance: float) -> float:
    """Accuracy rescaled so that chance is 0 and all right is 1; below chance is 0."""
    return max(0.0, (accuracy - chance) / (1 - chance))


def table(found: Sequence[Course]) -> Table:
    """A capability a row: when it emerged and where it ends, for every arm."""
    arms = list(dict.fromkeys(one.arm for one in found))
    by_place = {(one.capability, one.arm): one for one in found}
    lines, data = [], []
    for capability in order(found):
        own = [by_place[capability, arm] for arm in arms if (capability, arm) in by_place]
        line = [Value(capability), Value(str(own[0].items)), Value(percent(own[0].chance))]
        for arm in arms:
            one = by_place.get((capability, arm))
            if one is None:
                line += [Value("not probed", "missing")]
                continue
            when = "at initialisation" if one.emerged == 0 else human_tokens(one.emerged or 0)
            last = percent(one.passes[-1].accuracy)
            has = one.emerged is not None
            line.append(Value(f"{when}, {last}" if has else f"not yet, {last}", "strong" if has else "faint"))
            data += [
                {
                    "arm": arm,
                    "capability": capability,
                    "items": one.items,
                    "chance": one.chance,
                    "emerged": one.emerged,
                    "tokens": step.tokens,
                    "accuracy": step.accuracy,
                    "low": step.low,
                    "margin": step.margin,
                    "seeds": step.seeds,
                }
                for step in one.passes
            ]
        lines.append(tuple(line))
    return Table(
        title="When capabilities emerge: tokens, and accuracy in percent at the last probe",
        headers=("Capability", "Items", "Chance", *arms),
        stubs=1,
        groups=(tuple(lines),) if lines else (),
        notes=(
            "Emerged: from there to the last probe, at least two of them, the lower end of the accuracy's 95% interval "
            "over items is above chance.",
        ),
        data=tuple(data),
    )
