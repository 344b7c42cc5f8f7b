"""Whole files as documents: text, HTML, source code, PDF."""

from __future__ import annotations

import io
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from davinci.config import Positive
from davinci.data.documents import Document
from davinci.data.l0_acquisition.paths import files_of, find, grouped
from davinci.data.l0_acquisition.text import decoded
from davinci.data.operations import Places, Reader, operation
from davinci.data.tally import Tally
from davinci.errors import UserError


def _several(given: Any) -> Any:
    return (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given


Patterns = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_several)]
"""One pattern or several."""


class WholeFiles(Reader):
    """A document a file of `paths` (patterns; ``**`` crosses folders), without those that match `without` (patterns of
    `fnmatch`, against the name). One larger than `largest` bytes is dropped; an empty one counted."""

    neutral: ClassVar[frozenset[str]] = frozenset({"part_bytes"})
    paths: Patterns
    without: tuple[str, ...] = ()
    largest: Positive = 1 << 30
    part_bytes: Positive = 128 << 20

    def parts(self, places: Places) -> list[dict[str, Any]]:
        files = find(self.paths, places.root)
        kept = [one for one in files if not any(fnmatchcase(one.name, pattern) for pattern in self.without)]
        if not kept:
            raise UserError(f"{self.name}: without leaves none of the {len(files)} files")
        return grouped(kept, self.part_bytes)

    def provenance(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        return files_of(parts)

    def read(self, part: Mapping[str, Any], places: Places, tally: Tally) -> Iterator[Document]:
        for one in part["files"]:
            name = one["name"]
            if one["bytes"] > self.largest:
                tally.drop(Document(name, name, ""), f"larger than {self.largest} bytes")
                continue
            try:
                text, notes = self.text(Path(one["path"]))
            except OSError as error:
                raise UserError(f"{one['path']}: cannot be read ({error.strerror or error})") from None
            except ValueError as error:
                tally.unreadable(one["path"], str(error))
                continue
            if not text.strip():
                tally.count("empty files")
                continue
            made = [Document(name, name, text, origin={"file": name, **notes})]
            del text  # it may be very long
            yield made.pop()

    @abstractmethod
    def text(self, path: Path) -> tuple[str, dict[str, str | int]]:
        """A file's text, and what its origin is to say.

        Raises:
            ValueError: it has none; the message says why.
        """


@operation("files")
class TextFiles(WholeFiles):
    """Files of text: UTF-8, or bytes that Level L1 decodes."""

    def text(self, path: Path) -> tuple[str, dict[str, str | int]]:
        return decoded(path.read_bytes())


@operation("pdf")
class PdfFiles(WholeFiles):
    """The text of PDF files, page after page, as pypdf extracts it (``pip install davinci[pdf]``)."""

    def parts(self, places: Places) -> list[dict[str, Any]]:
        try:
            import pypdf  # noqa: F401
        except ImportError:
            raise UserError("pdf: needs pypdf; pip install 'davinci[pdf]'") from None
        return super().parts(places)

    def text(self, path: Path) -> tuple[str, dict[str, str | int]]:
        import pypdf

        logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its warnings name no file
        content = path.read_bytes()
        # Readers find the mark in the last 1024 bytes (PDF Reference 1.7, appendix H, note 18).
        if b"%%EOF" not in content.rstrip(b"\0 \r\n")[-1024:]:
            raise ValueError("no PDF, or cut short (no %%EOF at its end)")
        try:
            pages = [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages]
        except Exception as error:  # pypdf raises what its parser stumbles over
            raise ValueError(f"no PDF that can be read ({type(error).__name__})") from None
        return "\n\n".join(pages), {"pages": len(pages)}
