"""Weights that a child would start from are looked at before it is launched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import launch_fakes
import pytest
import torch
from safetensors.torch import save_file

from davinci.launching.launch import launch
from davinci.launching.lock import Lock
from davinci.launching.parents import is_cut_short, remove_damaged
from davinci.launching.reconcile import plan_remaining
from davinci.store import Store, read_json, write_json

SCRIPT = Path(__file__).with_name("fake_launch.py")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with weights as they are written."""
    save_file({"a": torch.arange(6.0), "b": torch.ones(2, 3)}, tmp_path / "model.safetensors")
    write_json(tmp_path / "state.json", {"digests": {"model.safetensors": "0"}})
    return tmp_path


def test_weights_cut_anywhere_are_cut_short(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    whole = path.read_bytes()
    assert not is_cut_short(checkpoint)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert is_cut_short(checkpoint), length
    path.write_bytes(whole[:8] + b"?" + whole[9:])
    assert not is_cut_short(checkpoint), "rot is found by the digest"


@pytest.mark.parametrize("lost", ["model.safetensors", "state.json"])
def test_weights_in_part_gone_are_cut_short(checkpoint: Path, lost: str) -> None:
    (checkpoint / lost).unlink()
    assert is_cut_short(checkpoint)


def test_what_is_not_there_is_not_cut_short(tmp_path: Path) -> None:
    assert not is_cut_short(tmp_path / "gone")


def test_one_launch_trains_a_damaged_trunk_and_its_new_branch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, module in launch_fakes.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    store = Store(tmp_path)
    done = subprocess.run([sys.executable, str(SCRIPT), str(store.root), "1"], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    state = store.checkpoint("b-s0", 160) / "state.json"
    before = read_json(state)
    write_json(state, before | {"digests": {"optimizer.safetensors": "0"}})
    plan = launch_fakes.make_plan(arms=2)
    with Lock(store.node("b-s0")):
        assert remove_damaged(plan, plan_remaining(plan, store), store) == []
    monkeypatch.setattr("davinci.launching.local.WORKER", [sys.executable, str(SCRIPT.with_name("fake_worker.py"))])
    first = plan.arms[0].config
    assert launch(plan, store, first.cluster, first.tracking) == 0
    assert read_json(state) == before
    assert all(one.finished for one in plan_remaining(plan, store).values())
    said = capsys.readouterr().out
    assert "cut short, so it is trained again before what starts from it" in " ".join(said.split())
    assert "failed" not in said
