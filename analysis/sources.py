"""Where a sweep's numbers come from: the store's records, its offline W&B files, or a W&B server; in one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from analysis.metrics import Metrics, from_rows, joined
from analysis.node_records import read_nodes
from analysis.readers import Others
from davinci.errors import UserError, nearest
from davinci.planning.plan import Plan, PlannedRun
from davinci.store import Store
from davinci.tracking.history import averages, metrics, score_prefix, within
from davinci.tracking.wandb_runs import wandb_id


@dataclass
class Recorded:
    """What a source holds of a sweep, by the names of `davinci.tracking.history`.

    Attributes:
        nodes: all metrics but scores by node, those of its own range; a node without any is not there.
        scores: metrics that start with ``eval`` by run (its name).
        probes: probe rows by node, where the source has them as recorded.
        read: nodes, or runs of W&B's, that were not known from last time.
        notes: what a reader must know about gaps and oddities.
    """

    nodes: dict[str, Metrics] = field(default_factory=dict)
    scores: dict[str, Metrics] = field(default_factory=dict)
    probes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def from_store(store: Store, plan: Plan, others: Others) -> Recorded:
    """What the nodes of `plan` recorded."""
    nodes, read = read_nodes(store, plan.sweep, plan.nodes, others)
    found = Recorded(read=read)
    evaluations: dict[str, list[dict[str, Any]]] = {}
    for node, one in nodes.items():
        begin, end = plan.nodes[node].begin, plan.nodes[node].end
        evaluations[node] = [row for row in one.evaluations if within(row["tokens"], begin, end)]
        own = one.metrics.within(begin, end)
        if len(own) or evaluations[node]:
            found.nodes[node] = own
            found.probes[node] = [row for row in one.probes if within(row["tokens"], begin, end)]
        if one.strange:
            found.notes.append(f"{node}: {one.strange} records of a form this version does not know are left out")
    suites = {arm.label: arm.config.evaluation for arm in plan.arms}
    keys = {label: suite.key for label, suite in suites.items()}
    for run in plan.runs:
        suite, key = suites[run.arm], keys[run.arm]
        asked, usual = _asked(run, key), {key: "eval"}
        by_prefix: dict[tuple[int, str], dict[str, dict[str, Any]]] = {}
        for node in run.nodes:
            # Rows of before suites had keys say none: they count where nothing newer does.
            for row in sorted(evaluations[node], key=lambda row: "suite" in row):
                prefixes = asked.get(row["tokens"], usual)
                name, own = str(row["benchmark"]), row.get("suite")
                if own is None and name in suite.benchmarks and suite.benchmarks[name].protocol == row.get("protocol"):
                    own = key
                if own in prefixes:
                    by_prefix.setdefault((row["tokens"], prefixes[own]), {})[name] = row
        rows: dict[int, dict[str, float | str]] = {}
        for (tokens, prefix), named in by_prefix.items():
            for row in named.values():
                rows.setdefault(tokens, {}).update(metrics(row, prefix))
            rows[tokens].update(averages(list(named.values()), prefix))
        found.scores[run.name] = from_rows(rows)
    return found


def _asked(run: PlannedRun, suite: str) -> dict[int, dict[str, str]]:
    """At the run's points: how records name the suite that is asked there, and the prefix of its metrics."""
    found: dict[int, dict[str, str]] = {}
    for point in run.points:
        prefix = score_prefix(point.weights, len(point.states))
        found.setdefault(point.tokens, {})[point.asks(suite)] = prefix
    return found


def from_offline(store: Store, plan: Plan) -> Recorded:
    """What the offline W&B runs below the store hold of the runs of `plan`."""
    from analysis.wandb_files import offline_files, read_run

    files = offline_files(store.wandb)
    ids = {run.id: wandb_id(plan.sweep, run.id) for run in plan.runs}
    if not files.keys() & set(ids.values()):
        raise UserError(
            f"--source offline: {store.wandb} holds no run of sweep {plan.sweep!r}; launch it with tracking=offline, "
            f"or write its files with python -m davinci sync {plan.sweep} --offline"
        )
    runs, notes = {}, []
    for run, identity in ids.items():
        if identity in files:
            one = read_run(files[identity])
            runs[run] = one.history
            if one.damaged:
                notes.append(f"{run}: {one.damaged} damaged parts of its W&B files are left out")
    return from_runs(plan, runs, notes, list(runs))


def from_wandb(store: Store, plan: Plan) -> Recorded:
    """What a W&B server holds of the runs of `plan`."""
    from analysis.wandb_api import histories

    ids = {run.id: wandb_id(plan.sweep, run.id) for run in plan.runs}
    tracking = plan.arms[0].config.tracking
    found, read = histories(store, plan.sweep, tracking.entity, tracking.project, set(ids.values()))
    runs = {run: found[identity] for run, identity in ids.items() if identity in found}
    return from_runs(plan, runs, [], [run for run, identity in ids.items() if identity in read])


def read(source: str, store: Store, plan: Plan, others: Others) -> Recorded:
    """Read from the source of that name; `others` help where there is much to read.

    Raises:
        UserError: there is no such source, or it holds nothing of the sweep.
    """
    known: dict[str, Callable[[Store, Plan], Recorded]] = {
        "store": partial(from_store, others=others),
        "offline": from_offline,
        "wandb": from_wandb,
    }
    if source not in known:
        raise UserError(f"--source {source}: one of {', '.join(known)} is accepted{nearest(source, known)}")
    return known[source](store, plan)


def from_runs(plan: Plan, runs: Mapping[str, Metrics], notes: Iterable[str], read: list[str]) -> Recorded:
    """A sweep from the whole histories of its runs; of a stretch that several share, what any of them has."""
    found = Recorded(read=read, notes=list(notes))
    parts: dict[str, list[Metrics]] = {}
    for run in plan.runs:
        if (whole := runs.get(run.id)) is None:
            found.notes.append(f"{run.id}: W&B has nothing of it")
            continue
        is_score = [name.startswith("eval") for name in whole.names]
        found.scores[run.name] = whole.where(is_score)
        # What the mirror marks stages with is no metric: the frame has a column for it.
        rest = whole.where(not name.startswith(("eval", "stage/")) for name in whole.names)
        rest = replace(rest, texts={})
        for node in run.nodes:
            begin, end = plan.nodes[node].begin, plan.nodes[node].end
            own = rest.within(begin, end)
            if len(own) or len(found.scores[run.name].within(begin, end)):
                parts.setdefault(node, []).append(own)
    for node in plan.nodes:
        if not (some := parts.get(node)):
            continue
        longest = max(some, key=len)
        alike = all(np.isin(one.tokens, longest.tokens).all() for one in some)
        found.nodes[node] = longest if alike else joined(some)
    return found
