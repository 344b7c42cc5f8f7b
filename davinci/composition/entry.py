"""What `launch.py` does with what Hydra composed: plan, print, launch, exit."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NoReturn

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from davinci.composition.choices import require_choice
from davinci.composition.compose import origin_of, template_of, to_run
from davinci.composition.conf import STEERING, Conf, run_part
from davinci.composition.errors import composition_errors, one_line
from davinci.composition.expand import Expanded, expand
from davinci.composition.given import COMMAND_LINE, PLACEMENT
from davinci.composition.grammar import parse_overrides
from davinci.composition.heeded import require_heeded
from davinci.config import Frozen, PositiveFloat, Run, parse
from davinci.data.cards import PoolCard, read_card
from davinci.errors import UserError
from davinci.evaluation.settings import benchmark_digest
from davinci.launching.progress import PatientConsole
from davinci.planning.build import build_plans
from davinci.planning.cost import Probe
from davinci.planning.page import show
from davinci.planning.plan import Plan
from davinci.planning.sweep import Arm, Question, Sweep
from davinci.store import Store, write_text

# Beside conf/, from wherever launch.py is started.
SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"


class Steering(Frozen):
    """The keys of conf/config.yaml that say what to do with a plan."""

    plan_only: bool
    probe: bool
    audit: Literal["strict", "warn"]
    max_epochs: PositiveFloat

    @classmethod
    def of(cls, config: DictConfig) -> Steering:
        """Read them from a composed config; a UserError names a wrong one."""
        data = {key: OmegaConf.select(config, key) for key in STEERING if key != "hydra"}
        steering = parse(cls, data, where=lambda key: COMMAND_LINE)
        if steering.probe and not steering.plan_only:
            raise UserError(f"{COMMAND_LINE}: probe=true measures instead of launching; add plan_only=true")
        return steering


def run_single(config: DictConfig) -> NoReturn:
    """Train and evaluate the one run that `hydra.main` composed, in the foreground; exits with the status."""

    def work() -> int:
        if config.sweep is not None:
            raise UserError(f"{COMMAND_LINE}: sweep={config.sweep} is a sweep; add -m")
        steering = Steering.of(config)
        overrides = list(HydraConfig.get().overrides.task)
        lines = [(one, COMMAND_LINE) for one in parse_overrides(overrides, COMMAND_LINE)]
        conf = Conf(GlobalHydra.instance().config_loader(), list(HydraConfig.get().overrides.hydra))
        for override, where in lines:
            require_choice(conf, override, where)
        require_heeded(conf, lines)
        composed = run_part(config, HydraConfig.get().runtime.choices)
        data = template_of(composed).with_values({"sweep": "single"})
        written = [(line.split("=", 1)[0].lstrip("+~").rpartition("@")[2], COMMAND_LINE) for line in overrides]
        run = named(to_run(data, origin_of(composed.files, written)))
        arm = Arm(label=run.arm, overrides=tuple(overrides), is_baseline=True, config=run)
        sweep = Sweep(run.sweep, Question(text="One run, no question."), (arm,), (run.seed,), ())
        return _Apply(Expanded((sweep,)), steering).status()

    _exit(work)


def named(run: Run) -> Run:
    """One run as a sweep of its own, called by what is trained: the next run leaves it in the store, and when it is
    asked for again, placed or evaluated otherwise, it is the same."""
    others = {*PLACEMENT, "sweep", "evaluation", "checkpoint_every_tokens"}
    trained = run.model_dump_json(exclude=others, exclude_defaults=True)
    return run.model_copy(update={"sweep": f"single-{hashlib.sha256(trained.encode()).hexdigest()[:8]}"})


def run_sweep(arguments: Sequence[str], loader: ConfigLoader, config: DictConfig) -> NoReturn:
    """Plan and launch what the arguments of ``launch.py -m`` describe; exits with the status.

    Args:
        arguments: overrides of the run, swept ones included.
        loader: Hydra's config loader on conf/.
        config: what Hydra composed of the overrides that are not swept.
    """

    def work() -> int:
        steering = Steering.of(config)
        conf = Conf(loader, list(config.hydra.overrides.hydra))
        return _Apply(expand(arguments, conf, SWEEPS), steering).status()

    _exit(work)


class _Apply:
    """Plans sweeps and does with the plans what `steering` says."""

    def __init__(self, expanded: Expanded, steering: Steering) -> None:
        self._expanded = expanded
        self._steering = steering
        self._first = expanded.sweeps[0].arms[0].config
        self._store = Store(Path(self._first.store))
        self._console = PatientConsole()
        self._probe: Probe | None = None

    def status(self) -> int:
        """Plan, print, and launch unless only a plan is asked for; returns the exit status."""
        with _undone_by_a_mistake(self._store):
            if not self._steering.plan_only and self._holds_documents():
                self._build_pools()
            plans = self._plans()
            if not self._steering.plan_only and not _refusals(plans) and self._build_pools():
                plans = self._plans()  # the sources have their digests now, and the nodes their ids
            self._check(plans)
            shown = self._shown(plans)
            with suppress(BrokenPipeError):  # nobody reads the page any more: the work goes on
                show(shown, self._console)
            if self._steering.plan_only:
                path = _write_plan(shown, self._store)
                with suppress(BrokenPipeError):
                    self._console.print(f"plan written to {path}; nothing launched", style="dim", soft_wrap=True)
                return 0
        return self._launch(plans)

    def _holds_documents(self) -> bool:
        """Whether budgets follow from what the pools hold: they are built before anything is planned."""
        return any("documents" in sweep.held_fixed for sweep in self._expanded.sweeps)

    def _plans(self) -> tuple[Plan, ...]:
        names = {arm.config.pool.name for sweep in self._expanded.sweeps for arm in sweep.arms}
        cards = {name: read_card(self._store, name) for name in sorted(names)}
        plans = self._built(cards)
        if self._steering.probe:
            from davinci.launching.probe import measure

            self._probe = measure(self._shown(plans), self._store, self._first.cluster)
            plans = self._built(cards)
        return plans

    def _built(self, cards: Mapping[str, PoolCard | None]) -> tuple[Plan, ...]:
        return build_plans(
            self._expanded.sweeps,
            cards=cards,
            store=self._store,
            warn_only=self._steering.audit == "warn",
            max_epochs=self._steering.max_epochs,
            probe=self._probe,
            benchmark_digest=lambda run, name: benchmark_digest(run.pool.name, run.evaluation.only(name), self._store),
        )

    def _shown(self, plans: tuple[Plan, ...]) -> Plan:
        """The plan the page and plan.json are of: the suite's, if it is one."""
        if self._expanded.suite is None or self._expanded.question is None:
            return plans[0]
        from davinci.planning.suite import join_plans

        return join_plans(self._expanded.suite, self._expanded.question, plans, store=self._store, probe=self._probe)

    def _check(self, plans: Sequence[Plan]) -> None:
        """Refuse what must not be launched, a plan of it neither if the audit says so."""
        refused = _refusals(plans)
        if refused:
            more = f"; and {len(refused) - 3} more (plan_only=true audit=warn shows all)" if len(refused) > 3 else ""
            said = "; ".join(refused[:3])
            raise UserError(f"the sweep is not controlled: {said}{more} (audit=warn launches it all the same)")
        missing = sorted({name for plan in plans for name in plan.missing_sources})
        if missing and not self._steering.plan_only:
            more = ", …" if len(missing) > 3 else ""
            raise UserError(
                f"pool {self._first.pool.name}: {len(missing)} sources are not on this machine "
                f"({', '.join(missing[:3])}{more}): the plan can be read (plan_only=true) but not launched; a pool "
                f"whose file says how it is made is built by: python -m davinci data build {self._first.pool.name}"
            )

    def _build_pools(self) -> bool:
        """Make this program's own small pools, and their benchmarks; whether one was made."""
        from davinci.data.pool_files import own_small_pool
        from davinci.evaluation.embedded import make_tasks

        made = False
        pools = {arm.config.pool.name: arm.config.pool for sweep in self._expanded.sweeps for arm in sweep.arms}
        for name, pool in sorted(pools.items()):
            file = own_small_pool(pool)
            if file is not None:
                if read_card(self._store, name) is None:
                    from davinci.data.build import build  # what it takes to build one is loaded for nothing else

                    build(file, self._store, print)
                    made = True
                make_tasks(self._store, name)
        return made

    def _launch(self, plans: Sequence[Plan]) -> int:
        """Launch one sweep after another, each by a plan of its own; returns the first status that is not 0."""
        from davinci.launching.launch import launch

        statuses = []
        for plan in plans:
            _write_plan(plan, self._store)
            statuses.append(launch(plan, self._store, self._first.cluster, self._first.tracking))
            if statuses[-1] > 128:  # stopped by a signal
                break
            if statuses[-1] == 0 and self._first.cluster.kind == "local":
                command = f"python -m analysis report {plan.sweep} --store {shlex.quote(str(self._first.store))}"
                print(f"table, figures, report: {command}")
        return next((status for status in statuses if status), 0)


def _refusals(plans: Sequence[Plan]) -> list[str]:
    """What the audits refuse, with the sweep's name where there are several."""
    named = [(f"{plan.sweep}: " if len(plans) > 1 else "", plan) for plan in plans]
    return [
        name + finding.text for name, plan in named for finding in plan.audit.findings if finding.level == "refused"
    ]


def _write_plan(plan: Plan, store: Store) -> Path:
    """Write plan.json; its path."""
    path = store.sweep(plan.sweep) / "plan.json"
    write_text(path, plan.model_dump_json(indent=1) + "\n")
    return path


@contextmanager
def _undone_by_a_mistake(store: Store) -> Iterator[None]:
    """See that the store can be written before anything is planned; after a mistake, no folder is left behind."""
    missing = [folder for folder in (store.root, *store.root.parents) if not folder.exists()]
    store.require_writable()
    try:
        yield
    except UserError:
        for folder in missing:
            with suppress(OSError):  # not empty: something was built
                folder.rmdir()
        raise


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
