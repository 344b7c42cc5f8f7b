"""A checkpoint is whole or not there, and says when it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_nodes import tiny_model

from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.model.weights import load_model, weights_digest
from davinci.store import Store, file_digest
from davinci.training import checkpoints as saved

MODEL = tiny_model()


def decoder(seed: int) -> Decoder:
    model = Decoder(MODEL, MODEL.vocab_size)
    model.initialise(seed)
    return model


def state(tokens: int, rolling: bool = False) -> saved.State:
    return saved.State(
        version=saved.VERSION,
        node="n",
        tokens=tokens,
        global_step=3,
        cursors={"a": 4},
        window={"code": (0.1, 7)},
        rolling=rolling,
        numerics={"torch": "t"},
        digests={},
    )


def write(store: Store, tokens: int, seed: int = 0, rolling: bool = False) -> Path:
    folder = store.checkpoint("n", tokens)
    saved.write(folder, decoder(seed), {"step": torch.tensor(3.0)}, state(tokens, rolling))
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_what_is_written_is_read(empty: Store) -> None:
    folder = write(empty, 100)
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    loaded = load_model(folder, MODEL, MODEL.vocab_size)
    for one, two in zip(decoder(0).parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, two)
    found = saved.read_state(folder)
    assert found.model_copy(update={"digests": {}}) == state(100)
    assert weights_digest(folder) == file_digest(folder / "model.safetensors")
    assert saved.load_optimizer(folder)["step"].item() == 3.0


def test_equal_weights_have_equal_digests_wherever_they_are_written(empty: Store) -> None:
    assert weights_digest(write(empty, 100)) == weights_digest(write(empty, 200))
    assert weights_digest(write(empty, 300, seed=1)) != weights_digest(write(empty, 200))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_damage_is_seen_and_the_one_before_is_used(empty: Store, name: str) -> None:
    older, newer = write(empty, 100), write(empty, 200)
    assert saved.newest(empty, "n", 0, 1000) == newer
    assert saved.newest(empty, "n", 0, 200) == older
    content = bytearray((newer / name).read_bytes())
    content[len(content) // 2] ^= 1
    (newer / name).write_bytes(content)
    if name == "state.json":
        (newer / name).write_bytes(content[: len(content) // 2])
    assert not saved.is_valid(newer)
    assert saved.newest(empty, "n", 0, 1000) == older
    (older / name).unlink()
    assert saved.newest(empty, "n", 0, 1000) is None


def test_a_writer_that_dies_leaves_nothing_that_counts(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    older = write(empty, 100)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(saved, "write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        write(empty, 200)
    assert [path.name for path in older.parent.iterdir()] == [older.name]
    # Killed outright, it would also leave its temporary folder.
    (older.parent / ".000000000000200.abc").mkdir()
    assert saved.newest(empty, "n", 0, 1000) == older
    saved.remove_leftovers(older.parent)
    assert [path.name for path in older.parent.iterdir()] == [older.name]


def test_only_rolling_ones_are_removed(empty: Store) -> None:
    write(empty, 100)
    write(empty, 200, rolling=True)
    write(empty, 300, rolling=True)
    saved.remove_rolling(empty, "n", 300)
    assert sorted(int(path.name) for path in empty.checkpoint("n", 0).parent.iterdir()) == [100, 300]


def test_a_replay_may_only_repeat_itself(empty: Store) -> None:
    folder = write(empty, 100)
    write(empty, 100, rolling=True)
    assert saved.is_valid(folder) and not saved.is_rolling(folder), "a kept checkpoint stays kept"
    with pytest.raises(UserError, match=r"other weights.*torch t"):
        write(empty, 100, seed=1)
    assert saved.is_valid(folder)
    (folder / "model.safetensors").write_bytes(b"rot")
    write(empty, 100, seed=1)
    assert saved.is_valid(folder), "a damaged one is replaced"


def test_mistakes_are_told(empty: Store) -> None:
    folder = write(empty, 100)
    with pytest.raises(UserError, match=r"not the weights of model test.*size mismatch"):
        load_model(folder, tiny_model(hidden_size=16), MODEL.vocab_size)
    with pytest.raises(UserError, match=r"state\.json: not a checkpoint's state"):
        saved.read_state(folder.parent)
