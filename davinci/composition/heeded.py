"""Choices that a file read later says anew: a model file that states a variant itself, as an imported model's does,
comes after the choice of that variant, and Hydra lets the later one win without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from davinci.composition.conf import Conf
from davinci.composition.grammar import covers, package_of, written
from davinci.errors import UserError


def require_heeded(conf: Conf, lines: Sequence[tuple[Override, str]]) -> None:
    """Raise UserError for a choice such as ``model/window=full`` that the chosen file of the group above it undoes.

    Args:
        conf: conf/.
        lines: overrides, which compose, and where each was written.
    """
    inner = [(one, where) for one, where in lines if "/" in one.key_or_group and conf.is_group(one.key_or_group)]
    if not inner:
        return
    files = conf.fragments([one for one, _ in lines])
    settled = [package_of(one) for one, _ in lines if not conf.is_group(one.key_or_group)]
    for override, where in inner:
        for place, (path, chosen) in enumerate(files):
            if _group(path) != override.key_or_group:
                continue
            wanted = {leaf: value for leaf, value in _values(chosen) if not any(covers(key, leaf) for key in settled)}
            for later, said in files[place + 1 :]:
                for leaf, stated in _values(said) if _group(later) == _group(_group(path)) else ():
                    if leaf in wanted and wanted[leaf] != stated:
                        raise UserError(
                            f"{where}: {override.input_line}: conf/{later}.yaml comes after it and states {leaf}: "
                            f"{written(stated)}; set the key itself: {leaf}={written(wanted[leaf])}"
                        )


def _group(path: str) -> str:
    return path.rpartition("/")[0]


def _values(said: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and what they are set to, lists whole."""
    for key, value in said.items():
        if isinstance(value, dict):
            yield from _values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
