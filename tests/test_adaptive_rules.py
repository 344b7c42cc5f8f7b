"""The rules of adaptive curricula as pure functions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davinci.adaptive import GRAIN, ends, is_due, moved, slope
from davinci.config import Adapt, Stage, Until, parse
from davinci.errors import UserError

losses = st.floats(0.1, 12, allow_nan=False, allow_subnormal=False)
checks = st.lists(losses, min_size=2, max_size=30).map(lambda ys: [(100 * n, y) for n, y in enumerate(ys, start=1)])


def until(**changes: object) -> Until:
    return parse(Until, {"domain": "code", "check_every": 100, "window": 3, "min_slope": 0.01} | changes)


def adapt(**changes: object) -> Adapt:
    return parse(Adapt, {"every": 100, "window": 2} | changes)


@given(st.floats(-2, 2, allow_subnormal=False), losses, st.integers(2, 12), st.integers(1, 10**9))
def test_the_slope_of_a_line_is_its_fall_per_interval(fall: float, level: float, window: int, every: int) -> None:
    line = [(every * n, level - fall * n) for n in range(1, window + 3)]
    assert slope(line, window, every) == pytest.approx(fall, abs=1e-9)
    assert slope(line[: window - 1], window, every) is None


@given(checks, st.floats(-5, 5, allow_subnormal=False))
def test_the_slope_sees_the_window_only_and_no_level(found: list[tuple[int, float]], level: float) -> None:
    wanted = slope(found, 2, 100)
    assert wanted is not None
    assert slope([(tokens, -99.0) for tokens, _ in found[:-2]] + found[-2:], 2, 100) == wanted
    assert slope([(tokens, y + level) for tokens, y in found], 2, 100) == pytest.approx(wanted, abs=1e-9)


@given(checks, st.floats(0, 1, allow_subnormal=False), st.floats(0, 1, allow_subnormal=False), st.integers(0, 3000))
def test_a_plateau_needs_its_window_its_tokens_and_a_slope_below(
    found: list[tuple[int, float]], low: float, more: float, min_tokens: int
) -> None:
    rule = until(min_slope=low, min_tokens=min_tokens)
    fires = ends(rule, found)
    if len(found) < 3 or found[-1][0] < min_tokens:
        assert not fires
    else:
        assert fires == ((slope(found, 3, 100) or 0.0) < low)
    assert not fires or ends(until(min_slope=low + more, min_tokens=min_tokens), found)


@given(
    st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 1000), min_size=1),
    st.data(),
    st.floats(0.1, 4, allow_subnormal=False),
    st.floats(1.01, 20, allow_subnormal=False),
)
def test_moved_proportions_are_whole_grains_within_their_bounds(
    parts: dict[str, int], data: st.DataObject, strength: float, bound: float
) -> None:
    own = {name: part / sum(parts.values()) for name, part in parts.items()} | {"unused": 0.0}
    rows = [(100 * n, {name: data.draw(losses) for name in parts}) for n in range(1, data.draw(st.integers(2, 4)) + 1)]
    found = moved(adapt(strength=strength, bound=bound), own, rows)
    assert found is not None and found.keys() == own.keys() and found["unused"] == 0
    assert math.fsum(found.values()) == pytest.approx(1, abs=1e-12)
    if found != own:
        assert all(
            float(found[name] * GRAIN).is_integer() or abs(found[name] * GRAIN % 1 - 0.5) > 0.4 for name in parts
        )
        for name in parts:  # a factor of at most bound either way, and as much again for the normalisation
            assert own[name] / bound**2 - 2 / GRAIN <= found[name] <= own[name] * bound**2 + 2 / GRAIN
            assert found[name] >= 1 / GRAIN
    assert moved(adapt(strength=strength, bound=bound), dict(reversed(own.items())), rows) == found


def test_what_falls_faster_is_given_more() -> None:
    rows = [(100, {"a": 3.0, "b": 3.0}), (200, {"a": 2.0, "b": 2.9})]
    found = moved(adapt(bound=1.5), {"a": 0.5, "b": 0.5}, rows)
    assert found == {"a": 0.6923, "b": 0.3077}  # 1.5 : 1 / 1.5
    assert moved(adapt(), {"a": 0.5, "b": 0.5}, [rows[1], (300, rows[0][1])]) == {"a": 0.5, "b": 0.5}
    assert moved(adapt(window=3), {"a": 0.5, "b": 0.5}, rows) is None


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 700))
def test_a_check_is_due_once_for_every_multiple_reached(steps: list[int], every: int) -> None:
    place, reached = 0, set()
    for step in steps:
        if is_due(place, place + step, every):
            assert (place + step) // every not in reached
            reached.add((place + step) // every)
        place += step
    assert (max(reached) if reached else 0) == place // every


def stage(**changes: object) -> Stage:
    data = {
        "tokens": 10_000,
        "sequence_length": 10,
        "batch_size": [{"from_tokens": 0, "sequences": 10}],
        "lr": {"shape": "constant", "start": 0.1},
        "mixture": {"domains": {"code": 1.0}},
        "mask_questions": False,
        "optimizer_state": "carry",
    }
    return parse(Stage, data | changes)


RULE = {"domain": "code", "check_every": 1000, "window": 4, "min_slope": 0.01}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"until": RULE | {"metric": "heldout_los"}}, "until.metric: no metric 'heldout_los'; nearest: heldout_loss"),
        ({"until": RULE | {"windo": 4}}, "until.windo: unknown key; nearest: window"),
        ({"until": RULE | {"window": 1}}, "until.window"),
        ({"until": RULE | {"window": 10}}, "until decides after 10000 tokens at the earliest"),
        ({"until": RULE | {"min_tokens": 10_000}}, "until decides after 10000 tokens at the earliest"),
        ({"adapt": {"every": 5000, "window": 2}}, "adapt decides after 10000 tokens at the earliest"),
        ({"adapt": {"every": 500, "window": 2, "bound": 0.5}}, "adapt.bound"),
        (
            {"until": RULE, "lr": {"shape": "cosine", "start": 0.1, "stop": 0.01}},
            "lr.shape cosine needs to know where the stage ends, .* constant and warmup_constant are accepted",
        ),
        (
            {"until": RULE, "lr": {"shape": "warmup_constant", "start": 0.1, "warmup_tokens": 5000}},
            "inside lr.warmup_tokens 5000; until.min_tokens of 5000 or more is accepted",
        ),
        (
            {
                "adapt": {"every": 1000, "window": 2},
                "mixtures": [{"from_tokens": 500, "mixture": {"domains": {"code": 1.0}}}],
            },
            "mixtures and adapt both move the mixture",
        ),
    ],
)
def test_what_cannot_work_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        stage(**change)
    assert "\n" not in str(raised.value)


def test_mixtures_begin_at_step_boundaries() -> None:
    other = {"domains": {"code": 1.0}, "sources": {"a": 1.0}}
    moves = [{"from_tokens": tokens, "mixture": other} for tokens in (201, 9950)]
    assert [span[:2] for span in stage(mixtures=moves).mixture_spans] == [(0, 300), (300, 10_000)]
