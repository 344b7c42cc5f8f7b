"""``status``: what is said of runs in every state."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import launch_fakes
import pytest
from rich.console import Console

from davinci.__main__ import main
from davinci.commands import status as status_command
from davinci.commands.status_page import StatusPage
from davinci.launching.job import failure_path
from davinci.launching.lock import SILENCE_SECONDS, Lock, this_process
from davinci.launching.presence import present
from davinci.launching.status import SweepState, sweep_state
from davinci.planning.plan import Plan, load_plan
from davinci.store import Store, read_json, write_json
from davinci.tracking.records import Writer

Work = Callable[[Plan, Store, Sequence[str]], None]


def state_of(store: Store) -> SweepState:
    return sweep_state(load_plan(store, "fake"), store)


def shown(store: Store, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str]]:
    status = main(["status", "fake", *options, "--store", str(store.root)])
    return status, capsys.readouterr().out.splitlines()


def train_rows(store: Store, node: str, begin: int, tokens: int, speed: float) -> None:
    with Writer(store.records(node), 1) as records:
        for at in range(begin + 8, tokens + 1, 8):
            records.write("train", at, at // 8, loss=1.0, tokens_per_second=speed)


def test_done_and_waiting(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = shown(store, capsys)
    assert status == 0
    assert [line.split() for line in lines[:3]] == [["seed", "0"], ["arm0", "done"], ["arm1", "waiting", "66%"]]
    assert lines[3] == f"nobody works on it now; to go on: python -m davinci retry fake --store {store.root}"
    assert lines[4] == "fake: 2 runs: 1 done, 1 waiting · 240 of 320 tokens (75%)"


def test_spikes_are_counted(store: Store, work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    """Of finished stretches as they were marked, of those at work in their newest rows; a step tried again once."""
    assert "loss spikes" not in " ".join(shown(store, capsys)[1])
    for attempt in (1, 2):
        with Writer(store.records("c0-s0"), attempt) as records:
            records.write("spike", 168, 21, loss=9.0)
        with Writer(store.records("c1-s0"), attempt) as records:
            for tokens in (168, 176):
                records.write("spike", tokens, tokens // 8, loss=9.0)
    work(launch_fakes.make_plan(points=(40, 72, 80)), store, ["c0-s0"])
    with Lock(store.node("c1-s0")):
        assert [run.spikes for run in state_of(store).runs] == [1, 2]
        assert "loss spikes: arm0 seed 0 (1), arm1 seed 0 (2)" in shown(store, capsys)[1]


def test_running_with_progress_and_time_to_go(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    train_rows(store, "c1-s0", 160, 200, speed=0.5)
    with Lock(store.node("c1-s0")):
        run = state_of(store).runs[1]
        status, lines = shown(store, capsys)
    assert (run.state, run.phase, run.tokens, run.tokens_per_second) == ("running", "training", 200, 0.5)
    # 40 tokens at 0.5 a second and two evaluations, which took arm0 no time.
    assert run.eta_seconds == pytest.approx(80, abs=2)
    assert status == 0
    assert lines[2].split()[:3] == ["arm1", "running", "83%"]
    assert lines[3].startswith("training 50%: c of arm1 seed 0, 0 tokens/s (process ")
    assert "nobody works" not in "".join(lines)
    assert "ETA 1:2" in lines[-1]


def test_a_holder_elsewhere_that_fell_silent_does_not_run(store: Store) -> None:
    """By the clock of the file system, whatever time it is here."""
    elsewhere = asdict(replace(this_process(), machine="elsewhere", host="elsewhere"))
    path = store.node("c1-s0") / "lock.000001"
    path.parent.mkdir()
    path.write_text(json.dumps(elsewhere))
    assert [run.state for run in state_of(store).runs] == ["done", "running"]
    modified = path.stat().st_mtime
    os.utime(path, (modified, modified - 2 * SILENCE_SECONDS))
    assert [run.state for run in state_of(store).runs] == ["done", "waiting"]


def test_waiting_runs_have_a_time_to_go_while_somebody_works(tmp_path: Path, work: Work) -> None:
    store = Store(tmp_path / "store")
    plan = launch_fakes.make_plan(arms=3, cluster={"workers": 1})
    work(plan, store, ["b-s0"])
    train_rows(store, "c0-s0", 160, 200, speed=1.0)
    with Lock(store.node("c0-s0")):
        states = sweep_state(plan, store)
    # One worker: 40 s of the first are left, then 80 s each of the others.
    assert [round(run.eta_seconds or 0, -1) for run in states.runs] == [40, 120, 200]
    assert states.eta_seconds == pytest.approx(200, abs=3)
    assert sweep_state(plan, store).eta_seconds is None, "nobody works on it"


def test_evaluating(store: Store) -> None:
    train_rows(store, "c1-s0", 160, 240, speed=1.0)
    with Lock(store.node("c1-s0")):
        run = state_of(store).runs[1]
    assert run.tokens == 240 and run.state == "running"


def test_failed_and_blocked_by_what(tmp_path: Path, work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "store")
    work(launch_fakes.make_plan(arms=2, seeds=3), store, ["b-s0", "c0-s0"])
    for chain in ("c1-s0", "b-s1"):
        write_json(failure_path(store, "fake", chain), {"error": f"RuntimeError: {chain} diverged"})
    status, lines = shown(store, capsys)
    assert status == 1
    assert [line.split() for line in lines[1:3]] == [
        ["arm0", "done", "blocked", "waiting"],
        ["arm1", "failed", "blocked", "waiting"],
    ]
    log = store.jobs("fake") / "b-s1.log"
    assert f"failed: a of 2 runs of seed 1: RuntimeError: b-s1 diverged; log: {log}" in lines
    assert "failed: c of arm1 seed 0: RuntimeError: c1-s0 diverged" in "\n".join(lines)
    assert "blocked: arm0 seed 1, arm1 seed 1: by a of 2 runs of seed 1, which failed" in lines
    (failed,) = [run for run in state_of(store).runs if run.state == "failed"]
    assert (failed.id, failed.error) == ("arm1-s0", "RuntimeError: c1-s0 diverged")


def test_json(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = shown(store, capsys, "--json")
    found = json.loads("\n".join(lines))
    assert (found["sweep"], found["counts"], found["eta_seconds"]) == ("fake", {"done": 1, "waiting": 1}, None)
    assert [(run["id"], run["state"], run["tokens"], run["total_tokens"]) for run in found["runs"]] == [
        ("arm0-s0", "done", 240, 240),
        ("arm1-s0", "waiting", 160, 240),
    ]


def test_many_seeds_are_counted(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("davinci.commands.status_page.SEEDS_SHOWN", 0)
    _, lines = shown(store, capsys)
    assert [line.split() for line in lines[:2]] == [["arm0", "1", "done"], ["arm1", "1", "waiting"]]


def test_a_tall_table_is_cut_to_what_happens(tmp_path: Path, work: Work) -> None:
    store = Store(tmp_path / "store")
    plan = launch_fakes.make_plan(arms=9)
    work(plan, store, ["b-s0"])
    with Lock(store.node("c7-s0")):
        page = StatusPage(plan, sweep_state(plan, store), 80, "")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(page.table(5))
    lines = console.export_text().splitlines()
    assert lines[1].split()[:2] == ["arm7", "running"]
    assert len(lines) == 5 and lines[-1].split()[:4] == ["and", "6", "arms", "more"]


def test_a_launcher_between_two_jobs_counts_as_work(store: Store) -> None:
    assert not state_of(store).is_worked_on
    with present(store, "fake"):
        assert state_of(store).is_worked_on
        assert f"process {os.getpid()} on " in state_of(store).launchers[0]
    assert not state_of(store).is_worked_on


def test_a_launcher_that_died_is_forgotten(store: Store) -> None:
    with present(store, "fake"):
        (path,) = store.jobs("fake").glob("launcher-*.json")
        dead = json.loads(path.read_text()) | {"started": "1"}
        (store.jobs("fake") / "launcher-dead.json").write_text(json.dumps(dead))
        assert len(state_of(store).launchers) == 1
    with present(store, "fake"):
        assert len(list(store.jobs("fake").glob("launcher-*.json"))) == 1


def test_watch_ends_when_all_is_done(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, work: Work
) -> None:
    asked: list[float] = []

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 2:
            work(launch_fakes.make_plan(), store, ["c1-s0"])

    monkeypatch.setattr(status_command.time, "sleep", sleep)
    status, lines = shown(store, capsys, "--watch")
    assert status == 0
    assert lines == [
        "fake: 2 runs: 1 done, 1 waiting · 240 of 320 tokens (75%)",
        "fake: 2 runs: 2 done · 320 of 320 tokens (100%)",
    ], "a line where something changed"
    assert len(asked) == 2
    _, lines = shown(store, capsys, "--watch", "--json")
    assert [json.loads(line)["counts"] for line in lines] == [{"done": 2}]


def test_what_slurm_says(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(store.jobs("fake") / "slurm.json", {"c0-s0": "7_0", "c1-s0": "7_1"})
    fake_slurm(tmp_path, monkeypatch, "7_1|PENDING|Priority")
    run = state_of(store).runs[1]
    assert (run.state, run.queued) == ("waiting", "PENDING (Priority)")
    status, lines = shown(store, capsys)
    assert "in Slurm: 1 job PENDING (Priority)" in lines and "nobody works" not in "".join(lines)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    status, lines = shown(store, capsys)
    assert status == 0 and "Slurm does not answer; what is said here is from the store" in lines


def fake_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, listed: str) -> Path:
    """squeue that lists `listed`, and scancel that notes what it is told in the file returned."""
    told = folder / "told"
    tools = folder / "tools"
    tools.mkdir()
    for name, text in (("squeue", f"echo '{listed}'"), ("scancel", f'echo "$@" > {told}')):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return told


def test_cancelling_on_slurm(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(store.jobs("fake") / "slurm.json", {"b-s0": "6", "c1-s0": "7_1"})
    told = fake_slurm(tmp_path, monkeypatch, "7_1|RUNNING|None")
    assert main(["cancel", "arm1-s0", "--store", str(store.root)]) == 0
    assert told.read_text() == "7_1\n"
    assert read_json(store.jobs("fake") / "slurm.json") == {"b-s0": "6"}, "it is submitted anew when it is retried"
