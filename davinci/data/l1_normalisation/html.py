"""HTML to text with its structure: a web page as a reader of the rendered page would see it, nothing left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.l1_normalisation.layout import Layout
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally


def tags(names: str) -> frozenset[str]:
    """Names of elements."""
    return frozenset(names.split())


# Not text: programs, styles, what a browser shows only where something else fails.
_HIDDEN = tags("head script style template noscript iframe object canvas audio video svg")
_PARAGRAPHS = tags("p h1 h2 h3 h4 h5 h6 pre blockquote table ul ol dl figure hr form fieldset article section")
_LINES = tags(
    "div li dt dd tr br caption thead tbody tfoot header footer main nav aside address figcaption option legend "
    "summary details center body"
)
# A table that has one of these in a cell lays out a page; its cells are not columns.
_LAYOUT = "td table, td ul, td ol, td dl, td pre, td h1, td h2, td h3, td h4, td p + p, td div + div"
_RAISED = str.maketrans("0123456789+-=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿ")
_LOWERED = str.maketrans("0123456789+-=()", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎")
_SHIFTED = {"sup": _RAISED, "sub": _LOWERED}


@operation("html_to_text")
class HtmlToText(DocumentOperation):
    """A page becomes text; boilerplate stays (`main_content` takes it out). The title goes to ``origin``.

    Headings are paragraphs; lists keep bullets, numbers and depth, tables their rows (``a | b``), `pre` and `code`
    their white space, formulas their TeX where the page has it (``$x^2$``). What a style hides is not looked at.
    """

    level: ClassVar[Level] = "L1"

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        text, title = html_to_text(document.text)
        origin = {**document.origin, "title": title} if title else document.origin
        yield replace(document, text=text, origin=origin)


def html_to_text(html: str) -> tuple[str, str]:
    """The text of a page, and its title."""
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(html)
    walk = _Walk()
    if tree.body is not None:
        walk.over(tree.body)
    return walk.layout.text(), " ".join((tree.title or "").split())


class _Walk:
    """From element to element, in order, without recursion: pages nest as deep as they like."""

    def __init__(self) -> None:
        self.layout = Layout()
        self._lists: list[int | None] = []  # the next number of each list that is open; None has bullets
        self._cells: list[int] = []  # of each row that is open: cells so far; -1 in a table that lays out a page

    def over(self, root: Any) -> None:
        # Elements still to open, with None above those that are open, innermost last.
        waiting: list[tuple[Any, bool]] = [(root, False)]
        while waiting:
            node, is_open = waiting.pop()
            tag = node.tag
            if is_open:
                self._close(tag)
            elif tag == "#text":
                self.layout.inline(node.value)
            elif tag.startswith("#") or tag in _HIDDEN:  # a comment
                if tag == "script" and "math/tex" in (node.getattr("type") or ""):
                    self.layout.formula(node.text, "display" in node.getattr("type"))
            elif tag == "math":
                self._formula(node)
            elif tag in _SHIFTED and set(text := node.text.strip()) <= set("0123456789+-=()n"):
                self.layout.inline(text.translate(_SHIFTED[tag]))
            elif "katex-html" not in (node.getattr("class") or ""):  # what it shows, katex-mathml says too
                self._open(tag, node)
                waiting.append((node, True))
                child = node.last_child
                while child is not None:
                    waiting.append((child, False))
                    child = child.prev

    def _open(self, tag: str, node: Any) -> None:
        layout = self.layout
        if tag in ("td", "th"):
            self._cell()
        elif tag in _PARAGRAPHS or tag in _LINES:
            self._break(2 if tag in _PARAGRAPHS and not (tag in ("ul", "ol") and self._lists) else 1)
        if tag in ("pre", "code", "textarea"):
            layout.literal += 1
        elif tag in ("ul", "ol"):
            start = node.getattr("start") or "1"
            self._lists.append(
                int(start) if tag == "ol" and re.fullmatch(r"-?\d{1,9}", start) else 1 if tag == "ol" else None
            )
        elif tag == "li":
            self._item()
        elif tag == "dd":
            layout.indent("  ", "  ")
        elif tag == "table":
            self._cells.append(-1 if node.query_selector(_LAYOUT) is not None else 0)
        elif tag == "tr" and self._cells and self._cells[-1] > 0:
            self._cells[-1] = 0

    def _close(self, tag: str) -> None:
        layout = self.layout
        if tag in ("pre", "code", "textarea"):
            layout.literal -= 1
        elif tag in ("ul", "ol"):
            self._lists.pop()
        elif tag in ("li", "dd"):
            self._break(1)
            layout.outdent()
        elif tag == "table":
            self._cells.pop()
        elif tag == "tr" and self._cells and self._cells[-1] > 0:
            self._cells[-1] = 0
        if tag in _PARAGRAPHS or tag in _LINES:
            self._break(2 if tag in _PARAGRAPHS and not (tag in ("ul", "ol") and self._lists) else 1)

    def _break(self, newlines: int) -> None:
        if self._cells and self._cells[-1] > 0:  # inside a cell
            self.layout.inline(" ")
        else:
            self.layout.end_line(newlines)

    def _cell(self) -> None:
        if not self._cells or self._cells[-1] < 0:
            self.layout.end_line(1)
            return
        if self._cells[-1]:
            self.layout.column()
        self._cells[-1] += 1

    def _item(self) -> None:
        mark = "- "
        if self._lists and (number := self._lists[-1]) is not None:
            mark = f"{number}. "
            self._lists[-1] = number + 1
        self.layout.indent(mark, " " * len(mark))

    def _formula(self, node: Any) -> None:
        source = node.query_selector('annotation[encoding="application/x-tex"]')
        tex = source.text if source is not None else node.getattr("alttext")
        if tex:
            self.layout.formula(tex, node.getattr("display") == "block")
        else:
            self.layout.inline(node.text)
