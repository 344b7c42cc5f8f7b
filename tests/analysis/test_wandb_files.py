"""Offline W&B files: what wandb's protobufs and LevelDB's framing can hold is read, whatever is missing at the end."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from wandb.proto import wandb_internal_pb2 as protobufs

from analysis import wandb_framing
from analysis.metrics import Metrics
from analysis.wandb_files import offline_files, read_offline, read_run
from davinci.errors import UserError

BLOCK = 32768


def framed(records: list[bytes]) -> bytes:
    """A W&B file of `records`, as wandb-core writes it."""
    data = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        first = True
        while True:
            left = BLOCK - len(data) % BLOCK
            if left < 7:
                data += bytes(left)
                left = BLOCK
            part, record = record[: left - 7], record[left - 7 :]
            kind = (1 if first else 4) if not record else (2 if first else 3)
            data += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
            if not record:
                break
    return bytes(data)


def history(number: int, values: dict[str, Any], nested: bool = True) -> bytes:
    record = protobufs.Record(num=number)
    for name, value in values.items():
        item = record.history.item.add(value_json=json.dumps(value))
        if nested:
            item.nested_key.append(name)
        else:
            item.key = name
    record.history.step.num = number
    record._info.stream_id = "x"
    return record.SerializeToString()


def about(identity: str = "abc", started: int = 7, **config: Any) -> bytes:
    record = protobufs.Record(num=1)
    run = record.run
    run.run_id, run.project, run.entity, run.run_group = identity, "p", "us", "qa"
    run.display_name, run.job_type = "QA-30% seed 0", "run"
    run.tags.extend(["tiny", "seed 0"])
    run.start_time.seconds = started
    for name, value in config.items():
        run.config.update.add(key=name, value_json=json.dumps(value))
    return record.SerializeToString()


def cells(found: Metrics) -> dict[int, dict[str, float]]:
    return {
        int(tokens): {name: value for name, value in zip(found.names, row, strict=True) if not np.isnan(value)}
        for tokens, row in zip(found.tokens, found.values, strict=True)
    }


names = some.text("abc/ é%_.1", min_size=1, max_size=30).filter(lambda name: not name.startswith("_"))
values = some.one_of(
    some.floats(allow_nan=False, allow_infinity=False), some.integers(-(2**53), 2**53), some.booleans()
)
rows = some.lists(some.dictionaries(names.filter(lambda name: name != "tokens"), values, max_size=8), max_size=12)


@settings(max_examples=60, deadline=None)
@given(rows=rows, nested=some.booleans())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: Any, nested: bool) -> None:
    path = tmp_path_factory.mktemp("wandb") / "run-x.wandb"
    path.write_bytes(framed([history(at, {"tokens": at, **row}, nested) for at, row in enumerate(rows)]))
    assert cells(read_offline(path).history) == {at: row for at, row in enumerate(rows) if row}


def test_run_config_texts_and_values_that_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    long = "k" * 300 + "\u0002\x01"  # longer than one byte of length holds, and like the tag of a value
    row = {"tokens": 10, "eval_key/sums": long, "note": "\x82\x01", "table": {"_type": "table-file"}, "x": None, "y": 1}
    path.write_bytes(framed([about(curriculum={"stages": 2}), history(2, row), history(3, {"loss": 1.0})]))
    found = read_offline(path)
    assert (found.id, found.entity, found.project, found.group) == ("abc", "us", "p", "qa")
    assert (found.name, found.job_type, found.tags) == ("QA-30% seed 0", "run", ["tiny", "seed 0"])
    assert found.started == 7 and found.config == {"curriculum": {"stages": 2}}
    assert cells(found.history) == {10: {"y": 1.0}}, "rows without tokens are not ours"
    assert found.history.texts == {("eval_key/sums", 10): long, ("note", 10): "\x82\x01"}


def test_torn_anywhere_the_records_before_are_read(tmp_path: Path) -> None:
    data = framed([history(at, {"tokens": at, "text": "x" * 15_000, "loss": at / 7}) for at in range(8)])
    assert len(data) > 3 * BLOCK
    whole = read_offline(_file(tmp_path, data)).history
    assert len(whole) == 8
    for size in [0, 3, 7, 9, *range(20, len(data), 997), len(data) - 1]:
        found = read_offline(_file(tmp_path, data[:size]))
        assert cells(found.history) == dict(list(cells(whole).items())[: len(found.history)])
        assert not found.damaged
        if size < 7:
            continue
        padded = read_offline(_file(tmp_path, data[:size] + bytes(len(data) - size)))
        assert len(found.history) <= len(padded.history) <= len(found.history) + 1


def test_a_record_that_begins_with_the_last_header_of_a_block_is_read(tmp_path: Path) -> None:
    rows = [history(at, {"tokens": at, "loss": 1.0}) for at in range(1, 3)]
    filled = [history(0, {"tokens": 0, "loss": 1.0, "text": "x" * count}) for count in range(32_600, 32_768)]
    (first,) = [record for record in filled if len(record) == BLOCK - 3 * 7]
    path = tmp_path / "run-a.wandb"
    path.write_bytes(framed([first, *rows]))
    assert read_offline(path).history.tokens.tolist() == [0, 1, 2]


def test_damage_costs_the_block_it_is_in(tmp_path: Path) -> None:
    data = bytearray(framed([history(at, {"tokens": at, "text": "x" * 1000, "loss": 1.0}) for at in range(100)]))
    data[BLOCK + 5000] ^= 1
    found = read_offline(_file(tmp_path, bytes(data)))
    lost = set(range(100)) - set(found.history.tokens)
    assert found.damaged == 1 and 20 < len(lost) < 40 and max(lost) - min(lost) == len(lost) - 1


def test_read_a_block_at_a_time_records_and_damage_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(framed([history(at, {"tokens": at, "text": "x" * 9000, "loss": at / 7}) for at in range(40)]))
    data[5 * BLOCK + 5000] ^= 1
    path = _file(tmp_path, bytes(data))
    whole = read_offline(path)
    monkeypatch.setattr(wandb_framing, "_AT_ONCE", BLOCK)
    parts = read_offline(path)
    assert parts.damaged == whole.damaged == 1 and 30 < len(whole.history) < 40
    assert cells(parts.history) == cells(whole.history) and parts.history.texts == whole.history.texts


def test_what_is_no_wandb_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a W&B file"):
        read_offline(_file(tmp_path, b"GIF89a...."))
    with pytest.raises(UserError, match="cannot be read"):
        read_offline(tmp_path / "absent.wandb")


def test_files_of_one_run_are_merged_by_when_they_started(tmp_path: Path) -> None:
    for folder, started, loss in (("20260102_000000", 200, 2.0), ("20260101_000000", 100, 1.0)):
        path = tmp_path / f"offline-run-{folder}-abc" / "run-abc.wandb"
        path.parent.mkdir()
        rows = [history(2, {"tokens": started, "loss": loss}), history(3, {"tokens": 500, "loss": loss})]
        path.write_bytes(framed([about(started=started), *rows]))
    (files,) = offline_files(tmp_path).values()
    assert cells(read_run(files).history) == {100: {"loss": 1.0}, 200: {"loss": 2.0}, 500: {"loss": 2.0}}


def _file(folder: Path, data: bytes) -> Path:
    path = folder / "run-x.wandb"
    path.write_bytes(data)
    return path


def test_rows_encoded_in_any_way_keep_their_order(tmp_path: Path) -> None:
    """Of values for one token count the later row's counts, whether it was read among many or field by field."""
    long = "x" * 200
    written = [
        {"tokens": 7, "loss": 1.0, "note": long},
        {"tokens": 7, "loss": 2.0},
        {"tokens": 8, "loss": 3.0},
        {"tokens": 8, "loss": 4.0, "note": long},
        {"tokens": 9, "loss": -0.5e-7, "huge": 1e300, "flag": True, "not": float("nan")},
    ]
    path = tmp_path / "run-x.wandb"
    path.write_bytes(framed([history(at, row) for at, row in enumerate(written * 700)]))
    found = read_offline(path).history
    assert cells(found) == {7: {"loss": 2.0}, 8: {"loss": 4.0}, 9: {"loss": -0.5e-7, "huge": 1e300, "flag": 1.0}}
    assert found.texts == {("note", 7): long, ("note", 8): long}
