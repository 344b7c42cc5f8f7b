"""Counts, speed and time to go; a display that nobody reads harms nothing."""

from __future__ import annotations

import io

import launch_fakes
import pytest
from rich.console import Console

from davinci.launching.board import Board, Seat, duration
from davinci.launching.progress import Display, PatientConsole
from davinci.launching.reconcile import Remaining


def make_board(now: list[float]) -> Board:
    plan = launch_fakes.make_plan(arms=2, seeds=1)
    left = {
        node.id: Remaining(train=True, discard=(), start=node.begin, evaluations=(), marked=False)
        for node in plan.nodes.values()
    }
    left["a-s0"] = Remaining(train=False, discard=(), start=80, evaluations=(), marked=True)
    left["b-s0"] = Remaining(train=True, discard=(), start=104, evaluations=(), marked=False)
    return Board(plan, left, clock=lambda: now[0])


def test_numbers() -> None:
    now = [0.0]
    board = make_board(now)
    assert board.tokens == (80 + 24, 320)
    assert board.eta is None
    assert board.runs() == {"done": 0, "running": 0, "waiting": 2, "failed": 0}
    board.seats[0] = Seat("b-s0", "b-s0", "training")
    assert board.runs()["running"] == 2
    now[0] = 2.0
    board.trained("b-s0", 96)  # It resumed behind what was thought: no work done yet.
    board.trained("b-s0", 124)
    assert (board.speed, board.tokens[0]) == (14.0, 80 + 44)
    assert board.eta == pytest.approx(196 / 14)
    now[0] = 4.0
    board.finish("b-s0")
    board.finish("c0-s0")
    assert board.finished_runs() == ["arm0-s0"]
    board.failed.add("c1-s0")
    assert board.runs() == {"done": 1, "running": 0, "waiting": 0, "failed": 1}
    assert "1 done, 1 failed" in board.line() and "ETA" in board.line()
    assert board.name("b-s0") == "b of arm0 seed 0 and 1 more"


def test_speed_forgets_what_is_long_ago() -> None:
    now = [0.0]
    board = make_board(now)
    for second in range(1, 101):
        now[0] = float(second)
        board.trained("c0-s0", 160 + (second if second <= 50 else 50 + (second - 50) // 2))
    assert board.speed == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("terminal", [True, False])
def test_display(terminal: bool) -> None:
    board = make_board([0.0])
    board.seats = {0: Seat("b-s0", "b-s0", "training"), 1: Seat()}
    screen = io.StringIO()
    display = Display(board, Console(file=screen, force_terminal=terminal, width=100, no_color=True))
    with display:
        display.say("hello [bracket]")
        display.refresh()
        display.refresh()
    shown = screen.getvalue()
    assert "hello [bracket]" in shown
    assert ("training b of arm0 seed 0 and 1 more" in shown) == terminal
    assert terminal or shown.count("2 running") == 1


class _Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def fileno(self) -> int:
        raise ValueError("no descriptor")


@pytest.mark.parametrize("terminal", [True, False])
def test_nobody_watches(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", _Gone())
    display = Display(make_board([0.0]), PatientConsole(file=_Gone(), force_terminal=terminal))
    with display:
        display.say("lost")
        display.refresh()
        display.say("lost again")


def test_duration() -> None:
    assert (duration(5), duration(65.4), duration(3723)) == ("0:05", "1:05", "1:02:03")
