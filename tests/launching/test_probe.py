"""The probe: what it refuses, what it trains, and how it reads the clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plans import small_run, small_stage
from pools import DEPTH, POOL, SOURCES, VOCAB_SIZE, tiny_pool

from davinci.config import Run
from davinci.data.cards import read_card
from davinci.errors import UserError
from davinci.launching import probe
from davinci.planning.build import build_plan
from davinci.planning.cost import Shape, evaluation_flops
from davinci.planning.plan import Plan
from davinci.planning.sweep import Arm, Question, Sweep
from davinci.store import Store, write_json

LENGTH = 32
GROWING = [{"from_tokens": 0, "sequences": 1}, {"from_tokens": 320, "sequences": 4}]


def a_run(sized: int | None = None, **changes: Any) -> Run:
    """Stages of one, four and two sequences a step; `sized` states the tokens of every source."""
    model = small_run().model.model_dump(mode="json") | {
        "hidden_size": 16,
        "attention_heads": 2,
        "head_dim": 8,
        "mlp_intermediate_size": 32,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 64,
        "rope_theta": 1e4,
        "norm_eps": 1e-6,
        "initializer_range": 0.02,
    }
    sources = {name: {"domain": domain, "depths": [DEPTH], "tokens": sized} for name, (domain, _) in SOURCES.items()}
    lr = {"shape": "constant", "start": 1e-3}
    stages = {
        "first": small_stage(9600, sequence_length=LENGTH, batch_size=GROWING, lr=lr),
        "second": small_stage(1280, sequence_length=LENGTH, lr=lr),
    }
    evaluation = {"harness": "lm_eval", "at": [{"stage": "second"}], "heldout_sequences": 2}
    return small_run(
        model=model | changes.pop("model", {}),
        pool={"name": POOL, "tokenizer": "tokenizer.json", "vocab_size": VOCAB_SIZE, "sources": sources},
        curriculum={"name": "grows", "stages": stages},
        evaluation=evaluation | changes.pop("evaluation", {}),
        checkpoint_every_tokens=100_000,
        **changes,
    )


def plan_of(store: Store, *runs: Run, seeds: tuple[int, ...] = (0, 1)) -> Plan:
    arms = tuple(
        Arm(label=f"arm {place}", overrides=(), is_baseline=place == 0, config=run) for place, run in enumerate(runs)
    )
    sweep = Sweep("probed", Question(text="?"), arms, seeds, ("model",))
    return build_plan(sweep, cards={POOL: read_card(store, POOL)}, store=store, warn_only=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    tiny_pool(store, tokens=4_000)
    return store


def everything(store: Store) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in store.root.rglob("*")}


def test_a_real_probe_measures_each_shape_and_leaves_the_store_alone(store: Store) -> None:
    run = a_run()
    plan = plan_of(store, run)
    before = everything(store)
    measured = probe.measure(plan, store, run.cluster)
    assert everything(store) == before
    assert measured.workers == 2
    assert measured.steps <= probe.STEPS
    assert measured.step.keys() == {Shape(run.model, LENGTH, sequences) for sequences in (1, 2, 4)}
    assert all(seconds > 0 for seconds in measured.step.values())
    assert measured.checkpoint.keys() == {run.model} and measured.evaluation == {}
    assert measured.start > 0
    cost = plan_of(store, run).cost
    refined = build_plan_with(measured, store, run).cost
    assert refined.mfu_measured and refined.mfu != cost.mfu and refined.days.left > 0


def build_plan_with(measured: probe.Probe, store: Store, run: Run) -> Plan:
    arm = Arm(label="arm 0", overrides=(), is_baseline=True, config=run)
    sweep = Sweep("probed", Question(text="?"), (arm,), (0, 1), ())
    return build_plan(sweep, cards={POOL: read_card(store, POOL)}, store=store, probe=measured)


def test_only_this_machine_is_measured(store: Store) -> None:
    run = a_run(cluster={"kind": "slurm"})
    with pytest.raises(UserError, match=r"cluster\.kind is slurm; add cluster=local"):
        probe.measure(plan_of(store, run), store, run.cluster)


def test_without_the_pool_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    run, store = a_run(sized=10**6), Store(tmp_path)
    with pytest.raises(UserError, match="data build"):
        probe.measure(plan_of(store, run), store, run.cluster)


def test_a_model_that_does_not_fit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "memory_bytes", lambda: 10_000)
    run = a_run()
    with pytest.raises(UserError, match=r"model fake does not fit: 2 workers need"):
        probe.measure(plan_of(store, run), store, run.cluster)


def test_a_failed_training_is_one_line(store: Store) -> None:
    run = a_run()
    plan = plan_of(store, run)
    shard = next(store.pool(POOL).glob("prose*/train*"))
    shard.write_bytes(b"")
    with pytest.raises(UserError, match="^the probe's training failed: .+$"):
        probe.measure(plan, store, run.cluster)


@pytest.mark.parametrize("processes", [1, 2, 5, 14])
def test_no_more_steps_than_promised(store: Store, processes: int) -> None:
    models = [a_run(), a_run(model={"name": "wide", "hidden_size": 24}), a_run(model={"name": "deep", "layers": 2})]
    plan = plan_of(store, *models)
    budget = probe.STEPS // processes
    courses = probe._courses(plan, plan.nodes, models[0].cluster, budget)
    assert 0 < sum(len(node.steps) for course in courses for node in course.nodes) <= budget
    for course in courses:
        for shape, node in zip(course.shapes, course.nodes, strict=True):
            assert node.stage.batch_size[0].sequences == shape.sequences and node.model == shape.model
        assert [node.parent for node in course.nodes] == [None, *(node.id for node in course.nodes[:-1])]
        assert [node.begin for node in course.nodes] == [0, *(node.end for node in course.nodes[:-1])]


def test_what_is_finished_is_not_measured(store: Store) -> None:
    run = a_run()
    plan = plan_of(store, run)
    for one in plan.runs:
        node = plan.nodes[one.nodes[0]]
        write_json(store.node(node.id) / "node.json", node.model_dump(mode="json"))
        write_json(store.node(node.id) / "done.json", {})
    measured = probe.measure(plan, store, run.cluster)
    assert measured.step.keys() == {Shape(run.model, LENGTH, 2)}


def test_a_long_evaluation_is_measured_on_fewer_items() -> None:
    sized = {"items": 1000, "tokens_per_item": 50}
    run = a_run(evaluation={"harness": "embedded"})
    benchmarks = {name: one.model_copy(update=sized) for name, one in run.evaluation.benchmarks.items()}
    evaluation = run.evaluation.model_copy(update={"benchmarks": benchmarks})
    whole = evaluation_flops(run.model, VOCAB_SIZE, evaluation)
    assert whole is not None
    fast = probe._suite(run.model, evaluation, rate=whole / probe.PATIENCE)
    assert fast == probe._Suite(evaluation.key, evaluation, 1.0)
    slow = probe._suite(run.model, evaluation, rate=whole / probe.PATIENCE / 10)
    assert slow is not None and slow.asked.limit == 100
    assert slow.factor == pytest.approx(10) and slow.key == evaluation.key
    assert probe._suite(run.model, evaluation.model_copy(update={"harness": "lm_eval"}), rate=1.0) is None


def test_the_clock_is_read_between_marks(store: Store) -> None:
    """Steps of 2 s (a shape's second 5 s), 3 s to set up a node, 7 s a checkpoint, 20 s an evaluation, 30 the first."""
    run = a_run()
    (course, *_) = probe._courses(plan_of(store, run), plan_of(store, run).nodes, run.cluster, 30)
    suite = probe._Suite("k", run.evaluation, 2.0)
    course = probe._Course(course.model, course.shapes, course.nodes, (suite,))
    now = 100.0
    marks = [probe._Mark("begin", "", now)]

    def mark(what: str, node: str, after: float) -> None:
        nonlocal now
        now += after
        marks.append(probe._Mark(what, node, now))

    evaluated = 0
    for node in course.nodes:
        mark("training", node.id, 3.0)
        for step in range(len(node.steps) - 1):
            mark("step", node.id, 5.0 if step == 1 else 2.0)
        now += 2.0 + 7.0  # the last step is not marked
        if node in course.nodes[-2:]:
            mark("step", node.id, 0.0)  # asked once more before it evaluates
            mark("evaluating", node.id, 0.0)
            evaluated += 1
            mark("node", node.id, 30.0 if evaluated == 1 else 20.0)
        else:
            mark("node", node.id, 0.0)
    measured = probe._probe([course], ([90.0, 95.0], [[marks], [marks]]))
    assert measured.step == {shape: pytest.approx(2.0) for shape in course.shapes}
    assert measured.checkpoint == {run.model: pytest.approx(7.0)}
    assert measured.evaluation == {(run.model, "k"): pytest.approx(40.0)}
    assert measured.node == pytest.approx(3.0)
    assert measured.start == pytest.approx(7.5 + 10.0)  # from spawning to the job, and what the first evaluation loads
