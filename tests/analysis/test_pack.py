"""An archive of a sweep's records: the same tables from it, nothing in it that should not be, and no way out of it."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fabricated_store import fabricate

from analysis.__main__ import main
from analysis.findings import study
from analysis.pack import MANIFEST, opened, pack, unpack
from analysis.tables import render_csv, render_json, render_latex, render_markdown
from davinci.errors import UserError
from davinci.store import Store, file_digest, read_json, write_json, write_text

SWEEP = "qa_ratio"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = fabricate(tmp_path / "store", seeds=(0, 1), items=20)
    plan = read_json(store.sweep(SWEEP) / "launched.json")
    for arm in plan["arms"]:
        arm["config"]["store"] = str(store.root)
        suite = arm["config"]["evaluation"]
        suite["benchmarks"] = dict(reversed(suite["benchmarks"].items()))  # the order of the tables, no alphabet's
    write_text(store.sweep(SWEEP) / "launched.json", json.dumps(plan))
    for node in plan["nodes"].values():
        write_json(store.node(node["id"]) / "node.json", node)
        weights = store.checkpoint(node["id"], node["end"]) / "model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"weights")
    write_json(store.pool("embedded") / "card.json", {"name": "embedded", "sources": {}})
    return store


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as opened:
        return opened.getnames()


def test_every_table_from_the_archive_alone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tables(place: Path) -> list[str]:
        found = study(opened(place), SWEEP)
        made = [found.table, found.benchmark_table, found.chance_table]
        scores = render_csv([row._asdict() for row in found.grid.all_rows])
        return [scores, *found.sweep.notes] + [
            render(table) for table in made for render in (render_markdown, render_latex, render_json)
        ]

    before = tables(store.root)
    monkeypatch.chdir(tmp_path)
    assert main(["export", SWEEP, "--store", str(store.root)]) == 0
    archive = tmp_path / f"{SWEEP}.tar.gz"
    assert f"{SWEEP}.tar.gz: {len(names(archive)) - 1} files" in capsys.readouterr().out
    store.root.rename(tmp_path / "elsewhere")
    assert tables(archive) == before
    assert tables(archive) == before, "unpacked once, then found so"
    assert main(["table", SWEEP, "--store", str(archive)]) == 0
    assert capsys.readouterr().out


def test_the_same_records_are_the_same_bytes_without_weights_paths_or_secrets(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one.tar.gz", tmp_path / "other.tar.gz"
    monkeypatch.setenv("WANDB_API_KEY", "f00dfeedf00dfeedf00dfeedf00dfeedf00dfeed")
    pack(store, SWEEP, one)
    copy = Store(tmp_path / "copy")
    shutil.copytree(store.root, copy.root)
    pack(store, SWEEP, other)
    assert file_digest(one) == file_digest(other)
    data = gzip.decompress(one.read_bytes())
    assert b"weights\0" not in data and str(tmp_path).encode() not in data and b"f00dfeed" not in data
    found = names(one)
    assert found[0] == MANIFEST and found[1:] == sorted(found[1:])
    assert not [name for name in found if "checkpoints" in name or name.startswith("/")]
    assert {"pools/embedded/card.json", f"sweeps/{SWEEP}/launched.json"} < set(found)
    with tarfile.open(one) as archive:
        assert {(member.mtime, member.uid, member.uname) for member in archive} == {(0, 0, "")}

    node = next(iter(read_json(store.sweep(SWEEP) / "launched.json")["nodes"]))
    write_json(store.node(node) / "node.json", {"key": "f00dfeedf00dfeedf00dfeedf00dfeedf00dfeed"})
    with pytest.raises(UserError, match=r"node\.json holds the value of \$WANDB_API_KEY; nothing was packed"):
        pack(store, SWEEP, tmp_path / "third.tar.gz")
    assert not (tmp_path / "third.tar.gz").exists()


def changed(archive: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> Path:
    """A copy of an archive with other members."""
    with tarfile.open(archive) as source:
        members = [(member, source.extractfile(member).read()) for member in source]  # type: ignore[union-attr]
    change(members)
    path = archive.with_name("changed.tar.gz")
    with tarfile.open(path, "w:gz") as target:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            target.addfile(member, io.BytesIO(data))
    return path


def test_damaged_archives_are_told_in_one_line(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "whole.tar.gz"
    pack(store, SWEEP, archive)
    data = archive.read_bytes()
    damaged = {
        "cut": data[: len(data) // 2],
        "tail": data[:-9],
        "flipped": data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :],
        "empty": b"",
        "other": b"PK\x03\x04 not a tar",
        "foreign": gzip.compress(b"\0" * 10240),
    }
    for name, content in damaged.items():
        path = tmp_path / f"{name}.tar.gz"
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            opened(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value), name
        assert not (tmp_path / name).exists(), "nothing half unpacked stays"
    assert not list(tmp_path.glob(".*"))


def test_no_member_leaves_the_folder(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "whole.tar.gz"
    pack(store, SWEEP, archive)

    def renamed(name: str, listed: bool) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
        def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
            member, _ = members[1]
            if listed:
                about = json.loads(members[0][1])
                about["files"][name] = about["files"].pop(member.name)
                members[0] = (members[0][0], json.dumps(about).encode())
            member.name = name

        return change

    def linked(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[1][0].type, members[1][0].linkname = tarfile.SYMTYPE, "/etc/passwd"

    target = tmp_path / "inside" / "target"
    for change in [renamed(name, listed) for name in ("../out", "/tmp/out", "a/../../out") for listed in (True, False)]:
        target.mkdir(parents=True)
        with pytest.raises(UserError, match="does not belong"):
            unpack(changed(archive, change), target)
        shutil.rmtree(target)
        assert not list((tmp_path / "inside").iterdir()) and not Path("/tmp/out").exists()
    target.mkdir()
    with pytest.raises(UserError, match="does not belong"):
        unpack(changed(archive, linked), target)


def test_a_folder_in_the_way_is_left_alone(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "mine.tar.gz"
    pack(store, SWEEP, archive)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=r"mine is there and holds something else; move it away"):
        opened(archive)
    with pytest.raises(UserError, match="holds no such model"):
        pack(store, SWEEP, archive, ["nobody"])
