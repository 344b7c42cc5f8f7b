"""The judge of the chaos test sees what it is there to see: each thing that must not be, done to a finished sweep."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import launch_fakes
import onlooker
import pytest
from scene import Scene, SlurmJob

from davinci.launching.job import read_job, run_job
from davinci.launching.launch import write_jobs
from davinci.launching.manifests import record
from davinci.store import Store, read_json, write_json
from davinci.tracking.records import Writer

LEAF = "c0-s0"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    for name, module in launch_fakes.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    plan, store = launch_fakes.make_plan(arms=2, seeds=2), Store(tmp_path / "store")
    record(plan, store)
    for path in write_jobs(plan, store, [chain.name for chain in plan.chains()]).values():
        run_job(read_job(path), lambda event: None, lambda: False)
    yield Scene(plan, store, (), tmp_path, {}, tmp_path)


def rows(scene: Scene, node: str) -> list[str]:
    return scene.store.records(node).read_text().splitlines(keepends=True)


def again(scene: Scene, node: str, lines: list[str]) -> None:
    """Replace a node's records, and what its mark says of their size."""
    scene.store.records(node).write_text("".join(lines))
    path = scene.store.node(node) / "done.json"
    write_json(path, read_json(path) | {"records_bytes": scene.store.records(node).stat().st_size})


def second(line: str) -> str:
    return json.dumps(json.loads(line) | {"attempt": 2}) + "\n"


def test_nothing_is_found_where_nothing_is_wrong(scene: Scene) -> None:
    assert onlooker.wrong_records(scene) == []
    assert set(onlooker.truth(scene).values()) == {"done"}
    assert onlooker.differences(scene, scene.store) == []


def test_two_writers_at_a_time(scene: Scene) -> None:
    both = [line for line in rows(scene, LEAF) for _ in range(2)]
    again(scene, LEAF, both)
    assert f"{LEAF}: attempt 1 was trained by two at a time" in onlooker.wrong_records(scene)


def test_two_attempts_at_a_time(scene: Scene) -> None:
    first, *others = rows(scene, LEAF)
    scene.ledger.hits[LEAF] = 1
    again(scene, LEAF, [first, second(first), *others])
    assert onlooker.wrong_records(scene) == [f"{LEAF}: an earlier attempt wrote after a later one"]


def test_an_attempt_without_cause(scene: Scene) -> None:
    lines = rows(scene, LEAF)
    again(scene, LEAF, [lines[0], *map(second, lines)])
    assert onlooker.wrong_records(scene) == [f"{LEAF}: 2 attempts, though it was struck only 0 times"]
    scene.ledger.hits[LEAF] = 1
    assert onlooker.wrong_records(scene) == []


def test_work_after_the_end(scene: Scene) -> None:
    with Writer(scene.store.records(LEAF), 1) as writer:
        writer.write("heldout", 240, 30, domain="general", loss=0.5)
    assert onlooker.wrong_records(scene) == [f"{LEAF}: rows were written after it was done"]


def test_a_chain_in_two_jobs() -> None:
    jobs = [SlurmJob(str(number), LEAF, "RUNNING", 0, "n1") for number in (1, 2)]
    assert onlooker.twins(jobs) == [f"{LEAF} runs in 2 jobs at once"]
    assert onlooker.twins(jobs[:1]) == []


def test_other_weights_and_scores(scene: Scene, tmp_path: Path) -> None:
    quiet = Store(tmp_path / "quiet")
    shutil.copytree(scene.store.root, quiet.root)
    path = scene.store.node(LEAF) / "done.json"
    write_json(path, read_json(path) | {"weights_digest": "other"})
    scored = [
        json.dumps(json.loads(line) | {"score": 1.0}) + "\n" if '"sums"' in line else line for line in rows(scene, LEAF)
    ]
    again(scene, LEAF, scored)
    assert onlooker.differences(scene, quiet) == [
        f"{LEAF}: other weights than undisturbed",
        "table.json differs from the undisturbed one's",
        "scores.csv differs from the undisturbed one's",
        "benchmarks.md differs from the undisturbed one's",
    ]
    path.unlink()
    assert f"{LEAF}: other weights than undisturbed" in onlooker.differences(scene, quiet)


def test_a_status_that_is_not_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `status` that does not know of a failed chain, one that says nothing, and the true one."""
    (scene.store.node(LEAF) / "done.json").unlink()
    write_json(scene.store.jobs("fake") / f"{LEAF}.failed.json", {"error": "x"})
    assert onlooker.truth(scene)["arm0-s0"] == "failed"
    runs = [{"id": run.id, "state": "waiting" if run.id == "arm0-s0" else "done"} for run in scene.plan.runs]
    monkeypatch.setattr(onlooker, "ask", lambda scene: json.dumps({"runs": runs}))
    assert onlooker.wrong_statuses(scene) == ["run arm0-s0: status says waiting, but it is failed"]
    runs[0]["state"] = "failed"
    assert onlooker.wrong_statuses(scene) == []
    monkeypatch.setattr(onlooker, "ask", lambda scene: "Traceback")
    assert onlooker.wrong_statuses(scene) == ["status --json: Traceback"]
