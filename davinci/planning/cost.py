"""What a plan costs: accelerator-hours, wall time, money, evaluation, disk."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from davinci.accounting.accelerators import peak_flops
from davinci.accounting.flops import forward_flops_per_token, train_flops_per_token
from davinci.accounting.machine import workers
from davinci.accounting.shapes import active_parameters, parameters
from davinci.accounting.storage import checkpoint_bytes, record_bytes
from davinci.config import Cluster, Evaluation, Model, Node, Run
from davinci.planning.plan import Cost, PlannedRun, Spent, chains
from davinci.planning.sweep import Sweep

# Tokens of a pass over the embedded probes (see docs/instruments.md), and their capabilities, each a row. A file of
# one's own is priced as if it were as large.
PROBE_TOKENS, PROBE_ROWS = 70_000, 23
# Steps from one train record to the next: `training.loop.RECORD_EVERY`, which lives beside torch.
RECORD_EVERY = 10

_HOUR, _DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Shape:
    """What the duration of a training step depends on."""

    model: Model
    sequence_length: int
    sequences: int


@dataclass(frozen=True)
class Probe:
    """What `launching.probe` measured on this machine while `workers` processes worked at once, in seconds.

    Attributes:
        steps: training steps it took, over all processes.
        step: of a training step, by shape.
        checkpoint: of one due checkpoint, held-out losses included, by model.
        evaluation: of one checkpoint on a suite, by model and the suite's key.
        start: what a worker needs once, until it can train and for what its first evaluation takes longer than others.
        node: of a node beside its steps, checkpoints and evaluations.
    """

    workers: int
    steps: int
    step: Mapping[Shape, float]
    checkpoint: Mapping[Model, float]
    evaluation: Mapping[tuple[Model, str], float]
    start: float
    node: float

    def rate(self) -> float:
        """FLOP/s of one process, over one step of each shape."""
        return sum(step_flops(shape) for shape in self.step) / sum(self.step.values())


def step_flops(shape: Shape) -> float:
    """FLOPs of one training step."""
    per_token = train_flops_per_token(shape.model, shape.model.vocab_size, shape.sequence_length)
    return shape.sequences * shape.sequence_length * per_token


def node_flops(node: Node) -> float:
    """Training FLOPs of a node."""
    return (node.end - node.begin) * train_flops_per_token(node.model, node.vocab_size, node.stage.sequence_length)


def shapes(node: Node) -> dict[Shape, int]:
    """The node's steps by shape."""
    found: dict[Shape, int] = {}
    for sequences, steps in node.stage.grid.batches(node.steps):
        shape = Shape(node.model, node.stage.sequence_length, sequences)
        found[shape] = found.get(shape, 0) + steps
    return found


def evaluation_flops(model: Model, vocab_size: int, evaluation: Evaluation) -> float | None:
    """FLOPs of evaluating one checkpoint on a suite; None where a benchmark does not say its items or their tokens.

    `limit` caps the items of a benchmark; lm-eval caps each task of a group, which this does not know.
    """
    total = 0.0
    for benchmark in evaluation.benchmarks.values():
        if benchmark.items is None or benchmark.tokens_per_item is None:
            return None
        items = min(benchmark.items, evaluation.limit or benchmark.items)
        context = min(benchmark.tokens_per_item, model.max_position_embeddings)
        total += items * benchmark.tokens_per_item * forward_flops_per_token(model, vocab_size, context)
    return total


def heldout_flops(node: Node, run: Run) -> float:
    """FLOPs of the held-out losses of one checkpoint of `node`: `heldout_sequences` of each domain of the pool, by the
    weights and by the average that the stage may keep of them."""
    length = node.stage.sequence_length
    tokens = _measured(node) * len(run.pool.domains) * run.evaluation.heldout_sequences * length
    return tokens * forward_flops_per_token(node.model, node.vocab_size, length)


def _measured(node: Node) -> int:
    """Weights of a checkpoint: those trained, and an average."""
    return 1 if node.stage.averages is None else 2


def probe_flops(node: Node) -> float:
    """FLOPs of one pass over the probes."""
    length = min(node.model.max_position_embeddings, node.stage.sequence_length)
    return PROBE_TOKENS * forward_flops_per_token(node.model, node.vocab_size, length)


@dataclass
class _Work:
    """What one node asks for: `points` are the token counts it is evaluated at, each with its suites by key."""

    node: Node
    run: Run
    points: dict[int, dict[str, Evaluation]] = field(default_factory=dict)

    @property
    def due(self) -> int:
        """Checkpoints it leaves: at every evaluated point and at its end."""
        return len(self.points.keys() | {self.node.end})

    @cached_property
    def probed(self) -> int:
        """How often its probes are scored."""
        probes = self.run.evaluation.probes
        return 0 if probes is None else len(self.node.probed_at(probes.every_tokens))

    @property
    def evaluations(self) -> list[Evaluation]:
        return [one for at in self.points.values() for one in at.values()]


def cost(
    sweep: Sweep,
    planned_runs: Sequence[PlannedRun],
    nodes: Mapping[str, Node],
    done: frozenset[str],
    probe: Probe | None,
) -> Cost:
    """The cost of a plan, in full and for what `done` (ids of finished nodes) leaves.

    A node runs on the cluster of the first run through it. Without a probe, hours follow from FLOPs, the accelerator's
    peak and the cluster's MFU, for training and evaluation alike; with one, from the measured seconds, and `mfu` is
    what they amount to. Waiting for a cluster's queue is not counted.
    """
    configs = {arm.label: arm.config for arm in sweep.arms}
    work = _work(planned_runs, nodes, configs)
    clock = _Clock(probe)
    spent = {name: clock.node(one) for name, one in work.items()}
    baseline = sweep.baseline.config.cluster
    parallel = workers(baseline) if baseline.kind == "local" else baseline.max_parallel
    alone = [clock.run(run, work, configs[run.arm].evaluation) for run in planned_runs]
    left = [one for name, one in spent.items() if name not in done]

    def hours(of: Iterable[_Seconds]) -> float:
        return math.fsum(one.training * one.gpus for one in of) / _HOUR

    def price(of: Iterable[_Seconds]) -> float:
        return math.fsum(one.training * one.gpus * (one.price or 0.0) for one in of) / _HOUR

    stretches = chains(nodes)

    def days(finished: frozenset[str]) -> float:
        jobs = [
            Job(chain.name, chain.after, sum(spent[node].total for node in chain.nodes if node not in finished))
            for chain in stretches
        ]
        return makespan(jobs, parallel, clock.start) / _DAY

    clusters = {id(one.run.cluster): one.run.cluster for one in work.values()}.values()
    runs_alone = [spent[node] for run in planned_runs for node in run.nodes]
    flops = math.fsum(clock.flops(node) for node in nodes.values())
    shapes_there = {(one.model, one.vocab_size) for one in nodes.values()}
    available = math.fsum(one.training * one.gpus * one.peak for one in spent.values())
    mfus = {cluster.mfu for cluster in clusters}
    evaluation = [clock.evaluation_flops(one) for one in work.values()]
    known = all(one is not None for one in evaluation)
    rest = math.fsum((one.checkpoints + one.evaluations) * one.gpus for one in spent.values()) / _HOUR
    return Cost(
        gpu=" + ".join(dict.fromkeys(cluster.gpu for cluster in clusters)),
        gpus=max(cluster.gpus for cluster in clusters),
        mfu=mfus.pop() if probe is None and len(mfus) == 1 else flops / available,
        mfu_measured=probe is not None,
        parallel=parallel,
        gpu_hours=Spent(unshared=hours(runs_alone), shared=hours(spent.values()), left=hours(left)),
        days=Spent(
            unshared=makespan([Job(str(at), None, one) for at, one in enumerate(alone)], parallel, clock.start) / _DAY,
            shared=days(frozenset()),
            left=days(done),
        ),
        price=None
        if any(cluster.price is None for cluster in clusters)
        else Spent(unshared=price(runs_alone), shared=price(spent.values()), left=price(left)),
        evaluation_flops=math.fsum(one or 0.0 for one in evaluation) if known else None,
        evaluation_gpu_hours=rest if known or probe is not None else None,
        parameters=tuple(sorted({parameters(*shape) for shape in shapes_there})),
        active_parameters=tuple(sorted({active_parameters(*shape) for shape in shapes_there})),
        checkpoint_bytes=sum(
            one.due * checkpoint_bytes(one.node.model, one.node.vocab_size, averaged=_measured(one.node) > 1)
            for one in work.values()
        ),
        record_bytes=sum(_record_bytes(one) for one in work.values()),
    )


def _work(
    planned_runs: Sequence[PlannedRun], nodes: Mapping[str, Node], configs: Mapping[str, Run]
) -> dict[str, _Work]:
    keys = {label: config.evaluation.key for label, config in configs.items()}
    work: dict[str, _Work] = {}
    for run in planned_runs:
        config = configs[run.arm]
        for name in run.nodes:
            if name not in work:
                work[name] = _Work(nodes[name], config)
        for point in run.points:
            asked = work[point.node].points.setdefault(point.tokens, {})
            asked[point.asks(keys[run.arm])] = config.evaluation
    return work


@dataclass(frozen=True)
class _Seconds:
    """Seconds of one node in one job, and what an accelerator of that job is."""

    training: float
    checkpoints: float
    evaluations: float
    overhead: float
    cluster: Cluster

    @property
    def total(self) -> float:
        return self.training + self.checkpoints + self.evaluations + self.overhead

    @property
    def gpus(self) -> int:
        return self.cluster.gpus

    @property
    def price(self) -> float | None:
        return self.cluster.price

    @property
    def peak(self) -> float:
        return peak_flops(self.cluster.gpu)


class _Clock:
    """Seconds of training, checkpoints and evaluations, from a probe or from FLOPs."""

    def __init__(self, probe: Probe | None) -> None:
        self._probe = probe
        self._rate = None if probe is None else probe.rate()
        self._known: dict[tuple[object, ...], float] = {}

    @property
    def start(self) -> float:
        return 0.0 if self._probe is None else self._probe.start

    def node(self, work: _Work) -> _Seconds:
        node, run = work.node, work.run
        return _Seconds(
            training=self._training(node, run.cluster),
            checkpoints=work.due * self._checkpoint(node, run) + self._probes(work),
            evaluations=sum(self._evaluation(node, one, run.cluster) for one in work.evaluations),
            overhead=0.0 if self._probe is None else self._probe.node,
            cluster=run.cluster,
        )

    def run(self, run: PlannedRun, work: Mapping[str, _Work], evaluation: Evaluation) -> float:
        """Seconds of a run that shares nothing."""
        total = 0.0
        places = {(point.node, point.tokens) for point in run.points}
        for name in run.nodes:
            one = work[name]
            total += self._training(one.node, one.run.cluster)
            total += 0.0 if self._probe is None else self._probe.node
            places.add((name, one.node.end))
            total += self._probes(one)
        for name, _ in places:
            total += self._checkpoint(work[name].node, work[name].run)
        for point in run.points:
            one = work[point.node]
            total += self._evaluation(one.node, evaluation, one.run.cluster)
        return total

    def flops(self, node: Node) -> float:
        """Training FLOPs of a node."""
        length = node.stage.sequence_length
        key = ("flops", id(node.model), node.vocab_size, length)
        return (node.end - node.begin) * self._once(
            key, lambda: train_flops_per_token(node.model, node.vocab_size, length)
        )

    def evaluation_flops(self, work: _Work) -> float | None:
        """FLOPs of a node's evaluations, held-out losses and probes; None where a suite does not say its size."""
        parts = [self._suite(work.node, one) for one in work.evaluations]
        parts += [work.due * self._heldout(work.node, work.run), self._probe_flops(work)]
        return None if any(map(math.isnan, parts)) else sum(parts)

    def _suite(self, node: Node, evaluation: Evaluation) -> float:
        """FLOPs of one evaluation; `math.nan` where the suite does not say its size."""

        def flops() -> float:
            known = evaluation_flops(node.model, node.vocab_size, evaluation)
            return math.nan if known is None else known

        return self._once(("suite", id(node.model), id(evaluation)), flops)

    def _heldout(self, node: Node, run: Run) -> float:
        key = ("heldout", id(node.model), id(run), node.stage.sequence_length, _measured(node))
        return self._once(key, lambda: heldout_flops(node, run))

    def _probe_flops(self, work: _Work) -> float:
        node = work.node
        key = ("probes", id(node.model), node.stage.sequence_length)
        return work.probed * self._once(key, lambda: probe_flops(node))

    def _probes(self, work: _Work) -> float:
        return self._probe_flops(work) / self._flops_per_second(work.run.cluster)

    def _training(self, node: Node, cluster: Cluster) -> float:
        stretch = (node.begin - node.stage_begin, node.end - node.begin)
        key = ("training", id(node.stage), stretch, id(node.model), id(cluster))
        return self._once(key, lambda: self._steps(node, cluster))

    def _steps(self, node: Node, cluster: Cluster) -> float:
        if self._probe is None:
            return self.flops(node) / self._flops_per_second(cluster)
        return sum(
            steps * self._probe.step.get(shape, step_flops(shape) / self._flops_per_second(cluster))
            for shape, steps in shapes(node).items()
        )

    def _checkpoint(self, node: Node, run: Run) -> float:
        measured = None if self._probe is None else self._probe.checkpoint.get(node.model)
        return self._heldout(node, run) / self._flops_per_second(run.cluster) if measured is None else measured

    def _evaluation(self, node: Node, evaluation: Evaluation, cluster: Cluster) -> float:
        measured = None if self._probe is None else self._probe.evaluation.get((node.model, evaluation.key))
        if measured is not None:
            return measured
        flops = self._suite(node, evaluation)
        return 0.0 if math.isnan(flops) else flops / self._flops_per_second(cluster)

    def _flops_per_second(self, cluster: Cluster) -> float:
        """Of one job. A shape that no probe measured runs at the mean rate of those it did."""
        return self._rate or peak_flops(cluster.gpu) * cluster.mfu * cluster.gpus

    def _once(self, key: tuple[object, ...], compute: Callable[[], float]) -> float:
        """Configs are shared by thousands of nodes: by identity, since a config's own hash costs more than the sum."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


def _record_bytes(work: _Work) -> int:
    benchmarks = [one for evaluation in work.evaluations for one in evaluation.benchmarks.values()]
    return record_bytes(
        work.node.model,
        train_rows=len(work.node.steps) // RECORD_EVERY + 1,
        heldout_rows=work.due * _measured(work.node) * len(work.run.pool.domains),
        evaluation_rows=len(benchmarks),
        probe_rows=work.probed * PROBE_ROWS,
        evaluations=len(work.evaluations),
        items=sum(one.items or 0 for one in benchmarks),
    )


@dataclass(frozen=True)
class Job:
    """One job to schedule: it starts once the job `after` is done and takes `seconds`."""

    name: str
    after: str | None
    seconds: float


def makespan(jobs: Sequence[Job], parallel: int, start: float = 0.0) -> float:
    """Seconds until all jobs are done by at most `parallel` workers, each of which first needs `start` seconds.

    List scheduling as `launching.schedule` does it: of the jobs that may start, the one with the most work behind it
    first (Graham 1969, SIAM J. Appl. Math. 17:416: at most 2 - 1/parallel times the best). A job without work is done.

    Args:
        jobs: those that others wait for first.
        parallel: jobs that run at once.
        start: paid by a worker before its first job; a worker is taken on only when no other is idle.
    """
    children: dict[str, list[int]] = {}
    for index, job in enumerate(jobs):
        if job.after is not None:
            children.setdefault(job.after, []).append(index)
    behind = [job.seconds for job in jobs]
    for index in range(len(jobs) - 1, -1, -1):
        behind[index] += max((behind[child] for child in children.get(jobs[index].name, ())), default=0.0)
    now, idle, hired = 0.0, 0, 0
    ready: list[tuple[float, int]] = []
    running: list[tuple[float, int]] = []

    def release(indices: Iterable[int]) -> None:
        waiting = list(indices)
        while waiting:
            index = waiting.pop()
            if jobs[index].seconds > 0:
                heapq.heappush(ready, (-behind[index], index))
            else:
                waiting.extend(children.get(jobs[index].name, ()))

    release(index for index, job in enumerate(jobs) if job.after is None)
    while ready or running:
        while ready and (idle or hired < parallel):
            _, index = heapq.heappop(ready)
            delay = 0.0 if idle else start
            idle, hired = (idle - 1, hired) if idle else (idle, hired + 1)
            heapq.heappush(running, (now + delay + jobs[index].seconds, index))
        now, index = heapq.heappop(running)
        idle += 1
        release(children.get(jobs[index].name, ()))
    return now
