"""What did not come out, could not be told from noise, or went wrong."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from analysis import layout
from analysis.comparison import Cell
from analysis.findings import verdict_text
from analysis.ledger.card import Difference, Negatives, Trouble
from analysis.ledger.scope import Scope
from analysis.units import unit
from davinci.errors import UserError
from davinci.launching.job import failure_path
from davinci.launching.tasks import tasks
from davinci.planning.wording import count, some
from davinci.store import read_json


def negatives(scope: Scope) -> Negatives:
    """Differences at each arm's last point, benchmarks at chance, capabilities not emerged, and trouble."""
    found = scope.found
    tested = [cell for cell in last_cells(scope) if cell.difference is not None]
    verdict = found.verdict
    return Negatives(
        hypothesis=scope.plan.question.hypothesis.text if scope.plan.question.hypothesis else None,
        verdict=verdict_text(found),
        supported=None if verdict is None or verdict.word == "unknown" else verdict.word == "supported",
        not_told_apart=tuple(_difference(cell) for cell in tested if not cell.told_apart),
        below_baseline=tuple(
            _difference(cell) for cell in tested if cell.told_apart and cell.difference and cell.difference.mean < 0
        ),
        tested=len(tested),
        not_above_chance=tuple(row.name for row in found.chance if not row.above),
        not_emerged=tuple(_not_emerged(scope)),
        troubles=tuple(_troubles(scope)),
    )


def last_cells(scope: Scope) -> Iterable[Cell]:
    """The table's cells of every arm at the last point that it shows."""
    last, labels = scope.found.last_shown, {arm.label for arm in scope.arms}
    for arm, moment in last.items():
        if arm in labels:
            yield from scope.found.main.row(arm, moment)


def _not_emerged(scope: Scope) -> Iterable[str]:
    """Capabilities that had not emerged by the last probe, with their arms where others have them."""
    labels = {arm.label for arm in scope.arms}
    by_name: dict[str, dict[str, bool]] = defaultdict(dict)
    for one in scope.found.courses:
        if one.arm in labels:
            by_name[one.capability][one.arm] = one.emerged is not None
    for name, emerged in by_name.items():
        without = [arm for arm, has in emerged.items() if not has]
        if without:
            yield name if len(without) == len(emerged) else f"{name} ({some(without)})"


def _difference(cell: Cell) -> Difference:
    assert cell.difference is not None
    of = unit(cell.column)
    half, least = of.width(cell.difference.half_width), of.width(cell.difference.detectable)
    return Difference(
        arm=cell.arm or layout.SHARED,
        column=cell.column,
        at=cell.moment.name,
        unit=of.of_difference,
        mean=of.shown(cell.difference.mean),
        half_width=half if math.isfinite(half) else None,
        detectable=least if math.isfinite(least) else None,
    )


def _troubles(scope: Scope) -> Iterable[Trouble]:
    sweep, plan = scope.found.sweep, scope.plan
    for task in tasks(plan):
        runs = _runs(scope, task.nodes)
        if runs and (error := _failure(scope, task.name)) is not None:
            yield Trouble(kind="failed", text=error, runs=runs)
    reasons: dict[str, list[str]] = defaultdict(list)
    lacking = sweep.scores[(sweep.scores["missing"] != "") & sweep.scores["run"].isin([run.id for run in scope.runs])]
    for run, part in lacking.groupby("run", sort=False):
        points = some(list(dict.fromkeys(part["label"])))
        reasons[f"no score at {points}: {'; '.join(sorted(set(part['missing'])))}"].append(str(run))
    for reason, names in reasons.items():
        yield Trouble(kind="incomplete", text=reason, runs=tuple(names))
    retried = {name: sweep.spent[name].attempts for name in scope.nodes if name in sweep.spent}
    retried = {name: attempts for name, attempts in retried.items() if attempts > 1}
    if retried:
        text = f"{count(len(retried), 'stretch')} took several attempts, {max(retried.values())} at most"
        yield Trouble(kind="retried", text=text.replace("stretchs", "stretches"), runs=_runs(scope, retried))
    for name in scope.nodes:
        if spikes := sweep.spikes.get(name):
            node = plan.nodes[name]
            where = f"{node.stage_name} ({name})"
            text = f"{count(len(spikes), 'step')} of {where} stood far above those before in loss or gradient norm"
            yield Trouble(kind="spikes", text=text, runs=_runs(scope, [name]))
    for name in scope.nodes:
        if sweep.done.get(name, {}).get("replay_differs"):
            text = f"{name} was trained again and gave other weights: torch or the machine changed"
            yield Trouble(kind="replay differs", text=text, runs=_runs(scope, [name]))
    for orphan in plan.orphans if scope.is_whole else ():
        why = some(orphan.diff, 2) if orphan.diff else "its arm or seed was taken out"
        text = f"finished, then orphaned by an edit of the sweep: {orphan.arm} seed {orphan.seed}, {why}"
        yield Trouble(kind="orphaned", text=text, runs=(orphan.run,))


def _runs(scope: Scope, nodes: Iterable[str]) -> tuple[str, ...]:
    wanted = {run.id for run in scope.runs}
    ids = dict.fromkeys(run.id for node in nodes for run in scope.owners.get(node, ()))
    return tuple(run for run in ids if run in wanted)


def _failure(scope: Scope, chain: str) -> str | None:
    """One line of why the chain failed last; None where it has not."""
    try:
        noted = read_json(failure_path(scope.store, scope.plan.sweep, chain))
        return f"{noted['state']}: {noted['error']}"
    except (OSError, UserError, KeyError, TypeError):
        return None
