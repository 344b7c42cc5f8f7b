"""Where the runs were computed, from their records, and with what this card was made."""

from __future__ import annotations

import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from analysis.ledger.card import Environment, RunEnvironment
from analysis.ledger.scope import Scope
from davinci.errors import UserError
from davinci.store import Store, read_json

PACKAGES = ("davinci", "torch", "lm_eval", "numpy", "scipy", "pandas", "matplotlib")


def environment(scope: Scope) -> Environment:
    """The distinct environments of the stretches that are done, the most frequent first."""
    found: Counter[tuple[str | None, tuple[tuple[str, str], ...]]] = Counter()
    unrecorded = 0
    for name, node in scope.nodes.items():
        if (mark := scope.found.sweep.done.get(name)) is None:
            continue
        values, code = recorded(scope.store, name, node.end, mark)
        if values:
            found[code, tuple(sorted(values.items()))] += 1
        else:
            unrecorded += 1
    return Environment(
        runs=tuple(
            RunEnvironment(stretches=count, code=code, values=dict(values))
            for (code, values), count in found.most_common()
        ),
        unrecorded=unrecorded,
        card=here(),
    )


def recorded(store: Store, node: str, end: int, mark: dict[str, Any]) -> tuple[dict[str, str], str | None]:
    """What a stretch was computed on, and the digest of the program: from done.json, or its last checkpoint."""
    values = mark.get("environment")
    if not isinstance(values, dict):
        try:
            values = read_json(store.checkpoint(node, end) / "state.json")["numerics"]
        except (OSError, UserError, KeyError, TypeError):
            return {}, None
    texts = {key: _text(value) for key, value in values.items() if key != "code"}
    code = values.get("code")
    return texts, None if code is None else str(code)


def here() -> dict[str, str]:
    """Python, system and the versions of the packages that this was made with."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
