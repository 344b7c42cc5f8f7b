"""Override lists -> `config.Run` objects, through Hydra's own config loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from davinci.composition import resolvers
from davinci.composition.errors import composition_errors, one_line
from davinci.composition.template import Template
from davinci.config import Run, parse
from davinci.errors import UserError
from davinci.evaluation.suite import check

CONFIG_NAME = "config"
# Keys of conf/config.yaml that steer the launcher and are no part of a run.
STEERING = ("plan_only", "audit", "hydra")


def parse_overrides(overrides: Sequence[str], where: str, loader: ConfigLoader | None = None) -> list[Override]:
    """Parse Hydra's override grammar; a mistake is a UserError naming `where` it was written and the override.

    With `loader`, a group may be swept with ``glob(…)``.
    """
    parser = OverridesParser.create(config_loader=loader)
    parsed = []
    for line in overrides:
        try:
            parsed += parser.parse_overrides([line])
        except composition_errors as error:
            raise UserError(f"{where}: {line}: {one_line(error)}") from None
    return parsed


def compose(loader: ConfigLoader, overrides: Sequence[str], where: str) -> DictConfig:
    """Compose conf/ with `overrides`, interpolations not yet resolved.

    Raises:
        UserError: for an unknown group, option or key; Hydra's own message, with the options there are.
    """
    resolvers.register()
    try:
        return loader.load_configuration(CONFIG_NAME, list(overrides), run_mode=RunMode.RUN)
    except composition_errors as error:
        raise UserError(f"{where}: {one_line(error)}") from None


@dataclass(frozen=True)
class _Composed:
    """A template and the files its groups came from."""

    template: Template
    files: dict[str, str]


class Composer:
    """Composes many runs: once for each distinct list of group choices, then by setting values.

    Args:
        loader: Hydra's config loader on conf/.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self._composed: dict[tuple[str, ...], _Composed] = {}
        self._lines: dict[str, Override] = {}
        self._is_group = lru_cache(maxsize=None)(lambda key: bool(loader.get_group_options(key)))

    def run(self, lines: Sequence[str], where: str, **values: Any) -> Run:
        """The run that the override `lines` and then the top-level `values` make.

        Raises:
            UserError: naming the key, where it was set (`where` for an override, else a file) and what is accepted.
        """
        overrides = [self._parsed(line, where) for line in lines]
        plain = [override for override in overrides if self._is_plain(override)]
        rest = [override for override in overrides if override not in plain]
        if any(_related(one.key_or_group, other.key_or_group) for one in plain for other in rest):
            plain, rest = [], overrides
        composed = self._template(rest, where)
        settings = {override.key_or_group: override.value() for override in plain}
        if not all(composed.template.takes(key, value) for key, value in settings.items()):
            composed, settings = self._template(overrides, where), {}
        try:
            data = composed.template.with_values({**settings, **values})
        except composition_errors as error:
            raise UserError(f"{where}: {one_line(error)}") from None
        return to_run(data, origin_of(composed.files, [override.key_or_group for override in overrides], where))

    def _parsed(self, line: str, where: str) -> Override:
        if line not in self._lines:
            (self._lines[line],) = parse_overrides([line], where)
        return self._lines[line]

    def _is_plain(self, override: Override) -> bool:
        """Whether the override sets one value and touches no defaults list."""
        if override.type is not OverrideType.CHANGE or override.package is not None:
            return False
        value = override.value()
        scalar = value is None or isinstance(value, bool | int | float | str)
        return scalar and not self._is_group(override.key_or_group)

    def _template(self, overrides: Sequence[Override], where: str) -> _Composed:
        key = tuple(override.input_line or "" for override in overrides)
        if key not in self._composed:
            config = compose(self._loader, key, where)
            self._composed[key] = _Composed(template_of(config, where), files_of(config))
        return self._composed[key]


def template_of(config: DictConfig, where: str) -> Template:
    """A template of the keys of `config` that make a run."""
    resolvers.register()
    try:
        return Template(OmegaConf.masked_copy(config, [str(key) for key in config if key not in STEERING]))
    except composition_errors as error:
        raise UserError(f"{where}: {one_line(error)}") from None


def to_run(data: dict[str, Any], origin: Callable[[str], str]) -> Run:
    """Validate resolved plain data; `origin` says where a dotted key was set."""
    run = parse(Run, data, where=origin)
    try:
        check(run.evaluation)
    except UserError as error:
        raise UserError(f"{origin(str(error).partition(':')[0])}: {error}") from None
    return run


def _related(one: str, other: str) -> bool:
    return one == other or one.startswith(other + ".") or other.startswith(one + ".")


def files_of(config: DictConfig) -> dict[str, str]:
    """Package -> the group file that filled it, for a composed config with its `hydra` node."""
    files: dict[str, str] = {}
    for group, choice in config.hydra.runtime.choices.items():
        name, _, package = str(group).partition("@")
        files[package or name] = f"conf/{name}/{choice}.yaml"
    return files


def origin_of(files: Mapping[str, str], keys: Sequence[str], where: str) -> Callable[[str], str]:
    """A function from a dotted key to the place that set it: `where` for one of `keys`, else its group's file."""
    own = [key for key in keys if key not in files]  # a key that is a group only chooses a file

    def find(key: str) -> str:
        if any(_related(key, name) for name in own):
            return where
        owners = [package for package in files if key == package or key.startswith(package + ".")]
        return files[max(owners, key=len)] if owners else "conf/config.yaml"

    return find
