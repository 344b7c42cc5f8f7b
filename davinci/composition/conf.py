"""conf/ as Hydra sees it, and a faster way to the same composed config.

Hydra composes its own settings anew and reads every file again each time, about 0.12 s. Here files are read once, and a
config is merged from them as plain data; whatever that might do differently is left to Hydra.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from davinci.composition import resolvers
from davinci.composition.defaults import CONFIG_NAME, DefaultsLists
from davinci.composition.errors import CannotBeSet, composition_errors

# Keys of conf/config.yaml that steer the launcher and are no part of a run.
STEERING = ("plan_only", "probe", "audit", "max_epochs", "hydra")


@dataclass(frozen=True)
class Composed:
    """The keys of a run, interpolations not yet resolved, and package -> the group file that filled it."""

    config: DictConfig
    files: Mapping[str, str]


@dataclass(frozen=True)
class Chosen:
    """What the chosen files say of a run, merged, before any value is overridden; and package -> the file."""

    data: dict[str, Any]
    files: Mapping[str, str]


class Conf:
    """conf/ and the folders of ``hydra.searchpath``.

    Args:
        loader: Hydra's config loader on conf/.
        hydra_lines: overrides of Hydra's own settings, such as ``hydra.searchpath=[…]``.
    """

    def __init__(self, loader: ConfigLoader, hydra_lines: Sequence[str] = ()) -> None:
        resolvers.register()
        self._loader: Any = loader
        self._hydra_lines = list(hydra_lines)
        self._fragments: dict[tuple[str, str, bool], dict[str, Any] | None] = {}
        self.is_group = lru_cache(maxsize=None)(lambda key: bool(self._repository.group_exists(key)))

    def get_group_options(self, group: str, results_filter: Any = None) -> list[str]:
        """Names of a group's files; Hydra's override parser asks this for ``glob(…)``."""
        return list(self._repository.get_group_options(group, results_filter))

    def full(self, lines: Sequence[str]) -> DictConfig:
        """conf/ with the overrides `lines`, composed by Hydra."""
        return self._loader.load_configuration(CONFIG_NAME, [*self._hydra_lines, *lines], run_mode=RunMode.RUN)

    def compose(self, overrides: Sequence[Override]) -> Composed:
        """The keys of a run that Hydra would compose from `overrides`.

        Raises:
            one of `composition_errors`: Hydra's own, for an unknown group, option or key.
        """
        try:
            composed = self._merged(overrides)
        except CannotBeSet:
            raise
        except composition_errors:
            composed = None  # Hydra says it in its own words
        if composed is not None:
            return composed
        config = self.full([override.input_line or "" for override in overrides])
        return run_part(config, config.hydra.runtime.choices)

    @cached_property
    def _repository(self) -> Any:
        _, repository = self._loader._parse_overrides_and_create_caching_repo(CONFIG_NAME, self._hydra_lines)
        return repository

    @cached_property
    def _lists(self) -> DefaultsLists:
        return DefaultsLists(self._repository)

    def is_light(self, override: Override) -> bool:
        """Whether the override chooses one file of a group, by name, that brings no others along."""
        return bool(self.is_group(override.key_or_group)) and self._lists.is_light(override)

    def chosen(self, overrides: Sequence[Override]) -> Chosen | None:
        """What the files that `overrides` choose say; None where only Hydra itself is sure to be right."""
        if any(override.is_hydra_override() or override.is_sweep_override() for override in overrides):
            return None
        groups = [override for override in overrides if self._chooses(override)]
        defaults = self._lists.of(groups)
        merged: dict[str, Any] = {}
        for default in defaults.files:
            if default.config_path.startswith("hydra/"):
                continue
            fragment = self._fragment(default)
            if fragment is None or not _merge(merged, fragment):
                return None
        for key in STEERING:
            merged.pop(key, None)
        return Chosen(merged, _files(defaults.choices))

    def fragments(self, overrides: Sequence[Override]) -> list[tuple[str, dict[str, Any]]]:
        """The files that `overrides` choose, in the order in which they are merged, such as ``model/norm/rmsnorm``, and
        what each says; empty where it takes more than merging."""
        files = self._lists.of([override for override in overrides if self._chooses(override)]).files
        found = [one for one in files if not one.config_path.startswith("hydra/")]
        return [(one.config_path, self._fragment(one) or {}) for one in found]

    def _chooses(self, override: Override) -> bool:
        return not isinstance(override.value(), dict) and bool(self.is_group(override.key_or_group))

    def _merged(self, overrides: Sequence[Override]) -> Composed | None:
        """What `compose` returns, from files read once; None where only Hydra itself is sure to be right."""
        chosen = self.chosen(overrides)
        if chosen is None:
            return None
        config = OmegaConf.create(chosen.data)
        OmegaConf.set_struct(config, True)
        for override in overrides:
            if not self._chooses(override):
                self._set(override, config)
        return Composed(config, chosen.files)

    def _set(self, override: Override, config: DictConfig) -> None:
        try:
            self._loader._apply_overrides_to_config([override], config)
        except (ValueError, TypeError):
            raise CannotBeSet(f"{override.key_or_group}: unknown key; what is above it has no keys") from None

    def _fragment(self, default: Any) -> dict[str, Any] | None:
        """One file of the defaults list as plain data at its package; None if it takes more than merging."""
        key = (default.config_path, default.package, default.primary)
        if key not in self._fragments:
            loaded = self._loader._load_single_config(default=default, repo=self._repository).config
            package = default.package if default.package else None
            own = OmegaConf.select(loaded, package) if package else loaded
            plain: Any = OmegaConf.to_container(loaded, resolve=False)
            if isinstance(own, DictConfig) and isinstance(plain, dict):
                at: Any = plain
                for part in package.split(".") if package else ():
                    at = at[part]
                at.pop("defaults", None)
            simple = isinstance(plain, dict) and _is_simple({k: v for k, v in plain.items() if k != "hydra"})
            self._fragments[key] = plain if simple else None
        return self._fragments[key]


def run_part(config: DictConfig, choices: Mapping[Any, Any]) -> Composed:
    """The part of a config composed by Hydra that makes a run; `choices` are ``hydra.runtime.choices``."""
    return Composed(_without_steering(config), _files(choices))


def _without_steering(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key not in STEERING])


def _files(choices: Mapping[Any, Any]) -> dict[str, str]:
    files: dict[str, str] = {}
    for group, choice in choices.items():
        name, _, package = str(group).partition("@")
        files[package or name.replace("/", ".")] = f"conf/{name}/{choice}.yaml"
    return files


def _is_simple(value: Any) -> bool:
    """Whether merging `value` as plain data is all there is to it: text keys, nothing unset, nothing of Hydra's own."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_simple(item) for key, item in value.items())
    if isinstance(value, list):
        return all(_is_simple(item) for item in value)
    return not isinstance(value, str) or (value != "???" and "${hydra" not in value)


def _merge(into: dict[str, Any], fragment: Mapping[str, Any]) -> bool:
    """Merge as OmegaConf does; False where a mapping meets an interpolation, whose value would have to be known."""
    for key, value in fragment.items():
        there = into.get(key)
        if isinstance(value, dict) and isinstance(there, str) and "${" in there:
            return False
        if isinstance(value, dict) and isinstance(there, dict):
            if not _merge(there, value):
                return False
        else:
            into[key] = deepcopy(value)
    return True
