"""Unicode in one form: composed characters, plain newlines, nothing invisible."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar, Literal

import regex

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally

_NEWLINE = regex.compile(r"\r\n?|[\x85\u2028\u2029\x0b\x0c]")
# Control characters but tab and newline, noncharacters, byte-order marks, soft hyphens, and what has no width. A joiner
# stays between letters and signs that need it (Persian, Indic scripts, emoji), a mark of direction nowhere.
_INVISIBLE = regex.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    r"\ufff9-\ufffb\p{Noncharacter_Code_Point}]|(?<![\p{M}\p{Lo}\p{So}\p{Sk}])\u200d|\u200d(?![\p{Lo}\p{So}])"
    r"|(?<![\p{M}\p{Lo}])\u200c|\u200c(?!\p{Lo})"
)
_SURROGATE = regex.compile(r"\p{Cs}")
_BLANK = regex.compile(r"[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
_OF_ASCII = {
    code: "\n" if _NEWLINE.match(chr(code)) else None
    for code in range(128)
    if _NEWLINE.match(chr(code)) or _INVISIBLE.match(chr(code))
}


@operation("unicode")
class Unicode(DocumentOperation):
    """One normal form (Unicode Standard Annex 15), newlines as ``\\n``, blanks as blanks, nothing without a width.

    What looks alike becomes alike and nothing readable goes: NFC by default; NFKC also turns ligatures, full-width
    letters and raised digits into plain ones. A lone surrogate becomes U+FFFD. Doing it twice changes nothing more.
    """

    level: ClassVar[Level] = "L1"

    form: Literal["NFC", "NFD", "NFKC", "NFKD"] = "NFC"

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        text = _ascii(document.text) if document.text.isascii() else self._normal(document.text)
        if text == document.text:
            yield document
        else:
            tally.count("documents changed")
            yield replace(document, text=text)

    def _normal(self, text: str) -> str:
        text = _NEWLINE.sub("\n", _SURROGATE.sub("\ufffd", text))
        while True:  # taking out what is invisible can bring together what composes, and what shows a joiner invisible
            before = text
            text = unicodedata.normalize(self.form, _BLANK.sub(" ", _INVISIBLE.sub("", text)))
            if text == before:
                return text


def _ascii(text: str) -> str:
    """The same for a text of ASCII alone."""
    return text.replace("\r\n", "\n").translate(_OF_ASCII)
