"""Rows of the page's sections: the main table, what is behind its cells, arms and their runs, epochs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from analysis import layout
from analysis.comparison import Cell
from analysis.findings import Findings
from analysis.load import Sweep
from analysis.samples import Moment
from davinci.planning.identity import human_tokens
from davinci.planning.plan import PlannedRun
from davinci.planning.sweep import Arm

BENCHMARK_ROWS = 2500  # of the table of benchmarks; beyond these it shows every arm's last point alone


@dataclass(frozen=True)
class Line:
    """A row of the main table: `group` and `name` as the sweep lays it out, `first` of its group; `sub` explains it."""

    index: int
    group: str
    name: str
    sub: str
    tokens: int
    first: bool
    is_baseline: bool
    cells: list[Cell]


def lines(found: Findings) -> list[Line]:
    """The main table, row by row."""
    by_arm = found.main.view.rows == "arm"
    rows: list[Line] = []
    for index, (arm, moment) in enumerate(found.main.rows):
        group, name = layout.stubs(found.main, arm, moment)
        sub = f"{human_tokens(moment.stage_tokens)} of {moment.stage}" if by_arm else ""
        first = not rows or rows[-1].group != group
        baseline, cells = arm == found.main.baseline, found.main.row(arm, moment)
        rows.append(Line(index, group, name, sub, moment.tokens, first, baseline, cells))
    return rows


def benchmarks(found: Findings) -> tuple[list[tuple[Cell, str]], bool]:
    """Every benchmark of every arm and point with the arm's name, and whether points were left out for their number."""
    cells = [cell for cell in found.benchmarks.shown if cell.score or cell.absent]
    left_out = len(cells) > BENCHMARK_ROWS
    if left_out:
        last = {arm.label: found.grid.last(arm.label) for arm in found.sweep.plan.arms}
        cells = [cell for cell in cells if cell.arm and cell.moment == last[cell.arm]]
    return [(cell, cell.arm or layout.SHARED) for cell in cells], left_out


def behind(found: Findings) -> Iterable[dict[str, Any]]:
    """For each row of the main table run ids, node ids and evaluation keys, and each column's score by seed."""
    for arm, moment in found.main.rows:
        asked = found.grid.at(moment.tokens) if arm is None else found.grid.asked(arm, moment.tokens)
        by_run: dict[str, list[Any]] = {}
        for row in asked:
            by_run.setdefault(row.run, []).append(row)
        cells = found.main.row(arm, moment)
        seeds = sorted({seed for cell in cells for seed in cell.by_seed})
        yield {
            "arm": arm or layout.SHARED,
            "moment": moment,
            "runs": [_evaluated(found.sweep, run, rows) for run, rows in by_run.items()],
            "seeds": seeds,
            "columns": [(cell, [cell.by_seed.get(seed) for seed in seeds]) for cell in cells],
        }


def _evaluated(sweep: Sweep, run: str, rows: list[Any]) -> dict[str, Any]:
    node = rows[0].node
    return {
        "run": run,
        "seed": int(rows[0].seed),
        "node": node,
        "keys": sorted({row.key for row in rows} - {""}),
        "missing": "; ".join(sorted({row.missing for row in rows} - {""})),
        "digest": str(sweep.done.get(node, {}).get("weights_digest", "")),
    }


def arms(found: Findings) -> Iterable[dict[str, Any]]:
    """Each arm in full: what it sets, its scores by seed at its last point, and its runs stretch by stretch."""
    owners: dict[str, int] = {}
    for run in found.sweep.plan.runs:
        for node in run.nodes:
            owners[node] = owners.get(node, 0) + 1
    lacking = {row.run for row in found.grid.all_rows if row.missing}
    for index, arm in enumerate(found.sweep.plan.arms):
        last = found.grid.last(arm.label)
        yield {
            "index": index,
            "arm": arm,
            "at": last,
            "scores": list(_by_seed(found, arm, last)),
            "runs": [_run(found, run, owners, lacking) for run in found.sweep.plan.runs if run.arm == arm.label],
        }


def _by_seed(found: Findings, arm: Arm, moment: Moment) -> Iterable[dict[str, Any]]:
    """The columns of the table, then benchmarks that are none of them."""
    names = {column.name for column in found.main.columns}
    for comparison in (found.main, found.benchmarks):
        for column in comparison.columns:
            if comparison is found.benchmarks and column.name in names:
                continue
            own = (arm.label, moment.tokens, column.name)
            cell = comparison.cells.get(own) or comparison.cells.get((None, moment.tokens, column.name))
            if cell is not None and (cell.score or cell.absent):
                seeds = [cell.by_seed.get(seed) for seed in found.sweep.plan.seeds]
                yield {"column": column.name, "main": comparison is found.main, "cell": cell, "seeds": seeds}


def _run(found: Findings, run: PlannedRun, owners: dict[str, int], lacking: set[str]) -> dict[str, Any]:
    sweep = found.sweep
    stretches = []
    for name in run.nodes:
        node, spent = sweep.plan.nodes[name], sweep.spent.get(name)
        stretches.append(
            {
                "id": name,
                "stage": node.stage_name,
                "begin": node.begin,
                "end": node.end,
                "seconds": spent.seconds + spent.evaluation if spent else 0.0,
                "attempts": spent.attempts if spent else 0,
                "spikes": len(sweep.spikes.get(name, ())),
                "digest": str(sweep.done.get(name, {}).get("weights_digest", "")),
                "shared": owners[name] - 1,
            }
        )
    train = [sweep.train[name] for name in run.nodes if len(sweep.train.get(name, ()))]
    done = all(name in sweep.done for name in run.nodes)
    return {
        "id": run.id,
        "arm": run.arm,
        "seed": run.seed,
        "state": "incomplete" if run.id in lacking else "done" if done else "evaluated",
        "tokens": sum(spent.tokens for name in run.nodes if (spent := sweep.spent.get(name))),
        "hours": sum(one["seconds"] for one in stretches) / 3600,
        "attempts": max((one["attempts"] for one in stretches), default=0),
        "spikes": sum(one["spikes"] for one in stretches),
        "loss": float(train[-1]["loss"].iloc[-1]) if train else None,
        "stretches": stretches,
    }


def epochs(sweep: Sweep) -> list[dict[str, Any]]:
    """Epochs of each domain by stage, a row for the arms that agree."""
    ledger = [row for row in sweep.plan.epochs if row.source is None and row.pool_tokens]
    domains = list(dict.fromkeys(row.domain for row in ledger))
    rows = []
    for stage in dict.fromkeys(row.stage for row in ledger):
        by_arm: dict[str, dict[str, tuple[float, float]]] = {}
        for row in ledger:
            for arm in row.arms if row.stage == stage else ():
                by_arm.setdefault(arm, {})[row.domain] = row.epochs, row.cumulative
        alike: dict[str, list[str]] = {}
        for arm, values in by_arm.items():
            alike.setdefault(repr(sorted(values.items())), []).append(arm)
        for members in alike.values():
            name = layout.SHARED if len(members) == len(sweep.plan.arms) > 1 else ", ".join(members)
            values = by_arm[members[0]]
            rows.append({"stage": stage, "arm": name, "values": [(one, values.get(one)) for one in domains]})
    return rows
