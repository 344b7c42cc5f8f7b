"""Makes cards from findings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from analysis.findings import Findings
from analysis.ledger.card import (
    Architecture,
    Audit,
    Card,
    EvaluationProtocols,
    EvaluationTask,
    Hyperparameters,
    RunPart,
    RunScore,
    Stretch,
    Weights,
)
from analysis.ledger.compute import Supply, compute
from analysis.ledger.data import data, mixture
from analysis.ledger.environment import environment
from analysis.ledger.negatives import negatives
from analysis.ledger.openness import openness
from analysis.ledger.scope import Scope
from analysis.published import SOURCE
from davinci import imported
from davinci.accounting.shapes import parameters
from davinci.errors import UserError, nearest
from davinci.planning.plan import PlannedRun
from davinci.planning.sweep import Arm
from davinci.planning.wording import some


def sweep_card(found: Findings, supply: Supply | None = None) -> Card:
    """The card of a whole sweep."""
    return _card(Scope(found, found.sweep.plan.runs), None, supply)


def run_card(found: Findings, name: str, supply: Supply | None = None) -> Card:
    """The card of one model: of the run with this id, the beginning of it that no other run has, or ARM/SEED.

    Raises:
        UserError: no run of the sweep is called so, or several are.
    """
    run = _named(found.sweep.plan.runs, name, found.sweep.plan.sweep)
    return _card(Scope(found, (run,)), run, supply)


def _named(runs: Sequence[PlannedRun], name: str, sweep: str) -> PlannedRun:
    called = {f"{run.arm}/{run.seed}": run for run in runs} | {run.id: run for run in runs}
    if name in called:
        return called[name]
    starts = [run for run in runs if name and run.id.startswith(name)]
    if len(starts) > 1:
        raise UserError(f"--run {name!r} names {len(starts)} runs: {some([run.id for run in starts])}")
    if not starts:
        raise UserError(f"--run: sweep {sweep!r} has no run {name!r}{nearest(name, called)}")
    return starts[0]


def _card(scope: Scope, run: PlannedRun | None, supply: Supply | None) -> Card:
    plan, paper = scope.plan, scope.plan.question.paper
    sources, shapes, place = data(scope), tuple(_architecture(scope)), environment(scope)
    lost = negatives(scope)
    place_in_paper = f", Table {paper.table}" if paper and paper.table else ""
    return Card(
        kind="sweep" if run is None else "run",
        sweep=plan.sweep,
        title=plan.question.text if run is None else f"{run.arm}, seed {run.seed} of {plan.sweep}",
        paper=f"{SOURCE}, section {paper.section}{place_in_paper}" if paper else None,
        arms=tuple(arm.label for arm in scope.arms),
        seeds=tuple(dict.fromkeys(one.seed for one in scope.runs)),
        runs=len(scope.runs),
        run=None if run is None else _run_part(scope, run),
        openness=openness(scope, sources, shapes, place, lost),
        data=sources,
        mixture=mixture(scope),
        compute=compute(scope, supply or Supply()),
        architecture=shapes,
        hyperparameters=tuple(_hyperparameters(scope)),
        environment=place,
        evaluation=_evaluation(scope),
        audit=Audit(
            verdict=plan.audit.verdict,
            factor=plan.audit.factor,
            differing=plan.audit.differing,
            derived=plan.audit.derived,
            held_fixed=plan.audit.held_fixed,
            claim=plan.audit.claim.text if plan.audit.claim else None,
            findings=tuple(f"{one.level}: {one.text}" for one in plan.audit.findings),
        ),
        negatives=lost,
        notes=tuple(scope.found.sweep.notes),
    )


def _run_part(scope: Scope, run: PlannedRun) -> RunPart:
    sweep = scope.found.sweep
    rows = [row for row in scope.found.grid.all_rows if row.run == run.id]
    names = {moment.tokens: moment.name for moment in scope.found.grid.moments}
    return RunPart(
        id=run.id,
        arm=run.arm,
        seed=run.seed,
        stretches=tuple(
            Stretch(
                node=node.id,
                stage=node.stage_name,
                begin=node.begin,
                end=node.end,
                weights_digest=sweep.done.get(node.id, {}).get("weights_digest"),
                attempts=sweep.spent[node.id].attempts if node.id in sweep.spent else 0,
                spikes=len(sweep.spikes.get(node.id, ())),
                shared_with=len(scope.owners[node.id]) - 1,
            )
            for node in (scope.nodes[name] for name in run.nodes)
        ),
        scores=tuple(
            RunScore(
                benchmark=row.benchmark,
                at=names[row.tokens],
                tokens=int(row.tokens),
                score=None if row.missing else float(row.score),
                items=int(row.items),
                key=row.key,
            )
            for row in rows
        ),
    )


def _alike(arms: Sequence[Arm], what: Callable[[Arm], Any]) -> Iterable[tuple[tuple[str, ...], Any]]:
    """The arms of each distinct value of `what`, plain JSON."""
    labels: dict[str, list[str]] = {}
    for arm in arms:
        labels.setdefault(json.dumps(what(arm), sort_keys=True), []).append(arm.label)
    return [(tuple(of), json.loads(text)) for text, of in labels.items()]


def _architecture(scope: Scope) -> Iterable[Architecture]:
    size = {
        json.dumps(arm.config.model.model_dump(mode="json"), sort_keys=True): parameters(
            arm.config.model, arm.config.pool.vocab_size
        )
        for arm in scope.arms
    }
    for arms, model in _alike(scope.arms, lambda arm: arm.config.model.model_dump(mode="json")):
        yield Architecture(
            arms=arms,
            parameters=size[json.dumps(model, sort_keys=True)],
            model=model,
            begins_with=_weights(scope, model["pretrained"]),
        )


def _weights(scope: Scope, named: dict[str, str] | None) -> Weights | None:
    if named is None:
        return None
    found: imported.Imported | None = None
    with suppress(UserError):  # it may be gone since, or another of its name be there
        found = imported.read(scope.store, named["name"])
    if found is None or found.digest != named["digest"]:
        return Weights(**named, source=None, architecture=None, licence=None)
    return Weights(**named, source=found.source, architecture=found.architecture, licence=found.licence)


def _hyperparameters(scope: Scope) -> Iterable[Hyperparameters]:
    def told(arm: Arm) -> dict[str, Any]:
        stages = arm.config.curriculum.stages.items()
        return {
            "seeds_from": arm.config.seeds_from,
            "optimizer": arm.config.optimizer.model_dump(mode="json"),
            "stages": {name: stage.model_dump(mode="json", exclude={"mixture"}) for name, stage in stages},
        }

    seeds = tuple(dict.fromkeys(run.seed for run in scope.runs))
    for arms, values in _alike(scope.arms, told):
        yield Hyperparameters(arms=arms, seeds=seeds, **values)


def _evaluation(scope: Scope) -> EvaluationProtocols:
    suites = [arm.config.evaluation for arm in scope.arms]
    wanted = {run.id for run in scope.runs}
    items: dict[str, int] = {}
    for row in scope.found.grid.all_rows:
        if row.run in wanted:
            items[row.benchmark] = max(items.get(row.benchmark, 0), int(row.items))
    tasks: dict[str, list[str]] = {}
    for arm in scope.arms:
        for name, one in arm.config.evaluation.benchmarks.items():
            about = {"name": name, **one.model_dump(mode="json", exclude={"items", "tokens_per_item"})}
            tasks.setdefault(json.dumps(about), []).append(arm.label)
    return EvaluationProtocols(
        harness=tuple(dict.fromkeys(one.harness for one in suites)),
        keys=tuple(dict.fromkeys(one.key for one in suites)),
        benchmarks=tuple(
            EvaluationTask(**about, arms=tuple(arms), items=items.get(about["name"], 0))
            for about, arms in ((json.loads(text), arms) for text, arms in tasks.items())
        ),
        points=tuple(sorted({point.tokens for run in scope.runs for point in run.points})),
        heldout_sequences=tuple(dict.fromkeys(one.heldout_sequences for one in suites)),
    )
