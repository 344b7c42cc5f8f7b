"""Bytes to text: which encoding a document was written in."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_HEAD = 1024  # bytes in which a page says its encoding (HTML standard, 13.2.3.2)
_SAMPLE = 1 << 16  # bytes that detection looks at
# What a page calls the first of each is the second (WHATWG Encoding Standard, section 4.2).
_MEANT = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949"}


def _known(name: str) -> str:
    try:
        codecs.lookup(name)
    except LookupError:
        raise ValueError(f"{name!r} is no encoding that Python knows") from None
    return name


@operation("encodings")
class Encodings(DocumentOperation):
    """Decode documents that a reader left as bytes (carried as Latin-1, ``origin["bytes"] = 1``); others stay.

    Tried in order: a byte-order mark, UTF-8, what the document says of itself in its first 1024 bytes, `expected`,
    UTF-8 with a few stray bytes (taken for Windows-1252 and counted), what Resiliparse makes of it, and
    charset-normalizer. Each document is decided for itself, so that a source may mix encodings. What no encoding fits
    is dropped as undecodable.
    """

    level: ClassVar[Level] = "L1"
    version: ClassVar[int] = 2

    expected: tuple[Annotated[str, AfterValidator(_known)], ...] = ()

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        if not document.origin.get("bytes"):
            yield document
            return
        found = self._decode(document.text.encode("latin-1"), tally)
        if found is None:
            tally.drop(document, "undecodable")
            return
        text, encoding = found
        tally.count(f"decoded from {encoding}")
        origin = {key: value for key, value in document.origin.items() if key != "bytes"} | {"encoding": encoding}
        yield replace(document, text=text, origin=origin)

    def _decode(self, data: bytes, tally: Tally) -> tuple[str, str] | None:
        for mark, encoding in _MARKS:
            if data.startswith(mark) and (text := _decoded(data[len(mark) :], encoding)) is not None:
                return text, encoding
        if b"\0" not in data and (text := _decoded(data, "utf-8")) is not None:
            return text, "utf-8"
        declared = _DECLARED.search(data, 0, _HEAD)
        for name in ([declared[1].decode("latin-1")] if declared else []) + list(self.expected):
            if (text := _decoded(data, name)) is not None:
                return text, _canonical(name)
        return _mostly_utf8(data, tally) or _detected(data)


def _canonical(name: str) -> str:
    name = codecs.lookup(name).name
    return _MEANT.get(name, name)


def _decoded(data: bytes, encoding: str) -> str | None:
    """The text, unless the encoding is unknown, does not fit, or gives what is no text."""
    try:
        text = data.decode(_canonical(encoding))
    except (LookupError, UnicodeError, ValueError):
        return None
    # Codecs that are no character encodings (hex, rot13) say so by another exception or by bytes.
    return text if isinstance(text, str) and "\0" not in text else None


def _mostly_utf8(data: bytes, tally: Tally) -> tuple[str, str] | None:
    """UTF-8 in which fewer bytes are wrong than characters of several bytes are right."""
    text = data.decode("utf-8", "surrogateescape")
    wrong = sum("\udc80" <= character <= "\udcff" for character in text)
    right = sum(character > "\x7f" for character in text) - wrong
    if wrong >= right or "\0" in text:
        return None
    tally.count("stray bytes", wrong)
    stray = re.compile("[\udc80-\udcff]")
    return stray.sub(lambda one: bytes([ord(one[0]) - 0xDC00]).decode("cp1252", "replace"), text), "utf-8"


def _detected(data: bytes) -> tuple[str, str] | None:
    """By two libraries: the first knows short texts better (of 22 sentences in as many languages and encodings 21, the
    other 9 to 14), the second more encodings."""
    from charset_normalizer import from_bytes
    from resiliparse.parse.encoding import detect_encoding

    likely = detect_encoding(data, _SAMPLE, False)
    if likely and (text := _decoded(data, likely)) is not None:
        return text, _canonical(likely)
    best = from_bytes(data[:_SAMPLE]).best()
    text = None if best is None else _decoded(data, best.encoding)
    return None if best is None or text is None else (text, _canonical(best.encoding))
