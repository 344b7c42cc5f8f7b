"""How fast this machine trains and evaluates a plan, measured by a few real steps of the launcher's own jobs.

As many processes as there would be workers run the same short job at once, since they slow each other down: some steps
of every shape that the plan has left to train, checkpoints with their held-out losses, and every suite twice, as the
first evaluation also loads the harness. It happens in a temporary folder that only borrows the store's pools.

``python -m davinci.launching.probe FOLDER`` is one of these processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from davinci.accounting.accelerators import peak_flops
from davinci.accounting.machine import memory_bytes, workers
from davinci.accounting.storage import training_bytes
from davinci.config import BatchStep, Cluster, Evaluation, LearningRate, Model, Node
from davinci.errors import UserError
from davinci.evaluation.settings import settings_digest
from davinci.launching.demands import Demand, demanded, heldout_sequences, suites
from davinci.launching.job import Job, read_job, run_job
from davinci.launching.local import thread_environment
from davinci.planning.cost import Probe, Shape, evaluation_flops, shapes, step_flops
from davinci.planning.plan import Plan
from davinci.planning.stored import finished
from davinci.store import Store, read_json, write_json

# Training steps of a probe, over all its processes.
STEPS = 100
# The fewest steps of a shape, the first of them that do not count, and the steps between a model's two evaluations.
FEWEST, WARMUP, BETWEEN = 5, 2, 2
# Seconds that a process's steps, or one evaluation, may take at the speed the cluster's mfu promises; fewer steps are
# taken, and fewer items scored, where they would take longer.
PATIENCE = 60.0


def measure(plan: Plan, store: Store, cluster: Cluster) -> Probe:
    """Measure steps, checkpoints and evaluations of what `store` has not finished of the plan (of all, if nothing).

    Takes some 20 s with a small model, and more with a larger one. Nothing is written into `store`.

    Raises:
        UserError: the cluster is not this machine, the pool is not on it, the model does not fit, or training fails.
    """
    if cluster.kind != "local":
        raise UserError(f"probe=true measures this machine, but cluster.kind is {cluster.kind}; add cluster=local")
    if plan.missing_sources:
        raise UserError(
            f"probe=true trains on the pool, but {len(plan.missing_sources)} of its sources are not in store "
            f"{store.root} ({plan.missing_sources[0]}, …); build or fill it first (python -m davinci data build NAME)"
        )
    left = (plan.nodes.keys() - finished(store, plan.nodes)) or plan.nodes.keys()
    leaves = left - {plan.nodes[node].parent for node in left}
    processes = min(workers(cluster), len(leaves), STEPS // (FEWEST + BETWEEN))
    courses = _courses(plan, left, cluster, STEPS // processes)
    _require_memory([course.model for course in courses], processes)
    for course in courses:
        for suite in course.suites:
            settings_digest(course.nodes[0], suite.asked, store)  # Refuses what no process could evaluate.
    with tempfile.TemporaryDirectory(prefix="davinci-probe-") as folder:
        marks = _run(Path(folder), courses, processes, plan, store, cluster)
    return _probe(courses, marks)


@dataclass(frozen=True)
class _Suite:
    """A suite as it is asked, perhaps of fewer items, and how many times longer the one with `key` takes."""

    key: str
    asked: Evaluation
    factor: float


@dataclass(frozen=True)
class _Course:
    """What each process trains with one model: a stretch a shape, one behind the other, and a last short one."""

    model: Model
    shapes: tuple[Shape, ...]
    nodes: tuple[Node, ...]
    suites: tuple[_Suite, ...]


def _courses(plan: Plan, left: Collection[str], cluster: Cluster, budget: int) -> list[_Course]:
    """Courses of at most `budget` steps together; a shape gets steps in proportion to what is left of it."""
    weights: dict[Shape, float] = defaultdict(float)
    examples: dict[Shape, Node] = {}
    asked: dict[Model, set[str]] = defaultdict(set)
    demands, known = demanded(plan), suites(plan)
    for name in left:
        node = plan.nodes[name]
        asked[node.model] |= {known[demand.suite].key for demand in demands.get(name, ())}
        for shape, count in shapes(node).items():
            weights[shape] += count * step_flops(shape)
            examples[shape] = node
    kept = sorted(weights, key=weights.__getitem__, reverse=True)[: max(1, budget // (FEWEST + BETWEEN))]
    models = list(dict.fromkeys(shape.model for shape in kept))
    rate = peak_flops(cluster.gpu) * cluster.gpus * cluster.mfu
    spare = budget - len(kept) * FEWEST - len(models) * BETWEEN
    total = sum(weights[shape] for shape in kept)
    steps = {shape: FEWEST + int(spare * weights[shape] / total) for shape in kept}
    if sum(count * step_flops(shape) for shape, count in steps.items()) / rate > PATIENCE:
        steps = dict.fromkeys(kept, FEWEST)
    courses = []
    for model in models:
        own = sorted((shape for shape in kept if shape.model == model), key=step_flops)
        nodes: list[Node] = []
        for shape in own:
            nodes.append(_stretch(examples[shape], shape, steps[shape], nodes))
        heaviest = max(own, key=weights.__getitem__)
        nodes.append(_stretch(examples[heaviest], heaviest, BETWEEN, nodes))
        found = [_suite(model, known[key], rate) for key in sorted(asked[model])]
        courses.append(_Course(model, (*own, heaviest), tuple(nodes), tuple(one for one in found if one)))
    return courses


def _stretch(node: Node, shape: Shape, steps: int, before: Sequence[Node]) -> Node:
    """A node of `steps` steps of `shape` that reads what `node` reads, after those `before`."""
    begin = before[-1].end if before else 0
    tokens = steps * shape.sequences * shape.sequence_length
    lr = LearningRate(shape="warmup_constant", start=1e-4, warmup_tokens=tokens)
    batch_size = (BatchStep(from_tokens=0, sequences=shape.sequences),)
    stage = node.stage.model_copy(
        update={"tokens": tokens, "batch_size": batch_size, "lr": lr, "until": None, "adapt": None}
    )
    return node.model_copy(
        update={
            "id": f"probe-{len(before)}",
            "parent": before[-1].id if before else None,
            "stage": stage,
            "stage_begin": begin,
            "begin": begin,
            "end": begin + tokens,
            "mixture_position": 0,
            "mixture_begin": None,
            "benchmark": None,
            "model": node.model.model_copy(update={"pretrained": None}),
        }
    )


def _suite(model: Model, evaluation: Evaluation, rate: float) -> _Suite | None:
    """The suite, of as many items as can be scored in time; None where its items would come from the network."""
    if evaluation.harness != "embedded":
        return None
    whole = evaluation_flops(model, model.vocab_size, evaluation)
    if whole is None or whole / rate <= PATIENCE:
        return _Suite(evaluation.key, evaluation, 1.0)
    most = max(one.items or 1 for one in evaluation.benchmarks.values())
    limit = max(1, int(min(most, evaluation.limit or most) * PATIENCE * rate / whole))
    part = evaluation.model_copy(update={"limit": limit})
    return _Suite(evaluation.key, part, whole / (evaluation_flops(model, model.vocab_size, part) or whole))


def _require_memory(models: Sequence[Model], processes: int) -> None:
    largest = max(models, key=lambda model: training_bytes(model, model.vocab_size))
    needed, there = processes * training_bytes(largest, largest.vocab_size), memory_bytes()
    if there is not None and needed > there:
        raise UserError(
            f"model {largest.name} does not fit: {processes} workers need {needed / 1e9:,.0f} GB for its weights, "
            f"gradients and moments, and this machine has {there / 1e9:,.0f} GB; plan without probe=true"
        )


@dataclass(frozen=True)
class _Mark:
    """A moment of a job, in seconds of the machine's monotonic clock: a phase begins, or a step or node ends."""

    what: str
    node: str
    time: float


# By process and course; the first mark of a course is its beginning.
_Marks = list[list[list[_Mark]]]


def _run(
    folder: Path, courses: Sequence[_Course], processes: int, plan: Plan, store: Store, cluster: Cluster
) -> tuple[list[float], _Marks]:
    """When each process was started, and its marks."""
    started: list[float] = []
    running = []
    try:
        for number in range(processes):
            own = folder / str(number)
            jobs = [
                _write_job(own / f"course{index}", course, plan, store, cluster) for index, course in enumerate(courses)
            ]
            write_json(own / "jobs.json", [str(path) for path in jobs])
        for number in range(processes):
            started.append(time.monotonic())
            with (folder / str(number) / "log").open("wb") as log:
                running.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "davinci.launching.probe", str(folder / str(number))],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env={**os.environ, **thread_environment(cluster.threads)},
                    )
                )
        for process in running:
            process.wait()
    finally:
        for process in running:
            process.kill()
            process.wait()
    return started, [_result(folder / str(number)) for number in range(processes)]


def _write_job(folder: Path, course: _Course, plan: Plan, store: Store, cluster: Cluster) -> Path:
    (folder / "store").mkdir(parents=True)
    (folder / "store" / "pools").symlink_to((store.root / "pools").absolute(), target_is_directory=True)
    job = Job(
        sweep="probe",
        chain="probe",
        store=str(folder / "store"),
        after=None,
        cluster=cluster,
        code=None,
        nodes=course.nodes,
        demands={
            node.id: tuple(Demand(tokens=node.end, suite=suite.asked.key) for suite in course.suites)
            for node in course.nodes[-2:]
        },
        suites={suite.asked.key: suite.asked for suite in course.suites},
        heldout_sequences=heldout_sequences(plan),
        donors={},
    )
    write_json(folder / "job.json", job.model_dump(mode="json"))
    return folder / "job.json"


def _result(folder: Path) -> list[list[_Mark]]:
    path = folder / "marks.json"
    if not path.is_file():
        lines = (folder / "log").read_text(errors="replace").strip().splitlines()
        raise UserError(f"the probe's training failed: {lines[-1] if lines else 'its process died'}")
    return [[_Mark(**mark) for mark in course] for course in read_json(path)]


def _probe(courses: Sequence[_Course], measured: tuple[list[float], _Marks]) -> Probe:
    """Means over processes. What a step takes is known from the steps of its shape that are not the first ones."""
    started, processes = measured
    step: dict[Shape, list[float]] = defaultdict(list)
    timelines = [[_Timeline(course, marks) for course, marks in zip(courses, one, strict=True)] for one in processes]
    for process in timelines:
        for line in process:
            for shape, steps in zip(line.course.shapes, line.steps, strict=True):
                step[shape] += steps[WARMUP - 1 :]
    mean = {shape: fmean(found) for shape, found in step.items()}
    nodes: list[float] = []
    starts: list[float] = []
    checkpoint: dict[Model, list[float]] = defaultdict(list)
    evaluation: dict[tuple[Model, str], list[float]] = defaultdict(list)
    for begin, process in zip(started, timelines, strict=True):
        for index, line in enumerate(process):
            steps_of = [mean[shape] for shape in line.course.shapes]
            openings = [found - one for found, one in zip(line.openings, steps_of, strict=True)]
            nodes += openings[1:]
            checkpoint[line.course.model] += [
                max(0.0, found - one) for found, one in zip(line.closings, steps_of, strict=True)
            ]
            for place, suite in enumerate(line.course.suites):
                later = line.evaluations[-1][place]
                evaluation[line.course.model, suite.key].append(suite.factor * later)
            if index == 0:
                first = sum(line.evaluations[0]) - sum(line.evaluations[-1]) if line.course.suites else 0.0
                starts.append(line.begin - begin + openings[0] - fmean(openings[1:]) + first)
    return Probe(
        workers=len(processes),
        steps=len(processes) * sum(len(node.steps) for course in courses for node in course.nodes),
        step=mean,
        checkpoint={model: fmean(found) for model, found in checkpoint.items()},
        evaluation={key: fmean(found) for key, found in evaluation.items()},
        start=max(0.0, fmean(starts)),
        node=max(0.0, fmean(nodes)),
    )


class _Timeline:
    """The marks of one course as durations, by node.

    Attributes:
        steps: of each step but the first and the last, whose ends are not marked apart.
        openings: from the end of the node before to the end of the first step.
        closings: from the end of the last step but one to the first evaluation or the node's end.
        evaluations: of the nodes that are evaluated, a duration a suite.
    """

    def __init__(self, course: _Course, marks: Sequence[_Mark]) -> None:
        self.course = course
        self.begin = marks[0].time
        self.steps: list[list[float]] = []
        self.openings: list[float] = []
        self.closings: list[float] = []
        self.evaluations: list[list[float]] = []
        before = self.begin
        for node in course.nodes:
            own = [mark for mark in marks if mark.node == node.id]
            # Asked whether to stop after each step but the last, and then again before each evaluation.
            ends = [mark.time for mark in own if mark.what == "step"][: len(node.steps) - 1]
            phases = [mark.time for mark in own if mark.what == "evaluating"]
            end = next(mark.time for mark in own if mark.what == "node")
            self.steps.append([later - one for one, later in pairwise(ends)])
            self.openings.append(ends[0] - before)
            self.closings.append((phases[0] if phases else end) - ends[-1])
            if phases:
                self.evaluations.append([later - one for one, later in zip(phases, [*phases[1:], end], strict=True)])
            before = end


class _Watch:
    """Notes what a job reports, and when."""

    def __init__(self) -> None:
        self.marks = [_Mark("begin", "", time.monotonic())]
        self._node = ""

    def report(self, event: dict[str, Any]) -> None:
        if event["event"] == "phase" and event["phase"] in ("training", "evaluating"):
            self._node = event["node"]
            self._note(event["phase"])
        elif event["event"] == "node":
            self._note("node")
            self._node = ""

    def stepped(self) -> bool:
        """Stands in for the question whether to stop, which training asks after each step."""
        if self._node:
            self._note("step")
        return False

    def _note(self, what: str) -> None:
        self.marks.append(_Mark(what, self._node, time.monotonic()))


def main() -> None:
    folder = Path(sys.argv[1])
    courses = []
    try:
        for path in read_json(folder / "jobs.json"):
            watch = _Watch()
            run_job(read_job(Path(path)), watch.report, watch.stepped)
            courses.append([vars(mark) for mark in watch.marks])
    except UserError as error:
        sys.exit(str(error))
    write_json(folder / "marks.json", courses)


if __name__ == "__main__":
    main()
