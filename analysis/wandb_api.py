"""Full histories of runs on a W&B server, read by ``wandb.Api`` and kept in Parquet until they change there.

One query a page of runs says how many rows each has. A run is scanned (`scan_history`: every row, not the sample that
`history` returns) where that differs from what ``STORE/cache/wandb/<entity>/<project>/<id>.parquet`` was made from;
the file has a column a metric beside ``tokens`` and can be deleted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.metrics import Metrics, Texts, from_rows
from davinci.errors import UserError
from davinci.store import Store, atomic_file, checked_name

_PAGE = 1000  # steps a request
_SCANS = 4  # runs at once: far below what W&B allows a project
_STAMP = b"davinci_stamp"


def histories(
    store: Store, sweep: str, entity: str | None, project: str, wanted: set[str]
) -> tuple[dict[str, Metrics], set[str]]:
    """The histories of the runs with ids `wanted` in the group `sweep`, and which of them had to be scanned.

    Runs that the server does not have are not in the answer.

    Raises:
        UserError: W&B cannot be reached or refuses, or it has none of the runs.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    where = f"{entity}/{project}" if entity else project
    try:
        api = wandb.Api(timeout=60)
        listed = api.runs(where, filters={"group": sweep}, per_page=200)
        runs = {run.id: run for run in listed if run.id in wanted}
        folder = store.root / "cache" / "wandb" / checked_name(entity or "default", "entity")
        paths = {
            one: folder / checked_name(project, "project") / f"{checked_name(one, 'W&B run')}.parquet" for one in runs
        }
        found = {one: kept for one, run in runs.items() if (kept := _kept(paths[one], _stamp(run))) is not None}
        changed = [one for one in runs if one not in found]
        with ThreadPoolExecutor(_SCANS) as threads:
            scanned = threads.map(lambda one: _scan(runs[one]), changed)
            for one, history in zip(changed, scanned, strict=True):
                found[one] = history
                _keep(paths[one], _stamp(runs[one]), history)
    except (wandb.Error, ValueError, OSError) as error:  # wandb says ValueError of a project that it does not find
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"--source wandb: {where} cannot be read ({said[0]})") from None
    if not found:
        raise UserError(
            f"--source wandb: {where} holds no run of sweep {sweep!r}; launch it with tracking=online, or send its "
            f"offline runs with python -m davinci sync {sweep}"
        )
    return found, set(changed)


def _stamp(run: Any) -> str:
    """What changes when rows are added to a run, or it is made anew."""
    return f"{run.created_at} {run.history_line_count}"


def _scan(run: Any) -> Metrics:
    rows = run.scan_history(page_size=_PAGE, use_cache=False)
    return from_rows(merged(rows))


def merged(rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, float | str]]:
    """History rows by ``tokens``, later values in place of earlier ones; numbers that are finite, and texts."""
    found: dict[int, dict[str, float | str]] = {}
    for row in rows:
        if isinstance(row.get("tokens"), int | float):
            values = found.setdefault(int(row["tokens"]), {})
            for name, value in row.items():
                if name != "tokens" and not name.startswith("_") and _counts(value):
                    values[name] = value
    return found


def _counts(value: Any) -> bool:
    if isinstance(value, str):
        return value not in ("NaN", "Infinity", "-Infinity")
    return isinstance(value, int | float) and math.isfinite(value)


def _kept(path: Path, stamp: str) -> Metrics | None:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None
    if (table.schema.metadata or {}).get(_STAMP) != stamp.encode():
        return None
    tokens = table["tokens"].to_numpy().astype(np.int64)
    names, columns = [], []
    texts: Texts = {}
    for name in table.column_names[1:]:
        if pa.types.is_string(table[name].type):
            texts |= {(name, int(at)): text for at, text in zip(tokens, table[name].to_pylist(), strict=True) if text}
        else:
            names.append(name)
            columns.append(table[name].to_numpy())
    values = np.column_stack(columns) if columns else np.empty((len(tokens), 0))
    return Metrics(tokens, tuple(names), values, texts)


def _keep(path: Path, stamp: str, history: Metrics) -> None:
    at = {int(tokens): row for row, tokens in enumerate(history.tokens)}
    columns: dict[str, Any] = {"tokens": history.tokens}
    columns |= dict(zip(history.names, history.values.T, strict=True))
    for (name, tokens), text in history.texts.items():
        if tokens in at:
            columns.setdefault(name, [None] * len(at))[at[tokens]] = text
    table = pa.table(columns).replace_schema_metadata({_STAMP: stamp.encode()})
    with suppress(OSError), atomic_file(path) as temporary:  # a store that only others may write
        pq.write_table(table, temporary)
