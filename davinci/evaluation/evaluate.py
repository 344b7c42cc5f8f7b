"""Scores of one checkpoint on one suite, per benchmark and per item, computed once.

Results are kept in ``nodes/<node>/evaluations/<key>.parquet``; the key is a digest of everything a score depends on.
The harness and the model are loaded only where that file is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from davinci.config import Evaluation, Node
from davinci.evaluation.item_records import read, write
from davinci.evaluation.settings import FEWSHOT_SEED, digest, settings_digest
from davinci.store import Store


@dataclass(frozen=True)
class Result:
    """One benchmark's score at one checkpoint.

    `score` is what lm-eval computed for `metric` (0 to 1); `frame` has a row an item, with the columns of
    `item_records.SCHEMA` but the benchmark. `truncated` items did not fit the context. `outcomes` counts how programs
    that the model wrote ended (`sandbox.KINDS`); empty where it wrote none.
    """

    benchmark: str
    domain: str
    protocol: str
    metric: str
    score: float
    items: int
    truncated: int
    chance: float
    key: str
    frame: pd.DataFrame
    outcomes: dict[str, int]


def items_file(store: Store, node: Node, key: str) -> Path:
    """Where the per-item results of `key` are kept."""
    return store.node(node.id) / "evaluations" / f"{key}.parquet"


def evaluate(
    checkpoint: Path, node: Node, evaluation: Evaluation, store: Store, weights: Sequence[Path] = ()
) -> list[Result]:
    """Results of the checkpoint on each benchmark of the suite, in the suite's order.

    Args:
        checkpoint: a checkpoint folder of `node`.
        node: gives model shape, pool and tokenizer.
        evaluation: the suite; its `at` and `heldout_sequences` play no part here.
        store: where pools are read and results kept.
        weights: files of weights, in checkpoints, whose mean is evaluated; none means the checkpoint's own.

    Raises:
        UserError: an unknown task or metric, or a pool whose benchmark items are missing.
    """
    from davinci.model.weights import WEIGHTS

    files = list(weights) or [checkpoint / WEIGHTS]
    key = cache_key(files, node, evaluation, store)
    settings = settings_digest(node, evaluation, store)

    def load() -> Any:
        from davinci.evaluation.adapter import load

        return load(files, node, store)

    return served(items_file(store, node, key), load, store.pool(node.pool), evaluation, store, settings)


def served(
    path: Path, load: Callable[[], Any], pool: Path, evaluation: Evaluation, store: Store, settings: str
) -> list[Result]:
    """The results kept at `path`, whose name is their key; where there are none, those of the model that `load` gives.

    Args:
        path: of the per-item results.
        load: makes the model, behind lm-eval's interface; called only if it is needed.
        pool: the folder of the pool whose benchmark items are read.
        evaluation: the suite.
        store: where libraries may keep what they download.
        settings: digest of all that defines the tasks.
    """
    found = read(path)
    if found is None:
        from davinci.evaluation import harness  # lm-eval and torch: two seconds that a served result need not pay

        scores, frame = harness.run(
            load, pool / "tasks", evaluation, store, settings=settings, fewshot_seed=FEWSHOT_SEED
        )
        write(path, scores, frame)
        found = scores, frame
    scores, frame = found
    results = []
    for name, benchmark in evaluation.benchmarks.items():
        rows = frame[frame["benchmark"] == name].drop(columns="benchmark").reset_index(drop=True)
        results.append(
            Result(
                benchmark=name,
                domain=benchmark.domain,
                protocol=benchmark.protocol,
                metric=benchmark.metric,
                score=scores[name],
                items=len(rows),
                truncated=int(rows["truncated"].sum()),
                chance=benchmark.chance,
                key=path.stem,
                frame=rows,
                outcomes={str(kind): int(times) for kind, times in rows["outcome"].value_counts().items()},
            )
        )
    return results


def cache_key(weights: Sequence[Path], node: Node, evaluation: Evaluation, store: Store) -> str:
    """Digest of everything the scores are a function of, weights included: 24 hex digits."""
    from davinci.model.weights import weights_digest

    digests = [weights_digest(file.parent, file.name) for file in weights]
    return digest([*digests, settings_digest(node, evaluation, store)])[:24]
