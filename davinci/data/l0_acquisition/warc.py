"""Pages of web archives."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, ClassVar

from davinci.config import Positive
from davinci.data.documents import Document
from davinci.data.l0_acquisition.files import Patterns
from davinci.data.l0_acquisition.paths import files_of, find, grouped
from davinci.data.l0_acquisition.text import decoded
from davinci.data.operations import Places, Reader, operation
from davinci.data.tally import Tally
from davinci.errors import UserError

_CHARSET = re.compile(r"charset=[\"']?([\w.:-]+)", re.IGNORECASE)
_BLOCK = 1 << 20


@operation("warc")
class Warc(Reader):
    """A document a successful response of the WARC files that match `paths` (``.warc``, ``.warc.gz``), as it was sent:
    HTML is made text at Level L1.

    Only responses of `types` are read; one whose body has more than `largest` bytes is dropped. The origin holds url,
    date and content type, and the charset that the server stated where the body is not UTF-8. All that comes from one
    host is held out together. Needs warcio (``pip install davinci[warc]``).
    """

    neutral: ClassVar[frozenset[str]] = frozenset({"part_bytes"})
    paths: Patterns
    types: tuple[str, ...] = ("text/html", "application/xhtml+xml", "text/plain")
    largest: Positive = 1 << 30
    part_bytes: Positive = 128 << 20

    def parts(self, places: Places) -> list[dict[str, Any]]:
        try:
            import warcio  # noqa: F401
        except ImportError:
            raise UserError("warc: needs warcio; pip install 'davinci[warc]'") from None
        return grouped(find(self.paths, places.root), self.part_bytes)

    def provenance(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        return files_of(parts)

    def read(self, part: Mapping[str, Any], places: Places, tally: Tally) -> Iterator[Document]:
        for one in part["files"]:
            yield from self._read(one["path"], one["name"], tally)

    def _read(self, path: str, name: str, tally: Tally) -> Iterator[Document]:
        from warcio.archiveiterator import ArchiveIterator

        try:
            with open(path, "rb") as file:  # noqa: PTH123
                records, last = ArchiveIterator(file), 0
                for record in records:
                    yield from self._response(record, name, tally)
                    while record.raw_stream.read(_BLOCK):
                        pass
                    # warcio takes the file's end for the record's, or for that of its header.
                    sized = record.rec_headers.get_header("Content-Length") is not None
                    if not sized or getattr(record.raw_stream, "limit", 0) > 0:
                        raise EOFError("its last record is not whole")
                    last = records.get_record_offset()
                # Nor does it miss one whose beginning is cut.
                if records.offset < os.fstat(file.fileno()).st_size or not _is_whole(file, last):
                    raise EOFError("its last record is not whole")
        except Exception as error:  # warcio raises what its parser stumbles over
            raise UserError(
                f"{path}: no WARC file, damaged, or cut short ({' '.join(str(error).split())[:200]})"
            ) from None

    def _response(self, record: Any, name: str, tally: Tally) -> Iterator[Document]:
        """The document of a record, if it is a successful response of a type that is read."""
        if record.rec_type != "response" or record.http_headers is None:
            return
        kind = record.http_headers.get_header("Content-Type") or ""
        if not record.http_headers.get_statuscode().startswith("2"):
            tally.count("responses without success")
        elif kind.partition(";")[0].strip().lower() not in self.types:
            tally.count("responses of other types")
        else:
            yield from self._document(record, kind, name, tally)

    def _document(self, record: Any, kind: str, name: str, tally: Tally) -> Iterator[Document]:
        about = record.rec_headers
        identity = (about.get_header("WARC-Record-ID") or "").strip("<>")
        url, date = about.get_header("WARC-Target-URI") or "", about.get_header("WARC-Date") or ""
        content = record.content_stream().read(self.largest + 1)
        body, notes = decoded(content)
        charset = _CHARSET.search(kind)
        if notes and charset:
            notes["charset"] = charset[1]
        origin = {"file": name, "url": url, "date": date, "type": kind.partition(";")[0].strip(), **notes}
        host = re.sub(r"^\w+://([^/:]*).*", r"\1", url)
        document = Document(identity or f"{name} {url}", host or identity, body, origin=origin)
        if len(content) > self.largest:
            tally.drop(document, f"larger than {self.largest} bytes")
        elif body.strip():
            yield document
        else:
            tally.count("empty responses")


def _is_whole(file: BinaryIO, offset: int) -> bool:
    """Whether what is packed in a file from `offset` on goes to its end."""
    file.seek(offset)
    member = None
    while block := file.read(_BLOCK):
        while block:
            if member is None or member.eof:
                if not block.startswith(b"\x1f"):
                    return True  # not packed, or something else behind it
                member = zlib.decompressobj(31)
            member.decompress(block)
            block = member.unused_data
    return member is None or member.eof
