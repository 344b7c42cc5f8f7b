"""What was sent to W&B of one run, kept in the store, so that nothing is sent twice and nothing is left out.

A history row of W&B is never taken back and never changed, so the note of a row is on the disk before the row is sent.
After a crash W&B says how many rows it has (its next step), and the notes say which: the rest are sent again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from davinci.errors import UserError
from davinci.store import read_json, write_json
from davinci.tracking.history import History, Values

VERSION = 2

# A note of one history row: tokens, and a digest of each group of metrics that it has.
Note = tuple[int, dict[str, str]]


@dataclass
class Sent:
    """Notes of what one W&B run has.

    Attributes:
        path: of the file.
        target: where it was sent; notes of another target do not count.
        rows: in the order of W&B's steps.
        confirmed: how many of `rows` W&B has for certain; the others were on their way when this was written.
        records: size and time of each record file that was read, null until all of it is confirmed.
        artifacts: names of those that were sent.
        folders: offline runs that are whole.
    """

    path: Path
    target: dict[str, Any]
    rows: list[Note] = field(default_factory=list)
    confirmed: int = 0
    records: list[list[Any]] | None = None
    artifacts: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, target: dict[str, Any]) -> Sent:
        """The notes at `path`; empty where there are none, or none that can be read, of this target."""
        try:
            found = read_json(path)
        except (OSError, UserError):
            return cls(path, target)
        if not isinstance(found, dict) or found.pop("version", None) != VERSION or found.get("target") != target:
            return cls(path, target)
        rows = [(int(tokens), digests) for tokens, digests in found.pop("rows")]
        return cls(path, rows=rows, **found)

    def write(self) -> None:
        content = asdict(self) | {"version": VERSION}
        del content["path"]
        write_json(self.path, content)

    def cut(self, length: int) -> None:
        """Forget all rows but the first `length`."""
        del self.rows[length:]
        self.confirmed = min(self.confirmed, length)

    def missing(self, rows: History) -> History:
        """What of `rows` was not sent, or not with its present value."""
        has: dict[int, dict[str, str]] = {}
        for tokens, digests in self.rows:
            has.setdefault(tokens, {}).update(digests)
        found = {}
        for tokens, values in rows.items():
            before, now = has.get(tokens, {}), digests_of(values)
            new = {group for group, digest in now.items() if before.get(group) != digest}
            if new:
                found[tokens] = {name: value for name, value in values.items() if _group(name) in new}
        return found

    def note(self, tokens: int, values: Values) -> None:
        """The next row holds `values`; what they say only of the record itself tells no rows apart."""
        self.rows.append((tokens, digests_of(values)))


def digests_of(values: Mapping[str, Any]) -> dict[str, str]:
    """A digest of each group of metrics: what one training step says of itself is one, each score is one."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if not name.startswith("record/"):
            # W&B gives a whole float back as an integer.
            groups.setdefault(_group(name), {})[name] = float(value) if isinstance(value, int) else value
    return {
        group: hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]
        for group, found in groups.items()
    }


def _group(name: str) -> str:
    first = name.partition("/")[0]
    if first in ("train", "record"):
        return "train"
    return name if first.startswith("eval") else name.rpartition("/")[0]
