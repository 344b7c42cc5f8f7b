"""What names a set of probe items, and where in the store it is. Light: planning and commands ask it."""

from __future__ import annotations

from pathlib import Path

from davinci.config import Probes
from davinci.store import Store

# Of the embedded set; raised when the same pool gives other items.
VERSION = 2
EMBEDDED = f"embedded-{VERSION}"


def set_key(probes: Probes) -> str:
    """What names a set in records: the embedded one and its version, or twelve digits of the digest of one's file."""
    return EMBEDDED if probes.digest is None else probes.digest[:12]


def probe_file(store: Store, pool: str, key: str) -> Path:
    """Where the items of the set `key` are for runs on `pool`."""
    return store.pool(pool) / "probes" / "items.jsonl" if key == EMBEDDED else store.root / "probes" / f"{key}.jsonl"
