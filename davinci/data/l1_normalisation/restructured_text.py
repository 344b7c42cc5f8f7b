"""reStructuredText to plain text: what a reader of the rendered page would see, without its markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.l1_normalisation.plain_text import normalise
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally

_ADORNMENT = re.compile(r"([=\-~`^\"'#*+:.<>_])\1{2,}")
_ROLE = re.compile(r":[\w:+.-]+:`([^`]+)`|`([^`\n][^`]*)`__?|``(.+?)``|`([^`\n]+)`", re.DOTALL)
_TARGET = re.compile(r"\s*<[^>]*>$", re.DOTALL)
_STRONG = re.compile(r"\*\*(\S(?:[^*]*\S)?)\*\*")
_EMPHASIS = re.compile(r"(?<![\w*])\*([^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])")
_DIRECTIVE = re.compile(r"(\s*)\.\. ([\w:+-]+)::(.*)")
_COMMENT = re.compile(r"(\s*)\.\.(\s|$)")
_OPTION = re.compile(r"\s*:[\w-]+:")
# Directives whose body is text. All others (indices, images, generated API lists) show nothing worth reading.
_TEXT_DIRECTIVES = frozenset(
    (
        "note",
        "warning",
        "admonition",
        "tip",
        "hint",
        "important",
        "caution",
        "seealso",
        "versionadded",
        "versionchanged",
        "deprecated",
        "code",
        "code-block",
        "sourcecode",
        "highlight",
        "parsed-literal",
        "math",
        "topic",
        "sidebar",
        "rubric",
        "quote",
        "epigraph",
        "example",
        "plot",
        "doctest",
        "testcode",
        "setting",
        "class",
        "method",
        "attribute",
        "function",
        "data",
        "exception",
        "templatetag",
        "templatefilter",
        "fieldlookup",
        "describe",
        "option",
        "console",
        "glossary",
        "list-table",
    )
)

_VERSION_TITLES = {
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
}


@operation("rst_to_text")
class RstToText(DocumentOperation):
    """Markup goes; a docstring gets what it documents (``origin["signature"]``) as a title."""

    level: ClassVar[Level] = "L1"

    def apply(self, document: Document, tally: Tally) -> Iterator[Document]:
        text, title = rst_to_text(document.text), document.origin.get("signature")
        yield replace(document, text=text if title is None else normalise(f"{title}\n\n{text}"))


def rst_to_text(source: str) -> str:
    """Strip reStructuredText markup; unwrap paragraphs to one line; leave code and calculations as they are set."""
    lines = _without_directives(source.expandtabs(4).split("\n"))
    blocks = re.split(r"\n\s*\n", "\n".join(lines))
    return normalise("\n\n".join(text for block in blocks if (text := _block(block.strip("\n")))))


def _inline(match: re.Match[str]) -> str:
    role, link, literal, interpreted = match.groups()
    if literal is not None:
        return str(literal)
    text = str(role or link or interpreted)
    text = _TARGET.sub("", text) if _TARGET.sub("", text) else text
    return text.rpartition(".")[2] if text.startswith("~") else text.removeprefix("!")


def _without_directives(lines: list[str]) -> list[str]:
    kept: list[str] = []
    skipping: int | None = None  # indentation of the directive whose body is skipped
    options = False  # just below a text directive, where its options stand
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if skipping is not None:
            if not line.strip() or indent > skipping:
                continue
            skipping = None
        if options and _OPTION.match(line):
            continue
        options = False
        directive = _DIRECTIVE.match(line)
        if directive is not None:
            if directive[2].rpartition(":")[2] not in _TEXT_DIRECTIVES:
                skipping = indent
                continue
            title = directive[3].strip() if not directive[2].endswith(("code-block", "code", "highlight")) else ""
            title = f"{_VERSION_TITLES.get(directive[2], '')} {title}".strip()
            kept += ["", directive[1] + title, ""] if title else [""]
            options = True
        elif _COMMENT.match(line):
            skipping = indent
        else:
            kept.append(line)
    return kept


def _block(block: str) -> str:
    """One block between blank lines: heading, literal text, or a paragraph."""
    lines = [line for line in block.split("\n") if not _ADORNMENT.fullmatch(line.strip())]
    if not lines or lines[0].lstrip().startswith((">>>", "...")):
        return "\n".join(lines)
    text = "\n".join(lines)
    if not lines[0].startswith(" ") or len({len(line) - len(line.lstrip()) for line in lines}) == 1:
        text = _EMPHASIS.sub(r"\1", _STRONG.sub(r"\1", _ROLE.sub(_inline, text)))
        text = re.sub(r"\s*::$", ":", text).removesuffix("\n:") if text.endswith("::") else text
        text = "" if text == ":" else text
    lines = text.split("\n")
    wrapped = len(lines) > 1 and not any(line.startswith((" ", ">>>", "|", "+", "* ", "- ")) for line in lines)
    if wrapped and all(len(line) > 40 for line in lines[:-1]):
        return " ".join(lines)
    return text
