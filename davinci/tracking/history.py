"""The metrics of a run by tokens since initialisation: the one mapping from record rows to names and values.

Values are numbers unless said otherwise.

================================  =====================================================================================
name                              of the record row
================================  =====================================================================================
``train/<value>``                 ``train``: every value it has (see `records`), as in ``train/loss/<domain>``
``record/<value>``                ``train``: attempt, step, time
``spike/<value>``                 ``spike``: loss, grad_norm
``heldout/<domain>/<value>``      ``heldout``: loss, bits_per_byte, sequences; likewise ``heldout_average``
``until/<watched>/<value>``       ``until``: loss, score, slope; ``until/ends`` is 1 where the stage ended
``adapt/<domain>/<value>``        ``adapt``: loss, slope, proportion
``probe/<capability>/<value>``    ``probe``: accuracy, margin, nats, items, chance
``eval/<benchmark>``              ``evaluation``: the score
``eval/<Domain> average``         the mean over the domain's benchmarks; ``eval/Overall average`` over all
``eval_seconds/<benchmark>``      ``evaluation``: seconds
``eval_items/<benchmark>``        ``evaluation``: items; beside it ``eval_key/<benchmark>``, a string that names the
                                  per-item results
================================  =====================================================================================

Scores of other weights than those trained stand under ``eval_average``, ``eval_mean<n>`` or ``eval_average_mean<n>``
(the mean of n states) in place of ``eval``. A benchmark has one protocol within a run: the run's config says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from davinci.store import Store
from davinci.tracking.records import read

Values = dict[str, float | str]
# The metrics at each token count, ascending.
History = dict[int, Values]

_VALUES = {
    "heldout": ("loss", "bits_per_byte", "sequences"),
    "heldout_average": ("loss", "bits_per_byte", "sequences"),
    "adapt": ("loss", "slope", "proportion"),
    "probe": ("accuracy", "margin", "nats", "items", "chance"),
}
RECORD = ("attempt", "step", "time")
KINDS = ("train", "spike", *_VALUES, "until", "evaluation")  # of rows that this version knows


def history(store: Store, manifest: dict[str, Any], upto: Mapping[str, int] | None = None) -> History:
    """All metrics of a run, the stretches it shares with other runs included.

    Of evaluations those on the run's own suite, of the weights that it asks for there: another arm may have asked the
    same state for something else. `upto` are the tokens by node after which rows do not count yet.
    """
    found: History = {}
    evaluations: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row, prefix in rows_of(store, manifest, upto):
        if row["kind"] == "evaluation":
            evaluations.setdefault((row["tokens"], prefix), []).append(row)
        found.setdefault(row["tokens"], {}).update(metrics(row, prefix))
    for (tokens, prefix), rows in evaluations.items():
        found[tokens].update(averages(rows, prefix))
    return dict(sorted(found.items()))


def rows_of(
    store: Store, manifest: dict[str, Any], upto: Mapping[str, int] | None = None
) -> Iterator[tuple[dict[str, Any], str]]:
    """The record rows that `history` is made of, each with the prefix that its scores have."""
    prefixes = _asked(manifest)
    for node in manifest["nodes"]:
        end = min(node["end"], (upto or {}).get(node["id"], node["end"]))
        for row in _read(store.records(node["id"])):
            if not within(row["tokens"], node["begin"], end):
                continue
            prefix = "eval"
            if row["kind"] == "evaluation":
                suite = str(row.get("suite"))
                if suite not in (asked := prefixes.get(row["tokens"], prefixes[None])):
                    continue
                prefix = asked[suite]
            yield row, prefix


def _read(path: Path) -> Sequence[dict[str, Any]]:
    """`read`, once for all runs that share a stretch."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ()
    return _read_as_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _read_as_of(path: Path, size: int, time: int) -> Sequence[dict[str, Any]]:
    return read(path)


def within(tokens: int, begin: int, end: int) -> bool:
    """Whether a row at `tokens` belongs to a node's range; at `begin` the state is its parent's still, or untrained."""
    return begin < tokens <= end or tokens == begin == 0


def summary(rows: History) -> Values:
    """The last value of each metric."""
    last: Values = {}
    for tokens, values in rows.items():
        last.update(values, tokens=tokens)
    return last


def metrics(row: dict[str, Any], prefix: str = "eval") -> Values:
    """The metrics of one record row, by name; those that are not finite are left out. `prefix` is for evaluations."""
    found: dict[str, Any]
    match row["kind"]:
        case "train":
            found = {f"train/{name}": value for name, value in row.items() if name not in ("kind", "tokens", *RECORD)}
            found |= {f"record/{name}": row.get(name) for name in RECORD}
        case "spike":
            found = {f"spike/{name}": row[name] for name in ("loss", "grad_norm")}
        case "heldout" | "heldout_average" | "adapt" as kind:
            found = {f"{kind}/{row['domain']}/{name}": row.get(name) for name in _VALUES[kind]}
        case "until":
            watched, values = row.get("benchmark", row["domain"]), ("loss", "score", "slope")
            found = {f"until/{watched}/{name}": row.get(name) for name in values} | {"until/ends": int(row["ends"])}
        case "probe":
            found = {f"probe/{row['capability']}/{name}": row.get(name) for name in _VALUES["probe"]}
        case "evaluation":
            name = row["benchmark"]
            found = {f"{prefix}/{name}": row["score"], f"{prefix}_items/{name}": row.get("items")}
            found |= {f"{prefix}_seconds/{name}": row.get("seconds")}
            if row.get("key"):
                return _numbers(found) | {f"{prefix}_key/{name}": str(row["key"])}
        case _:
            found = {}
    return _numbers(found)


def averages(rows: Sequence[dict[str, Any]], prefix: str = "eval") -> Values:
    """Mean score over each domain's benchmarks, and over all of them, of evaluation rows of one point."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if isinstance(row["score"], int | float):
            groups.setdefault(row["domain"].capitalize(), []).append(row["score"])
            groups.setdefault("Overall", []).append(row["score"])
    return {f"{prefix}/{name} average": sum(scores) / len(scores) for name, scores in groups.items()}


def score_prefix(weights: str, states: int) -> str:
    """What the metrics of scores start with: by the weights asked, and of how many states they are the mean."""
    parts = ["eval", weights if weights == "average" else "", f"mean{states}" if states else ""]
    return "_".join(filter(None, parts))


def _numbers(found: dict[str, Any]) -> Values:
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _asked(manifest: dict[str, Any]) -> dict[int | None, dict[str, str]]:
    """By tokens, how records name the suite that the run asks there, with the prefix of its metrics.

    Under None what counts where the plan asks nothing: the run's suite, of the trained weights.
    """
    from davinci.config import Evaluation, asked, parse  # pydantic, only where there is something to read

    suite = parse(Evaluation, manifest["config"]["evaluation"]).key
    found: dict[int | None, dict[str, str]] = {None: {suite: "eval"}}
    for point in manifest["points"]:
        weights, states = point["weights"], [state["tokens"] for state in point["states"]]
        found.setdefault(point["tokens"], {})[asked(suite, weights, states)] = score_prefix(weights, len(states))
    return found
