"""The arms of a sweep before they are composed: labelled arms times axes, less exclusions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from davinci.composition.grammar import MOST_VALUES, package_of, parse_overrides, written
from davinci.composition.sweep_file import SweepFile
from davinci.errors import nearest


@dataclass(frozen=True)
class Axis:
    """Keys, written as in an override (``group@package``), that take their values in step; most often it is one."""

    keys: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Setting:
    """One arm: its label, every name it may be called by in the file, its override lines by their place in the file,
    and those of the command line's axes."""

    label: str
    names: frozenset[str]
    lines: tuple[tuple[str, str], ...]
    extra: tuple[str, ...]


def axes_of(file: SweepFile) -> list[Axis]:
    """The axes of a file: each key of `grid` alone, all of `zip` together."""
    axes = [Axis((key,), tuple((written(value),) for value in values)) for key, values in file.grid.items()]
    if file.zip:
        rows = zip(*file.zip.values(), strict=True)
        axes.append(Axis(tuple(file.zip), tuple(tuple(written(value) for value in row) for row in rows)))
    return axes


def settings(
    arms: Mapping[str, Sequence[str]], axes: Sequence[Axis], extra: Sequence[Axis], where: str
) -> list[Setting]:
    """Every arm with every combination of the file's `axes` and the command line's `extra` ones, arms slowest.

    Without arms, a label is the combination; the short name of a key is its last part where that is unique.

    Args:
        where: the file, or the command line, for errors.

    Raises:
        ValueError: if two combinations have the same label, or there are more than `MOST_VALUES`.
        UserError: for a key that is none.
    """
    every = [*axes, *extra]
    keys = [key for axis in every for key in axis.keys]
    packages = dict(zip(keys, packages_of(keys, where), strict=True))
    short = _short_names(packages)
    count = math.prod([len(arms) or 1, *(len(axis.rows) for axis in every)])
    if count > MOST_VALUES:
        raise ValueError(f"arms: all combinations are {count:,}; at most {MOST_VALUES:,} are accepted")
    found = []
    for arm, rows in product(arms or {"": ()}, product(*(axis.rows for axis in every))):
        lines = [(f"arms.{arm}", text) for text in (arms[arm] if arm else ())]
        added, said, names = [], [], [arm] if arm else []
        for index, (axis, row) in enumerate(zip(every, rows, strict=True)):
            for key, value in zip(axis.keys, row, strict=True):
                said.append(f"{short[key]}={value}")
                names += [f"{key}={value}", f"{packages[key]}={value}", said[-1]]
                if index < len(axes):
                    lines.append(("grid" if len(axis.keys) == 1 else "zip", f"{key}={value}"))
                else:
                    added.append(f"{key}={value}")
            if index == len(axes) - 1:
                names.append(" ".join([*([arm] if arm else []), *said]))
        label = " ".join([*([arm] if arm else []), *said]) or "run"
        found.append(Setting(label, frozenset({*names, label}), tuple(lines), tuple(added)))
    twice = [label for label, count in Counter(one.label for one in found).items() if count > 1]
    if twice:
        raise ValueError(f"two arms are labelled {twice[0]!r}; a value stands twice")
    return found


def _short_names(packages: Mapping[str, str]) -> dict[str, str]:
    last = {key: package.rpartition(".")[2] for key, package in packages.items()}
    count = Counter(last.values())
    return {key: last[key] if count[last[key]] == 1 else packages[key] for key in packages}


def packages_of(keys: Iterable[str], where: str) -> tuple[str, ...]:
    """The config keys that override keys (``group@package``, ``+key``) set; a UserError names `where` for one that is
    no key."""
    return tuple(package_of(parse_overrides([f"{key.lstrip('+~')}=0"], where)[0]) for key in keys)


def find(name: str, among: Sequence[Setting], what: str) -> Setting:
    """The first setting that `name` names: a label, an arm of the file, or ``key=value`` of an axis.

    Raises:
        ValueError: beginning with `what`, naming the nearest.
    """
    for setting in among:
        if name in setting.names:
            return setting
    raise ValueError(f"{what}: no arm {name!r}" + nearest(name, {known for one in among for known in one.names}))


def exclude(items: Sequence[Mapping[str, object]], among: Sequence[Setting], must_match: bool = True) -> list[Setting]:
    """`among` without the combinations that match every entry of one of `items`.

    Raises:
        ValueError: for an item that matches nothing (if it must), or if nothing is left.
    """
    left = list(among)
    for index, item in enumerate(items):
        wanted = [str(value) if key == "arm" else f"{key}={written(value)}" for key, value in item.items()]
        if must_match:
            for name in wanted:
                find(name, among, f"exclude.{index}")
            if not any(all(name in one.names for name in wanted) for one in among):
                raise ValueError(f"exclude.{index}: no combination has {' and '.join(wanted)}")
        left = [one for one in left if not all(name in one.names for name in wanted)]
    if not left:
        raise ValueError("exclude: leaves no arm")
    return left
