"""What `launch.py` does with what Hydra composed: plan, print, launch, exit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from davinci.composition.compose import compose, files_of, origin_of, template_of, to_run
from davinci.composition.errors import composition_errors, one_line
from davinci.composition.expand import COMMAND_LINE, Sweep, expand
from davinci.data.build import BUILDERS
from davinci.data.build import build as build_pool
from davinci.data.cards import PoolCard, read_card
from davinci.errors import UserError
from davinci.launching.progress import PatientConsole
from davinci.planning.build import build_plan
from davinci.planning.page import show
from davinci.planning.plan import Arm, Plan, Question
from davinci.store import Store, write_json

# Beside conf/, from wherever launch.py is started.
SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"


def run_single(config: DictConfig) -> NoReturn:
    """Train and evaluate the one run that `hydra.main` composed, in the foreground; exits with the status."""

    def work() -> int:
        if config.sweep is not None:
            raise UserError(f"{COMMAND_LINE}: sweep={config.sweep} is a sweep; add -m")
        overrides = list(HydraConfig.get().overrides.task)
        data = template_of(config, COMMAND_LINE).with_values({"sweep": "single"})
        keys = [line.split("=", 1)[0].lstrip("+~") for line in overrides]
        run = to_run(data, origin_of(files_of(HydraConfig.instance().cfg), keys, COMMAND_LINE))
        arm = Arm(label=run.arm, overrides=tuple(overrides), is_baseline=True)
        sweep = Sweep((run,), Question(text="One run, no question."), (arm,), ())
        _check_audit(config)
        return _apply(sweep, plan_only=bool(config.plan_only), warn_only=True)

    _exit(work)


def run_sweep(arguments: Sequence[str], loader: ConfigLoader) -> NoReturn:
    """Plan and launch the sweep that the arguments of ``launch.py -m`` describe; exits with the status."""

    def work() -> int:
        sweep = expand(arguments, loader, SWEEPS)
        steering = compose(loader, [line for line in arguments if _is_steering(line)], COMMAND_LINE)
        _check_audit(steering)
        return _apply(sweep, plan_only=bool(steering.plan_only), warn_only=steering.audit == "warn")

    _exit(work)


def _check_audit(config: DictConfig) -> None:
    if config.audit not in ("strict", "warn"):
        raise UserError(f"{COMMAND_LINE}: audit={config.audit}: strict or warn is accepted")


def _is_steering(line: str) -> bool:
    return line.split("=", 1)[0] in ("plan_only", "audit")


def _apply(sweep: Sweep, *, plan_only: bool, warn_only: bool) -> int:
    first = sweep.runs[0]
    store = Store(Path(first.store))
    if not plan_only:
        store.require_writable()
    cards = {run.pool.name: _card(store, run.pool.name, build=not plan_only) for run in sweep.runs}
    plan = build_plan(
        sweep.runs,
        question=sweep.question,
        arms=sweep.arms,
        factor=sweep.factor,
        cards=cards,
        done=_done(store),
        warn_only=warn_only,
    )
    console = PatientConsole()
    with suppress(BrokenPipeError):  # nobody reads the page any more: the work goes on
        show(plan, console)
    if plan.audit.verdict == "refused":
        refused = [finding.text for finding in plan.audit.findings if finding.level == "refused"]
        more = f"; and {len(refused) - 3} more, above" if len(refused) > 3 else ""
        said = "; ".join(refused[:3])
        raise UserError(f"the sweep is not controlled: {said}{more} (audit=warn launches it all the same)")
    if plan.missing_sources and not plan_only:
        raise UserError(
            f"pool {first.pool.name}: {len(plan.missing_sources)} sources are not on this machine "
            f"({', '.join(plan.missing_sources[:3])}, …): the plan can be read (plan_only=true) but not launched"
        )
    if plan_only:  # Not plan.json: that is what was launched, and what status and report go by.
        path = store.sweep(plan.sweep) / "plan_only.json"
        store.require_writable()
        write_json(path, plan.model_dump(mode="json"))
        console.print(f"plan written to {path}; nothing launched", style="dim")
        return 0
    _save(plan, store)
    from davinci.launching.launch import launch

    status = launch(plan, store, first.cluster, first.tracking)
    if status == 0 and first.cluster.kind == "local":
        print(f"table, figures, report: python -m analysis report {plan.sweep} --store {first.store}")
    return status


def _card(store: Store, pool: str, build: bool) -> PoolCard | None:
    """The pool's card; with `build`, a pool this project can make itself, and its benchmarks, are made first."""
    if build and pool in BUILDERS:
        from davinci.evaluation.embedded import make_tasks

        if read_card(store, pool) is None:
            build_pool(pool, store, print)
        make_tasks(store, pool)
    return read_card(store, pool)


def _done(store: Store) -> frozenset[str]:
    """Ids of the nodes the store has finished."""
    return frozenset(path.parent.name for path in (store.root / "nodes").glob("*/done.json"))


def _save(plan: Plan, store: Store) -> None:
    """Write plan.json and a manifest for every run."""
    folder = store.sweep(plan.sweep)
    write_json(folder / "plan.json", plan.model_dump(mode="json"))
    for run in plan.runs:
        manifest = run.model_dump(mode="json")
        manifest["sweep"] = plan.sweep
        manifest["nodes"] = [
            {"id": node, "begin": plan.nodes[node].begin, "end": plan.nodes[node].end} for node in run.nodes
        ]
        write_json(folder / "runs" / f"{run.id}.json", manifest)
    planned = {f"{run.id}.json" for run in plan.runs}
    for path in (folder / "runs").glob("*.json"):  # of another scale, or an arm taken out; the nodes stay
        if path.name not in planned:
            path.unlink()


def _exit(work: Callable[[], int]) -> NoReturn:
    try:
        status = work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except composition_errors as error:
        print(f"error: {COMMAND_LINE}: {one_line(error)}", file=sys.stderr)
        status = 2
    sys.exit(status)
