"""What a sweep can tell apart from noise, by the noise that its file states or that earlier sweeps of the store had."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any

from davinci.accounting.power import detectable, seeds_needed
from davinci.config import Evaluation
from davinci.errors import UserError
from davinci.planning.heldout_metrics import HeldOutMetric, heldout_metric
from davinci.planning.likeness import Likeness
from davinci.planning.plan import Power
from davinci.planning.sweep import Sweep
from davinci.store import Store, read_json
from davinci.tracking.records import read

OVERALL = "Overall"
# Degrees of freedom beyond which no more runs are read: the standard deviation is then known to 10%.
ENOUGH = 50


def power(sweep: Sweep, store: Store | None) -> Power | None:
    """What the sweep can detect, and the seeds its `difference` takes; None where nothing is known of the noise."""
    noise, source = sweep.noise, f"stated in the file of {sweep.name}"
    if noise is None:
        found = None if store is None else measured(sweep, store)
        if found is None:
            return None
        noise, source = found
    seeds = len(sweep.seeds)
    return Power(
        noise=noise,
        source=source,
        seeds=seeds,
        detectable=detectable(noise, seeds),
        difference=sweep.difference,
        seeds_needed=None if sweep.difference is None else seeds_needed(noise, sweep.difference),
        unit=held.unit if (held := heldout_metric(_metric(sweep))) else "points",
    )


def _metric(sweep: Sweep) -> str:
    """What the sweep is about: its hypothesis's metric, or Overall."""
    return sweep.question.hypothesis.metric if sweep.question.hypothesis else OVERALL


def measured(sweep: Sweep, store: Store) -> tuple[float, str] | None:
    """Noise of the sweep's metric in launched sweeps of its suite whose arms are like its own (`planning.likeness`), in
    points (of a held-out loss in its unit), and where it is from.

    The standard deviation from seed to seed of differences between an arm and the baseline arm of its sweep, seed
    by seed, at the last point both were evaluated at; pooled over arms and sweeps, this sweep and the newest first. The
    metric is the hypothesis's, or Overall. None where no two seeds differ.
    """
    config = sweep.baseline.config
    metric = _metric(sweep)
    own = {Likeness.of(arm.config) for arm in sweep.arms}
    squares, dof, sources = 0.0, 0, []
    seen: set[frozenset[_Point]] = set()
    for name, launched in _launched(sweep.name, store):
        arms, most_seeds = 0, 0
        for pairs in _pairs(launched, own, config.evaluation.key):
            differences, points = _differences(pairs, metric, config.evaluation, store)
            if len(differences) < 2 or points in seen:  # the same runs may be part of several sweeps
                continue
            seen.add(points)
            mean = fmean(differences)
            squares += sum((one - mean) ** 2 for one in differences)
            dof += len(differences) - 1
            arms, most_seeds = arms + 1, max(most_seeds, len(differences))
            if dof >= ENOUGH:
                break
        if arms:
            sources.append(f"{most_seeds} seeds x {arms} arm{'s' * (arms > 1)} of {name}")
        if dof >= ENOUGH:
            break
    if squares == 0.0:
        return None
    more = f" and {len(sources) - 3} more sweeps" if len(sources) > 3 else ""
    return (squares / dof) ** 0.5, f"{metric} from {', '.join(sources[:3])}{more}"


@dataclass(frozen=True)
class _Point:
    """A state that was to be evaluated."""

    node: str
    tokens: int


# By seed, what an arm and its baseline were evaluated at: (arm, baseline), at equal tokens, the last first.
_Pairs = list[list[tuple[_Point, _Point]]]


def _launched(first: str, store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """Launched plans of the store as plain data, `first` first, then the newest: a plan of thousands of runs takes
    seconds to validate, and four of its keys are read here."""
    paths = sorted((store.root / "sweeps").glob("*/launched.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in sorted(paths, key=lambda path: path.parent.name != first):
        try:
            data = read_json(path)
        except UserError:  # a damaged file says nothing of noise; whoever needs that sweep is told
            continue
        if isinstance(data, dict) and data.keys() >= {"arms", "runs"}:
            yield path.parent.name, data


def _pairs(launched: dict[str, Any], wanted: Collection[Likeness], suite: str) -> Iterator[_Pairs]:
    """For each arm of the suite that is like one `wanted`, its runs' points beside those of the baseline arm's run of
    the same seed."""
    keys: dict[str, str] = {}
    try:
        arms = {arm["label"]: arm for arm in launched["arms"] if Likeness.of_plain(arm["config"]).is_like(wanted)}
        for label, arm in arms.items():
            plain = json.dumps(arm["config"]["evaluation"])
            if plain not in keys:
                keys[plain] = Evaluation.model_validate_json(plain).key
            keys[label] = keys[plain]
    except (KeyError, ValueError):  # of another version, whose configs are not read here
        return
    runs: dict[str, dict[int, dict[int, _Point]]] = {}
    for run in launched["runs"]:
        points = {point["tokens"]: _Point(point["node"], point["tokens"]) for point in run["points"]}
        runs.setdefault(run["arm"], {})[run["seed"]] = points
    baseline = next((label for label, arm in arms.items() if arm["is_baseline"]), None)
    if baseline is None or keys[baseline] != suite:
        return
    for label in arms:
        if label == baseline or keys[label] != suite:
            continue
        yield [
            [(mine[tokens], theirs[tokens]) for tokens in sorted(mine.keys() & theirs.keys(), reverse=True)]
            for seed, mine in runs.get(label, {}).items()
            if (theirs := runs.get(baseline, {}).get(seed)) is not None
        ]


def _differences(
    pairs: _Pairs, metric: str, evaluation: Evaluation, store: Store
) -> tuple[list[float], frozenset[_Point]]:
    """Differences, in the metric's unit, at the last token count where two seeds have both, and what they are of."""
    held = heldout_metric(metric)
    for tokens in sorted({mine.tokens for seed in pairs for mine, _ in seed}, reverse=True):
        # a shared trunk differs from itself by nothing
        both = [(mine, theirs) for mine, theirs in chain.from_iterable(pairs) if mine.tokens == tokens]
        both = [(mine, theirs) for mine, theirs in both if mine.node != theirs.node]
        if len(both) < 2:  # records of hundreds of arms of one seed need not be read
            continue
        found, points = [], set()
        for mine, theirs in both:
            left, right = (
                _loss(point, held, store) if held else _score(point, metric, evaluation, store)
                for point in (mine, theirs)
            )
            if left is not None and right is not None:
                found.append((1 if held else 100) * (left - right))
                points |= {mine, theirs}
        if len(found) > 1:
            return found, frozenset(points)
    return [], frozenset()


def _score(point: _Point, metric: str, evaluation: Evaluation, store: Store) -> float | None:
    """Mean score (0 to 1) of the metric's benchmarks; None where one is missing or the suite has no such metric."""
    wanted = _benchmarks(metric, evaluation)
    scores = {
        row["benchmark"]: row["score"]
        for row in read(store.records(point.node), kind="evaluation")
        if row["tokens"] == point.tokens and row.get("suite") == evaluation.key and row["score"] is not None
    }
    return fmean(scores[name] for name in wanted) if wanted and scores.keys() >= set(wanted) else None


def _loss(point: _Point, metric: HeldOutMetric, store: Store) -> float | None:
    """The held-out metric at the point; None where it was not measured there."""
    values = {
        row["domain"]: row[metric.value]
        for row in read(store.records(point.node), kind="heldout")
        if row["tokens"] == point.tokens
    }
    wanted = [values.get(metric.domain)] if metric.domain else list(values.values())
    known = [value for value in wanted if value is not None]
    return fmean(known) if known and len(known) == len(wanted) else None


def _benchmarks(metric: str, evaluation: Evaluation) -> Sequence[str]:
    """The benchmarks a column is the mean of: one by its name, a domain's, or all."""
    named = [name for name in evaluation.benchmarks if name.lower() == metric.lower()]
    if named:
        return named
    return [name for name, one in evaluation.benchmarks.items() if metric.lower() in (OVERALL.lower(), one.domain)]
