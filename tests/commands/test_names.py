"""SWEEP and RUN on a command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import launch_fakes
import pytest

from davinci.commands.names import RunName, find, find_run
from davinci.errors import UserError
from davinci.planning.plan import Plan
from davinci.store import Store

Work = Callable[[Plan, Store, Sequence[str]], None]


@pytest.mark.parametrize(
    "name", ["arm1-s0", "arm1", "fake/arm1-s0", "fake/arm1", "fake/arm1/0", "fake/arm1/s0"], ids=str
)
def test_a_run_goes_by_many_names(store: Store, name: str) -> None:
    assert find_run(store, name) == find(store, name) == RunName("fake", "arm1-s0")


def test_labels_with_slashes(store: Store, work: Work) -> None:
    plan = launch_fakes.make_plan()
    arms = [plan.arms[0], plan.arms[1].model_copy(update={"label": "a/b 1"})]
    runs = [plan.runs[0], plan.runs[1].model_copy(update={"arm": "a/b 1", "id": "ab-s0"})]
    work(plan.model_copy(update={"arms": tuple(arms), "runs": tuple(runs), "sweep": "other"}), store, [])
    assert find(store, "other/a/b 1/0") == RunName("other", "ab-s0")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("arm", "'arm' names 2 runs: fake/arm0-s0, fake/arm1-s0"),
        ("fake/arm", "fake/arm names 2 runs: arm0-s0, arm1-s0"),
        ("arm2-s0", "has no run or sweep 'arm2-s0'; nearest: arm1-s0, arm0-s0"),
        ("fake/arm1/7", "sweep 'fake' has no run 'arm1/7'; nearest: arm1/0, arm0/0"),
        ("", "has no run or sweep ''; known: "),
    ],
)
def test_what_names_nothing_or_several_is_said(store: Store, name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        find(store, name)
    assert said in str(error.value)


def test_a_sweep_is_no_run(store: Store) -> None:
    assert find(store, "fake") == "fake"
    with pytest.raises(UserError, match="'fake' is a sweep; name one of its runs: arm0-s0, arm1-s0"):
        find_run(store, "fake")


def test_a_run_of_two_sweeps_is_named_with_its_sweep(store: Store, work: Work) -> None:
    work(launch_fakes.make_plan().model_copy(update={"sweep": "again"}), store, [])
    with pytest.raises(UserError, match="'arm0-s0' names 2 runs: again/arm0-s0, fake/arm0-s0"):
        find(store, "arm0-s0")
    assert find(store, "again/arm0-s0") == RunName("again", "arm0-s0")
