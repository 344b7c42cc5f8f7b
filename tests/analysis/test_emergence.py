"""When a capability counts as emerged, and the timeline of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import timeline
from analysis.emergence import Course, Pass, emergence, order, table, wilson_low


def passes(*accuracies: float, items: int = 100) -> tuple[Pass, ...]:
    return tuple(Pass(10 * at, one, wilson_low(one, items), 0.0, 1) for at, one in enumerate(accuracies))


def test_the_interval_by_hand() -> None:
    # Newcombe 1998, Stat. Med. 17:857, table I: 81 of 263.
    assert wilson_low(81 / 263, 263) == pytest.approx(0.2553, abs=1e-4)
    assert wilson_low(0.0, 10) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ((0.2, 0.9, 0.9, 0.9), 10),
        ((0.9, 0.2, 0.9, 0.9), 20),
        ((0.2, 0.2, 0.2, 0.9), None),  # one pass may be luck
        ((0.9, 0.9, 0.9, 0.3), None),  # gone again: 0.3 of 100 is not told from 0.25
        ((0.9, 0.9), 0),
        ((), None),
    ],
)
def test_it_lasts_to_the_end(accuracies: tuple[float, ...], expected: int | None) -> None:
    assert emergence(passes(*accuracies), 0.25) == expected


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=8), st.floats(0.1, 0.5))
def test_from_there_on_all_are_above_chance(accuracies: list[float], chance: float) -> None:
    found = passes(*accuracies)
    since = emergence(found, chance)
    if since is not None:
        assert all(one.low > chance for one in found if one.tokens >= since)


def test_table_and_timeline(tmp_path: Path) -> None:
    found = [
        Course(arm, name, 100, 0.25, passes(0.2, *high), emergence(passes(0.2, *high), 0.25))
        for arm in ("a", "b")
        for name, high in (("z", (0.3, 0.3)), ("y", (0.9, 0.9)), ("x", (0.3, 0.3)))
    ]
    assert order(found) == ["y", "x", "z"]
    lines = table(found).groups[0]
    assert [line[0].text for line in lines] == ["y", "x", "z"] and lines[0][3].text == "10, 90.0"
    look = {"a": ("#0072B2", "o"), "b": ("#D55E00", "s")}
    paths = timeline.save(found, look, [(10, "second")], tmp_path / "emergence")
    assert all(path.stat().st_size > 1000 for path in paths)
