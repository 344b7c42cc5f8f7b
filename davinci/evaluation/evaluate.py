"""Scores of one checkpoint on one suite, per benchmark and per item, computed once.

Results are kept in ``nodes/<node>/evaluations/<key>.parquet``; the key is a digest of everything a score depends on.
The harness and the model are loaded only where that file is missing, and only benchmarks that are kept nowhere are run
(see `unfinished`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from davinci.config import Evaluation, Node
from davinci.evaluation.item_records import read, seconds_of, write
from davinci.evaluation.settings import FEWSHOT_SEED, digest, settings_digest
from davinci.evaluation.unfinished import Unfinished
from davinci.store import Store


@dataclass(frozen=True)
class Result:
    """One benchmark's score at one checkpoint.

    `score` is what lm-eval computed for `metric` (0 to 1); `frame` has a row an item, with the columns of
    `item_records.SCHEMA` but the benchmark. `truncated` items did not fit the context. `outcomes` counts how programs
    that the model wrote ended (`sandbox.KINDS`); empty where it wrote none. `seconds` is the wall time that it took
    when it was made, 0 where another suite's results served; None where no file says.
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
    seconds: float | None = None


def items_file(store: Store, node: Node, key: str) -> Path:
    """Where the per-item results of `key` are kept."""
    return store.node(node.id) / "evaluations" / f"{key}.parquet"


def evaluate(
    checkpoint: Path,
    node: Node,
    evaluation: Evaluation,
    store: Store,
    weights: Sequence[Path] = (),
    between: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Results of the checkpoint on each benchmark of the suite, in the suite's order.

    Args:
        checkpoint: a checkpoint folder of `node`.
        node: gives model shape, pool and tokenizer.
        evaluation: the suite; its `at` and `heldout_sequences` play no part here.
        store: where pools are read and results kept.
        weights: files of weights, in checkpoints, whose mean is evaluated; none means the checkpoint's own.
        between: called when a benchmark is done and kept; what it raises ends the evaluation, to be gone on with.

    Raises:
        UserError: an unknown task or metric, or a pool whose benchmark items are missing.
    """
    from davinci.model.weights import WEIGHTS

    files = list(weights) or [checkpoint / WEIGHTS]

    def key_of(one: Evaluation) -> str:
        return cache_key(files, node, one, store)

    def load() -> Any:
        from davinci.evaluation.adapter import load

        return load(files, node, store)

    folder = store.node(node.id) / "evaluations"
    settings = settings_digest(node, evaluation, store)
    return served(folder, key_of, load, store.pool(node.pool), evaluation, store, settings, between)


def is_kept(weights: Sequence[Path], node: Node, evaluation: Evaluation, store: Store) -> bool:
    """Whether `evaluate` of these would find its results."""
    return items_file(store, node, cache_key(weights, node, evaluation, store)).is_file()


def served(
    folder: Path,
    key_of: Callable[[Evaluation], str],
    load: Callable[[], Any],
    pool: Path,
    evaluation: Evaluation,
    store: Store,
    settings: str,
    between: Callable[[], None] = lambda: None,
) -> list[Result]:
    """The results kept in `folder`; of benchmarks that are kept nowhere there, those of the model that `load` gives.

    Args:
        folder: of per-item results.
        key_of: the key of a suite's results, which names their file.
        load: makes the model, behind lm-eval's interface; called only if it is needed.
        pool: the folder of the pool whose benchmark items are read.
        evaluation: the suite.
        store: where libraries may keep what they download.
        settings: digest of all that defines the tasks.
        between: called when a benchmark is done and kept.
    """
    key = key_of(evaluation)
    path = folder / f"{key}.parquet"
    found = read(path)
    if found is None:
        keys = {name: key_of(evaluation.only(name)) for name in evaluation.benchmarks}
        unfinished = Unfinished(folder, keys)
        kept = unfinished.found()
        lacking = {name: one for name, one in evaluation.benchmarks.items() if name not in kept}
        scores = {name: score for name, (score, _) in kept.items()}
        frames = [items for _, items in kept.values()]
        seconds = dict.fromkeys(kept, 0.0) | unfinished.seconds()
        if lacking:
            from davinci.evaluation import harness  # lm-eval and torch: two seconds that a served result need not pay

            begun = time.perf_counter()

            def keep(name: str, score: float, items: pd.DataFrame) -> None:
                nonlocal begun
                begun, seconds[name] = (now := time.perf_counter()), now - begun
                if len(evaluation.benchmarks) > 1:
                    unfinished.keep(name, score, items, seconds[name])
                between()

            made, items = harness.run(
                load,
                pool / "tasks",
                evaluation.model_copy(update={"benchmarks": lacking}),
                store,
                settings=settings,
                fewshot_seed=FEWSHOT_SEED,
                on_benchmark=keep,
            )
            scores, frames = scores | made, [*frames, items]
        frame = pd.concat(frames, ignore_index=True)
        scores = {name: scores[name] for name in evaluation.benchmarks}
        frame = pd.concat([frame[frame["benchmark"] == name] for name in scores], ignore_index=True)
        write(path, scores, frame, keys, seconds)
        unfinished.remove()
        found = scores, frame
    scores, frame = found
    results, took = [], seconds_of(path)
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
                key=key,
                frame=rows,
                outcomes={str(kind): int(times) for kind, times in rows["outcome"].value_counts().items()},
                seconds=took.get(name),
            )
        )
    return results


def cache_key(weights: Sequence[Path], node: Node, evaluation: Evaluation, store: Store) -> str:
    """Digest of everything the scores are a function of, weights included: 24 hex digits."""
    from davinci.model.weights import weights_digest

    digests = [weights_digest(file.parent, file.name) for file in weights]
    return digest([*digests, settings_digest(node, evaluation, store)])[:24]
