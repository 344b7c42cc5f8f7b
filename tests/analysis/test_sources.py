"""One sweep read from the store, from offline W&B files and from a W&B server: the same frame, to the last bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fabricated_store import fabricate
from wandb_server import ENTITY, Server, serving

from analysis.frame import FRAME_COLUMNS
from analysis.load import Sweep, load
from davinci.errors import UserError
from davinci.launching import manifests
from davinci.planning.plan import load_plan
from davinci.store import Store
from davinci.tracking.records import Writer

SWEEP = "qa_ratio"


def made(root: Path, mode: str) -> Store:
    """Two arms by two seeds with all kinds of rows; a seed's arms share its trunk."""
    store = fabricate(root, arms={"QA-30%": 0.0, "QA-70%": 1.0}, seeds=(0, 1), items=20)
    plan = load_plan(store, SWEEP)
    for index, node in enumerate(plan.nodes.values()):
        with Writer(store.records(node.id), attempt=2) as writer:
            writer.write("spike", node.end, node.end // 512, loss=9.5, grad_norm=None)
            writer.write("train", node.end, node.end // 512, loss=1 / 3 + index, lr=1e-5, **{"loss/qa": 0.1})
            writer.write("probe", node.end, 0, capability="copy", suite="x", items=50, chance=0.25, accuracy=0.3)
    arms = [
        arm.model_copy(update={"config": arm.config.model_copy(update={"tracking": tracking(arm.config, mode)})})
        for arm in plan.arms
    ]
    manifests.record(plan.model_copy(update={"arms": tuple(arms)}), store)
    return store


def tracking(config: Any, mode: str) -> Any:
    return config.tracking.model_copy(update={"mode": mode, "project": "davinci-tests", "entity": ENTITY})


def sync(store: Store, *extra: str) -> None:
    command = [sys.executable, "-m", "davinci", "sync", SWEEP, "--store", str(store.root), *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def tables(sweep: Sweep) -> list[pd.DataFrame]:
    """All of a sweep that is numbers."""
    losses = pd.concat(sweep.train, names=["node"])
    spent = pd.DataFrame(sweep.spent.values(), index=sweep.spent.keys())
    probes = pd.DataFrame([row for rows in sweep.probes.values() for row in rows])
    named = probes[["tokens", "capability", "items", "chance", "accuracy"]]
    return [sweep.frame, sweep.scores, sweep.heldout, losses, spent, named]


def alike(one: Sweep, other: Sweep) -> None:
    for left, right in zip(tables(one), tables(other), strict=True):
        pd.testing.assert_frame_equal(left, right, check_exact=True, check_dtype=False)
    assert one.spikes == other.spikes and one.items.keys() == other.items.keys()


def test_offline_files_say_the_same_as_the_store(tmp_path: Path) -> None:
    offline = made(tmp_path / "offline", "offline")
    sync(offline, "--offline")
    truth = load(offline, SWEEP)
    frame = truth.frame
    assert list(frame.columns) == FRAME_COLUMNS
    assert {"train/loss", "train/loss/qa", "heldout/code/bits_per_byte", "spike/loss", "eval/code_next"} < set(
        frame["metric"].cat.categories
    )
    assert not frame.duplicated(["run", "tokens", "metric"]).any() and frame["value"].notna().all()
    alike(truth, load(offline, SWEEP, source="offline"))


def test_what_w_and_b_does_not_hold_is_said(tmp_path: Path) -> None:
    store = made(tmp_path, "offline")
    with pytest.raises(UserError, match=r"--source offline: .*holds no run of sweep 'qa_ratio'"):
        load(store, SWEEP, source="offline")
    with pytest.raises(UserError, match=r"--source ofline: .*nearest: offline"):
        load(store, SWEEP, source="ofline")


def test_a_server_says_the_same_as_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path / "online", "online")
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        sync(store)
        truth = load(store, SWEEP)
        from_server = load(store, SWEEP, source="wandb")
        alike(truth, from_server)
        assert len(from_server.recorded.read) == 4
        _only_what_changed(store, server)


def _only_what_changed(store: Store, server: Server) -> None:
    run = load_plan(store, SWEEP).runs[-1]
    with Writer(store.records(run.nodes[-1]), attempt=3) as writer:
        writer.write("train", 1_300_000, 2600, loss=0.25)
    sync(store)
    before = server.counted()
    again = load(store, SWEEP, source="wandb")
    assert again.recorded.read == [run.id]
    assert (server.counted() - before)["RunHistoryKeys"] == 1, "one run was scanned"
    alike(load(store, SWEEP), again)
    assert load(store, SWEEP, source="wandb").recorded.read == []
