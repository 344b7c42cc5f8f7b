"""Rules that refine scientific and technical text: what a careful editor would do without understanding it.

They know the form that scientific Python documents itself in (numpydoc's sections) and manuals of that family. Nothing
is made up: words are moved, joined, written out or taken out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

# Sections whose entries are names with what they mean, and how an entry begins once it stands by itself.
_ENTRIES = {
    "Parameters": "Parameter",
    "Other Parameters": "Parameter",
    "Keyword Arguments": "Argument",
    "Attributes": "Attribute",
    "Returns": "Returns",
    "Yields": "Yields",
    "Raises": "Raises",
    "See Also": "See also",
}
_SILENT = frozenset(("Explanation", "Description"))  # headings that say nothing
_TITLED = {"Examples": "Examples:", "Example": "Example:", "Notes": "Note:", "Note": "Note:", "Warning": "Warning:"}
_HEADINGS = frozenset((*_ENTRIES, *_SILENT, *_TITLED, "References"))

_ENTRY = re.compile(r"([*\w.]+(?:\s*,\s*[*\w.]+)*)(?:\s*:\s*(\S.*))?")
_REFERENCE = re.compile(r"\s*(\[[\w+.-]+\]|\d{1,2}\.\s|\.\. |https?://|[-*] .*(https?://|\(?(19|20)\d\d\)?))")
_CITATION = re.compile(r"\s*\[[\w+.-]+\]_")
_NAMES = re.compile(r"\s*[\w.]+(?:\(\))?(?:\s*,\s*[\w.]+(?:\(\))?)*,?\s*")
_NAME = re.compile(r"[\w.]+(?:\(\))?")
_DEBRIS = re.compile(
    r"\s*(https?://\S+|(New|Added|Changed|Deprecated) (in|since) version [\d.]+[.:]?|\.\. \S.*|\|\S+\||[-=~^*_]{4,})\s*"
)
_SIGNATURE = re.compile(r"[a-zA-Z_]\w*(?:\.\w+)+(\(.*\))?")
_CODE = re.compile(r"\s|>>>|\.\.\. |[-*+•] |\(?\d+[.)] |[|#$%]")
_HEADING = re.compile(r"[A-Z][\w'’()/-]{1,30}(?: [\w'’()/,-]{1,30}){0,6}")

_WRITTEN_OUT = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\be\.g\.,?(?=\s)", "for example,"),
        (r"\bi\.e\.,?(?=\s)", "that is,"),
        (r"\bw\.?r\.?t\.?(?=\s)", "with respect to"),
        (r"\biff\b", "if and only if"),
        (r"\bs\.t\.(?=\s)", "such that"),
        (r"\ba\.k\.a\.(?=\s)|\baka\b", "also known as"),
        (r"\betc\.(?=\s+[a-z]|[,)])", "and so on"),
        (r"\\mathbb\s*\{?([A-Z])\}?", r"\1"),
        (r"\\(?:mathrm|mathbf|mathcal|text|operatorname)\{(\w+)\}", r"\1"),
        (r"\\(?:le|leq)\b", "<="),
        (r"\\(?:ge|geq)\b", ">="),
        (r"\\ne(?:q)?\b", "!="),
        (r"\\(?:ldots|dots|cdots)\b", "..."),
        (r"\\(?:cdot|times)\b", "*"),
        (r"\\infty\b", "infinity"),
        (r"\\in\b", "in"),
        (r"\\(?:to|rightarrow)\b", "->"),
        (
            r"\\(alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|phi|chi|psi|"
            r"omega|Gamma|Delta|Theta|Lambda|Sigma|Phi|Psi|Omega|sin|cos|tan|exp|log|ln|sum|int|sqrt)(?![a-zA-Z])",
            r"\1",
        ),
    )
]


@dataclass
class Refined:
    """A refined text, the original without what was taken out of it, and how often each rule was used."""

    text: str
    kept: str
    used: Counter[str] = field(default_factory=Counter)


def refine(text: str) -> Refined:
    """Apply every rule to a document's text."""
    used: Counter[str] = Counter()
    blocks = [block for block in re.split(r"\n[ \t]*\n", text.strip("\n")) if block.strip()]
    blocks = [part for block in blocks for part in _with_heading_apart(block)]
    kept: list[str] = []
    written: list[str] = []
    section = ""
    for index, block in enumerate(blocks):
        following = blocks[index + 1] if index + 1 < len(blocks) else ""
        if block in _HEADINGS:
            section = block
            kept.append(block)
            if block in _TITLED and following and following not in _HEADINGS:
                written.append(_TITLED[block])
            else:
                used["headings of sections"] += 1
            continue
        if section == "References" and _REFERENCE.match(block):
            used["references"] += 1
            continue
        if section == "See Also" and all(_NAMES.fullmatch(line) for line in block.split("\n")):
            kept.append(block)
            used["lists of names"] += 1
            written.append(f"See also {', '.join(_NAME.findall(block))}.")
            continue
        block = _without_debris(block, used)
        if not block:
            continue
        kept.append(_CITATION.sub("", block))
        if section in _ENTRIES and (entries := _entries(block, _ENTRIES[section])):
            used["entries"] += len(entries)
            written.append("\n".join(_write_out(one, used) for one in entries))
            continue
        if section in ("References", "See Also"):
            section = ""
        written.append(_block(block, index, following, used))
    return Refined("\n\n".join(written) + "\n", "\n\n".join(kept) + "\n", used)


def _with_heading_apart(block: str) -> Iterator[str]:
    """A block, its first line apart where that is a section's heading."""
    first, _, rest = block.partition("\n")
    if first.strip() in _HEADINGS:
        yield first.strip()
        if rest.strip():
            yield rest
    else:
        yield block


def _without_debris(block: str, used: Counter[str]) -> str:
    """A block without lines that teach nothing; code stays whole."""
    if ">>>" in block:
        return block
    lines = block.split("\n")
    kept = [line for line in lines if not _DEBRIS.fullmatch(line)]
    used["lines of debris"] += len(lines) - len(kept)
    return "\n".join(kept)


def _entries(block: str, begin: str) -> list[str]:
    """The entries of a section as a line each; none where the block is not made of entries."""
    lines = block.split("\n")
    margin = len(lines[0]) - len(lines[0].lstrip())
    found: list[list[str]] = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if indent <= margin and _ENTRY.fullmatch(line.strip()):
            found.append([line.strip()])
        elif indent > margin and found:
            found[-1].append(line.strip())
        else:
            return []
    if any(one.startswith((">>>", "- ", "* ", "|")) for entry in found for one in entry[1:]):
        return []
    if begin == "Parameter" and all(len(entry) == 1 and ":" not in entry[0] for entry in found):
        return []
    return [_entry(entry, begin) for entry in found]


def _entry(lines: list[str], begin: str) -> str:
    match = _ENTRY.fullmatch(lines[0])
    assert match is not None  # _entries looked
    kind = f" ({match[2]})" if match[2] else ""
    return f"{begin} {match[1]}{kind}: {' '.join(lines[1:])}".removesuffix(": ").strip()


def _block(block: str, index: int, following: str, used: Counter[str]) -> str:
    """A block of prose, a signature, a heading, or what is left as it is set; `index` is its place in the document."""
    lines = block.split("\n")
    if index == 0 and len(lines) == 1 and (match := _SIGNATURE.fullmatch(block)):
        used["signatures"] += 1
        last = block.partition("(")[0].rpartition(".")[2]
        kind = "The class" if last[:1].isupper() else "The function" if match[1] else "This is about"
        return f"{kind} {block}."
    if index > 1 and len(lines) == 1 and _HEADING.fullmatch(block) and following and not _CODE.match(following):
        used["headings"] += 1
        return f"Section: {block}."
    if any(_CODE.match(line) for line in lines) or not _is_prose(block):
        return block
    if len(lines) > 1:
        used["paragraphs joined"] += 1
    text = _write_out(" ".join(line.strip() for line in lines), used)
    ends = text[-1].isalpha() and text.count(" ") > 2 and not following.startswith((" ", ">>>"))
    return text + "." if ends else text


def _is_prose(block: str) -> bool:
    words = sum(char.isalpha() or char in " \n,.'’" for char in block)
    return words >= 0.85 * len(block)


def _write_out(text: str, used: Counter[str]) -> str:
    """Abbreviations and symbols in words, citation marks out."""
    text, marks = _CITATION.subn("", text)
    used["citation marks"] += marks
    text = text.replace("et al..", "et al.")
    for pattern, replacement in _WRITTEN_OUT:
        text, count = pattern.subn(replacement, text)
        used["abbreviations and symbols"] += count
    return re.sub(r"(?<=\S)[ \t]{2,}", " ", text)
