"""Stages that end when a benchmark's score stops rising: real plans, real training, real evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pools import POOL
from real_plans import LENGTH, arm, filled, stage

from davinci.config import Run, parse
from davinci.data.cards import read_card
from davinci.errors import UserError
from davinci.evaluation.settings import benchmark_digest
from davinci.launching.job import Interrupted, Job, read_job, run_job
from davinci.launching.launch import write_jobs
from davinci.launching.manifests import record
from davinci.planning.build import build_plan
from davinci.planning.plan import Plan
from davinci.planning.sweep import Arm, Question, Sweep
from davinci.realised import read_decisions
from davinci.store import Store, read_json, write_text
from davinci.tracking.records import read
from davinci.training import numerics

STEP = 2 * LENGTH
UNTIL = {"metric": "benchmark", "benchmark": "cloze", "check_every": 4 * STEP, "window": 2, "min_slope": 0.0}
# More than a score can rise: ends at the second check.
FIRES = UNTIL | {"min_slope": 2.0}
# A slope of 0 is not below 0; this score is always the same.
NEVER = UNTIL | {"benchmark": "same"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    numerics.configure(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = filled(tmp_path / "store")
    write_items(store, seed=0)
    return store


def write_items(store: Store, seed: int) -> None:
    """Which letter comes next, as the pool's general documents go; and items of one choice, always right."""
    random = Random(seed)
    rows = []
    for number in range(24):
        start = random.randrange(26)
        text = "".join(chr(ord("A") + (start + place) % 26) for place in range(12))
        choices = [text[-1], *random.sample(sorted(set("abcdefgh") - {text[-1]}), 3)]
        rows.append(
            {
                "id": number,
                "split": "test" if number else "fewshot",
                "context": text[:-1],
                "choices": choices,
                "label": 0,
            }
        )
    folder = store.pool(POOL) / "tasks"
    same = [row | {"choices": ["A"]} for row in rows]
    for name, items in (("general_cloze", rows), ("science_cloze", same)):
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in items))


def run_of(label: str, until: dict[str, Any] | None, units: int = 6) -> Run:
    data = arm(label, {"s": stage(units), "after": stage(1)}, {}).model_dump(mode="json")
    tasks = {"cloze": ("general", "general_cloze"), "same": ("science", "science_cloze")}
    data["evaluation"] |= {
        "suite": "small",
        "benchmarks": {
            name: {"domain": domain, "task": task, "protocol": "ppl", "num_fewshot": 0, "metric": "acc"}
            for name, (domain, task) in tasks.items()
        },
        "at": [],
    }
    data["curriculum"]["stages"]["s"]["until"] = until
    return parse(Run, data)


def planned(store: Store, *runs: Run) -> Plan:
    arms = tuple(Arm(label=run.arm, overrides=(), is_baseline=not place, config=run) for place, run in enumerate(runs))
    sweep = Sweep("watched", Question(text="?"), arms, (0,), ("curriculum",))
    return build_plan(
        sweep,
        cards={POOL: read_card(store, POOL)},
        store=store,
        benchmark_digest=lambda run, name: benchmark_digest(run.pool.name, run.evaluation.only(name), store),
    )


def jobs(plan: Plan, store: Store) -> list[Job]:
    record(plan, store)
    return [read_job(path) for path in write_jobs(plan, store, [chain.name for chain in plan.chains()]).values()]


def run_all(plan: Plan, store: Store) -> None:
    for job in jobs(plan, store):
        run_job(job, lambda event: None, lambda: False)


def weights(plan: Plan, store: Store, label: str) -> list[str]:
    nodes = next(run.nodes for run in plan.runs if run.arm == label)
    found = [store.checkpoint(node, plan.nodes[node].end) for node in nodes]
    return [read_json(folder / "state.json")["digests"]["model.safetensors"] for folder in found]


def test_the_score_ends_the_stage_and_a_kill_after_that_replays_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(store, run_of("one", FIRES), run_of("fixed", None), run_of("short", None, units=1))
    run_all(plan, store)
    first = plan.nodes[plan.runs[0].nodes[0]]
    decisions = read_decisions(store, first.id)
    assert decisions is not None and decisions.ended == 8 * STEP
    rows = read(store.records(first.id), "until")
    assert [(row["benchmark"], row["domain"], row["tokens"], row["ends"]) for row in rows] == [
        ("cloze", "general", 4 * STEP, False),
        ("cloze", "general", 8 * STEP, True),
    ]
    assert [check.score for check in decisions.until] == [row["score"] for row in rows]
    assert all(0 <= row["score"] <= 1 for row in rows)
    assert weights(plan, store, "one") != weights(plan, store, "fixed")

    other = filled(tmp_path / "other")  # the same decisions, nothing else: killed before its first checkpoint
    write_items(other, seed=0)
    other.realised(first.id).parent.mkdir(parents=True)
    shutil.copy(store.realised(first.id), other.realised(first.id))

    def never(*_: Any) -> float:
        raise AssertionError("a decision was measured again")

    monkeypatch.setattr("davinci.evaluation.watched.Watched.score", never)
    run_all(planned(other, run_of("one", FIRES)), other)
    assert weights(plan, other, "one") == weights(plan, store, "one")
    assert other.realised(first.id).read_bytes() == store.realised(first.id).read_bytes()


def test_a_score_that_never_settles_changes_nothing_and_costs_no_bit(store: Store) -> None:
    """Evaluating in the midst of training leaves no trace in the weights, nor does stopping every few steps."""
    plan = planned(store, run_of("never", NEVER), run_of("fixed", None))
    run_all(planned(store, run_of("fixed", None)), store)
    stops, chains = 0, jobs(plan, store)
    while True:
        try:
            calls = iter(range(5))
            for job in chains:
                run_job(job, lambda event: None, lambda: next(calls, None) is None)  # noqa: B023
            break
        except Interrupted:
            stops += 1
    assert stops > 3
    decisions = read_decisions(store, plan.runs[0].nodes[0])
    assert decisions is not None and decisions.ended is None and len(decisions.until) == 7
    assert weights(plan, store, "never") == weights(plan, store, "fixed")


def test_what_is_watched_is_in_the_id_and_must_be_what_was_planned(store: Store) -> None:
    before = planned(store, run_of("one", FIRES))
    (job,) = jobs(before, store)
    write_items(store, seed=1)
    after = planned(store, run_of("one", FIRES))
    assert not before.nodes.keys() & after.nodes.keys()
    assert any("or when the score of cloze rises by less than 2 per" in one.text for one in after.audit.findings)
    with pytest.raises(UserError, match="tasks: benchmark cloze is not what node .* was planned to watch; launch"):
        run_job(job, lambda event: None, lambda: False)
    plain = planned(store, run_of("fixed", None))
    assert all(node.benchmark is None and not node.watched for node in plain.nodes.values())


def test_bad_rules_are_told_in_a_line(store: Store) -> None:
    for change, said in (
        ({"benchmark": "cloz"}, "until.benchmark: suite small has no benchmark 'cloz'; nearest: cloze"),
        ({"benchmark": None}, "metric benchmark needs benchmark, one of evaluation.benchmarks"),
        ({"domain": "code"}, "metric benchmark needs benchmark, .* and takes no domain"),
        ({"metric": "heldout_loss"}, "metric heldout_loss needs domain"),
        ({"metric": "benchmrk"}, "no metric 'benchmrk'; nearest: benchmark"),
        ({"sequences": 8}, "evaluation.limit says how many items are scored"),
    ):
        with pytest.raises(UserError, match=said):
            run_of("one", FIRES | change)
