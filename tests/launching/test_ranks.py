"""A job on several ranks: one outcome, one writer, whatever happens to whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "training"))
from gang import Gang
from plans import small_run
from pools import tiny_pool
from training_nodes import LENGTH, tiny_node, tiny_stage

from davinci.errors import RankLost
from davinci.launching.job import Job, Outcome, failure_path, job_path, perform, read_job
from davinci.launching.ranks import together
from davinci.store import Store, read_json, write_json
from davinci.tracking.records import read

SWEEP, CHAIN = "together", "branch"
BATCH = [{"from_tokens": 0, "sequences": 4}]


@pytest.fixture(scope="module")
def two() -> Iterator[Gang]:
    ranks = Gang(2)
    yield ranks
    ranks.close()


def job_in(folder: Path, gpus_per_node: int = 0, parallel: str = "ddp") -> Path:
    """A job of two stages in a store of its own."""
    store = Store(folder)
    tiny_pool(store, tokens=4_000)
    stage = tiny_stage(tokens=4 * 12 * LENGTH, batch_size=BATCH)
    trunk = tiny_node(stage=stage)
    branch = tiny_node(id="branch", parent="trunk", stage_begin=trunk.end, begin=trunk.end, stage=stage)
    job = Job(
        sweep=SWEEP,
        chain=CHAIN,
        after=None,
        store=str(folder),
        cluster=small_run().cluster.model_copy(update={"gpus_per_node": gpus_per_node, "parallel": parallel}),
        code=None,
        nodes=(trunk, branch),
        demands={},
        suites={},
        heldout_sequences=2,
        donors={},
    )
    path = job_path(store, SWEEP, CHAIN)
    write_json(path, job.model_dump(mode="json"))
    return path


def work(path: Path, trouble: str = "") -> Outcome | str:
    """A rank's part in the job; `trouble` says what befalls it, or one of the ranks, in the second stage."""
    from davinci.training import accelerators, checkpoints, reading

    me = int(os.environ["RANK"])
    steps = 0

    def should_stop() -> bool:
        nonlocal steps
        steps += 1
        if trouble == f"kill {me}" and steps == 17:
            os.kill(os.getpid(), signal.SIGKILL)
        return trouble == f"stop {me}" and steps >= 17

    class Broken(reading.Batches):
        def batch(self, step: int) -> Any:
            if step == 5 and self._node.id == "branch":
                raise OSError("Input/output error: the pool is gone")
            return super().batch(step)

    def full(folder: Path, *rest: Any) -> None:
        if "branch" in str(folder):
            raise OSError("No space left on device")
        plain(folder, *rest)

    plain = checkpoints.write
    with pytest.MonkeyPatch.context() as patch:
        if trouble == f"data {me}":
            patch.setattr(reading, "Batches", Broken)
        if trouble.startswith("gpu"):  # The other rank's machine has one.
            cuda = SimpleNamespace(is_available=lambda: trouble != f"gpu {me}")
            torch = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="12.8", hip=None))
            patch.setattr(accelerators, "torch", torch)
        if trouble == "disk 0" and me == 0:
            patch.setattr(checkpoints, "write", full)
        try:
            job = read_job(path)
            return together(job, should_stop, lambda ranks: perform(path, lambda event: None, should_stop, ranks))
        except RankLost as error:
            return f"lost: {error}"


def marks(path: Path) -> dict[str, dict[str, Any]]:
    return {found.parent.name: read_json(found) for found in path.parents[2].glob("nodes/*/done.json")}


def digests(path: Path) -> dict[str, str]:
    return {node: mark["weights_digest"] for node, mark in marks(path).items()}


@pytest.fixture(scope="module")
def straight(two: Gang, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job, done by two ranks whom nothing befell."""
    path = job_in(tmp_path_factory.mktemp("straight"))
    assert [outcome.state for outcome in two.run(2, work, path)] == ["done", "done"]
    return path


def test_one_rank_writes_what_all_have_done(straight: Path) -> None:
    found = marks(straight)
    assert {node: mark["worlds"] for node, mark in found.items()} == {"trunk": [2], "branch": [2]}
    store = Store(straight.parents[2])
    for node in found:
        written = store.records(node).read_text().count('"kind": "train"')
        assert written == len(read(store.records(node), "train")) > 1, "no row twice"


@pytest.mark.parametrize("who", [0, 1])
def test_a_stop_of_any_rank_stops_all_and_loses_nothing(two: Gang, tmp_path: Path, straight: Path, who: int) -> None:
    path = job_in(tmp_path)
    first, second = two.run(2, work, path, f"stop {who}")
    assert first == second and first.state == "stopped"
    assert marks(path).keys() == {"trunk"}
    assert [outcome.state for outcome in two.run(2, work, path)] == ["done", "done"]
    assert digests(path) == digests(straight)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("data 1", "rank 1: OSError: Input/output error: the pool is gone"),
        ("data 0", "OSError: Input/output error: the pool is gone"),
        ("disk 0", "OSError: No space left on device"),
    ],
)
def test_what_fails_on_one_rank_fails_the_job_with_its_words(
    two: Gang, tmp_path: Path, straight: Path, trouble: str, words: str
) -> None:
    path = job_in(tmp_path)
    first, second = two.run(2, work, path, trouble, ends=True)
    assert (first.state, second.state) == ("failed", "failed")
    assert first.error == words
    assert second.error in (words, words.removeprefix("rank 1: "))
    assert read_json(failure_path(Store(tmp_path), SWEEP, CHAIN))["error"] == words
    assert [outcome.state for outcome in two.run(2, work, path)] == ["done", "done"]
    assert digests(path) == digests(straight)
    assert not failure_path(Store(tmp_path), SWEEP, CHAIN).exists()


@pytest.mark.parametrize("who", [0, 1])
def test_no_rank_trains_where_one_sees_no_accelerator(two: Gang, tmp_path: Path, who: int) -> None:
    path = job_in(tmp_path, gpus_per_node=1)
    outcomes = two.run(2, work, path, f"gpu {who}")
    words = "cluster.gpus_per_node: 1 asked for, but torch sees none on "
    for outcome in outcomes:
        assert outcome.state == "failed"
        assert outcome.error.removeprefix("rank 1: ").startswith(words)
        assert "CUDA_VISIBLE_DEVICES is ''" in outcome.error
    assert not Store(tmp_path).records("trunk").exists()


@pytest.mark.parametrize("who", [0, 1])
def test_a_killed_rank_is_no_failure(tmp_path: Path, straight: Path, two: Gang, who: int) -> None:
    """The others end at once, and whoever looks after the job starts it again."""
    path = job_in(tmp_path)
    doomed = Gang(2)
    told = doomed.run(2, work, path, f"kill {who}")
    doomed.close()
    assert isinstance(told[who], EOFError)
    assert told[1 - who] == f"lost: rank {1 - who}: another rank ended without a word"
    assert not failure_path(Store(tmp_path), SWEEP, CHAIN).exists()
    assert [outcome.state for outcome in two.run(2, work, path)] == ["done", "done"]
    assert digests(path) == digests(straight)


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_torchrun_starts_the_ranks_of_a_job(two: Gang, tmp_path: Path, straight: Path, parallel: str) -> None:
    path = job_in(tmp_path / "torchrun", parallel=parallel)
    if parallel == "fsdp":
        straight = job_in(tmp_path / "straight", parallel=parallel)
        assert [outcome.state for outcome in two.run(2, work, straight)] == ["done", "done"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "davinci.launching.ranks", str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done: branch") == 2
    assert digests(path) == digests(straight)
