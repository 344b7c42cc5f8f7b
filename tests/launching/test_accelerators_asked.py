"""A run that asks for accelerators does not train on processors without a word."""

from __future__ import annotations

import sys
from pathlib import Path

import launch_fakes
import pytest

from davinci.errors import UserError
from davinci.launching.job import failure_path, perform
from davinci.launching.launch import launch, write_jobs
from davinci.store import Store, read_json, write_json
from davinci.training import accelerators


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for all but what looks for accelerators."""
    for name, module in launch_fakes.stand_ins().items():
        if name != "davinci.training.accelerators":
            monkeypatch.setitem(sys.modules, name, module)


def test_a_launch_on_a_machine_without_one_says_so_and_forgets_nothing(tmp_path: Path) -> None:
    plan, store = launch_fakes.make_plan(cluster=[{}, {"gpus_per_node": 1}]), Store(tmp_path)
    failure = failure_path(store, plan.sweep, "c0-s0")
    write_json(failure, {"error": "it was too hot"})
    config = plan.arms[0].config
    with pytest.raises(UserError, match=r"^cluster.gpus_per_node: runs ask for .*; cluster.gpus_per_node=0 trains on"):
        launch(plan, store, config.cluster, config.tracking)
    assert failure.is_file()
    assert not (tmp_path / "nodes").exists()


@pytest.mark.parametrize("cuda", [None, "12.8"])
def test_a_job_that_finds_none_fails_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: str | None
) -> None:
    monkeypatch.setattr(accelerators.torch.version, "cuda", cuda)
    monkeypatch.setattr(accelerators.torch.version, "hip", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    plan, store = launch_fakes.make_plan(arms=1, cluster={"gpus_per_node": 1}), Store(tmp_path)
    (path,) = write_jobs(plan, store, ["c0-s0"]).values()
    outcome = perform(path, lambda event: None, lambda: False)
    assert outcome.state == "failed" and outcome.error is not None
    assert outcome.error.startswith("cluster.gpus_per_node: 1 asked for, but torch sees none on ")
    assert ("built for processors alone" if cuda is None else "CUDA_VISIBLE_DEVICES is '3'") in outcome.error
    assert read_json(failure_path(store, plan.sweep, "c0-s0"))["error"] == outcome.error
    assert not store.records("a-s0").exists()
