"""The mirror with the real wandb client, online, against a server on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_wandb_mirror import RUNS, evaluate, make_sweep, sync
from wandb_server import ENTITY, serving

from davinci.store import Store
from davinci.tracking.wandb_mirror import wandb_id


def test_online_runs_are_sent_whole_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    make_sweep(store, "online")
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert sync(store).stdout.endswith("2 of 2 runs are finished and mirrored\n")
        found = {name: run for (entity, project, name), run in server.runs.items()}
        assert {(entity, project) for entity, project, _ in server.runs} == {(ENTITY, "davinci-tests")}
        assert set(found) == {wandb_id("qa", run) for run in RUNS}
        run = found[wandb_id("qa", RUNS[0])]
        assert (run.display_name, run.group, run.job_type) == ("QA-30% seed 0", "qa", "run")
        assert [row["tokens"] for row in run.history] == list(range(10, 201, 10))
        assert run.history[-1]["eval/sums"] == 0.25
        assert run.summary["eval/Overall average"] == pytest.approx(1.75 / 3)
        assert run.config["curriculum"]["value"] == {"stages": {"s1": {"tokens": 100}}}
        assert {run.exit_code for run in found.values()} == {0}

        evaluate(store, "qa-50-leaf", 200, 0.75, attempt=2)
        sync(store)
        history = server.runs[ENTITY, "davinci-tests", wandb_id("qa", RUNS[1])].history
        assert [row["tokens"] for row in history] == [*range(10, 201, 10), 200], "only what is new was sent"
        assert history[-1]["eval/sums"] == 0.75
        assert len(run.history) == 20, "the other run was left alone"
