"""``evaluate``: checkpoints of a run, or another's model, on a suite; what is evaluated already is only read."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from davinci.commands.names import RunName, find
from davinci.commands.output import aligned, print_json
from davinci.commands.states import Weights, chosen
from davinci.config import Cluster, Evaluation, Node
from davinci.config import asked as asked_as
from davinci.errors import UserError
from davinci.launching.demands import Demand
from davinci.launching.lock import Owner, holder
from davinci.launching.reconcile import Asked, Settings, asked_of
from davinci.planning.identity import human_tokens
from davinci.planning.plan import Plan, PlannedRun, State, load_plan
from davinci.planning.wording import count
from davinci.store import Store, write_json

EXTERNAL = "hf:"


def run(options: argparse.Namespace, store: Store) -> int:
    if options.name.startswith(EXTERNAL):
        return _external(options, store)
    name = find(store, options.name)
    plan = load_plan(store, name if isinstance(name, str) else name.sweep)
    runs = [one for one in plan.runs if isinstance(name, str) or one.id == name.id]
    if not runs and isinstance(name, RunName):
        raise UserError(f"run {name.id} is no longer in the plan of {name.sweep}")
    wanted = _wanted(plan, runs, options, store)
    cluster = plan.arms[0].config.cluster
    if (options.cluster or "local") == "slurm":
        return _submit(plan, wanted, cluster, options, store)
    return _here(wanted, cluster.threads, options, store)


@dataclass(frozen=True)
class _Wanted:
    """A state to evaluate, and its runs among those named."""

    state: State
    node: Node
    asked: Asked
    runs: tuple[str, ...]


def _wanted(plan: Plan, runs: Sequence[PlannedRun], options: argparse.Namespace, store: Store) -> list[_Wanted]:
    """Each state once on each suite, in order of tokens, and the suites in the store for whoever reads the scores."""
    users: dict[tuple[State, str], list[str]] = {}
    suites: dict[str, Evaluation] = {}
    weights: Weights = options.weights or "trained"
    for one in runs:
        suite = _suite(plan, one, options)
        suites[suite.key] = suite
        for state in chosen(plan, one, store, options.checkpoint, weights):
            users.setdefault((state, suite.key), []).append(one.id)
    for key, suite in suites.items():
        write_json(store.suite(key), suite.model_dump(mode="json"))
    settings: Settings = {}
    found = []
    for (state, key), ids in users.items():
        node = plan.nodes[state.node]
        demand = Demand(tokens=state.tokens, suite=asked_as(key, weights), weights=weights)
        (asked,) = asked_of(node, [demand], {demand.suite: suites[key]}, store, settings)
        found.append(_Wanted(state, node, asked, tuple(ids)))
    return sorted(found, key=lambda one: (one.state.tokens, one.state.node))


def _suite(plan: Plan, run: PlannedRun, options: argparse.Namespace) -> Evaluation:
    """The suite asked for, else the run's own."""
    config = plan.config(run)
    own = config.evaluation.model_copy(update={"at": (), "probes": None})
    if options.suite is None and options.override:
        raise UserError(f"--set {options.override[0]}: changes a suite of conf/evaluation; name it with --suite")
    suite = own if options.suite is None else _named(options, options.suite, config.scale.name, config.pool.name)
    return _limited(suite, options)


def _named(options: argparse.Namespace, name: str, scale: str, pool: str) -> Evaluation:
    from davinci.composition.suites import suite  # imports hydra

    return suite(name, scale, pool, options.override)


def _limited(suite: Evaluation, options: argparse.Namespace) -> Evaluation:
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit {options.limit}: accepted are whole numbers from 1")
    update = {"limit": options.limit} if options.limit is not None else {}
    return suite.model_copy(update=update | ({"keep_text": True} if options.keep_text else {}))


def _here(wanted: Sequence[_Wanted], threads: int, options: argparse.Namespace, store: Store) -> int:
    """Evaluate on this machine, one state after another, and print as it goes."""
    from davinci.launching.evaluating import rows_of

    shown = []
    for one in wanted:
        rows = rows_of(one.node, one.asked, store)
        served, owner = bool(rows), None
        if not served:
            rows, owner = _made(one, threads, store)
        shown.append(_numbers(one, rows, served=served) | {"recorded": owner is None})
        if not options.json:
            print(_text(shown[-1]))
            if owner is not None:
                print(f"  not in the records yet: {owner} holds {one.node.id}; run this again when it is through")
    if options.json:
        print_json({"evaluations": shown})
    return 0


def _made(one: _Wanted, threads: int, store: Store) -> tuple[list[dict[str, Any]], Owner | None]:
    """The scores of a state, evaluated now and recorded; but where someone holds its node, that is who, and they are
    only kept."""
    from davinci.launching.evaluating import NoCheckpoint, evaluate_lacking, prepare, results_of, rows_of

    prepare(threads)
    try:
        owner = holder(store.node(one.node.id))
        if owner is not None:
            return [vars(result) for result in results_of(one.asked, one.node, store)], owner
        evaluate_lacking(one.node, [one.asked], store)
    except (NoCheckpoint, FileNotFoundError):
        raise UserError(f"{one.node.id}: its checkpoint at {one.state.tokens} tokens was removed meanwhile") from None
    return rows_of(one.node, one.asked, store), None


def _submit(plan: Plan, wanted: Sequence[_Wanted], cluster: Cluster, options: argparse.Namespace, store: Store) -> int:
    """Submit what is not evaluated yet, a job a node."""
    from davinci.launching.evaluating import rows_of
    from davinci.launching.on_demand import submit

    lacking = [one for one in wanted if not rows_of(one.node, one.asked, store)]
    suites = {one.asked.demand.suite: one.asked.evaluation for one in lacking}
    states = [(one.node, one.asked.demand) for one in lacking]
    ids, new = submit(plan.sweep, states, suites, store, cluster) if lacking else ({}, 0)
    known = len(wanted) - len(lacking)
    if options.json:
        print_json({"jobs": ids, "submitted": new, "evaluated_before": known})
        return 0
    print(f"submitted {count(new, 'job')} for {count(len(lacking), 'state')}; {known} evaluated before")
    if ids:
        print(f"follow: squeue --jobs {','.join(ids.values())}")
        print(f"logs:   {store.jobs(plan.sweep)}")
        print("the same command without --cluster slurm shows the scores once they are done")
    return 0


def _external(options: argparse.Namespace, store: Store) -> int:
    """Evaluate a folder of transformers' weights on this machine."""
    from davinci.evaluation import external

    if options.weights is not None:
        raise UserError(f"--weights {options.weights}: {options.name} has one set of weights, its own")
    suite = _limited(_named(options, options.suite or "embedded", "tiny", options.pool), options)
    model = external.identify(Path(options.name.removeprefix(EXTERNAL)), store)
    served, results = external.evaluate(model, suite, store, pool=options.pool, dtype=options.dtype)
    write_json(store.suite(suite.key), suite.model_dump(mode="json"))
    found = {
        "model": model.name,
        "folder": str(model.folder),
        "suite": suite.suite,
        "suite_key": suite.key,
        "served": served,
        "scores": [_score(vars(result)) for result in results],
    }
    if options.json:
        print_json({"evaluations": [found]})
    else:
        print(_text(found))
    return 0


def _numbers(one: _Wanted, rows: Sequence[Mapping[str, Any]], *, served: bool) -> dict[str, Any]:
    return {
        "runs": list(one.runs),
        "node": one.state.node,
        "tokens": one.state.tokens,
        "suite": one.asked.evaluation.suite,
        "suite_key": one.asked.demand.suite,
        "weights": one.asked.demand.weights,
        "served": served,
        "scores": [_score(row) for row in rows],
    }


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("benchmark", "domain", "protocol", "metric", "score", "items", "chance", "key")
    return {
        **{name: row[name] for name in names},
        "truncated": row.get("truncated", 0),
        "outcomes": row.get("outcomes", {}),
    }


def _text(found: Mapping[str, Any]) -> str:
    """One state's scores, a line a benchmark."""
    scores = found["scores"]
    if "model" in found:
        what = found["model"]
    else:
        runs = found["runs"]
        what = f"{runs[0] if len(runs) == 1 else count(len(runs), 'run')} at {human_tokens(found['tokens'])}"
        what += ", averaged weights" if found["weights"] == "average" else ""
    how = "; evaluated before" if found["served"] else ""
    lines = [f"{what}, suite {found['suite']} ({found['suite_key']}){how}"]
    rows = []
    for one in scores:
        cut = f", {one['truncated']} cut to fit the context" if one["truncated"] else ""
        chance = f", chance {100 * one['chance']:.0f}" if one["chance"] else ""
        ends = "".join(f", {times} {kind}" for kind, times in sorted(one["outcomes"].items()))
        said = f"{one['metric']}, {one['items']} items{chance}{cut}{ends}"
        rows.append((f"  {one['benchmark']}", f"{100 * one['score']:5.1f}  {said}"))
    mean = sum(one["score"] for one in scores) / len(scores)
    rows.append(("  Overall", f"{100 * mean:5.1f}  mean over benchmarks"))
    return "\n".join([*lines, aligned(rows)])
