"""Chains start parents first, the longest way to go first; a failure blocks only what comes after it."""

from __future__ import annotations

from davinci.launching.schedule import Schedule
from davinci.planning.plan import Chain

CHAINS = [
    Chain(name="trunk0", nodes=("trunk0",), after=None),
    Chain(name="trunk1", nodes=("trunk1",), after=None),
    Chain(name="x0", nodes=("x0",), after="trunk0"),
    Chain(name="y0", nodes=("y0",), after="trunk0"),
    Chain(name="x1", nodes=("x1",), after="trunk1"),
]


def drain(schedule: Schedule) -> list[str]:
    order = []
    while (name := schedule.ready()) is not None:
        schedule.start(name)
        order.append(name)
        schedule.finish(name)
    return order


def test_critical_path_then_total_work_then_plan_order() -> None:
    equal = Schedule(CHAINS, {"trunk0": 10, "trunk1": 10, "x0": 5, "y0": 5, "x1": 5})
    assert drain(equal) == ["trunk0", "trunk1", "x0", "y0", "x1"]
    longer = Schedule(CHAINS, {"trunk0": 10, "trunk1": 10, "x0": 5, "y0": 5, "x1": 6})
    assert longer.waiting[0] == "trunk1"


def test_a_chain_waits_for_the_one_before_it() -> None:
    schedule = Schedule(CHAINS, {"trunk0": 1, "trunk1": 1, "x0": 100, "y0": 1, "x1": 1})
    assert schedule.ready() == "trunk0"
    schedule.start("trunk0")
    assert schedule.ready() == "trunk1"
    schedule.start("trunk1")
    assert schedule.ready() is None
    schedule.finish("trunk0")
    assert schedule.ready() == "x0"


def test_done_chains_are_not_started() -> None:
    assert drain(Schedule(CHAINS, dict.fromkeys(["trunk0", "trunk1", "x0", "x1"], 0) | {"y0": 3})) == ["y0"]


def test_a_failure_blocks_its_descendants_only() -> None:
    chains = [*CHAINS, Chain(name="z0", nodes=("z0",), after="y0")]
    schedule = Schedule(chains, dict.fromkeys((chain.name for chain in chains), 1))
    schedule.start("trunk0")
    schedule.fail("trunk0")
    assert schedule.blocked == {"x0", "y0", "z0"}
    assert drain(schedule) == ["trunk1", "x1"]


def test_a_stopped_chain_can_start_again() -> None:
    schedule = Schedule(CHAINS, dict.fromkeys((chain.name for chain in CHAINS), 1))
    schedule.start("trunk0")
    schedule.put_back("trunk0")
    assert schedule.ready() == "trunk0"
