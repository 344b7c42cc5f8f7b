"""Scores of one checkpoint on one suite, per benchmark and per item, computed once.

Results are kept in ``nodes/<node>/evaluations/<key>.parquet``; the key is a digest of everything a score depends on.
The harness and the model are loaded only where that file is missing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from davinci.config import Evaluation, Node
from davinci.evaluation.settings import FEWSHOT_SEED, digest, settings_digest
from davinci.store import Store, atomic_file

_METADATA = b"davinci.evaluation"


@dataclass(frozen=True)
class Result:
    """One benchmark's score at one checkpoint.

    `score` is what lm-eval computed for `metric` (0 to 1); `frame` has a row an item: item (int32), score (float64),
    chosen (Int16, the choice ranked first; missing for generation), text (what the model wrote; missing for ranking).
    """

    benchmark: str
    domain: str
    protocol: str
    metric: str
    score: float
    items: int
    chance: float
    key: str
    frame: pd.DataFrame


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
    path = items_file(store, node, key)
    found = _read(path)
    if found is None:
        from davinci.evaluation import harness  # lm-eval and torch: two seconds that a served result need not pay

        settings = settings_digest(node, evaluation, store)
        scores, frame = harness.run(files, node, evaluation, store, settings=settings, fewshot_seed=FEWSHOT_SEED)
        _write(path, scores, frame)
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
                chance=benchmark.chance,
                key=key,
                frame=rows,
            )
        )
    return results


def cache_key(weights: Sequence[Path], node: Node, evaluation: Evaluation, store: Store) -> str:
    """Digest of everything the scores are a function of, weights included: 24 hex digits."""
    from davinci.model.weights import weights_digest

    digests = [weights_digest(file.parent, file.name) for file in weights]
    return digest([*digests, settings_digest(node, evaluation, store)])[:24]


def _write(path: Path, scores: dict[str, float], frame: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _METADATA: json.dumps(scores).encode()})
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _read(path: Path) -> tuple[dict[str, float], pd.DataFrame] | None:
    """Scores and items of a results file, or None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
        return json.loads(table.schema.metadata[_METADATA]), table.to_pandas()
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        logging.getLogger(__name__).warning("%s cannot be read; evaluating again", path)
        return None
