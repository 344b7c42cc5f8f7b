"""A composed config to which plain value overrides are applied without composing again.

Hydra composes a config in about 0.1 s; a sweep asks for hundreds that differ in a few leaves. A template is composed
and resolved once; for each run only the leaves that an override sets, and those that interpolate them, are computed
again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override

from davinci.composition.grammar import covers
from davinci.composition.resolvers import READS

_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")
_RESOLVER = re.compile(r"\$\{([A-Za-z_][\w.]*):")


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
        raw = leaves_of(OmegaConf.to_container(config, resolve=False))
        interpolated = {key: value for key, value in raw.items() if isinstance(value, str) and "${" in value}
        self._leaves = raw.keys()
        self._reads: dict[str, frozenset[str]] = {}
        self._is_clear = True
        for key, value in interpolated.items():
            reads = _leaves_read(value, raw.keys(), interpolated.keys())
            self._is_clear &= reads is not None
            self._reads[key] = reads or frozenset()
        # A leaf that is one reference and nothing else is a copy: no need to ask OmegaConf.
        matches = {key: _REFERENCE.fullmatch(value) for key, value in interpolated.items()}
        self._copies = {key: match[1] for key, match in matches.items() if match}

    def takes(self, key: str, value: Any) -> bool:
        """Whether setting `key` to `value` can be done here: an existing leaf, a plain value, known interpolations."""
        plain = value is None or isinstance(value, bool | int | float)
        text = isinstance(value, str) and "${" not in value and value != "???"
        return (plain or text) and self._is_clear and key in self._leaves

    def readers(self, key: str) -> list[str]:
        """Leaves computed from the leaf `key`, directly or through others."""
        if self._is_clear:
            return self._stale([key])
        values = []
        raw = _raw(self._config, key)
        with flag_override(self._config, ["struct", "readonly"], [False, False]):
            for value in (0, 1):  # what cannot be read off is tried
                OmegaConf.update(self._config, key, value)
                values.append(leaves_of(OmegaConf.to_container(self._config, resolve=True)))
            OmegaConf.update(self._config, key, raw)
        return sorted(name for name, value in values[0].items() if values[1].get(name) != value and name != key)

    def with_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The resolved config as plain data, with dotted keys of `values` set (each one that `takes` allows)."""
        if not self._is_clear:
            return self._resolved_with(values)
        data: dict[str, Any] = _copy(self._resolved)
        for key, value in values.items():
            _set(data, key, value)
        stale = self._stale(values)
        for key in [key for key in stale if self._copies.get(key) in values]:
            _set(data, key, values[self._copies[key]])
            stale.remove(key)
        if stale:
            # A label may look like an interpolation: only what is read is set.
            read = {
                key: value for key, value in values.items() if any(key in self._reads[leaf] for leaf in self._reads)
            }
            with self._changed(read):
                for key in stale:
                    found = OmegaConf.select(self._config, key)
                    plain = OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
                    _set(data, key, plain)
        return data

    def _resolved_with(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`with_values` where nobody knows what reads what: everything is resolved again."""
        with self._changed(values):
            data: Any = OmegaConf.to_container(self._config, resolve=True, throw_on_missing=True)
        return dict(data)

    @contextmanager
    def _changed(self, values: Mapping[str, Any]) -> Iterator[None]:
        raw = {key: _raw(self._config, key) for key in values}
        with flag_override(self._config, ["struct", "readonly"], [False, False]):
            try:
                for key, value in values.items():
                    OmegaConf.update(self._config, key, value)
                yield
            finally:
                for key, value in raw.items():
                    OmegaConf.update(self._config, key, value)

    def _stale(self, changed: Iterable[str]) -> list[str]:
        """Leaves that interpolate one of `changed`, directly or through others, and are not set themselves."""
        set_here = set(changed)
        known = set(set_here)
        grew = True
        while grew:
            grew = False
            for key, reads in self._reads.items():
                if key not in known and not known.isdisjoint(reads):
                    known.add(key)
                    grew = True
        return sorted(known - set_here)


def _leaves_read(value: str, leaves: Collection[str], interpolated: Collection[str]) -> frozenset[str] | None:
    """Leaves that an interpolation reads; None where that cannot be told (nested, relative, or an unknown resolver)."""
    read = set(_REFERENCE.findall(value))
    for name in _RESOLVER.findall(value):
        if name not in READS:
            return None
        read.update(READS[name])
    if value.count("${") != len(_REFERENCE.findall(value)) + len(_RESOLVER.findall(value)):
        return None
    found: set[str] = set()
    for key in read:
        below = [leaf for leaf in leaves if covers(key, leaf)]  # itself, or all of a group of keys
        above = [leaf for leaf in interpolated if covers(leaf, key)]  # a key of a group that is interpolated whole
        if not below and not above:
            return None
        found.update(below, above)
    return frozenset(found)


def leaves_of(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of every leaf; a list item is keyed as ``name[index]``, the way OmegaConf selects it."""
    if isinstance(value, dict) and value:
        leaves: dict[str, Any] = {}
        for key, item in value.items():
            leaves.update(leaves_of(item, f"{prefix}.{key}" if prefix else str(key)))
        return leaves
    if isinstance(value, list) and value:
        leaves = {}
        for index, item in enumerate(value):
            leaves.update(leaves_of(item, f"{prefix}[{index}]"))
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
