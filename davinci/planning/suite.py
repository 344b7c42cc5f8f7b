"""Several plans of one tree as one plan."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from davinci.planning.build import missing_sources, slug
from davinci.planning.cost import Probe, cost, node_flops
from davinci.planning.plan import Audit, Epochs, Finding, Plan, PlannedRun, Study
from davinci.planning.stored import finished
from davinci.planning.sweep import Question, Sweep
from davinci.planning.wording import some
from davinci.store import Store


def join_plans(
    name: str, question: Question, plans: Sequence[Plan], *, store: Store | None = None, probe: Probe | None = None
) -> Plan:
    """The plan of a suite: all runs of its studies, each shared node once.

    An arm is labelled ``study: arm``, and what the audit says of a study begins with its name. Each study keeps its
    own baseline; the suite's is the first one's.

    Args:
        name: of the suite.
        question: of the suite.
        plans: of the studies, made by one call of `build_plans`.
        store: what is finished there costs nothing.
        probe: measured speed, as given to `build_plans`.
    """
    nodes = {node.id: node for plan in plans for node in plan.nodes.values()}
    flops = {node.id: node_flops(node) for node in nodes.values()}
    arms = tuple(arm.model_copy(update={"label": _label(plan, arm.label)}) for plan in plans for arm in plan.arms)
    runs = tuple(_renamed(plan, run) for plan in plans for run in plan.runs)
    seeds = tuple(dict.fromkeys(seed for plan in plans for seed in plan.seeds))
    done = finished(store, nodes)
    left = nodes.keys() - done
    users = Counter(node for plan in plans for node in plan.nodes)
    return Plan(
        sweep=name,
        question=question,
        arms=arms,
        seeds=seeds,
        runs=runs,
        nodes=nodes,
        tokens_unshared=sum(plan.tokens_unshared for plan in plans),
        tokens_shared=sum(node.end - node.begin for node in nodes.values()),
        tokens_left=sum(nodes[node].end - nodes[node].begin for node in left),
        flops_unshared=math.fsum(plan.flops_unshared for plan in plans),
        flops=math.fsum(flops.values()),
        flops_left=math.fsum(flops[node] for node in left),
        audit=_audit(plans),
        epochs=tuple(_epochs(plan, row) for plan in plans for row in plan.epochs),
        warnings=_warnings(plans),
        cost=cost(Sweep(name, question, arms, seeds, ()), runs, nodes, done, probe),
        power=None,
        orphans=tuple(
            orphan.model_copy(update={"arm": _label(plan, orphan.arm)}) for plan in plans for orphan in plan.orphans
        ),
        missing_sources=missing_sources(nodes.values()),
        studies=tuple(
            Study(
                sweep=plan.sweep,
                runs=len(plan.runs),
                tokens_unshared=plan.tokens_unshared,
                tokens_shared=plan.tokens_shared,
                tokens_own=sum(node.end - node.begin for node in plan.nodes.values() if users[node.id] == 1),
                flops_unshared=plan.flops_unshared,
                flops=plan.flops,
                verdict=plan.audit.verdict,
            )
            for plan in plans
        ),
    )


def _label(plan: Plan, arm: str) -> str:
    return f"{plan.sweep}: {arm}"


def _renamed(plan: Plan, run: PlannedRun) -> PlannedRun:
    return run.model_copy(update={"id": f"{slug(plan.sweep)}-{run.id}", "arm": _label(plan, run.arm)})


def _epochs(plan: Plan, row: Epochs) -> Epochs:
    return row.model_copy(update={"arms": tuple(_label(plan, arm) for arm in row.arms)})


def _warnings(plans: Sequence[Plan]) -> tuple[str, ...]:
    """Each warning once, with the studies it is of unless it is of all."""
    studies: dict[str, list[str]] = {}
    for plan in plans:
        for text in plan.warnings:
            studies.setdefault(text, []).append(plan.sweep)
    return tuple(text if len(of) == len(plans) > 1 else f"{some(of)}: {text}" for text, of in studies.items())


def _audit(plans: Sequence[Plan]) -> Audit:
    audits = [plan.audit for plan in plans]
    return Audit(
        factor=tuple(dict.fromkeys(key for one in audits for key in one.factor)),
        differing=tuple(dict.fromkeys(key for one in audits for key in one.differing)),
        derived=tuple(dict.fromkeys(key for one in audits for key in one.derived)),
        held_fixed=tuple(dict.fromkeys(budget for one in audits for budget in one.held_fixed)),
        findings=tuple(
            Finding(level=finding.level, text=f"{plan.sweep}: {finding.text}")
            for plan in plans
            for finding in plan.audit.findings
        ),
    )
