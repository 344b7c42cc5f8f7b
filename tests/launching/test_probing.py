"""Probes on demand: scored on the way wherever a plan asks, and a finished node is trained again for those it lacks."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import launch_fakes
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_plans import UNIT, filled, fork, long, planned

from davinci.config import Run
from davinci.errors import UserError
from davinci.evaluation.probe_items import with_digest
from davinci.launching.glance import glance
from davinci.launching.job import Interrupted, read_job, run_job
from davinci.launching.launch import _prepare_probes, write_jobs
from davinci.launching.manifests import record
from davinci.launching.reconcile import plan_remaining
from davinci.planning.plan import Plan
from davinci.store import Store, read_json
from davinci.tracking.records import read
from davinci.training import numerics


@pytest.fixture(autouse=True)
def only_evaluation_is_not_real(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in launch_fakes.stand_ins().items():
        if name.startswith("davinci.evaluation"):
            monkeypatch.setitem(sys.modules, name, module)
    numerics.configure(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return filled(tmp_path / "store")


def items(folder: Path, count: int = 6) -> Path:
    path = folder / "mine.jsonl"
    rows = [
        {
            "id": index,
            "capability": "odd" if index % 2 else "even",
            "context": f"abc{index}",
            "target": "d",
            "foils": ["x"],
        }
        for index in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def probed(run: Run, every: int, file: Path) -> Run:
    probes = {"every_tokens": every, "file": str(file), "digest": None}
    evaluation = run.evaluation.model_dump(mode="json") | {"probes": probes}
    return with_digest(
        run.model_copy(update={"evaluation": type(run.evaluation).model_validate_json(json.dumps(evaluation))})
    )


def launched(plan: Plan, store: Store, stop_after: int | None = None) -> None:
    record(plan, store)
    _prepare_probes(plan, store)
    left = plan_remaining(plan, store)
    names = [chain.name for chain in plan.chains() if not all(left[node].finished for node in chain.nodes)]
    asked = iter(range(1, 1 << 40))
    for path in write_jobs(plan, store, names).values():
        run_job(read_job(path), lambda event: None, lambda: next(asked) == stop_after)


def rows(store: Store, plan: Plan, kind: str = "probe") -> list[dict[str, Any]]:
    clock = ("time", "attempt", "items_per_second", "tokens_per_second", "data_wait")
    found = [row for node in plan.nodes for row in read(store.records(node), kind)]
    return [
        {name: row[name] for name in row if name not in clock} for row in sorted(found, key=lambda row: row["tokens"])
    ]


def digests(store: Store, plan: Plan) -> dict[str, str]:
    return {
        node: read_json(store.checkpoint(node, one.end) / "state.json")["digests"]["model.safetensors"]
        for node, one in plan.nodes.items()
    }


def test_they_are_scored_wherever_asked_and_change_nothing(store: Store, tmp_path: Path) -> None:
    file = items(tmp_path)
    plan = planned(store, probed(long(), UNIT, file))
    launched(plan, store)
    assert [row["tokens"] for row in rows(store, plan)[::2]] == [UNIT * count for count in range(7)]
    assert {row["capability"] for row in rows(store, plan)} == {"even", "odd"}
    assert all(one.finished for one in plan_remaining(plan, store).values())

    bare = filled(tmp_path / "bare")
    without = planned(bare, long())
    assert list(without.nodes) == list(plan.nodes), "no id moves"
    launched(without, bare)
    assert digests(bare, without) == digests(store, plan)

    # Demanded only afterwards: trained again for them, to the same weights and the same probes.
    late = planned(bare, probed(long(), UNIT, file))
    left = plan_remaining(late, bare)
    assert [one.train for one in left.values()] == [True] and not any(
        one.finished for one in glance(late, bare).values()
    )
    launched(late, bare)
    assert all(one.finished for one in plan_remaining(late, bare).values())
    assert rows(bare, late) == rows(store, plan)
    assert not read_json(bare.node(next(iter(late.nodes))) / "done.json")["replay_differs"]
    # More seldom is already there; more often is not.
    assert all(one.finished for one in plan_remaining(planned(bare, probed(long(), 2 * UNIT, file)), bare).values())
    assert not any(
        one.finished for one in plan_remaining(planned(bare, probed(long(), UNIT // 2, file)), bare).values()
    )


def test_interrupted_and_forked_runs_have_the_same_probes(store: Store, tmp_path: Path) -> None:
    file = items(tmp_path)
    whole = planned(store, probed(long(), UNIT // 3, file))
    launched(whole, store)
    other = filled(tmp_path / "other")
    plan = planned(other, probed(long(), UNIT // 3, file), probed(fork(), UNIT // 3, file))
    for stop in (3, 9, 20):
        with pytest.raises(Interrupted):
            launched(plan, other, stop)
    launched(plan, other)
    on_the_way = {name for run in plan.runs if run.arm == "long" for name in run.nodes}
    part = plan.model_copy(update={"nodes": {one: plan.nodes[one] for one in on_the_way}})
    assert rows(other, part) == rows(store, whole)


def test_a_pass_that_was_cut_short_is_made_again(store: Store, tmp_path: Path) -> None:
    plan = planned(store, probed(long(), UNIT, items(tmp_path)))
    launched(plan, store)
    (name,) = plan.nodes
    path = store.records(name)
    lines = path.read_text().splitlines(keepends=True)
    cut = next(at for at, line in enumerate(lines) if f'"tokens": {3 * UNIT}' in line and '"kind": "probe"' in line)
    path.write_text("".join(lines[:cut] + lines[cut + 1 :]))
    left = plan_remaining(plan, store)[name]
    assert (left.train, list(left.probes.values())) == (True, [(3 * UNIT,)])
    launched(plan, store)
    assert plan_remaining(plan, store)[name].finished and len(rows(store, plan)) == 14


def test_a_bad_file_is_one_line(tmp_path: Path) -> None:
    file = items(tmp_path)
    file.write_text(file.read_text() + '{"id": 99, "capability": "odd"}\n')
    with pytest.raises(UserError, match=r"evaluation.probes.file: .*mine.jsonl:7: context: missing"):
        probed(long(), UNIT, file)


@given(st.integers(1, 9 * UNIT), st.integers(1, 29))
def test_where_probes_are_due_does_not_depend_on_cuts(every: int, step: int) -> None:
    node = _node()
    cut = node.stage.grid.tokens_at(step)
    first = node.model_copy(update={"end": cut})
    second = node.model_copy(update={"begin": cut})
    whole = node.probed_at(every)
    assert first.probed_at(every) + second.probed_at(every) == whole
    grid = [node.stage.grid.tokens_at(one) for one in range(len(node.steps) + 1)]
    assert whole == [0] + [after for before, after in pairwise(grid) if after // every > before // every]


def _node(known: list[Any] = []) -> Any:  # noqa: B006
    if not known:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            (node,) = planned(filled(Path(folder)), long()).nodes.values()
        known.append(node)
    return known[0]
