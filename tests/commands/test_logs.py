"""``logs``: what a run's jobs printed, once or as it comes."""

from __future__ import annotations

import json

import pytest

from davinci.__main__ import main
from davinci.commands import logs as logs_command
from davinci.launching.job import failure_path, log_path
from davinci.store import Store, write_json


@pytest.fixture
def logged(store: Store) -> Store:
    """Logs of the trunk and of both arms."""
    for chain in ("b-s0", "c0-s0", "c1-s0"):
        log_path(store, "fake", chain).write_text(f"{chain} one\n{chain} two\n")
    return store


def test_all_stretches_in_order(logged: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "arm0-s0", "--store", str(logged.root)]) == 0
    trunk, own = (log_path(logged, "fake", chain) for chain in ("b-s0", "c0-s0"))
    assert capsys.readouterr().out.splitlines() == [
        *(f"==> {trunk} <==", "b-s0 one", "b-s0 two"),
        *(f"==> {own} <==", "c0-s0 one", "c0-s0 two"),
    ]
    assert main(["logs", "arm0-s0", "-n", "1", "--json", "--store", str(logged.root)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [log["lines"] for log in found["logs"]] == [["b-s0 two"], ["c0-s0 two"]]


def test_what_another_sweep_trained_was_logged_there(logged: Store, capsys: pytest.CaptureFixture[str]) -> None:
    there = logged.jobs("earlier") / "b-s0.log"
    there.parent.mkdir()
    log_path(logged, "fake", "b-s0").rename(there)
    assert main(["logs", "arm0-s0", "--store", str(logged.root)]) == 0
    assert capsys.readouterr().out.startswith(f"==> {there} <==\nb-s0 one\n")


def test_no_log_yet_is_one_line(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "arm1-s0", "--store", str(store.root)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: run arm1-s0 has no log yet; ") and error.count("\n") == 1
    assert main(["logs", "arm1-s0", "-n", "-3", "--store", str(store.root)]) == 2


def test_following_ends_with_the_run(
    logged: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_path(logged, "fake", "c1-s0")
    ticks = iter(range(100))

    def sleep(seconds: float) -> None:
        if next(ticks) == 1:
            with log.open("a") as file:
                file.write("c1-s0 three\nand a torn li")
            write_json(failure_path(logged, "fake", "c1-s0"), {"error": "RuntimeError: diverged"})

    monkeypatch.setattr(logs_command.time, "sleep", sleep)
    monkeypatch.setattr(logs_command, "STATE_SECONDS", 0.0)
    assert main(["logs", "arm1-s0", "--follow", "-n", "1", "--store", str(logged.root)]) == 1
    trunk = log_path(logged, "fake", "b-s0")
    assert capsys.readouterr().out.splitlines() == [
        *(f"==> {trunk} <==", "b-s0 two", f"==> {log} <==", "c1-s0 two"),
        *("c1-s0 three", "and a torn li"),
    ]


def test_following_what_is_done_shows_it(logged: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "arm0-s0", "-f", "--json", "--store", str(logged.root)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["line"] for line in lines] == ["b-s0 one", "b-s0 two", "c0-s0 one", "c0-s0 two"]
