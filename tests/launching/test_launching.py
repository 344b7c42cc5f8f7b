"""What a launch leaves in the store, and what each chain is run with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import launch_fakes
import pytest

from davinci.errors import UserError
from davinci.launching.job import read_job
from davinci.launching.launch import clusters, launch, write_jobs
from davinci.launching.manifests import record
from davinci.launching.slurm import wanted
from davinci.planning.plan import load_plan
from davinci.store import Store


def test_a_launch_is_recorded_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = launch_fakes.make_plan(arms=2, seeds=2)
    record(plan, store)
    assert load_plan(store, "fake") == plan
    paths = [store.runs("fake"), store.sweep("fake") / "launched.json"]
    manifests = json.loads(paths[0].read_text())
    assert sorted(manifests) == ["arm0-s0", "arm0-s1", "arm1-s0", "arm1-s1"]
    manifest = manifests["arm1-s1"]
    assert [(node["id"], node["begin"], node["end"]) for node in manifest["nodes"]] == [
        ("a-s1", 0, 80),
        ("b-s1", 80, 160),
        ("c1-s1", 160, 240),
    ]
    assert (manifest["sweep"], manifest["arm"], manifest["seed"]) == ("fake", "arm1", 1)
    assert manifest["config"] == plan.config(plan.runs[3]).model_dump(mode="json")
    before = [path.stat().st_mtime_ns for path in paths]
    record(plan, store)
    assert [path.stat().st_mtime_ns for path in paths] == before
    paths[0].unlink()
    record(plan, store)
    assert paths[0].is_file(), "what was lost is written again"
    record(launch_fakes.make_plan(arms=1, seeds=1), store)
    assert list(json.loads(paths[0].read_text())) == ["arm0-s0"]


def test_a_chain_is_run_with_what_the_first_run_through_it_says(tmp_path: Path) -> None:
    plan = launch_fakes.make_plan(
        cluster=[
            {"kind": "slurm", "threads": 1},
            {"kind": "slurm", "threads": 3, "gpus_per_node": 4, "time_minutes": 99, "memory_gb": 7, "partition": "big"},
        ]
    )
    names = [chain.name for chain in plan.chains()]
    places = clusters(plan, names)
    assert {name: places[name].threads for name in names} == {"b-s0": 1, "c0-s0": 1, "c1-s0": 3}
    jobs = write_jobs(plan, Store(tmp_path), names)
    assert [read_job(jobs[name]).cluster.threads for name in names] == [places[name].threads for name in names]
    asked = wanted(places["c1-s0"], "fake/c1-s0", None)
    assert (asked["gpus_per_node"], asked["time"], asked["mem"], asked["partition"]) == (4, 99, "7GB", "big")
    assert "export OMP_NUM_THREADS=3" in asked["setup"]
    assert "gpus_per_node" not in wanted(places["b-s0"], "fake/b-s0", None)


def test_one_launch_is_on_one_cluster() -> None:
    plan = launch_fakes.make_plan(cluster=[{"kind": "local"}, {"kind": "slurm"}])
    with pytest.raises(UserError, match=r"cluster.kind: .* local \(arm arm0\), slurm \(arm arm1\)"):
        clusters(plan, ["b-s0"])


@pytest.mark.parametrize(
    ("squeue", "words"),
    [
        (None, "squeue: not found; Slurm's commands must be on this machine's PATH"),
        ("echo error: no name >&2; echo error: again >&2; echo fatal: no >&2", "error: no name; fatal: no"),
    ],
)
def test_what_is_wrong_with_slurm_is_said_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squeue: str | None, words: str
) -> None:
    for name, module in launch_fakes.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    if squeue is not None:
        (tmp_path / "squeue").write_text(f"#!/bin/sh\n{squeue}\nexit 1\n")
        (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = launch_fakes.make_plan(cluster={"kind": "slurm"})
    config = plan.arms[0].config
    with pytest.raises(UserError, match=f"^cluster=slurm: .*{words} .cluster=local runs on this machine.$") as raised:
        launch(plan, Store(tmp_path / "store"), config.cluster, config.tracking)
    assert "\n" not in str(raised.value)
