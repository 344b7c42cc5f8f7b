"""One sweep as one tidy frame, whatever it is read from: what everything else here is a function of.

The plan is the store's ``sweeps/<sweep>/launched.json``. The numbers are those of the records (the default), of the
offline W&B files below the store, or of a W&B server (`analysis.sources`). ``done.json`` and the per-item results,
``evaluations/<key>.parquet``, are read where the store has them. Of a node's rows only those within its range count:
the folder may hold earlier ones, from a sweep that did not cut the stage there. What the plan demands and the records
lack stays in the frame as a row without a score and with the reason in `missing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import item_files, sources
from analysis.frame import long_frame
from analysis.kept import read_files
from analysis.metrics import Metrics
from analysis.on_demand import with_suite
from analysis.readers import Others
from analysis.realised import realised_notes
from analysis.sources import Recorded
from davinci.config import Benchmark
from davinci.errors import UserError
from davinci.evaluation.probe_key import set_key
from davinci.launching.reconcile import done_mark
from davinci.planning.plan import Plan, PlannedRun, Point, load_plan
from davinci.store import Store
from davinci.tracking.history import score_prefix

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
        probes: node -> its probe rows.
        heldout: DataFrame(node, tokens, domain, loss, bits_per_byte, averaged): averaged where it is of the average
            of the weights that a stage keeps.
        spent: node -> `Spent`, for nodes with records.
        done: node -> content of its done.json.
        notes: what a reader must know about gaps and oddities in the records.
        recorded: all metrics, as arrays by node and by run.
    """

    store: Store
    plan: Plan
    scores: pd.DataFrame
    items: dict[tuple[str, str, str], Items] = field(default_factory=dict)
    train: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    spikes: dict[str, list[int]] = field(default_factory=dict)
    probes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    heldout: pd.DataFrame = field(default_factory=pd.DataFrame)
    spent: dict[str, Spent] = field(default_factory=dict)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    recorded: Recorded = field(default_factory=Recorded)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every value as a row: run, arm, seed, node, stage, tokens, metric, value (`analysis.frame`)."""
        return long_frame(self.plan, self.recorded)


@dataclass(frozen=True)
class Spent:
    """What a node cost.

    Attributes:
        tokens: trained.
        seconds: from the first to the last training row of each attempt, probes and held-out losses between them too.
        attempts: how many there were.
        evaluation: seconds of its benchmarks, as far as the records say.
        evaluations: how many benchmarks were scored, and `untimed` how many of them do not say how long they took.
    """

    tokens: int
    seconds: float
    attempts: int
    evaluation: float = 0.0
    evaluations: int = 0
    untimed: int = 0


def load(store: Store, name: str, suite: str | None = None, source: str | None = None) -> Sweep:
    """Read sweep `name`, or what its runs were evaluated on demand on `suite` (see `on_demand`).

    Args:
        store: of the plan, and of the records or the offline W&B files.
        name: of the sweep.
        suite: instead of the sweep's own.
        source: of the numbers: ``store``, ``offline`` or ``wandb``; by default what the commands' ``--source`` says.

    Raises:
        UserError: the sweep was never launched from this store, its plan is one this version cannot read, nothing was
            evaluated on such a suite, or the source holds nothing of the sweep.
    """
    plan = load_plan(store, name)
    source = source or getattr(store, "source", "store")
    if suite is not None:
        if source != "store":
            raise UserError(f"--suite {suite} --source {source}: W&B holds scores on the sweep's own suite alone")
        plan = with_suite(plan, store, suite)
    with Others() as others:
        recorded = sources.read(source, store, plan, others)
        sweep = Sweep(store, plan, pd.DataFrame(columns=COLUMNS), recorded=recorded, notes=list(recorded.notes))
        sweep.scores = pd.DataFrame(_scores(plan, recorded), columns=COLUMNS)
        _read_items(sweep, others)
    _read_curves(sweep)
    for node in plan.nodes:
        if (mark := done_mark(node, store)) is not None:
            sweep.done[node] = mark
    sweep.notes += realised_notes(plan, store)
    return sweep


def _scores(plan: Plan, recorded: Recorded) -> list[dict[str, Any]]:
    suites = {arm.label: arm.config.evaluation for arm in plan.arms}
    rows = []
    for run in plan.runs:
        found = recorded.scores.get(run.name)
        at = {} if found is None else {int(tokens): index for index, tokens in enumerate(found.tokens)}
        place = {} if found is None else {name: index for index, name in enumerate(found.names)}
        for point in run.points:
            prefix = score_prefix(point.weights, len(point.states))
            absent = "not evaluated at this point" if point.node in recorded.nodes else "the node has no records"
            for name, benchmark in suites[run.arm].benchmarks.items():
                record: dict[str, Any] = {}
                if found is not None and point.tokens in at:
                    for value in ("", "_items"):
                        column = place.get(f"{prefix}{value}/{name}")
                        if column is not None and not np.isnan(number := found.values[at[point.tokens], column]):
                            record[value] = float(number)
                    if key := found.texts.get((f"{prefix}_key/{name}", point.tokens)):
                        record["_key"] = key
                rows.append(_score_row(run, point, name, benchmark, record, absent))
    return rows


def _score_row(
    run: PlannedRun, point: Point, name: str, benchmark: Benchmark, record: Mapping[str, Any], absent: str
) -> dict[str, Any]:
    missing = absent if not record else "" if "" in record else "the recorded score is not a number"
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
        "score": np.nan if missing else record[""],
        "items": int(record.get("_items", 0)),
        "chance": benchmark.chance,
        "key": record.get("_key", ""),
        "missing": missing,
    }


def _read_items(sweep: Sweep, others: Others) -> None:
    """Fill `sweep.items`; a file that cannot be read costs the item part of some intervals."""
    recorded: dict[tuple[str, str], dict[str, float]] = {}
    scores = sweep.scores
    there = (scores["missing"] == "").to_numpy()
    columns = (scores[name].to_numpy()[there] for name in ("node", "key", "benchmark", "score"))
    for node, key, name, score in zip(*columns, strict=True):
        recorded.setdefault((node, key), {})[name] = score
    files = {
        f"{node} {key}": sweep.store.node(node) / "evaluations" / f"{Path(key).name}.parquet" for node, key in recorded
    }
    folder = sweep.store.root / "cache" / "items" / sweep.plan.sweep
    pieces, _ = read_files(folder, files, item_files.parse, others)
    same: dict[bytes, np.ndarray] = {}  # the ids of a benchmark are those of every checkpoint that it was asked of
    for (node, key), wanted in recorded.items():
        path = files[f"{node} {key}"]
        piece = pieces.get(f"{node} {key}")
        if piece is None:
            sweep.notes.append(f"{_short(sweep, path)} cannot be read: intervals that need it cover seeds only")
            continue
        ids, results = piece.arrays
        means = {}
        for name, start, end, mean in piece.about["benchmarks"]:
            own = ids[start:end]
            sweep.items[node, key, name] = Items(same.setdefault(own.tobytes(), own), results[start:end])
            means[name] = mean
        for name, score in wanted.items():
            if name not in means:
                sweep.notes.append(f"{_short(sweep, path)} has no items of {name}")
            elif abs(means[name] - score) > 1e-6:
                sweep.notes.append(
                    f"{_short(sweep, path)}: the items of {name} average {means[name]:.4f}, "
                    f"the record says {score:.4f}; the tables use the record"
                )


def _short(sweep: Sweep, path: Path) -> str:
    return str(path.relative_to(sweep.store.root))


class Curves(Mapping[str, pd.DataFrame]):
    """One metric of training rows, by node a DataFrame(tokens, metric); NaN where a row has none.

    A frame is made when it is looked at, since most readers of a large sweep look at few.
    """

    def __init__(self, nodes: Mapping[str, Metrics], metric: str) -> None:
        self._nodes, self._metric = nodes, metric

    def __getitem__(self, node: str) -> pd.DataFrame:
        found = self._nodes[node]
        step = ~np.isnan(found.column("record/step"))
        values = found.column(f"train/{self._metric}")[step]
        return pd.DataFrame({"tokens": found.tokens[step].astype(float), self._metric: values})

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def _read_curves(sweep: Sweep) -> None:
    sweep.train = Curves(sweep.recorded.nodes, "loss")
    suites = _probe_suites(sweep.plan)
    heldout = []
    evaluations = _evaluations(sweep)
    for node, found in sweep.recorded.nodes.items():
        columns = dict(zip(found.names, found.values.T, strict=True))
        none = np.full(len(found), np.nan)
        step = ~np.isnan(columns.get("record/step", none))
        tokens = found.tokens[step]
        spiked = ~np.isnan(columns.get("spike/loss", none)) | ~np.isnan(columns.get("spike/grad_norm", none))
        sweep.spikes[node] = [int(at) for at in found.tokens[spiked]]
        heldout += _heldout(node, found.tokens, columns)
        rows = sweep.recorded.probes.get(node)
        sweep.probes[node] = _probes(found.tokens, columns, suites.get(node, "")) if rows is None else rows
        begin = sweep.plan.nodes[node].begin
        attempts = columns.get("record/attempt", none)[step]
        times = columns.get("record/time", none)[step]
        alike = len(attempts) and (attempts == attempts[0]).all()  # nearly always: one attempt was enough
        parts = [times] if alike else [times[attempts == one] for one in np.unique(attempts)]
        stamps = [of[~np.isnan(of)] for of in parts if len(of)]
        sweep.spent[node] = Spent(
            tokens=max(0, int(tokens[-1]) - begin) if len(tokens) else 0,
            seconds=float(sum(np.ptp(of) for of in stamps if len(of))),
            attempts=len(stamps),
            evaluation=sum(took for took in evaluations.get(node, ()) if took is not None),
            evaluations=len(evaluations.get(node, ())),
            untimed=sum(took is None for took in evaluations.get(node, ())),
        )
    sweep.heldout = pd.DataFrame(heldout, columns=["node", "tokens", "domain", "loss", "bits_per_byte", "averaged"])


def _evaluations(sweep: Sweep) -> dict[str, list[float | None]]:
    """Seconds of every benchmark scored at a node's states for the sweep, each once; None where no row says."""
    suites = {arm.label: arm.config.evaluation for arm in sweep.plan.arms}
    took: dict[tuple[str, str, str], float | None] = {}
    for run in sweep.plan.runs:
        scores, suite = sweep.recorded.scores.get(run.name), suites[run.arm]
        if scores is None:
            continue
        place = {name: index for index, name in enumerate(scores.names)}
        rows = {int(tokens): row for tokens, row in zip(scores.tokens, scores.values, strict=True)}
        for point in run.points:
            if (row := rows.get(point.tokens)) is None:
                continue
            prefix, asked = score_prefix(point.weights, len(point.states)), f"{point.tokens} {point.asks(suite.key)}"
            for name in suite.benchmarks:
                scored, timed = (
                    row[place[key]] if (key := f"{prefix}{part}/{name}") in place else np.nan
                    for part in ("", "_seconds")
                )
                if not np.isnan(scored):
                    took[point.node, asked, name] = None if np.isnan(timed) else float(timed)
    found: dict[str, list[float | None]] = {}
    for (node, _, _), seconds in took.items():
        found.setdefault(node, []).append(seconds)
    return found


def _heldout(node: str, tokens: np.ndarray, columns: Mapping[str, np.ndarray]) -> list[tuple[Any, ...]]:
    found = []
    parts = [name.split("/") for name in columns if name.startswith("heldout")]
    for kind, domain in dict.fromkeys((part[0], "/".join(part[1:-1])) for part in parts):
        none = np.full(len(tokens), np.nan)
        loss, bits = (columns.get(f"{kind}/{domain}/{value}", none) for value in ("loss", "bits_per_byte"))
        for row in np.flatnonzero(~(np.isnan(loss) & np.isnan(bits))):
            found.append((node, int(tokens[row]), domain, loss[row], bits[row], kind == "heldout_average"))
    return sorted(found, key=lambda row: row[1])


def _probe_suites(plan: Plan) -> dict[str, str]:
    """Key of the set of items that is probed at each node."""
    probes = {arm.label: arm.config.evaluation.probes for arm in plan.arms}
    keys = {label: set_key(one) for label, one in probes.items() if one is not None}
    return {node: keys[run.arm] for run in plan.runs if run.arm in keys for node in run.nodes}


def _probes(tokens: np.ndarray, columns: Mapping[str, np.ndarray], suite: str) -> list[dict[str, Any]]:
    """Probe rows as `davinci.tracking.records` has them, as far as they are metrics."""
    capabilities = [name.split("/")[1] for name in columns if name.startswith("probe/") and name.endswith("/accuracy")]
    values = ("accuracy", "margin", "nats", "items", "chance")
    found = []
    for capability in capabilities:
        some = {value: columns[name] for value in values if (name := f"probe/{capability}/{value}") in columns}
        for row in np.flatnonzero(~np.isnan(some["accuracy"])):
            about = {"kind": "probe", "tokens": int(tokens[row]), "suite": suite, "capability": capability}
            found.append(about | {value: float(column[row]) for value, column in some.items()})
    return sorted(found, key=lambda row: row["tokens"])
