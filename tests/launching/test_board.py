"""Counts, speed and time to go; a display that nobody reads harms nothing."""

from __future__ import annotations

import io

import launch_fakes
import pytest
from rich.console import Console

from davinci.launching.board import Board, duration
from davinci.launching.demands import Demand
from davinci.launching.progress import Display, PatientConsole
from davinci.launching.reconcile import Remaining


def make_board(now: list[float]) -> Board:
    plan = launch_fakes.make_plan(arms=2, seeds=1)
    left = {
        node.id: Remaining(train=True, discard=(), start=node.begin, evaluations=(), marked=False)
        for node in plan.nodes.values()
    }
    asked = tuple(Demand(tokens=tokens, suite="s") for tokens in (200, 240))
    left["a-s0"] = Remaining(train=False, discard=(), start=80, evaluations=(), marked=True)
    left["c1-s0"] = Remaining(train=True, discard=(), start=160, evaluations=asked, marked=False)
    left["b-s0"] = Remaining(train=True, discard=(), start=104, evaluations=(), marked=False)
    return Board(plan, left, workers=2, clock=lambda: now[0])


def test_runs_and_tokens() -> None:
    board = make_board([0.0])
    assert board.tokens == (80 + 24, 320)
    assert board.eta is None
    assert board.runs() == {"done": 0, "running": 0, "waiting": 2, "failed": 0}
    board.sit(0, "b-s0", "training")
    assert board.runs()["running"] == 2
    assert board.name("b-s0") == "b of 2 runs of seed 0"
    board.trained(0, "b-s0", 120)
    assert board.tokens == (80 + 40, 320)
    assert board.finish("b-s0") == []
    assert board.finish("c0-s0") == ["arm0-s0"]
    assert board.finish("c0-s0") == []
    board.leave(0)
    assert board.finished_runs() == ["arm0-s0"]
    assert board.runs() == {"done": 1, "running": 0, "waiting": 1, "failed": 0}
    board.fail("c1-s0")
    assert board.runs() == {"done": 1, "running": 0, "waiting": 0, "failed": 1}
    assert "1 done, 1 failed" in board.line()


def test_speed_is_that_of_training_going_on() -> None:
    now = [0.0]
    board = make_board(now)
    board.sit(0, "c0-s0", "training")
    board.sit(1, "c1-s0", "training")
    for second in range(41):
        now[0] = float(second)
        board.trained(0, "c0-s0", 160 + second if second <= 20 else 180 + (second - 20) // 2)
        board.trained(1, "c1-s0", 160 + second)
    assert board.speed == pytest.approx(1.5, rel=0.05)
    board.sit(1, "c1-s0", "evaluating")
    assert board.speed == pytest.approx(0.5, rel=0.1)


def test_time_to_go_counts_evaluations_and_the_longest_chain() -> None:
    now = [0.0]
    board = make_board(now)
    board.sit(0, "b-s0", "training")
    board.trained(0, "b-s0", 110)
    now[0] = 10.0
    board.trained(0, "b-s0", 120)  # A second a token.
    # 40 tokens of b, then 80 of either c: the longest chain, though two workers could share the sum.
    assert board.eta == pytest.approx(40 + 80)
    board.finish("b-s0")
    board.sit(0, "c0-s0", "evaluating")
    now[0] = 14.0
    assert board.eta == pytest.approx(80 + 2 * 4)
    now[0] = 16.0
    board.sit(0, "", "idle")  # Six seconds an evaluation, two to go for c1.
    board.finish("c0-s0")
    assert board.eta == pytest.approx(80 + 2 * 6)
    assert "ETA 1:32" in board.line()


@pytest.mark.parametrize("terminal", [True, False])
def test_display(terminal: bool) -> None:
    board = make_board([0.0])
    board.sit(0, "b-s0", "training")
    board.sit(1, "", "idle")
    screen = io.StringIO()
    display = Display(board, Console(file=screen, force_terminal=terminal, width=100, no_color=True))
    with display:
        display.say("hello [bracket]")
        display.refresh()
        display.refresh()
    shown = screen.getvalue()
    assert "hello [bracket]" in shown
    assert ("training b of 2 runs of seed 0" in shown) == terminal
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


def test_a_chain_is_named_by_the_stretch_it_is_at() -> None:
    plan = launch_fakes.make_plan(arms=1)
    left = {
        name: Remaining(train=True, discard=(), start=node.begin, evaluations=(), marked=False)
        for name, node in plan.nodes.items()
    }
    board = Board(plan, left, workers=1)
    named = []
    for node in ("a-s0", "b-s0", "c0-s0"):
        named.append(board.reached("c0-s0"))
        board.finish(node)
    assert named == [board.name(node) for node in ("a-s0", "b-s0", "c0-s0")]
    assert board.reached("c0-s0") == board.name("c0-s0")
