"""The Plan: what will be trained, shared, evaluated and spent, as one frozen object that is also `plan.json`."""

from __future__ import annotations

from typing import Literal

from davinci.config import Frozen, Node, Run, parse
from davinci.errors import UserError, nearest
from davinci.store import Store, read_json


class Hypothesis(Frozen):
    """What the sweep expects, stated before it is run: `metric` (a benchmark, a domain or Overall) of `arm` against the
    baseline arm moves in `direction` by the last evaluated point."""

    text: str
    metric: str
    arm: str
    direction: Literal["increase", "decrease", "any"]


class PaperReference(Frozen):
    """Where the paper reports this question. `published` names a file of `analysis/published/`."""

    section: str
    table: str | None = None
    figure: str | None = None
    published: str | None = None


class Question(Frozen):
    """The words of a sweep: everything the report prints that is not a number."""

    text: str
    hypothesis: Hypothesis | None = None
    paper: PaperReference | None = None
    assumptions: tuple[str, ...] = ()


class Arm(Frozen):
    """One labelled setting of the factor, and the overrides that make it."""

    label: str
    overrides: tuple[str, ...]
    is_baseline: bool


class Point(Frozen):
    """A demanded evaluation: the state of `node` at `tokens` since initialisation, `stage_tokens` into `stage`.

    `label` names the point in tables, in the paper's tokens (``84B``).
    """

    node: str
    tokens: int
    stage: str
    stage_tokens: int
    label: str


class PlannedRun(Frozen):
    """One run: its nodes from the root to the leaf, and the points it is evaluated at."""

    id: str
    arm: str
    seed: int
    nodes: tuple[str, ...]
    points: tuple[Point, ...]
    config: Run


class Finding(Frozen):
    """One line of the control audit. `refused` stops a launch; `warned` was overridden; `noted` is information."""

    level: Literal["refused", "warned", "noted"]
    text: str


class Audit(Frozen):
    """The proof of control: declared factor keys, keys derived from them, and what else was found."""

    factor: tuple[str, ...]
    differing_keys: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        levels = {finding.level for finding in self.findings}
        return "refused" if "refused" in levels else "warned" if "warned" in levels else "controlled"


class Epochs(Frozen):
    """How often a domain's (or source's) tokens are seen, in one stage and since initialisation, in one arm."""

    arm: str
    stage: str
    name: str
    demanded_tokens: float
    pool_tokens: int
    epochs: float
    cumulative: float


class Cost(Frozen):
    """The price of the plan. Tokens and FLOPs count training only; hours are accelerator-hours at the stated MFU.

    `unshared` trains every run alone, `shared` each node once, `left` only what the store has not finished.
    """

    tokens_unshared: int
    tokens_shared: int
    tokens_left: int
    flops_unshared: float
    flops_shared: float
    flops_left: float
    gpu: str
    mfu: float
    gpu_hours_unshared: float
    gpu_hours_shared: float
    gpu_hours_left: float
    parameters: int
    checkpoint_bytes: int


class Chain(Frozen):
    """A stretch of nodes without a branch: one job. `after` names the chain whose last node is this one's parent."""

    name: str
    nodes: tuple[str, ...]
    after: str | None


class Plan(Frozen):
    """Everything known before anything is spent."""

    version: Literal[1] = 1
    sweep: str
    question: Question
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    runs: tuple[PlannedRun, ...]
    nodes: dict[str, Node]
    audit: Audit
    epochs: tuple[Epochs, ...]
    cost: Cost
    missing_sources: tuple[str, ...]

    @property
    def baseline(self) -> str:
        """Label of the baseline arm."""
        return next(arm.label for arm in self.arms if arm.is_baseline)

    def demands(self, node_id: str) -> list[int]:
        """Tokens (since initialisation) at which `node_id` must have a checkpoint and an evaluation, ascending."""
        return sorted({point.tokens for run in self.runs for point in run.points if point.node == node_id})

    def chains(self) -> list[Chain]:
        """The nodes grouped into stretches without a branch, parents before children."""
        children: dict[str | None, list[str]] = {}
        for node in self.nodes.values():
            children.setdefault(node.parent, []).append(node.id)
        chains: list[Chain] = []
        waiting: list[tuple[str, str | None]] = [(root, None) for root in children.get(None, [])]
        while waiting:
            head, after = waiting.pop(0)
            nodes = [head]
            while len(following := children.get(nodes[-1], [])) == 1:
                nodes.append(following[0])
            name = nodes[-1]
            chains.append(Chain(name=name, nodes=tuple(nodes), after=after))
            waiting.extend((child, name) for child in following)
        return chains


def load_plan(store: Store, sweep: str) -> Plan:
    """The plan that `sweep` was last launched with.

    Raises:
        UserError: the store knows no such sweep, or its plan.json is not a plan.
    """
    path = store.sweep(sweep) / "plan.json"
    if not path.is_file():
        known = [found.parent.name for found in (store.root / "sweeps").glob("*/plan.json")]
        raise UserError(f"store {store.root} has no sweep {sweep!r}{nearest(sweep, known)}; launch it, or give --store")
    data = read_json(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: not a plan; launch the sweep again to rewrite it")
    return parse(Plan, data, where=lambda key: str(path))
