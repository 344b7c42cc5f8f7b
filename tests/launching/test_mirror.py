"""Whatever becomes of W&B, the launch goes on and says so in one line."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import launch_fakes
import pytest

from davinci.launching import mirror
from davinci.launching.board import Board
from davinci.launching.job import read_job, run_job
from davinci.launching.launch import write_jobs
from davinci.launching.manifests import record
from davinci.launching.mirror import Mirror
from davinci.launching.progress import Display, PatientConsole
from davinci.launching.reconcile import plan_remaining
from davinci.launching.status import sweep_state
from davinci.store import Store


class Launch:
    """A finished plan of one run, and what the display says while its mirror is used."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store")
        self.plan = launch_fakes.make_plan(arms=1, mode="offline")
        record(self.plan, self.store)
        for path in write_jobs(self.plan, self.store, [chain.name for chain in self.plan.chains()]).values():
            run_job(read_job(path), lambda event: None, lambda: False)
        self.board = Board(self.plan, plan_remaining(self.plan, self.store), workers=1)

    def mirror(self) -> str:
        screen = io.StringIO()
        display = Display(self.board, PatientConsole(file=screen, width=1000))
        with Mirror("fake", self.store, self.plan.arms[0].config.tracking, display) as mirror:
            mirror.add("arm0-s0")
            mirror.add("arm0-s0")
        return screen.getvalue()


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    for name, module in launch_fakes.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    return Launch(tmp_path)


def test_a_finished_run_is_mirrored_once(launch: Launch) -> None:
    assert launch.mirror() == f"W&B: 1 runs mirrored offline ({launch.store.wandb})\n"
    assert launch.mirror() == ""
    assert len(list(launch.store.wandb.glob("offline-run-*"))) == 2, "it and its evaluation"


def test_a_failure_is_one_line_that_says_why_and_status_repeats_it(launch: Launch) -> None:
    launch.store.wandb.write_text("in the way")
    log = launch.store.jobs("fake") / "wandb.log"
    (said,) = launch.mirror().splitlines()
    assert re.fullmatch(rf"W&B: .*{launch.store.wandb}.* \(log: {log}\); later: python -m davinci sync fake .*", said)
    assert str(sweep_state(launch.plan, launch.store).mirror_error) in said
    launch.store.wandb.unlink()
    launch.mirror()
    assert sweep_state(launch.plan, launch.store).mirror_error is None


def test_patience_ends(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PATIENCE", 0.0)
    assert launch.mirror().startswith("W&B did not finish in time and was stopped; later: ")
