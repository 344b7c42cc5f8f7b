"""Override lists -> `config.Run` objects, through Hydra's own config loader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from davinci.composition import resolvers
from davinci.composition.errors import composition_errors, one_line
from davinci.config import Run, parse
from davinci.errors import UserError
from davinci.evaluation.suite import check

CONFIG_NAME = "config"
# Keys of conf/config.yaml that steer the launcher and are no part of a run.
STEERING = ("plan_only", "audit", "hydra")


def parse_overrides(overrides: Sequence[str], where: str) -> list[Override]:
    """Parse Hydra's override grammar; a mistake is a UserError naming `where` it was written."""
    try:
        return list(OverridesParser.create().parse_overrides(list(overrides)))
    except composition_errors as error:
        raise UserError(f"{where}: {one_line(error)}") from None


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


def to_run(composed: DictConfig, overrides: Sequence[str], where: str, **values: Any) -> Run:
    """Set `values` (top-level keys), resolve every interpolation, validate.

    Args:
        composed: what `compose` returned, or the config `hydra.main` passes (then without its `hydra` node).
        overrides: the overrides that made it, to say where a wrong key was set.
        where: the place those overrides were written.
    """
    resolvers.register()
    config = composed.copy()
    origin = _origin(config, overrides, where)
    with open_dict(config):
        for name, value in values.items():
            config[name] = value
    try:
        data = OmegaConf.to_container(
            OmegaConf.masked_copy(config, [str(key) for key in config if key not in STEERING]),
            resolve=True,
            throw_on_missing=True,
        )
    except composition_errors as error:
        raise UserError(f"{where}: {one_line(error)}") from None
    assert isinstance(data, dict)
    run = parse(Run, {str(key): value for key, value in data.items()}, where=origin)
    try:
        check(run.evaluation)
    except UserError as error:
        raise UserError(f"{origin(str(error).partition(':')[0])}: {error}") from None
    return run


def _origin(config: DictConfig, overrides: Sequence[str], where: str) -> Callable[[str], str]:
    """A function from a dotted key to the file that set it: an override's place, else its group's file."""
    choices: dict[str, str] = {}
    if "hydra" in config:
        for group, choice in config.hydra.runtime.choices.items():
            name, _, package = str(group).partition("@")
            choices[package or name] = f"conf/{name}/{choice}.yaml"
    written = [override.split("=", 1)[0].lstrip("+~") for override in overrides]

    def find(key: str) -> str:
        if any(key == name or key.startswith(name + ".") or name.startswith(key + ".") for name in written):
            return where
        owners = [package for package in choices if key == package or key.startswith(package + ".")]
        return choices[max(owners, key=len)] if owners else "conf/config.yaml"

    return find
