"""Paths stay inside the store, writes are whole or not there, and what cannot be read or written says so."""

import pytest

from davinci.errors import UserError, refused
from davinci.store import Store, atomic_file, atomic_folder, checked_name, read_json, write_json


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a b"])
def test_a_name_never_leaves_the_store(name):
    with pytest.raises(UserError, match="cannot name a folder"):
        checked_name(name, "sweep")


def test_json_round_trip(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"b": [1, None]})
    assert read_json(tmp_path / "deep" / "a.json") == {"b": [1, None]}


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_what_is_not_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="a.json: not JSON"):
        read_json(tmp_path / "a.json")


def test_a_failed_write_leaves_what_was_there(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(tmp_path / "a.json") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("make", [atomic_file, atomic_folder])
def test_what_stands_in_the_way_of_a_write_is_named(tmp_path, make):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as error, make(tmp_path / "file" / "a" / "b"):
        pass
    way = tmp_path / "file"
    assert refused(error.value) == f"{way / 'a' / 'b'}: cannot be read or written ({way} is no folder)"


def test_a_store_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="^store=.*file/store: cannot write there "):
        Store(tmp_path / "file" / "store").require_writable()
    Store(tmp_path / "new" / "store").require_writable()
    assert not list((tmp_path / "new" / "store").iterdir())
