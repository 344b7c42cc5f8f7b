"""`evaluation.at`: intervals, stage ends, or both."""

from __future__ import annotations

import pytest
from planned import make_sweep

from davinci.errors import UserError
from davinci.planning.build import build_plan


@pytest.fixture
def points(make_run, card):
    """(stage, tokens into it, tokens since initialisation) of each point of a run evaluated `at`."""

    def make(*at):
        plan = build_plan(make_sweep({"arm": make_run({"evaluation.at": list(at)})}), cards={"small": card})
        return [(point.stage, point.stage_tokens, point.tokens) for point in plan.runs[0].points]

    return make


@pytest.fixture
def ends(points):
    return points({})


def test_the_end_of_every_stage(ends, make_run):
    assert [stage for stage, *_ in ends] == list(make_run({}).curriculum.stages)
    assert all(tokens == sum(own for _, own, _ in ends[: place + 1]) for place, (_, _, tokens) in enumerate(ends))


def test_intervals_into_a_stage(points, ends):
    stage, own, end = ends[1]
    found = points({"stage": stage, "every_tokens": own // 4})
    assert [one[0] for one in found] == [stage] * 4
    assert found[-1] == (stage, own, end)
    assert all(abs(tokens - place * own // 4) < 64 for place, (_, tokens, _) in enumerate(found, start=1))


def test_intervals_since_initialisation_run_through_stages(points, ends):
    every = ends[-1][2] // 5
    found = points({"every_tokens": every})
    assert {stage for stage, *_ in found} == {stage for stage, *_ in ends}
    assert all(0 <= place * every - tokens < 64 for place, (_, _, tokens) in enumerate(found, start=1))


def test_both_and_no_state_twice(points, ends):
    stage, own, _ = ends[1]
    both = points({}, {"stage": stage, "every_tokens": own // 2})
    assert len(both) == len(set(both)) == len(ends) + 1
    assert set(ends) < set(both)


def test_intervals_leave_ids_alone(make_run, card):
    plans = [
        build_plan(make_sweep({"arm": make_run({"evaluation.at": at, "evaluation.keep": keep})}), cards={"small": card})
        for at, keep in (([{}], "evaluated"), ([{"every_tokens": 128}], "last"))
    ]
    assert plans[0].nodes.keys() == plans[1].nodes.keys()


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ({"every_tokens": 3}, "evaluation.at.0.every_tokens: 3 is less than a step of first"),
        ({"every_tokens": 10**9}, "evaluation.at.0.every_tokens: 1000000000 is more than the run has"),
        ({"stage": "second", "every_tokens": 10**9}, "1000000000 is more than stage second has"),
        ({"stage": "second", "tokens": 5, "every_tokens": 64}, "tokens and every_tokens exclude each other"),
        ({"tokens": 64}, "tokens needs stage"),
        ({"stage": "secnd"}, "has no stage 'secnd'; nearest: second"),
    ],
)
def test_mistakes_are_named(at, message, points):
    with pytest.raises(UserError, match=message):
        points(at)
