"""Figures published in the paper, carried as data so that measured results can stand beside them.

Source: *daVinci-LLM: Towards the Science of Pretraining*, arXiv 2603.27164; each file of ``analysis/published/`` is
named after its table or figure there. Facts transcribed from it, in percent; nothing in them is a result of this
project.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from davinci.errors import UserError, nearest

FOLDER = Path(__file__).parent / "published"
SOURCE = "arXiv 2603.27164"
_UNITS = {"T": 1e12, "B": 1e9, "M": 1e6, "k": 1e3}


def rows(name: str) -> list[dict[str, str]]:
    """The rows of one published file, as text.

    Raises:
        UserError: for a name that is no file of the folder.
    """
    path = FOLDER / f"{name}.csv"
    if path.parent != FOLDER or not path.is_file():
        known = [file.stem for file in FOLDER.glob("*.csv")]
        raise UserError(f"paper.published: no published figures {name!r}{nearest(name, known)}")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@dataclass(frozen=True)
class Published:
    """One table of the paper, looked up by configuration, token count and column. Values in percent."""

    name: str
    values: dict[tuple[str, str], list[tuple[float | None, float]]]

    def at(self, configuration: str, column: str, label: str, *, last: bool) -> float | None:
        """The figure printed for an arm, or None.

        Args:
            configuration: arm label, as in the paper.
            column: General, Code, Science or Overall.
            label: the point's name in the paper's tokens, such as ``83.9B``; matched to 1%.
            last: whether it is the last point, which a table without token counts speaks of.
        """
        wanted = tokens_of(label)
        for tokens, value in self.values.get((configuration, column), []):
            if (tokens is None and last) or (tokens and wanted and abs(tokens / wanted - 1) < 0.01):
                return value
        return None


def read(name: str) -> Published:
    """Read the published table `name` (one with a `configuration` column; others hold no arms and give nothing)."""
    values: dict[tuple[str, str], list[tuple[float | None, float]]] = {}
    for row in rows(name):
        tokens = float(row["tokens_b"]) * 1e9 if row.get("tokens_b") else None
        for column, text in row.items():
            if column not in ("configuration", "tokens_b") and text and "configuration" in row:
                key = (row["configuration"], column.removeprefix("Avg "))
                values.setdefault(key, []).append((tokens, float(text)))
    return Published(name, values)


def tokens_of(label: str) -> float | None:
    """``83.9B`` as a number of tokens; None for a label that is not one."""
    number, unit = (label[:-1], _UNITS[label[-1]]) if label and label[-1] in _UNITS else (label, 1.0)
    try:
        return float(number) * unit
    except ValueError:
        return None
