"""The long tidy frame: a row a value, of every run, stage, token count and metric; the same from every source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.metrics import Metrics
from analysis.sources import Recorded
from davinci.planning.plan import Plan

FRAME_COLUMNS = ["run", "arm", "seed", "node", "stage", "tokens", "metric", "value"]


def long_frame(plan: Plan, recorded: Recorded) -> pd.DataFrame:
    """`FRAME_COLUMNS`, a row a value that is there: run by run, its nodes in order, then its scores.

    Text columns are categorical, `tokens` int64 since initialisation, `value` float64. A stretch that several runs
    share is in each of them.
    """
    metrics = _Codes({name for one in (*recorded.nodes.values(), *recorded.scores.values()) for name in one.names})
    nodes = _Codes(plan.nodes)
    stages = _Codes({node.stage_name for node in plan.nodes.values()})
    stage_of = np.array([stages.code[node.stage_name] for node in plan.nodes.values()], np.int16)
    blocks = {node: _melted(one, metrics) for node, one in recorded.nodes.items()}
    tokens, names, values, places, lengths = [], [], [], [], []
    for run in plan.runs:
        count = 0
        for node in run.nodes:
            if node in blocks:
                block = blocks[node]
                tokens.append(block[0])
                names.append(block[1])
                values.append(block[2])
                places.append((nodes.code[node], len(block[0])))
                count += len(block[0])
        if run.name in recorded.scores:
            at, name, value = _melted(recorded.scores[run.name], metrics)
            for node in run.nodes:
                begin, end = plan.nodes[node].begin, plan.nodes[node].end
                inside = ((at > begin) | ((at == 0) & (begin == 0))) & (at <= end)
                tokens.append(at[inside])
                names.append(name[inside])
                values.append(value[inside])
                places.append((nodes.code[node], int(inside.sum())))
                count += int(inside.sum())
        lengths.append(count)
    in_node = np.repeat([place for place, _ in places], [count for _, count in places]).astype(np.int32)
    runs = _Codes([run.id for run in plan.runs])
    arms = _Codes([arm.label for arm in plan.arms])
    run_codes = [runs.code[run.id] for run in plan.runs]
    arm_codes = [arms.code[run.arm] for run in plan.runs]
    return pd.DataFrame(
        {
            "run": runs.column(np.repeat(run_codes, lengths)),
            "arm": arms.column(np.repeat(arm_codes, lengths)),
            "seed": np.repeat(np.array([run.seed for run in plan.runs], np.int32), lengths),
            "node": nodes.column(in_node),
            "stage": stages.column(stage_of[in_node]),
            "tokens": np.concatenate(tokens) if tokens else np.empty(0, np.int64),
            "metric": metrics.column(np.concatenate(names) if names else np.empty(0, np.int16)),
            "value": np.concatenate(values) if values else np.empty(0),
        },
        columns=FRAME_COLUMNS,
    )


class _Codes:
    """Names by number; sets are sorted, anything else keeps its order."""

    def __init__(self, names: Sequence[str] | set[str] | dict[str, object]) -> None:
        self.names = sorted(names) if isinstance(names, set) else list(dict.fromkeys(names))
        self.code = {name: index for index, name in enumerate(self.names)}
        self._type = np.int16 if len(self.names) < 2**15 else np.int32

    def column(self, codes: np.ndarray) -> pd.Categorical:
        return pd.Categorical.from_codes(codes.astype(self._type), self.names)


def _melted(found: Metrics, metrics: _Codes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens int64[k], metric int16[k], value float64[k]) of the k values that are there, by tokens, then by name."""
    codes = np.array([metrics.code[name] for name in found.names], np.int16)
    there = ~np.isnan(found.values)
    if there.size and there.all():  # most of a large sweep
        count, width = there.shape
        return np.repeat(found.tokens, width), np.tile(codes, count), found.values.ravel()
    rows, columns = np.nonzero(there)
    return found.tokens[rows], codes[columns] if len(codes) else np.empty(0, np.int16), found.values[there]
