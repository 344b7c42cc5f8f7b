"""A run over several ranks is refused where it cannot work, when it is planned."""

from __future__ import annotations

from typing import Any

import pytest
from plans import small_run, small_stage

from davinci.errors import UserError


def run(stage: dict[str, Any], **cluster: Any) -> None:
    small_run(curriculum={"name": "c", "stages": {"a": stage}}, cluster=cluster)


def test_ranks_need_a_cluster_that_starts_them() -> None:
    with pytest.raises(
        UserError, match=r"^cluster\.nodes: cluster=local trains a run in one process; use cluster=slurm"
    ):
        run(small_stage(80), nodes=2)
    run(small_stage(80), kind="slurm", nodes=2)


def test_every_rank_needs_a_sequence_of_every_step() -> None:
    growing = small_stage(80, batch_size=[{"from_tokens": 0, "sequences": 4}, {"from_tokens": 32, "sequences": 8}])
    run(growing, kind="slurm", nodes=2, tasks_per_node=2)
    with pytest.raises(
        UserError,
        match=r"^cluster\.tasks_per_node: 2 nodes x 3 tasks are 6 ranks, but .*stages\.a has steps of 4 sequences",
    ):
        run(growing, kind="slurm", nodes=2, tasks_per_node=3)
