"""What was evaluated on demand, as if the sweep had asked for it: any suite, at whatever states have scores on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from davinci.config import Evaluation, asked, parse
from davinci.errors import UserError, nearest
from davinci.planning.build import paper_label
from davinci.planning.plan import Plan, PlannedRun, Point
from davinci.store import Store, read_json
from davinci.tracking import records

Weights = Literal["trained", "average"]
# What follows a suite's name where averaged weights were evaluated on it.
AVERAGED = "-average"


def with_suite(plan: Plan, store: Store, name: str) -> Plan:
    """`plan` with the points at which its runs have scores on the suite `name` (its name or key) instead of its own.

    With ``-average`` behind it, of the averages that stages keep of their weights.

    Raises:
        UserError: nothing was evaluated on such a suite, or several of that name were.
    """
    bare = name.removesuffix(AVERAGED)
    weights: Weights = "trained" if bare == name else "average"
    suite = _suite(plan, store, bare, weights)
    found = {node: _tokens(store, node, suite, weights) for node in plan.nodes}
    runs = tuple(run.model_copy(update={"points": _points(plan, run, found, weights)}) for run in plan.runs)
    if not any(run.points for run in runs):
        raise UserError(
            f"--suite {name}: no state of sweep {plan.sweep!r} was evaluated on it; python -m davinci evaluate "
            f"{plan.sweep} --checkpoint all --suite {suite.suite}{' --weights average' if bare != name else ''}"
        )
    suite = suite.model_copy(update={"at": ()})
    arms = tuple(
        arm.model_copy(update={"config": arm.config.model_copy(update={"evaluation": suite})}) for arm in plan.arms
    )
    return plan.model_copy(update={"runs": runs, "arms": arms})


def _suite(plan: Plan, store: Store, name: str, weights: Weights) -> Evaluation:
    """The suite of that name or key, among the sweep's own and those that were evaluated on demand."""
    known = {arm.config.evaluation.key: arm.config.evaluation for arm in plan.arms}
    for path in sorted((store.root / "suites").glob("*.json")):
        known.setdefault(path.stem, parse(Evaluation, read_json(path), lambda key, path=path: str(path)))
    if name in known:
        return known[name]
    named = {key: suite for key, suite in known.items() if suite.suite == name}
    used = {
        key: suite for key, suite in named.items() if any(_tokens(store, node, suite, weights) for node in plan.nodes)
    }
    if len(used) > 1:
        listed = ", ".join(f"{key} ({_said(suite)})" for key, suite in used.items())
        raise UserError(
            f"--suite {name}: {len(used)} suites of that name were evaluated; name one by its key: {listed}"
        )
    if not named:
        raise UserError(
            f"--suite {name}: nothing was evaluated on it" + nearest(name, {suite.suite for suite in known.values()})
        )
    return next(iter((used or named).values()))


def _said(suite: Evaluation) -> str:
    return "all items" if suite.limit is None else f"limit {suite.limit}"


def _tokens(store: Store, node: str, suite: Evaluation, weights: Weights) -> list[int]:
    """Where such weights of the node have a score on every benchmark of the suite."""
    there: dict[int, set[str]] = {}
    for row in records.read(store.records(node), "evaluation"):
        if row.get("suite") == asked(suite.key, weights):
            there.setdefault(row["tokens"], set()).add(row["benchmark"])
    return sorted(tokens for tokens, names in there.items() if names >= suite.benchmarks.keys())


def _points(plan: Plan, run: PlannedRun, found: Mapping[str, list[int]], weights: Weights) -> tuple[Point, ...]:
    trillion = plan.config(run).scale.tokens_per_trillion
    planned = {(point.node, point.tokens): point.label for point in run.points}
    points = []
    for name in run.nodes:
        node = plan.nodes[name]
        for tokens in found[name]:
            if node.begin < tokens <= node.end:
                within = tokens - node.stage_begin
                label = planned.get((name, tokens)) or paper_label(within / trillion * 1e12)
                about = {"stage": node.stage_name, "stage_tokens": within, "label": label, "weights": weights}
                points.append(parse(Point, {"node": name, "tokens": tokens, **about}))
    return tuple(points)
