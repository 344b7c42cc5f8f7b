"""The long tidy frame: a row a value, of every run, stage, token count and metric; the same from every source."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from analysis.metrics import Metrics
from analysis.sources import Recorded
from davinci.planning.plan import Plan

FRAME_COLUMNS = ["run", "arm", "seed", "node", "stage", "tokens", "metric", "value"]

_Block = tuple[np.ndarray, np.ndarray, np.ndarray]


def long_frame(plan: Plan, recorded: Recorded) -> pd.DataFrame:
    """`FRAME_COLUMNS`, a row a value that is there: run by run, its nodes in order, then its scores.

    Text columns are categorical, `tokens` int64 since initialisation, `value` float64. A stretch that several runs
    share is in each of them.
    """
    metrics = _Codes({name for one in (*recorded.nodes.values(), *recorded.scores.values()) for name in one.names})
    nodes = _Codes(plan.nodes)
    stages = _Codes({node.stage_name for node in plan.nodes.values()})
    runs = _Codes([run.id for run in plan.runs])
    arms = _Codes([arm.label for arm in plan.arms])
    melted = {node: _melted(one, metrics) for node, one in recorded.nodes.items()}
    blocks: list[_Block] = []
    places: list[tuple[int, int, int]] = []  # of each block: its run, its node, and how many values it has
    for index, run in enumerate(plan.runs):
        own = [(node, melted[node]) for node in run.nodes if node in melted]
        if (scores := recorded.scores.get(run.name)) is not None:
            ranges = [(node, plan.nodes[node].begin, plan.nodes[node].end) for node in run.nodes]
            own += [(node, _melted(scores.within(begin, end), metrics)) for node, begin, end in ranges]
        blocks += [block for _, block in own]
        places += [(index, nodes.code[node], block[2].size) for node, block in own]
    in_run, in_node, lengths = np.array(places, np.int64).reshape(-1, 3).T
    arm_of = np.array([arms.code[run.arm] for run in plan.runs], np.int64)
    seed_of = np.array([run.seed for run in plan.runs], np.int32)
    stage_of = np.array([stages.code[node.stage_name] for node in plan.nodes.values()], np.int64)

    def filled(part: int) -> np.ndarray:
        return _filled(blocks, part)

    # Most of the time goes into fresh memory, which threads get side by side.
    with ThreadPoolExecutor() as threads:
        columns = {
            "tokens": threads.submit(filled, 0),
            "value": threads.submit(filled, 2),
            "seed": threads.submit(_repeated, seed_of[in_run], lengths),
            "run": threads.submit(runs.column, in_run, lengths),
            "node": threads.submit(nodes.column, in_node, lengths),
            "arm": threads.submit(arms.column, arm_of[in_run], lengths),
            "stage": threads.submit(stages.column, stage_of[in_node], lengths),
            "metric": threads.submit(lambda: metrics.categorical(filled(1))),
        }
    data = {name: columns[name].result() for name in FRAME_COLUMNS}
    return pd.DataFrame(data, columns=FRAME_COLUMNS, copy=False)


class _Codes:
    """Names by number; sets are sorted, anything else keeps its order."""

    def __init__(self, names: Sequence[str] | set[str] | dict[str, object]) -> None:
        self.names = sorted(names) if isinstance(names, set) else list(dict.fromkeys(names))
        self.code = {name: index for index, name in enumerate(self.names)}
        self.type = pd.Categorical.from_codes([], self.names).codes.dtype.type  # as pandas keeps them: no copy is made

    def column(self, codes: np.ndarray, lengths: np.ndarray) -> pd.Categorical:
        """Each code as often as `lengths` says."""
        return self.categorical(_repeated(codes.astype(self.type), lengths))

    def categorical(self, codes: np.ndarray) -> pd.Categorical:
        return pd.Categorical.from_codes(codes, self.names, validate=False)


def _repeated(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`np.repeat` of few values, each very often, in a fraction of its time."""
    whole = np.empty(int(lengths.sum()), values.dtype)
    start = 0
    for value, length in zip(values.tolist(), lengths.tolist(), strict=True):
        whole[start : start + length] = value
        start += length
    return whole


def _melted(found: Metrics, metrics: _Codes) -> _Block:
    """(tokens int64, metric codes, value float64[shape]) of the values that are there, by tokens, then by name; the
    first two broadcast to the third's shape."""
    codes = np.array([metrics.code[name] for name in found.names], metrics.type)
    there = ~np.isnan(found.values)
    if there.all():  # most of a large sweep: nothing is copied
        return found.tokens[:, None], codes, found.values
    rows, columns = np.nonzero(there)
    return found.tokens[rows], codes[columns], found.values[there]


def _filled(blocks: Sequence[_Block], part: int) -> np.ndarray:
    """One part of all blocks, one after the other, flat."""
    whole = np.empty(sum(block[2].size for block in blocks), blocks[0][part].dtype if blocks else float)
    start = 0
    for block in blocks:
        end = start + block[2].size
        whole[start:end].reshape(block[2].shape)[...] = block[part]
        start = end
    return whole
