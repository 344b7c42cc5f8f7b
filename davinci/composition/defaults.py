"""Defaults lists: which files a choice of groups merges, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from hydra._internal.defaults_list import create_defaults_list
from hydra.core.override_parser.types import Override, OverrideType

CONFIG_NAME = "config"


@dataclass(frozen=True)
class Defaults:
    """Hydra's entries of a defaults list, in the order they are merged, and override key of a group -> its choice."""

    files: tuple[Any, ...]
    choices: Mapping[str, Any]


class DefaultsLists:
    """Makes defaults lists. Hydra takes 0.03 s for one, but most choices only put one file in another's place.

    Args:
        repository: Hydra's caching repository of configs.
    """

    def __init__(self, repository: Any) -> None:
        self._repository = repository
        self._made: dict[tuple[str, ...], Defaults] = {}
        self._brings_nothing = lru_cache(maxsize=None)(self._look_into)

    def of(self, groups: Sequence[Override]) -> Defaults:
        """The defaults list of conf/config.yaml with overrides of groups.

        Raises:
            one of `composition_errors`: Hydra's own, for an unknown option or a group that is not in the list.
        """
        light = [override for override in groups if self.is_light(override)]
        heavy = [override for override in groups if not self.is_light(override)]
        return self._exchanged(self._by_hydra(heavy), light) or self._by_hydra(groups)

    def _by_hydra(self, groups: Sequence[Override]) -> Defaults:
        key = tuple(str(override.input_line) for override in groups)
        if key not in self._made:
            made = create_defaults_list(
                repo=self._repository,
                config_name=CONFIG_NAME,
                overrides_list=list(groups),
                prepend_hydra=True,
                skip_missing=False,
            )
            self._made[key] = Defaults(tuple(made.defaults), dict(made.overrides.known_choices))
        return self._made[key]

    def _exchanged(self, defaults: Defaults, light: Sequence[Override]) -> Defaults | None:
        """`defaults` with other files in the place of those that `light` chooses anew; None where it takes more."""
        if not light:
            return defaults
        if any("${" in str(vars(entry)) for file in defaults.files for entry in self._entries(file.config_path)):
            return None  # a file is chosen by the name of another
        files, choices = list(defaults.files), dict(defaults.choices)
        for override in light:
            key = override.get_key_element()
            places = [index for index, file in enumerate(files) if file.override_key == key]
            if len(places) != 1 or not self._brings_nothing(files[places[0]].config_path):
                return None
            path = f"{override.key_or_group}/{override.value()}"
            files[places[0]] = replace(files[places[0]], config_path=path)
            choices[key] = override.value()
        return Defaults(tuple(files), choices)

    def is_light(self, override: Override) -> bool:
        """Whether the override chooses one file, by name, that brings no others along."""
        value = override.value()
        is_name = override.type is OverrideType.CHANGE and isinstance(value, str) and "${" not in value
        return is_name and self._brings_nothing(f"{override.key_or_group}/{value}")

    def _look_into(self, path: str) -> bool:
        if not self._repository.config_exists(path):
            return False
        return not self._entries(path) and self._repository.load_config(path).header.get("package") is None

    def _entries(self, path: str) -> Sequence[Any]:
        loaded = self._repository.load_config(path)
        return (loaded.defaults_list or ()) if loaded else ()
