"""Lines of text with what a page's structure asks for: paragraphs, indentation, bullets, columns, literal text."""

from __future__ import annotations

import re

_SPACE = re.compile(r"[ \t\n\r\f]+")


class Layout:
    """Text as it is laid out, piece after piece."""

    def __init__(self) -> None:
        self.literal = 0
        """Above zero white space stays as it is."""
        self._pieces: list[str] = []
        self._newlines = 0  # to write before the next piece
        self._space = False  # to write before the next piece of this line
        self._at_start = True  # of a line
        self._indents: list[str] = []
        self._mark = ""  # of the item whose first line comes next

    def inline(self, text: str) -> None:
        """Text that goes on the line."""
        if self.literal:
            first, *others = text.split("\n")
            self._literal(first)
            for line in others:
                self._newlines += 1
                self._at_start, self._space = True, False
                self._literal(line)
            return
        collapsed = _SPACE.sub(" ", text)
        words = collapsed.strip(" ")
        if words:
            if self._space or collapsed[0] == " ":
                self._space = not self._at_start
            self._write(words)
        self._space = (self._space and not words) or (bool(collapsed) and collapsed[-1] == " ")

    def formula(self, tex: str, is_display: bool) -> None:
        """TeX between dollar signs; on lines of its own where it is displayed."""
        tex = tex.strip()
        if is_display:
            self.end_line(1)
            self._write(f"$${tex}$$")
            self.end_line(1)
        else:
            self.inline(f" ${tex}$") if self._space else self._write(f"${tex}$")

    def column(self) -> None:
        """The next column of a table's row."""
        self._space = False
        self._write("|" if self._at_start else " |")
        self._space = True

    def end_line(self, newlines: int) -> None:
        """The line ends: with one newline, or with two for a paragraph."""
        self._newlines = max(self._newlines, newlines)
        self._space, self._at_start = False, True

    def indent(self, first: str, others: str) -> None:
        """What follows is set in by `others`, and by `first` on its first line."""
        self._mark = self._mark + first if self._mark else "".join(self._indents) + first
        self._indents.append(others)

    def outdent(self) -> None:
        """The last `indent` ends."""
        self._indents.pop()
        self._mark = ""

    def text(self) -> str:
        """All of it; it ends with a newline, unless there is nothing."""
        text = "".join(self._pieces).replace("\u00a0", " ")
        return text + "\n" if text else ""

    def _literal(self, text: str) -> None:
        if text:
            self._write(text)

    def _write(self, text: str) -> None:
        if self._newlines and self._pieces:
            self._pieces.append("\n" * self._newlines)
        if self._at_start:
            self._pieces.append(self._mark or "".join(self._indents))
            self._mark = ""
        if self._space and not self._at_start:
            self._pieces.append(" ")
        self._newlines, self._space, self._at_start = 0, False, False
        self._pieces.append(text)
