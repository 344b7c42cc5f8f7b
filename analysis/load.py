"""The store's records of one sweep as one tidy frame: what everything else here is a function of.

Reads ``sweeps/<sweep>/launched.json`` and, for every node of the plan, ``records.jsonl``, ``done.json`` and
``evaluations/<key>.parquet``. Of a node's rows only those within its range count: the folder may hold earlier ones,
from a sweep that did not cut the stage there. What the plan demands and the records lack stays in the frame as a row
without a score and with the reason in `missing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.on_demand import with_suite
from analysis.realised import realised_notes
from davinci.config import Benchmark, Node
from davinci.launching.reconcile import done_mark
from davinci.planning.plan import Plan, PlannedRun, Point, load_plan
from davinci.store import Store
from davinci.tracking import records

COLUMNS = [
    *("run", "arm", "seed", "node", "stage", "tokens", "stage_tokens", "label"),
    *("benchmark", "domain", "protocol", "metric", "score", "items", "chance", "key", "missing"),
]


@dataclass(frozen=True)
class Items:
    """Per-item results of one benchmark at one checkpoint: ids int64[n] ascending, scores float64[n]."""

    ids: np.ndarray
    scores: np.ndarray


@dataclass
class Sweep:
    """A sweep as recorded.

    Attributes:
        store: where it was read from.
        plan: what was planned.
        scores: a row a (run, point, benchmark), `COLUMNS`; `tokens` since initialisation, `score` 0 to 1 or NaN.
        items: per-item results by (node, key, benchmark), where readable.
        train: node -> DataFrame(tokens, loss) of the training loss in nats a token.
        spikes: node -> token counts of the steps whose loss or gradient norm was a spike (`training.spikes`).
        probes: node -> its probe rows as recorded.
        heldout: DataFrame(node, tokens, domain, loss, bits_per_byte, averaged): averaged where it is of the average
            of the weights that a stage keeps.
        spent: node -> `Spent`, for nodes with records.
        done: node -> content of its done.json.
        notes: what a reader must know about gaps and oddities in the records.
    """

    store: Store
    plan: Plan
    scores: pd.DataFrame
    items: dict[tuple[str, str, str], Items] = field(default_factory=dict)
    train: dict[str, pd.DataFrame] = field(default_factory=dict)
    spikes: dict[str, list[int]] = field(default_factory=dict)
    probes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    heldout: pd.DataFrame = field(default_factory=pd.DataFrame)
    spent: dict[str, Spent] = field(default_factory=dict)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Spent:
    """What a node cost: seconds from the first to the last row of each attempt, and how many attempts left rows."""

    tokens: int
    seconds: float
    attempts: int


def load(store: Store, name: str, suite: str | None = None) -> Sweep:
    """Read sweep `name`, or what its runs were evaluated on demand on `suite` (see `on_demand`).

    Raises:
        UserError: the sweep was never launched from this store, its plan is one this version cannot read, or nothing
            was evaluated on such a suite.
    """
    plan = load_plan(store, name)
    if suite is not None:
        plan = with_suite(plan, store, suite)
    sweep = Sweep(store, plan, pd.DataFrame(columns=COLUMNS))
    rows = {node.id: _within(records.read(store.records(node.id)), node) for node in plan.nodes.values()}
    evaluations = {node: _evaluations(found) for node, found in rows.items()}
    suites = {arm.label: arm.config.evaluation for arm in plan.arms}
    keys = {label: suite.key for label, suite in suites.items()}
    demanded = [
        _score_row(
            run,
            point,
            benchmark,
            suites[run.arm].benchmarks[benchmark],
            evaluations[point.node].get((point.tokens, point.asks(keys[run.arm]), benchmark)),
            "not evaluated at this point" if rows[point.node] else "the node has no records",
        )
        for run in plan.runs
        for point in run.points
        for benchmark in suites[run.arm].benchmarks
    ]
    sweep.scores = pd.DataFrame(demanded, columns=COLUMNS)
    _read_items(sweep)
    _read_curves(sweep, rows)
    for node in plan.nodes:
        if (mark := done_mark(node, store)) is not None:
            sweep.done[node] = mark
    sweep.notes += realised_notes(plan, store)
    return sweep


def _within(rows: list[dict[str, Any]], node: Node) -> list[dict[str, Any]]:
    """The rows of the node's own range; at `begin` itself the state is still its parent's, or untrained."""
    return [row for row in rows if node.begin < row["tokens"] <= node.end or row["tokens"] == node.begin == 0]


def _evaluations(rows: list[dict[str, Any]]) -> dict[tuple[int, str, str], dict[str, Any]]:
    """Evaluation rows by tokens, suite and benchmark, the last attempt's.

    Arms may ask one state different things (a benchmark under two protocols, with more shots), and the suite tells them
    apart. Rows of one suite also differ in settings (task files that changed since); those made last count.
    """
    found: dict[tuple[int, str, str], dict[str, Any]] = {}
    for row in rows:
        if row["kind"] == "evaluation":
            key = (row["tokens"], str(row.get("suite")), str(row.get("benchmark")))
            if key not in found or _when(row) >= _when(found[key]):
                found[key] = row
    return found


def _when(row: dict[str, Any]) -> tuple[int, float]:
    return int(row["attempt"]), float(row.get("time", 0.0))


def _score_row(
    run: PlannedRun, point: Point, name: str, benchmark: Benchmark, row: dict[str, Any] | None, absent: str
) -> dict[str, Any]:
    score = row.get("score") if row else None
    missing = "" if row else absent
    if row and (not isinstance(score, int | float) or not np.isfinite(score)):
        missing = "the recorded score is not a number"
    found = row or {}
    return {
        "run": run.id,
        "arm": run.arm,
        "seed": run.seed,
        "node": point.node,
        "stage": point.stage,
        "tokens": point.tokens,
        "stage_tokens": point.stage_tokens,
        "label": point.label,
        "benchmark": name,
        "domain": benchmark.domain,
        "protocol": benchmark.protocol,
        "metric": benchmark.metric,
        "score": np.nan if missing else float(score or 0),
        "items": int(found.get("items") or 0),
        "chance": benchmark.chance,
        "key": str(found.get("key") or ""),
        "missing": missing,
    }


def _read_items(sweep: Sweep) -> None:
    """Fill `sweep.items`, one read a file; a file that cannot be read costs the item part of some intervals."""
    recorded: dict[tuple[str, str], dict[str, float]] = {}
    for row in sweep.scores.to_dict("records"):
        if not row["missing"]:
            recorded.setdefault((row["node"], row["key"]), {})[row["benchmark"]] = row["score"]
    for (node, key), scores in recorded.items():
        path = sweep.store.node(node) / "evaluations" / f"{Path(key).name}.parquet"
        try:
            table = pq.read_table(path, columns=["benchmark", "item", "score"])
        except (OSError, pa.ArrowException):
            sweep.notes.append(f"{_short(sweep, path)} cannot be read: intervals that need it cover seeds only")
            continue
        frame = table.to_pandas().sort_values("item", kind="stable")
        for name, part in frame.groupby("benchmark"):
            found = Items(part["item"].to_numpy(np.int64), part["score"].to_numpy(np.float64))
            sweep.items[node, key, str(name)] = found
        for name, score in scores.items():
            items = sweep.items.get((node, key, name))
            if items is None:
                sweep.notes.append(f"{_short(sweep, path)} has no items of {name}")
            elif abs(items.scores.mean() - score) > 1e-6:
                sweep.notes.append(
                    f"{_short(sweep, path)}: the items of {name} average {items.scores.mean():.4f}, "
                    f"the record says {score:.4f}; the tables use the record"
                )


def _short(sweep: Sweep, path: Path) -> str:
    return str(path.relative_to(sweep.store.root))


def _read_curves(sweep: Sweep, rows: dict[str, list[dict[str, Any]]]) -> None:
    heldout = []
    for node, found in rows.items():
        if not found:
            continue
        train = [(row["tokens"], row.get("loss")) for row in found if row["kind"] == "train"]
        sweep.train[node] = pd.DataFrame(train, columns=["tokens", "loss"]).astype(float)
        heldout += [
            (
                node,
                row["tokens"],
                row.get("domain"),
                row.get("loss"),
                row.get("bits_per_byte"),
                kind == "heldout_average",
            )
            for row in found
            if (kind := row["kind"]) in ("heldout", "heldout_average")
        ]
        sweep.spikes[node] = [row["tokens"] for row in found if row["kind"] == "spike"]
        sweep.probes[node] = [row for row in found if row["kind"] == "probe"]
        times: dict[int, list[float]] = {}
        for row in found:
            if "time" in row:
                times.setdefault(row["attempt"], []).append(row["time"])
        reached = max((int(tokens) for tokens, _ in train), default=sweep.plan.nodes[node].begin)
        sweep.spent[node] = Spent(
            tokens=max(0, reached - sweep.plan.nodes[node].begin),
            seconds=sum(max(stamps) - min(stamps) for stamps in times.values()),
            attempts=len(times),
        )
    sweep.heldout = pd.DataFrame(heldout, columns=["node", "tokens", "domain", "loss", "bits_per_byte", "averaged"])
