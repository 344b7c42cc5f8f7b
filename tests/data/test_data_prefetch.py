"""Batches made ahead: the same ones, boundedly many, their errors where they are asked for, no thread left behind."""

import subprocess
import sys
import threading

import pytest
from test_data_batches import T, node

from davinci.data.batches import Batches
from davinci.data.prefetch import Prefetch

FAR = 10**12


def threads():
    return [one for one in threading.enumerate() if one.name.startswith("prefetch")]


def test_batches_are_those_of_the_reader(built):
    spec = node(built[0], {"speeches": 3, "programs": 2, "sums": 5})
    reader, plain = Batches(spec, built[0], {}), Batches(spec, built[0], {})
    with Prefetch(reader.batch, range(3, 60)) as ahead:
        for step in range(3, 60):
            one, other = ahead.take(step), plain.batch(step)
            assert (one.tokens == other.tokens).all() and (one.domain == other.domain).all()
    assert not threads()


def test_never_more_than_asked_for_ahead():
    made, third = [], threading.Event()

    def make(step):
        made.append(step)
        if step == 2:
            third.set()
        return step

    with Prefetch(make, range(100), ahead=3) as ahead:
        assert third.wait(60), "three are made before any is asked for"
        ahead._thread.submit(lambda: None).result()
        assert made == [0, 1, 2]
        assert [ahead.take(step) for step in range(100)] == list(range(100))
        with pytest.raises(ValueError, match="asked for step 100, but the next one is none"):
            ahead.take(100)
    assert made == list(range(100)) and ahead.waited >= 0


def test_an_error_is_raised_where_its_step_is_asked_for():
    def make(step):
        if step == 2:
            raise OSError("the disk is gone")
        return step

    with Prefetch(make, range(5), ahead=4) as ahead:
        assert ahead.take(0) == 0 and ahead.take(1) == 1
        with pytest.raises(ValueError, match="asked for step 4, but the next one is 2"):
            ahead.take(4)
        with pytest.raises(OSError, match="the disk is gone"):
            ahead.take(2)
    assert not threads()


def test_leaving_early_ends_the_thread():
    with pytest.raises(RuntimeError, match="stop"), Prefetch(lambda step: step, range(10**9)) as ahead:
        ahead.take(0)
        raise RuntimeError("stop")
    assert not threads()


def test_seek_is_far_and_immediate(built):
    """A resumed reader computes what it needs from the position: nothing is drawn again to get there."""
    store, _ = built
    weights = {"speeches": 3, "programs": 2, "sums": 5}
    far = Batches(node(store, weights, position=FAR), store, {"speeches": FAR, "sums": 7 * FAR})
    drawn = far._order.block(FAR, 4)
    assert len(far._window) == 0
    sources = [far._names[index] for index in drawn[0]]
    batch = far.batch(0)
    assert [far.domains[index] for index in batch.domain] == [
        {"speeches": "general", "programs": "code", "sums": "qa"}[name] for name in sources
    ]
    assert batch.tokens.shape == (4, T + 1) and len(far._window) == 1
    assert far.cursors_at(2)["speeches"] >= FAR


SPARSE = """
import resource, sys
from pathlib import Path
import numpy as np
from davinci.data.cards import VariantCard
from davinci.data.shards import Shard
folder, tokens = Path(sys.argv[1]), int(sys.argv[2])
card = VariantCard(digest="d", tokens=tokens, documents=1, bytes=1, heldout_tokens=0, heldout_documents=0,
                   heldout_bytes=0, chain=())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
shard = Shard(folder, "train", card)
for epoch in (0, 10**6):
    for turn in range(10):
        draws = np.arange(64) + (epoch * 10**9 + turn * 64)
        tokens, mask = shard.read(shard.chunks(draws, 1, 512), 512)
        assert tokens.shape == (64, 513)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """A shard of 32 GB (sparse on disk): drawing from all over it maps the pages it touches and holds no table."""
    folder = tmp_path / "big@L1"
    folder.mkdir()
    tokens = 16 * 10**9
    with (folder / "train.bin").open("wb") as file:
        file.truncate(2 * tokens)
    found = subprocess.run(
        [sys.executable, "-c", SPARSE, str(folder), str(tokens)], capture_output=True, text=True, check=True
    )
    # 1,280 sequences of 1 KB, each with what the system reads around it; a permutation's table would be 250 MB.
    assert int(found.stdout) < 100_000
