"""A composed config to which plain value overrides are applied without composing again.

Hydra composes a config in about 0.1 s; a sweep asks for hundreds that differ in a few leaves. A template is composed
and resolved once; for each run only the leaves that an override sets, and those that interpolate them, are computed
again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override

from davinci.composition.resolvers import READS

_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")
_RESOLVER = re.compile(r"\$\{([A-Za-z_]\w*):")


class Template:
    """`config` composed (interpolations not yet resolved), and what each of its leaves is computed from.

    Args:
        config: the keys of a run, without `hydra`.

    Raises:
        omegaconf.errors.OmegaConfBaseException: if an interpolation cannot be resolved or a value is missing.
    """

    def __init__(self, config: DictConfig) -> None:
        self._config = config
        self._resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        raw = _leaves(OmegaConf.to_container(config, resolve=False))
        self._leaves = {key: isinstance(value, str) and "${" in value for key, value in raw.items()}
        self._reads = {key: _keys_read(value) for key, value in raw.items() if self._leaves[key]}
        # A leaf that is one reference and nothing else is a copy: no need to ask OmegaConf.
        matches = {key: _REFERENCE.fullmatch(value) for key, value in raw.items() if self._leaves[key]}
        self._copies = {key: match[1] for key, match in matches.items() if match}

    def takes(self, key: str, value: Any) -> bool:
        """Whether setting `key` to `value` can be done here: an existing leaf, a plain value, known interpolations."""
        plain = value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and "${" not in value)
        return plain and key in self._leaves and None not in self._reads.values()

    def with_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The resolved config as plain data, with dotted keys of `values` set (each one that `takes` allows)."""
        data: dict[str, Any] = _copy(self._resolved)
        for key, value in values.items():
            _set(data, key, value)
        stale = self._stale(values)
        for key in [key for key in stale if self._copies.get(key) in values]:
            _set(data, key, values[self._copies[key]])
            stale.remove(key)
        if stale:
            raw = {key: _raw(self._config, key) for key in values}
            with flag_override(self._config, ["struct", "readonly"], [False, False]):
                try:
                    for key, value in values.items():
                        OmegaConf.update(self._config, key, value)
                    for key in stale:
                        _set(data, key, OmegaConf.select(self._config, key))
                finally:
                    for key, value in raw.items():
                        OmegaConf.update(self._config, key, value)
        return data

    def _stale(self, changed: Iterable[str]) -> list[str]:
        """Leaves that interpolate one of `changed`, directly or through others, and are not set themselves."""
        set_here = set(changed)
        known = set(set_here)
        grew = True
        while grew:
            grew = False
            for key, reads in self._reads.items():
                if key not in known and reads is not None and not known.isdisjoint(reads):
                    known.add(key)
                    grew = True
        return sorted(known - set_here)


def _keys_read(value: str) -> frozenset[str] | None:
    """Keys that an interpolation reads; None where that cannot be told (nested, relative, or an unknown resolver)."""
    reads = set(_REFERENCE.findall(value))
    for name in _RESOLVER.findall(value):
        if name not in READS:
            return None
        reads.update(READS[name])
    if value.count("${") != len(_REFERENCE.findall(value)) + len(_RESOLVER.findall(value)):
        return None
    return frozenset(reads)


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of every leaf; a list item is keyed as ``name[index]``, the way OmegaConf selects it."""
    if isinstance(value, dict) and value:
        leaves: dict[str, Any] = {}
        for key, item in value.items():
            leaves.update(_leaves(item, f"{prefix}.{key}" if prefix else str(key)))
        return leaves
    if isinstance(value, list) and value:
        leaves = {}
        for index, item in enumerate(value):
            leaves.update(_leaves(item, f"{prefix}[{index}]"))
        return leaves
    return {prefix: value}


def _path(key: str) -> list[str | int]:
    parts: list[str | int] = []
    for part in key.split("."):
        name, *indices = part.split("[")
        parts.append(name)
        parts.extend(int(index.rstrip("]")) for index in indices)
    return parts


def _set(data: Any, key: str, value: Any) -> None:
    *path, last = _path(key)
    for part in path:
        data = data[part]
    data[last] = value


def _raw(config: DictConfig, key: str) -> Any:
    """The unresolved value at `key`."""
    node: Any = config
    for part in _path(key):
        node = node._get_node(part)
    return node._value()


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
