"""Two runs against each other: how their configs differ, whether that is a controlled comparison, and what it did.

A score's difference is paired by item, and its interval speaks of items alone: one run an arm says nothing of the noise
between seeds. Losses are in `analysis.pair_losses`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.pair_losses import losses
from analysis.pair_parts import Metric, Side
from analysis.samples import DOMAINS, OVERALL, Row, stem
from analysis.statistics import Sample, contributions, estimate, holm
from davinci.planning.audit import LABELS
from davinci.planning.differences import ABSENT, differences
from davinci.planning.wording import some

# What neither trains nor asks anything else: names, where records go, which states are kept and evaluated.
INERT = frozenset({"store", "tracking", "checkpoint_every_tokens", "trunk_seed", "seeds_from"})
INERT_BELOW = (
    *("evaluation.at", "evaluation.probes", "evaluation.keep", "evaluation.keep_text", "evaluation.data"),
    *("evaluation.suite", "curriculum.name", "scale.name", "model.name", "optimizer.name"),
)


@dataclass(frozen=True)
class Difference:
    """One config key: its value in each run, and what allows it (``factor``, ``derived``, ``only``) or "" where
    nothing does."""

    key: str
    left: Any
    right: Any
    allowed: str


@dataclass(frozen=True)
class Pair:
    """The comparison; `uncontrolled` says what makes it so, empty where it is controlled."""

    left: Side
    right: Side
    config: tuple[Difference, ...]
    uncontrolled: tuple[str, ...]
    scores: tuple[Metric, ...]
    losses: tuple[Metric, ...]
    notes: tuple[str, ...]


def compare(left: Side, right: Side) -> Pair:
    """Compare two runs at the last point at which both are evaluated."""
    config, uncontrolled = controlled(left, right)
    scores, notes = _scores(left, right)
    return Pair(
        left, right, tuple(config), tuple(uncontrolled), tuple(scores), tuple(losses(left, right)), tuple(notes)
    )


def controlled(left: Side, right: Side) -> tuple[list[Difference], list[str]]:
    """How the configs differ, and what makes the comparison uncontrolled.

    Of one sweep its control audit decides: keys of the declared factor, and those derived from it, may differ. Runs of
    two sweeps may differ in one thing: a key, or keys below one group such as a stage's mixture. A seed is a thing too.
    """
    one, other = left.sweep.plan, right.sweep.plan
    unlike = {
        key: values
        for key, values in differences(one.config(left.run), other.config(right.run), LABELS | INERT).items()
        if not any(_below(key, name) for name in INERT_BELOW)
    }
    same = one.sweep == other.sweep
    factor = [name.replace("[", ".").replace("]", "") for name in one.audit.factor]
    things = dict.fromkeys(_thing(key) for key in unlike)
    found = []
    for key, (before, after) in sorted(unlike.items()):
        if same:
            by = (
                "factor" if any(_below(key, name) for name in factor) else "derived" if key in one.audit.derived else ""
            )
        else:
            by = "only" if len(things) == 1 else ""
        found.append(Difference(key, before, after, by))
    by_thing: dict[str, list[Difference]] = {}
    for difference in found:
        if not difference.allowed:
            by_thing.setdefault(difference.key if same else _thing(difference.key), []).append(difference)
    reasons = [
        f"{keys[0].key} ({shown(keys[0].left)} against {shown(keys[0].right)})"
        if len(keys) == 1
        else f"{thing} ({len(keys)} keys)"
        for thing, keys in by_thing.items()
    ]
    if left.run.seed != right.run.seed:
        by = "" if unlike else "only"
        found.insert(0, Difference("seed", left.run.seed, right.run.seed, by))
        if not by:
            reasons.insert(0, f"seed ({left.run.seed} against {right.run.seed})")
    for plan in {one.sweep: one, other.sweep: other}.values():
        if plan.audit.verdict != "controlled":
            reasons.append(f"the control audit of sweep {plan.sweep} ({plan.audit.verdict})")
    return found, reasons


def _below(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def _thing(key: str) -> str:
    """What a key belongs to: a field of a stage, or one of the config's groups."""
    parts = key.split(".")
    return ".".join(parts[:4]) if parts[:2] == ["curriculum", "stages"] else parts[0]


def shown(value: Any) -> str:
    """A leaf as YAML writes it."""
    if value is None:
        return "null"
    if value is ABSENT:
        return "absent"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _scores(left: Side, right: Side) -> tuple[list[Metric], list[str]]:
    """Benchmarks, domains and Overall at the last common point, and what a reader must know."""
    mine, theirs = _by_point(left), _by_point(right)
    common = sorted(
        tokens for tokens in mine.keys() & theirs.keys() if set(_asked(mine[tokens])) & set(_asked(theirs[tokens]))
    )
    if not common:
        at = [some([f"{tokens:,}" for tokens in sorted(points)]) or "none" for points in (mine, theirs)]
        return [], [f"No scores to compare: evaluated at {at[0]} tokens, and at {at[1]}."]
    last = common[-1]
    rows, others = _asked(mine[last]), _asked(theirs[last])
    both = [test for test in rows if test in others]
    groups: list[tuple[str, str, list[tuple[str, ...]]]] = [("benchmark", test[0], [test]) for test in both]
    for domain in DOMAINS:
        if members := [test for test in both if rows[test].domain == domain]:
            groups.append(("domain", domain.capitalize(), members))
    groups.append(("domain", OVERALL, both))
    found = []
    for group, name, tests in groups:
        score = [float(np.mean([kept[test].score for test in tests])) for kept in (rows, others)]
        items = _paired_items(left, right, [(rows[test], others[test]) for test in tests])
        sample = Sample((0,), np.array([score[1] - score[0]]), items)
        found.append(Metric(group, name, last, *score, estimate=estimate({"": sample})[""]))
    adjusted = holm([float(one.estimate.p) if one.estimate else math.nan for one in found])
    found = [
        Metric(one.group, one.name, one.tokens, one.left, one.right, one.estimate, p)
        for one, p in zip(found, adjusted, strict=True)
    ]
    notes = [
        f"Scores at {last:,} tokens, the last point both have; ± half of the 95% interval over items, paired by item, "
        "Holm over the rows. One run each: the noise between seeds is not in it."
    ]
    dropped = sorted({test[0] for test in [*rows, *others]} - {test[0] for test in both})
    if dropped:
        notes.append(f"Not asked alike of both, or not scored: {some(dropped, 6)}.")
    return found, notes


def _by_point(side: Side) -> dict[int, list[Row]]:
    """The run's scored rows by tokens."""
    rows = side.sweep.scores[side.sweep.scores["run"] == side.run.id]
    found: dict[int, list[Row]] = {}
    for row in rows.itertuples(index=False):
        if not row.missing:
            found.setdefault(int(str(row.tokens)), []).append(row)
    return found


def _asked(rows: Sequence[Row]) -> dict[tuple[str, ...], Row]:
    return {(row.benchmark, row.protocol, row.metric): row for row in rows}


def _paired_items(left: Side, right: Side, rows: Sequence[tuple[Row, Row]]) -> np.ndarray | None:
    """float64[1, G]: what each item adds to the difference; None where a file is lacking or items are not the same.

    Benchmarks that ask the same items under two protocols have them in common.
    """
    places: dict[tuple[str, str, int], float] = {}
    for mine, theirs in rows:
        one = left.sweep.items.get((mine.node, mine.key, mine.benchmark))
        other = right.sweep.items.get((theirs.node, theirs.key, theirs.benchmark))
        if one is None or other is None or not np.array_equal(one.ids, other.ids):
            return None
        parts = contributions((other.scores - one.scores)[None, :], len(rows))[0]
        for item, part in zip(one.ids.tolist(), parts.tolist(), strict=True):
            key = (mine.domain, stem(mine.benchmark, mine.protocol), item)
            places[key] = places.get(key, 0.0) + part
    return np.array([list(places.values())])
