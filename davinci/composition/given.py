"""The arguments of ``launch.py -m``, sorted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from davinci.composition.arms import Axis
from davinci.composition.conf import STEERING, Conf
from davinci.composition.grammar import package_of, parse_overrides, swept_values
from davinci.errors import UserError

COMMAND_LINE = "command line"
# Where runs go and are shown; no part of what a sweep asks.
PLACEMENT = ("store", "cluster", "tracking")


@dataclass(frozen=True)
class Given:
    """The command line.

    Attributes:
        sweep: name of the sweep file, None for a sweep without one.
        fixed: overrides with one value, of every arm.
        axes: swept keys.
        seeds: seeds asked for, None where none are.
        packages: config keys that `fixed` and `axes` set.
        digest: of everything that says what a sweep without a file is.
    """

    sweep: str | None
    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...] | None
    packages: frozenset[str]
    digest: str


def read_arguments(arguments: Sequence[str], conf: Conf) -> Given:
    """Sort the arguments of ``launch.py -m``; those that steer the launcher are left out.

    Raises:
        UserError: for a mistake in Hydra's grammar, a sweep that names no values, or a key that cannot be set here.
    """
    sweep: str | None = None
    seeds: tuple[int, ...] | None = None
    fixed: list[str] = []
    axes: dict[str, tuple[str, ...]] = {}
    packages: set[str] = set()
    said: list[str] = []
    for override in parse_overrides(arguments, COMMAND_LINE, conf):
        line, key = str(override.input_line), override.key_or_group
        group = key.partition(".")[0]
        is_swept = override.is_sweep_override()
        if is_swept and group in (*STEERING, "store", "tracking"):
            raise UserError(f"{COMMAND_LINE}: {line}: {group} takes one value, for the whole launch")
        if group in STEERING:
            continue
        values = swept_values(override, COMMAND_LINE) if is_swept else None
        if key == "arm":
            raise UserError(f"{COMMAND_LINE}: {line}: arm is a label, made of what is swept or set by the sweep file")
        if key == "sweep":
            if values:
                raise UserError(f"{COMMAND_LINE}: {line}: one sweep at a time; a suite file plans several as one tree")
            sweep = None if override.value() is None else str(override.value())
            continue
        if group not in PLACEMENT:
            said.append(line)
        if key == "seed":
            seeds = _seeds(values or [override.value()], line)
            continue
        packages.add(package_of(override))
        if values is None:
            fixed.append(line)
        else:
            axes[override.get_key_element()] = tuple(values)
    if "trunk_seed" in packages and "seeds_from" not in packages and sweep is None:
        raise UserError(f"{COMMAND_LINE}: trunk_seed: the seed of the stages before seeds_from, which is not given")
    return Given(
        sweep=sweep,
        fixed=tuple(fixed),
        axes=tuple(Axis((key,), tuple((value,) for value in values)) for key, values in axes.items()),
        seeds=seeds,
        packages=frozenset(packages),
        digest=hashlib.sha256("\0".join(sorted(said)).encode()).hexdigest()[:8],
    )


def _seeds(values: Sequence[Any], line: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(str(value)) for value in values)
    except ValueError:
        raise UserError(f"{COMMAND_LINE}: {line}: seeds are whole numbers: seed=0,1,2 or seed='range(3)'") from None
    if min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise UserError(f"{COMMAND_LINE}: {line}: seeds are distinct whole numbers from 0 on")
    return seeds
