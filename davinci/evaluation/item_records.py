"""Per-item records: one compressed Parquet file a (checkpoint, suite), a row an item.

=============  =============  ========================================================================================
column         type           holds
=============  =============  ========================================================================================
benchmark      string         its name in the suite
item           int32          the item's place in the task's documents; in a group of tasks, in all of them
score          float64        the item's value of the benchmark's metric; their mean is the score
chosen         int16          the choice that the metric ranks first, or the option that the text settles on; else null
likelihoods    list<float32>  log-likelihood (nats, summed over tokens) of each choice; null where the model writes
truncated      bool           the text did not fit the context and lost its beginning, as lm-eval cuts it
text           string         what the model wrote, with `evaluation.keep_text`; null otherwise
outcome        string         how a program that the model wrote ended (`sandbox.KINDS`); null where it wrote none
=============  =============  ========================================================================================

Capability and grade of an embedded item are in row `item` of its item file, ``tasks/<file>.jsonl`` of the pool.

The file's metadata ``davinci.evaluation`` is JSON: the score of each benchmark in `scores`, its key where nothing else
is evaluated in `keys`, the wall time it took in `seconds` (files of before lack it), and in `digest` what tells whether
they are as written; the columns' pages have checksums.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from davinci.evaluation.per_token import token_counts
from davinci.evaluation.protocols import ReadChoice
from davinci.store import atomic_file

SCHEMA = pa.schema(
    {
        "benchmark": pa.string(),
        "item": pa.int32(),
        "score": pa.float64(),
        "chosen": pa.int16(),
        "likelihoods": pa.list_(pa.float32()),
        "truncated": pa.bool_(),
        "text": pa.string(),
        "outcome": pa.string(),
    }
)
# What a task that sets no limit lets a model write: lm-eval's own.
GENERATION_TOKENS = 256

_METADATA = b"davinci.evaluation"
_DTYPES = {
    **{"benchmark": "object", "item": "int32", "score": "float64", "chosen": "Int16", "truncated": "bool"},
    **{"text": "string", "outcome": "string"},
}


def item_frame(
    samples: dict[str, list[dict[str, Any]]],
    tasks: dict[str, Any],
    name: str,
    metric: str,
    chain: str,
    lm: Any,
    keep_text: bool,
) -> pd.DataFrame:
    """lm-eval's samples of the benchmark `name` as a frame with the columns of `SCHEMA`.

    Args:
        samples: by task, as lm-eval's ``evaluate`` returns them.
        tasks: lm-eval's task objects by name.
        name: of the benchmark.
        metric: whose value is an item's score.
        chain: name of the filter that the metric is computed after.
        lm: the model that answered; says how long a text is in tokens.
        keep_text: whether what it wrote is kept.
    """
    rows = []
    for task_name in sorted(tasks):
        task = tasks[task_name]
        for sample in samples[task_name]:
            if sample["filter"] != chain:
                continue
            choice = likelihoods = text = None
            if task.OUTPUT_TYPE == "multiple_choice":
                choices = task.doc_to_choice(sample["doc"])
                values = np.array([value for value, _ in sample["filtered_resps"]])
                lengths = token_counts(task, lm, sample["doc"]) if metric == "acc_tokens" else None
                choice, likelihoods = (
                    chosen(metric, values, choices, lengths),
                    values[: len(choices)].astype(np.float32),
                )
            elif task.OUTPUT_TYPE == "generate_until":
                written = sample["resps"][0][0]
                text = written if keep_text else None
                if isinstance(task.config.process_results, ReadChoice):
                    choice = task.config.process_results.chosen(sample["doc"], written)
            cut = is_cut(lm, task.OUTPUT_TYPE, sample["arguments"])
            rows.append(
                (name, sample["doc_id"], float(sample[metric]), choice, likelihoods, cut, text, sample.get("outcome"))
            )
    frame = pd.DataFrame(rows, columns=SCHEMA.names)
    if len(tasks) > 1:  # a group: its members' ids overlap
        frame["item"] = range(len(frame))
    return frame.astype(_DTYPES)


def chosen(metric: str, values: np.ndarray, choices: Sequence[str], lengths: np.ndarray | None = None) -> int:
    """The choice that lm-eval's `metric` ranks first; metrics it has no rule of its own for rank by the sum.

    `lengths` are the choices' tokens, for ``acc_tokens``.
    """
    scores = values[: len(choices)]
    if metric == "acc_norm":
        scores = scores / [len(one) for one in choices]
    elif metric == "acc_bytes":
        scores = scores / [len(one.encode()) for one in choices]
    elif lengths is not None:
        scores = scores / lengths
    elif metric == "acc_mutual_info":
        scores = scores - values[len(choices) :]
    return int(np.argmax(scores))


def is_cut(lm: Any, kind: str, arguments: Sequence[tuple[Any, ...]]) -> bool:
    """Whether one of an item's requests is longer than the context of `lm`, so that its beginning is not read.

    `kind` is the task's output type. Rolling log-likelihoods read all of a text, in windows.
    """
    if kind == "generate_until":
        limits = [settings.get("max_gen_toks", GENERATION_TOKENS) for _, settings in arguments]
        rooms = [lm.max_length - min(limit, lm.max_length - 1) for limit in limits]
        return any(len(lm.tok_encode(context)) > room for (context, _), room in zip(arguments, rooms, strict=True))
    if kind == "loglikelihood_rolling":
        return False
    for context, continuation in arguments:
        # The last token is predicted, not read.
        parts = lm._encode_pair(context, continuation) if context else ([0], lm.tok_encode(continuation))
        if sum(map(len, parts)) > lm.max_length + 1:
            return True
    return False


def write(
    path: Path,
    scores: dict[str, float],
    frame: pd.DataFrame,
    keys: Mapping[str, str] | None = None,
    seconds: Mapping[str, float] | None = None,
) -> None:
    """Write the items and the score of each benchmark, atomically; `keys` as `unfinished` has them."""
    table = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
    about = {"scores": scores, **({"keys": dict(keys)} if keys else {})}
    about |= {"seconds": {name: round(took, 3) for name, took in seconds.items()}} if seconds else {}
    about["digest"] = _digest(about)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _METADATA: json.dumps(about).encode()})
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def _digest(about: Mapping[str, Any]) -> str:
    """Of scores, keys and seconds, as far as there are; of the scores alone in files that have nothing else."""
    parts = [about["scores"], *(about[name] for name in ("keys", "seconds") if about.get(name))]
    said = parts if len(parts) > 1 else parts[0]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def benchmark_keys(path: Path) -> dict[str, str]:
    """The keys that a file names, by benchmark; none where it cannot be read or names none."""
    return _said(path, "keys")


def seconds_of(path: Path) -> dict[str, float]:
    """The wall time that a file's benchmarks took; none where it cannot be read or does not say."""
    return _said(path, "seconds")


def _said(path: Path, name: str) -> dict[str, Any]:
    try:
        about = json.loads(pq.read_schema(path).metadata[_METADATA])
        return dict(about[name]) if about["digest"] == _digest(about) else {}
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return {}


def read(path: Path) -> tuple[dict[str, float], pd.DataFrame] | None:
    """Scores and items of a file, or None where there is none that can be read whole."""
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if not table.schema.remove_metadata().equals(SCHEMA):
            raise ValueError("it has other columns")
        about = json.loads(table.schema.metadata[_METADATA])
        if about["digest"] != _digest(about):
            raise ValueError("its scores are damaged")
        return about["scores"], table.to_pandas().astype(_DTYPES)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        logging.getLogger(__name__).warning("%s cannot be read (%s); evaluating again", path, error)
        return None
