"""What a node still lacks, relative to what a plan demands of it. Reads files only: no torch.

A node is finished when its end checkpoint is there, `records.jsonl` holds what was recorded when it was marked done,
and every demanded token count has held-out rows and an evaluation row a benchmark, made under the present settings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from davinci.config import Evaluation, Node
from davinci.errors import UserError
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
        evaluations: token counts whose checkpoint must be evaluated, ascending.
        marked: it was marked done before.
    """

    train: bool
    discard: tuple[int, ...]
    start: int
    evaluations: tuple[int, ...]
    marked: bool

    @property
    def finished(self) -> bool:
        return self.marked and not self.train and not self.evaluations


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
    demanded: Collection[int],
    evaluation: Evaluation,
    settings: str,
    store: Store,
    is_whole: Callable[[Path], bool] = looks_whole,
) -> Remaining:
    """Compare the store with what is demanded of `node`.

    Args:
        node: the node.
        demanded: tokens since initialisation at which it must be evaluated.
        evaluation: the suite it must be evaluated on.
        settings: digest of what scores depend on beside the weights; rows made under another one do not count.
        store: where to look.
        is_whole: judges a checkpoint folder; the default does not read the weights.
    """
    rows = read(store.records(node.id))
    mark = done_mark(node.id, store)
    unevaluated = [
        tokens for tokens in sorted(demanded) if not _evaluated(rows, tokens, evaluation, settings, node, store)
    ]
    held_out = {row["tokens"] for row in rows if row["kind"] == "heldout"}
    absent = [
        tokens
        for tokens in sorted({*demanded, node.end})
        if tokens not in held_out or (tokens in unevaluated and not is_whole(store.checkpoint(node.id, tokens)))
    ]
    there = checkpoints(node.id, store)
    discard = tuple(one for one in there if one in absent)
    if mark is not None and _rows_lost(mark, node, rows):
        absent.insert(0, node.begin)
        discard = tuple(there)
    train = bool(absent) or not is_whole(store.checkpoint(node.id, node.end))
    # Training goes on from the newest checkpoint before the first thing that is absent.
    first = min(absent, default=node.end)
    start = max((one for one in there if one < first), default=node.begin) if train else node.end
    return Remaining(train, discard, start, tuple(unevaluated), mark is not None)


def plan_remaining(plan: Plan, store: Store) -> dict[str, Remaining]:
    """What every node of the plan still lacks, by node id."""
    from davinci.evaluation.evaluate import settings_digest

    evaluation = shared_evaluation(plan)
    settings: dict[str, str] = {}
    left = {}
    for node in plan.nodes.values():
        key = f"{node.pool} {node.model.model_dump_json()}"
        if key not in settings:
            settings[key] = settings_digest(node, evaluation, store)
        left[node.id] = remaining(node, plan.demands(node.id), evaluation, settings[key], store)
    return left


def shared_evaluation(plan: Plan) -> Evaluation:
    """The suite of the plan's runs, which must be one; only the points they are evaluated at may differ."""
    suites = {run.config.evaluation.model_copy(update={"at": ()}).model_dump_json() for run in plan.runs}
    if len(suites) > 1:
        raise UserError(f"sweep {plan.sweep}: its runs must share one evaluation suite and limit; only `at` may differ")
    return plan.runs[0].config.evaluation


def checkpoints(node: str, store: Store) -> list[int]:
    """Token counts of the node's checkpoints, ascending."""
    folder = store.checkpoint(node, 0).parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def _rows_lost(mark: dict[str, Any], node: Node, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether training rows of the node are missing: deleted, or recorded under another node that it now begins in."""
    if mark["begin"] > node.begin:
        return True
    count = sum(1 for row in rows if row["kind"] == "train" and mark["begin"] <= row["tokens"] <= mark["end"])
    return count < int(mark["train_rows"])


def _evaluated(
    rows: Sequence[dict[str, Any]], tokens: int, evaluation: Evaluation, settings: str, node: Node, store: Store
) -> bool:
    found = {
        (row["benchmark"], row["protocol"])
        for row in rows
        if row["kind"] == "evaluation"
        and row["tokens"] == tokens
        and row.get("settings") == settings
        and (store.node(node.id) / row["items_file"]).is_file()
    }
    return all((name, benchmark.protocol) in found for name, benchmark in evaluation.benchmarks.items())
