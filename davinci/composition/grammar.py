"""Hydra's override grammar: lines of text -> parsed overrides, and the values of a swept one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep

from davinci.composition.errors import composition_errors, one_line
from davinci.errors import UserError

MOST_VALUES = 10_000  # of a key, and arms of a sweep


def parse_overrides(lines: Sequence[str], where: str, loader: ConfigLoader | None = None) -> list[Override]:
    """Parse Hydra's override grammar; a mistake is a UserError naming `where` it was written and the override.

    With `loader`, a group may be swept with ``glob(…)``.
    """
    parser = OverridesParser.create(config_loader=loader)
    parsed = []
    for line in lines:
        try:
            parsed += parser.parse_overrides([line])
        except composition_errors as error:
            raise UserError(f"{where}: {line}: {one_line(error)}") from None
    return parsed


def swept_values(override: Override, where: str) -> list[str]:
    """The values of a swept override, each as it would be written for one job, in the order they are written.

    A ``shuffle(…)`` is taken in its unshuffled order: the runs of a sweep are planned as one, and the first value of an
    axis must be the same each time the sweep is planned.

    Raises:
        UserError: for a sweep that names no values (an interval, an empty range, a glob that matches nothing), or
            more than `MOST_VALUES`.
    """
    if not override.is_discrete_sweep():
        kind = override.value_type.name if override.value_type else "none"
        raise UserError(
            f"{where}: {override.input_line}: a sweep needs values to take, {kind} has none; use choice() or range()"
        )
    if isinstance(override._value, Sweep) and hasattr(override._value, "shuffle"):
        override._value.shuffle = False
    try:
        values = [str(value) for value in islice(override.sweep_string_iterator(), MOST_VALUES + 1)]
    except (*composition_errors, ValueError) as error:
        raise UserError(f"{where}: {override.input_line}: {one_line(error)}") from None
    if len(values) > MOST_VALUES:
        raise UserError(f"{where}: {override.input_line}: at most {MOST_VALUES:,} values are accepted")
    if not values:
        raise UserError(f"{where}: {override.input_line}: matches no value")
    return values


def written(value: Any) -> str:
    """A YAML value as it is written on Hydra's command line; text stands as it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(written(item) for item in value) + "]"
    return str(value)


def package_of(override: Override) -> str:
    """The config key that an override sets: its package for a group written ``group@package``."""
    package: str | None = override.package
    return package if package is not None else str(override.key_or_group).replace("/", ".")


def covers(key: str, other: str) -> bool:
    """Whether `other` is `key` or below it; both are dotted keys."""
    return other == key or other.startswith((f"{key}.", f"{key}["))
