"""What a node still lacks, relative to what a plan demands of it. Reads files only: no torch, no frames.

A node is finished when its end checkpoint is there, `records.jsonl` holds what was recorded when it was marked done,
every demanded token count has held-out rows and an evaluation row a benchmark of the demanded suite, made under the
present settings, and probes are scored wherever they are demanded. done.json says what was so when it was written, and
the size of `records.jsonl`: while that size and the files it names stand, it is believed and no row is read. Whatever
it does not vouch for is looked up in the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from davinci.config import Evaluation, Model, Node
from davinci.errors import UserError
from davinci.launching.demands import Demand, Probing, demanded, probed, suites
from davinci.planning.plan import Plan
from davinci.store import Store, read_json
from davinci.tracking.records import read

_MARK = {"begin", "end", "train_rows", "weights_digest"}


@dataclass(frozen=True)
class Remaining:
    """Work left on a node.

    Attributes:
        train: it must be trained (further, or again).
        discard: token counts of checkpoints that must go first, so that training passes there again.
        start: tokens since initialisation at which training will go on.
        evaluations: what must still be evaluated, in order of tokens.
        marked: it was marked done before.
        probes: where probes are not scored yet, by set.
        spikes: steps of it that stood far above those before, as far as done.json counts them.
    """

    train: bool
    discard: tuple[int, ...]
    start: int
    evaluations: tuple[Demand, ...]
    marked: bool
    probes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    spikes: int = 0

    @property
    def finished(self) -> bool:
        return self.marked and not self.train and not self.evaluations


@dataclass(frozen=True)
class Asked:
    """A demand with what it takes to recognise the rows that meet it."""

    demand: Demand
    evaluation: Evaluation
    settings: str


# Digests of settings by pool, model and suite key, for as long as no file they depend on is expected to change.
Settings = dict[tuple[str, Model, str], str]


def asked_of(
    node: Node, demands: Sequence[Demand], suites: Mapping[str, Evaluation], store: Store, settings: Settings
) -> list[Asked]:
    """`demands` of a node, under the settings that hold now; digests already in `settings` are taken from there."""
    from davinci.evaluation.settings import settings_digest

    found = []
    for demand in demands:
        suite, key = suites[demand.suite], (node.pool, node.model, demand.suite)
        if key not in settings:
            settings[key] = settings_digest(node, suite, store)
        found.append(Asked(demand, suite, settings[key]))
    return found


def looks_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint folder is there; its rename into place came last, so it is whole unless it rotted."""
    return (checkpoint / "state.json").is_file() and (checkpoint / "model.safetensors").is_file()


def done_mark(node: str, store: Store) -> dict[str, Any] | None:
    """Content of the node's done.json; None where there is none that can be read."""
    try:
        mark = read_json(store.node(node) / "done.json")
    except (FileNotFoundError, UserError):
        return None
    return mark if isinstance(mark, dict) and mark.keys() >= _MARK else None


def remaining(
    node: Node,
    asked: Sequence[Asked],
    store: Store,
    is_whole: Callable[[Path], bool] = looks_whole,
    probing: Sequence[Probing] = (),
) -> Remaining:
    """Compare the store with what is asked of `node`, row by row.

    `is_whole` judges a checkpoint folder; the default does not read the weights.
    """
    rows = read(store.records(node.id))
    mark = done_mark(node.id, store)
    unevaluated = tuple(one.demand for one in asked if evaluation_files(rows, one, node, store) is None)
    without = {demand.tokens for demand in unevaluated}
    held_out = {row["tokens"] for row in rows if row["kind"] == "heldout"}
    absent = [
        tokens
        for tokens in sorted({*(one.demand.tokens for one in asked), node.end})
        if tokens not in held_out or (tokens in without and not is_whole(store.checkpoint(node.id, tokens)))
    ]
    there = [tokens for tokens in checkpoints(node.id, store) if node.begin < tokens <= node.end]
    discard = tuple(one for one in there if one in absent)
    if mark is not None and rows_lost(mark, node, rows):
        absent.insert(0, node.begin)
        discard = tuple(there)
    lacking = unprobed(node, probing, rows)
    train = bool(absent or lacking) or not is_whole(store.checkpoint(node.id, node.end))
    # Training goes on from the newest checkpoint before the first thing that is absent.
    first = min((*absent, *(tokens for found in lacking.values() for tokens in found)), default=node.end)
    start = max((one for one in there if one < first), default=node.begin) if train else node.end
    return Remaining(train, discard, start, unevaluated, mark is not None, lacking)


def unprobed(node: Node, probing: Sequence[Probing], rows: Collection[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Where the node's probes are not scored, by set; sets that are scored wherever they should be are left out.

    A pass that was cut short left fewer rows than it says it has.
    """
    found: dict[tuple[str, int], int] = {}
    whole: dict[tuple[str, int], int] = {}
    for row in rows:
        if row["kind"] == "probe":
            place = str(row["suite"]), int(row["tokens"])
            found[place] = found.get(place, 0) + 1
            whole[place] = int(row["capabilities"])
    lacking: dict[str, set[int]] = {}
    for one in probing:
        for tokens in node.probed_at(one.every_tokens):
            if found.get((one.key, tokens), 0) < whole.get((one.key, tokens), 1):
                lacking.setdefault(one.key, set()).add(tokens)
    return {key: tuple(sorted(tokens)) for key, tokens in lacking.items()}


def is_settled(node: Node, asked: Sequence[Asked], store: Store, probing: Sequence[Probing] = ()) -> bool:
    """Whether done.json vouches for all that is asked of `node`; False says nothing, and `remaining` must look."""
    return vouches(done_mark(node.id, store), node, asked, store, probing)


def vouches(
    mark: dict[str, Any] | None, node: Node, asked: Sequence[Asked], store: Store, probing: Sequence[Probing] = ()
) -> bool:
    """Whether `mark`, the node's done.json, vouches for all that is asked of it."""
    if mark is None or mark["begin"] > node.begin or mark["end"] != node.end:
        return False
    folder = store.node(node.id)
    try:
        if store.records(node.id).stat().st_size != mark["records_bytes"]:
            return False
        held_out = {node.end, *mark["heldout"]}
        files = {(one["tokens"], one["suite"], one["settings"]): one["files"] for one in mark["evaluated"]}
        for one in asked:
            found = files.get((one.demand.tokens, one.demand.suite, one.settings))
            if found is None or one.demand.tokens not in held_out:
                return False
            if not all((folder / file).is_file() for file in found):
                return False
        if not all(one.model_dump() in mark.get("probed", ()) for one in probing):
            return False
    except (OSError, KeyError, TypeError):  # no records, or a mark that says less
        return False
    return looks_whole(store.checkpoint(node.id, node.end))


def plan_remaining(plan: Plan, store: Store) -> dict[str, Remaining]:
    """What every node of the plan still lacks, by node id."""
    demands, known, probing = demanded(plan), suites(plan), probed(plan)
    settings: Settings = {}
    left = {}
    for node in plan.nodes.values():
        asked = asked_of(node, demands.get(node.id, ()), known, store, settings)
        probes = probing.get(node.id, ())
        settled = is_settled(node, asked, store, probes)
        left[node.id] = _nothing(node) if settled else remaining(node, asked, store, probing=probes)
    return left


def _nothing(node: Node) -> Remaining:
    return Remaining(train=False, discard=(), start=node.end, evaluations=(), marked=True)


def checkpoints(node: str, store: Store) -> list[int]:
    """Token counts of the node's checkpoints, ascending."""
    try:
        return sorted(int(path.name) for path in store.checkpoint(node, 0).parent.iterdir() if path.name.isdigit())
    except FileNotFoundError:
        return []


def rows_lost(mark: Mapping[str, Any], node: Node, rows: Collection[Mapping[str, Any]]) -> bool:
    """Whether training rows of the node are missing: deleted, or recorded under another node that it now begins in."""
    if mark["begin"] > node.begin:
        return True
    return train_rows(rows, mark["begin"], mark["end"]) < int(mark["train_rows"])


def train_rows(rows: Collection[Mapping[str, Any]], begin: int, end: int) -> int:
    """Number of training rows from `begin` to `end` tokens."""
    return sum(1 for row in rows if row["kind"] == "train" and begin <= row["tokens"] <= end)


def evaluation_files(
    rows: Collection[Mapping[str, Any]], asked: Asked, node: Node, store: Store
) -> tuple[str, ...] | None:
    """Files of per-item results, below the node's folder, that meet `asked`; None where a benchmark has none."""
    found = {
        (row["benchmark"], row["protocol"]): str(row["items_file"])
        for row in rows
        if row["kind"] == "evaluation"
        and row["tokens"] == asked.demand.tokens
        and row.get("suite") == asked.demand.suite
        and row.get("settings") == asked.settings
        and (store.node(node.id) / row["items_file"]).is_file()
    }
    wanted = [(name, benchmark.protocol) for name, benchmark in asked.evaluation.benchmarks.items()]
    if not all(one in found for one in wanted):
        return None
    return tuple(sorted({found[one] for one in wanted}))
