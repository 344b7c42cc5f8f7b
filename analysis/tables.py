"""A declarative table and its renderings: terminal, Markdown, LaTeX (booktabs), CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

MINUS = "\u2212"
NOISE = "≈"
EQUIVALENT = "≡"

_BETWEEN = 3  # characters that rich puts between two columns

Tone = Literal["plain", "strong", "faint", "missing"]
_TERMINAL: dict[Tone, str] = {"plain": "", "strong": "bold", "faint": "bright_black", "missing": "yellow"}


@dataclass(frozen=True)
class Value:
    """What one line of one cell says. `tone` is faint for what is noise or context, missing for a gap."""

    text: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    """A table, declared once.

    Attributes:
        title: one line.
        headers: column names; the first `stubs` columns label the row, the rest are aligned right.
        groups: rows in groups that a rule separates.
        notes: footnotes, one sentence or two each.
        data: the same content as numbers, a dict a cell, for CSV and JSON.
        spans: names over the columns behind the stubs, each with how many it spans; an empty name spans nothing.
    """

    title: str
    headers: tuple[str, ...]
    stubs: int
    groups: tuple[tuple[tuple[Value, ...], ...], ...]
    notes: tuple[str, ...] = ()
    data: tuple[dict[str, Any], ...] = ()
    spans: tuple[tuple[str, int], ...] = ()


def percent(fraction: float, *, signed: bool = False, decimals: int = 1) -> str:
    """A fraction in percent with a real minus sign; ``–`` for NaN."""
    return points(100 * fraction, signed=signed, decimals=decimals)


def points(value: float, *, signed: bool = False, decimals: int = 1) -> str:
    """A number with `decimals` places and a real minus sign, that of zero a plus; ``–`` for NaN."""
    if math.isnan(value):
        return "–"
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return f"{'+' if signed else ''}{0:.{decimals}f}" if float(text) == 0 else text.replace("-", MINUS)


def render_terminal(table: Table, console: Console) -> None:
    """Print the table and its footnotes; columns that do not fit the width follow below, behind the stubs again."""
    over = _over(table)
    for index, columns in enumerate(_fitting(table, console.width)):
        title = Text(table.title, style="bold") if index == 0 else None
        shown = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            justify: Literal["left", "right"] = "left" if column < table.stubs else "right"
            header = f"{over[column]}\n{table.headers[column]}" if any(over) else table.headers[column]
            shown.add_column(Text(header), justify=justify, overflow="fold")
        for group in table.groups:
            for line, row in enumerate(group):
                cells = [Text(row[column].text, style=_TERMINAL[row[column].tone]) for column in columns]
                shown.add_row(*cells, end_section=line == len(group) - 1)
        if index:
            console.print()
        console.print(shown)
    for note in table.notes:
        console.print(Text(note, style="bright_black"))


def _over(table: Table) -> list[str]:
    """For each column the name of the span that begins there, else an empty text."""
    over = [""] * len(table.headers)
    at = table.stubs
    for name, width in table.spans:
        over[at] = name
        at += width
    return over


def _fitting(table: Table, width: int) -> list[list[int]]:
    """The columns in parts of at most `width` characters, each with the stubs and at least one column more."""
    rows = [[value.text for value in row] for group in table.groups for row in group]
    widths = [max(map(cell_len, texts)) + _BETWEEN for texts in zip(_over(table), table.headers, *rows, strict=True)]
    stubs = list(range(table.stubs))
    parts, left = [list(stubs)], width + _BETWEEN - sum(widths[: table.stubs])
    for column in range(table.stubs, len(widths)):
        if widths[column] > left and len(parts[-1]) > table.stubs:
            parts.append(list(stubs))
            left = width + _BETWEEN - sum(widths[: table.stubs])
        parts[-1].append(column)
        left -= widths[column]
    return parts


def render_markdown(table: Table) -> str:
    """GitHub Markdown. A leading ``≈`` and emphasis carry what colour carries elsewhere."""
    lines = [f"### {_markdown(table.title)}", ""]
    lines.append("| " + " | ".join(_markdown(header) for header in table.headers) + " |")
    rules = [":---" if index < table.stubs else "---:" for index in range(len(table.headers))]
    lines.append("| " + " | ".join(rules) + " |")
    for group in table.groups:
        for row in group:
            cells = []
            for value in row:
                text = _markdown(value.text)
                marks = {"strong": "**", "missing": "*"}.get(value.tone, "") if text else ""
                cells.append(f"{marks}{text}{marks}")
            lines.append("| " + " | ".join(cells) + " |")
    lines += [""] + [f"- {_markdown(note)}" for note in table.notes]
    return "\n".join(lines).rstrip() + "\n"


def render_latex(table: Table) -> str:
    r"""A ``tabular`` between booktabs rules; needs the packages booktabs and xcolor."""
    alignment = "l" * table.stubs + "r" * (len(table.headers) - table.stubs)
    lines = [
        "% needs \\usepackage{booktabs} and \\usepackage{xcolor}",
        "\\begin{table}",
        "\\centering\\small",
        f"\\caption{{{_latex(table.title)}}}",
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
        *_latex_spans(table),
        " & ".join(_latex(header) for header in table.headers) + " \\\\",
    ]
    for group in table.groups:
        lines.append("\\midrule")
        for row in group:
            lines.append(" & ".join(_latex_value(value) for value in row) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    if table.notes:
        lines += ["", "\\smallskip\\begin{minipage}{\\linewidth}\\footnotesize"]
        lines += [_latex(note) + "\\par" for note in table.notes]
        lines.append("\\end{minipage}")
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _latex_spans(table: Table) -> list[str]:
    """A line of names over the headers, and a rule below each."""
    if not any(name for name, _ in table.spans):
        return []
    cells = [f"\\multicolumn{{{width}}}{{c}}{{{_latex(name)}}}" for name, width in table.spans]
    rules, at = [], table.stubs + 1
    for name, width in table.spans:
        rules += [f"\\cmidrule(lr){{{at}-{at + width - 1}}}"] if name else []
        at += width
    return [" & " * table.stubs + " & ".join(cells) + " \\\\", "".join(rules)]


def render_csv(data: Sequence[dict[str, Any]]) -> str:
    """One line a cell; lists are joined by spaces, numbers keep six significant digits, gaps are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if data:
        writer.writerow(data[0])
        for row in data:
            writer.writerow([_csv(value) for value in row.values()])
    return out.getvalue()


def render_json(table: Table) -> str:
    """Title, footnotes and the cells as numbers; NaN becomes null."""
    cells = [{key: _rounded(value) for key, value in row.items()} for row in table.data]
    content = {"title": table.title, "notes": list(table.notes), "cells": cells}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return list(value) if isinstance(value, tuple) else value


def _csv(value: Any) -> str:
    value = _rounded(value)
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    # A spreadsheet runs a cell that starts like a formula.
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@") else text


def _markdown(text: str) -> str:
    for mark, safe in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(mark, safe)
    for mark in "*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return text


_LATEX = {
    "\\": "\\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "≈": "$\\approx$",
    "≡": "$\\equiv$",
    MINUS: "$-$",
    "Δ": "$\\Delta$",
    "×": "$\\times$",
    "↓": "$\\downarrow$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
    "\n": " ",
    "[": "{[}",  # after a line break LaTeX takes a bracket for an option
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in text)


def _latex_value(value: Value) -> str:
    text = _latex(value.text)
    if not text or value.tone == "plain":
        return text
    wrapped = {"strong": f"\\textbf{{{text}}}", "missing": f"\\emph{{{text}}}"}
    return wrapped.get(value.tone, f"\\textcolor{{gray}}{{{text}}}")
