"""The Plan: what will be trained, shared, evaluated and spent, as one frozen object that is also `plan.json`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import ValidationError

from davinci.config import Frozen, Node, Run, asked, parse
from davinci.errors import UserError, nearest
from davinci.planning.sweep import Arm, Budget, Question
from davinci.store import Store, read_json


class State(Frozen):
    """The state of `node` at `tokens` since initialisation."""

    node: str
    tokens: int


class Point(Frozen):
    """A demanded evaluation: the state of `node` at `tokens` since initialisation, `stage_tokens` into `stage`.

    `label` names the point in tables, in the paper's tokens (``84B``). `weights` are those trained or their average;
    where `states` are given, the mean of those, the point's own the last.
    """

    node: str
    tokens: int
    stage: str
    stage_tokens: int
    label: str
    weights: Literal["trained", "average"] = "trained"
    states: tuple[State, ...] = ()

    def asks(self, suite: str) -> str:
        """How records name `suite` (its key) asked of these weights."""
        return asked(suite, self.weights, [state.tokens for state in self.states])


class PlannedRun(Frozen):
    """One run: its nodes from the root to the leaf, and the points it is evaluated at."""

    id: str
    arm: str
    seed: int
    nodes: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        """Human name, unique in its sweep."""
        return f"{self.arm} seed {self.seed}"


class Finding(Frozen):
    """One line of the control audit. `refused` stops a launch; `warned` was overridden; `noted` is information."""

    level: Literal["refused", "warned", "noted"]
    text: str


class Claim(Frozen):
    """What a comparison of processing depths compares, where arms read a source at different Darwin Levels.

    ``documents``: the same documents, equally often, in as many tokens as each level takes for them. ``tokens``: as
    many tokens of each level, whatever documents are in them. ``neither`` is held. `text` says it of this sweep.
    """

    held: Literal["documents", "tokens", "neither"]
    text: str


class Audit(Frozen):
    """The proof of control.

    `factor` are the declared keys, `differing` those below them that do differ, `derived` keys that differ only because
    a factor key does, `held_fixed` the budgets that were checked, `claim` what a comparison of depths claims.
    """

    factor: tuple[str, ...]
    differing: tuple[str, ...]
    derived: tuple[str, ...]
    held_fixed: tuple[Budget, ...]
    findings: tuple[Finding, ...]
    claim: Claim | None = None

    @property
    def verdict(self) -> str:
        levels = {finding.level for finding in self.findings}
        return "refused" if "refused" in levels else "warned" if "warned" in levels else "controlled"


class Epochs(Frozen):
    """How often the tokens of a domain (`source` null) or of one source are seen, in one stage and since
    initialisation, by every one of `arms`. `pool_tokens` is what the domain's (or source's) sources hold; epochs =
    demanded / pool tokens. Arms that agree share a row: a thousand arms of one mixture have one ledger."""

    arms: tuple[str, ...]
    stage: str
    domain: str
    source: str | None
    demanded_tokens: float
    pool_tokens: int
    epochs: float
    cumulative: float


class Spent(Frozen):
    """A price, three times over: `unshared` trains every run alone, `shared` each node once, `left` only what the store
    has not finished."""

    unshared: float
    shared: float
    left: float


class Cost(Frozen):
    """What the plan costs beyond tokens and FLOPs.

    `gpu_hours` are accelerator-hours at `mfu` of the peak of `gpu`, evaluation not included; `days` is wall time, with
    evaluation, of at most `parallel` jobs at once, children after parents. `mfu_measured` says that `mfu` (and with it
    hours and days) come from a probe on this machine instead of the cluster's config. `evaluation_flops` is null where
    a benchmark does not say its items. `price` is null where the cluster states none. `parameters` are those of each
    model, `active_parameters` those of them that a token passes through (without experts all), both ascending. Bytes
    are what the sweep's nodes take in the store.
    """

    gpu: str
    gpus: int
    mfu: float
    mfu_measured: bool
    parallel: int
    gpu_hours: Spent
    days: Spent
    price: Spent | None
    evaluation_flops: float | None
    evaluation_gpu_hours: float | None
    parameters: tuple[int, ...]
    checkpoint_bytes: int
    record_bytes: int
    active_parameters: tuple[int, ...] = ()


class Power(Frozen):
    """What the sweep can tell apart from noise (two-sided 5%, 80% power, paired t-test over seeds).

    `noise` is the seed-to-seed standard deviation of a paired difference, in `unit`, and `source` says where it is
    from. `detectable` is the smallest difference found with 80% power, null with fewer than two seeds. `seeds_needed`
    is how many seeds `difference` takes, null where no difference is asked for.
    """

    noise: float
    source: str
    seeds: int
    detectable: float | None
    difference: float | None = None
    seeds_needed: int | None = None
    unit: str = "points"


class Orphan(Frozen):
    """A finished run of this sweep's last launch that the plan no longer holds, and the config keys that moved it
    (``key: before -> now``); empty where its arm or seed was taken out."""

    run: str
    arm: str
    seed: int
    diff: tuple[str, ...]


class Study(Frozen):
    """One sweep of a suite; `tokens_own` are those of the shared ones that no other study of the suite trains."""

    sweep: str
    runs: int
    tokens_unshared: int
    tokens_shared: int
    tokens_own: int
    flops_unshared: float
    flops: float
    verdict: str


class Chain(Frozen):
    """A stretch of nodes without a branch: one job. `after` names the chain whose last node is this one's parent."""

    name: str
    nodes: tuple[str, ...]
    after: str | None


class Plan(Frozen):
    """Everything known before anything is spent: `plan.json` (docs/plan.md). Tokens and FLOPs count training.

    `tokens_unshared` trains every run alone, `tokens_shared` each node once, `tokens_left` only what the store has not
    finished; so with `flops_unshared`, `flops` and `flops_left`.
    """

    version: Literal[2] = 2
    sweep: str
    question: Question
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    runs: tuple[PlannedRun, ...]
    nodes: dict[str, Node]
    tokens_unshared: int
    tokens_shared: int
    tokens_left: int
    flops_unshared: float
    flops: float
    flops_left: float
    audit: Audit
    epochs: tuple[Epochs, ...]
    warnings: tuple[str, ...]
    cost: Cost
    power: Power | None
    orphans: tuple[Orphan, ...]
    missing_sources: tuple[str, ...]
    studies: tuple[Study, ...] = ()

    @property
    def baseline(self) -> str:
        """Label of the baseline arm."""
        return next(arm.label for arm in self.arms if arm.is_baseline)

    def config(self, run: PlannedRun) -> Run:
        """The resolved config of a run."""
        return self._index.arms[run.arm].run(run.seed)

    def chains(self) -> list[Chain]:
        """The nodes grouped into stretches without a branch, parents before children."""
        return list(self._index.chains)

    @cached_property
    def _index(self) -> _Index:
        return _Index({arm.label: arm for arm in self.arms}, chains(self.nodes))

    def __copy__(self) -> Plan:
        copied = super().__copy__()  # which is also what `model_copy` puts other values into
        copied.__dict__.pop("_index", None)
        return copied


@dataclass(frozen=True)
class _Index:
    """What would take a search through a plan of thousands of runs, made on first use."""

    arms: dict[str, Arm]
    chains: list[Chain]


def chains(nodes: Mapping[str, Node]) -> list[Chain]:
    """A plan's nodes grouped into stretches without a branch, parents before children."""
    children: dict[str | None, list[str]] = {}
    for node in nodes.values():
        children.setdefault(node.parent, []).append(node.id)
    found: list[Chain] = []
    waiting: deque[tuple[str, str | None]] = deque((root, None) for root in children.get(None, []))
    while waiting:
        head, after = waiting.popleft()
        stretch = [head]
        while len(following := children.get(stretch[-1], [])) == 1:
            stretch.append(following[0])
        name = stretch[-1]
        found.append(Chain(name=name, nodes=tuple(stretch), after=after))
        waiting.extend((child, name) for child in following)
    return found


def load_plan(store: Store, sweep: str) -> Plan:
    """The plan that `sweep` was last launched with.

    Raises:
        UserError: the sweep was never launched from this store, or its launched.json is not a plan.
    """
    path = store.sweep(sweep) / "launched.json"
    if not path.is_file():
        if (path.parent / "plan.json").is_file():
            raise UserError(f"sweep {sweep!r} was planned but never launched; launch it without plan_only=true")
        known = [found.parent.name for found in (store.root / "sweeps").glob("*/launched.json")]
        raise UserError(f"store {store.root} has no sweep {sweep!r}{nearest(sweep, known)}; launch it, or give --store")
    try:
        return Plan.model_validate_json(path.read_bytes())
    except ValidationError:  # said in our words below; most of a look at a large sweep is this file
        data = read_json(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: not a plan; launch the sweep again to rewrite it")
    return parse(Plan, data, where=lambda key: str(path))
