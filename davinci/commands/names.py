"""What SWEEP and RUN on a command line mean.

A run is named by its id, by the beginning of it that no other run has, by SWEEP/ID where several sweeps have it, or by
SWEEP/ARM/SEED. Labels of arms may hold slashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from davinci.errors import UserError, nearest
from davinci.planning.wording import some
from davinci.store import Store, read_json


@dataclass(frozen=True)
class RunName:
    """A run of a sweep that was launched."""

    sweep: str
    id: str


def launched_sweeps(store: Store) -> list[str]:
    """Names of the sweeps that were launched from the store."""
    return sorted(path.parent.name for path in (store.root / "sweeps").glob("*/launched.json"))


def read_manifests(store: Store, sweep: str) -> dict[str, dict[str, Any]]:
    """The manifests of a launched sweep's runs by id: nodes, points and config of each."""
    try:
        manifests: dict[str, dict[str, Any]] = read_json(store.runs(sweep))
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or "damaged"
        raise UserError(
            f"{store.runs(sweep)}: cannot be read ({said}); launch {sweep} again, it is written anew"
        ) from None
    return manifests


def read_manifest(store: Store, run: RunName) -> dict[str, Any]:
    """The run's manifest: its nodes, points and config."""
    return read_manifests(store, run.sweep)[run.id]


def find(store: Store, name: str) -> str | RunName:
    """The sweep called `name`, if there is one, else the run.

    Raises:
        UserError: no sweep or run is called so, or several runs are.
    """
    sweeps = launched_sweeps(store)
    return name if name in sweeps else _find(store, name, sweeps, "run or sweep")


def find_run(store: Store, name: str) -> RunName:
    """The run called `name`.

    Raises:
        UserError: no run is called so, several are, or it is a sweep.
    """
    sweeps = launched_sweeps(store)
    if name in sweeps:
        runs = list(read_manifests(store, name))
        raise UserError(f"{name!r} is a sweep; name one of its runs: {some(sorted(runs))}")
    return _find(store, name, sweeps, "run")


def _find(store: Store, name: str, sweeps: list[str], what: str) -> RunName:
    sweep, _, rest = name.partition("/")
    if rest and sweep in sweeps:
        return _within(store, sweep, rest)
    runs = [RunName(one, run) for one in sweeps for run in read_manifests(store, one)]
    found = [run for run in runs if run.id == name] or [run for run in runs if name and run.id.startswith(name)]
    if len(found) > 1:
        raise UserError(f"{name!r} names {len(found)} runs: {some(sorted(f'{run.sweep}/{run.id}' for run in found))}")
    if not found:
        _require_launched(store, name)
        known = sweeps if rest or what == "run or sweep" else []
        raise UserError(
            f"store {store.root} has no {what} {name!r}"
            + nearest(sweep if rest else name, [*known, *(run.id for run in runs)])
        )
    return found[0]


def _within(store: Store, sweep: str, name: str) -> RunName:
    """The run of `sweep` with this id, the beginning of an id, or ARM/SEED."""
    manifests = read_manifests(store, sweep)
    ids = list(manifests)
    found = [name] if name in ids else [one for one in ids if one.startswith(name)]
    arm, _, seed = name.rpartition("/")
    names = dict.fromkeys(ids, "")
    if not found and arm:
        names = {one: f"{manifest['arm']}/{manifest['seed']}" for one, manifest in manifests.items()}
        found = [one for one, called in names.items() if called == f"{arm}/{seed.removeprefix('s')}"]
    if len(found) > 1:
        raise UserError(f"{sweep}/{name} names {len(found)} runs: {some(sorted(found))}")
    if not found:
        raise UserError(f"sweep {sweep!r} has no run {name!r}" + nearest(name, names.values() if arm else ids))
    return RunName(sweep, found[0])


def _require_launched(store: Store, name: str) -> None:
    """Say so where `name` is a sweep that was only planned."""
    if "/" not in name and (store.root / "sweeps" / name / "plan.json").is_file():
        raise UserError(f"sweep {name!r} was planned but never launched; launch it without plan_only=true")
