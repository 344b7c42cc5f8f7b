"""Errors of Hydra, OmegaConf and the YAML they read, said on one line."""

from __future__ import annotations

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigIndexError,
    ConfigKeyError,
    ConfigTypeError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from davinci.config import Run
from davinci.config.parsing import known_keys
from davinci.errors import nearest


class CannotBeSet(HydraException):
    """An override of a part of what has no parts, on which Hydra fails with whatever Python says."""


composition_errors = (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError)


def one_line(error: Exception) -> str:
    """One of `composition_errors` on one line, with the nearest names where it is about a name."""
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"conf/{group} has no {option!r}" + nearest(option, error.options)
    cause = error.__cause__ or error
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
        key = str(cause.key)
        if key in known_keys(Run, (cause.full_key or key).split(".")[:-1]):
            return f"{cause.full_key}: nothing that is composed here sets it; add it with a plus: +{cause.full_key}=…"
        known = [str(name) for name in cause.parent_node]
        named = nearest(key, known) if known else "; what is above it has no keys"
        return f"{cause.full_key or key}: unknown key{named}"
    if isinstance(cause, ConfigTypeError) and str(cause).startswith("Cannot merge"):
        accepted = "a list, not a mapping" if isinstance(cause.parent_node, ListConfig) else "a mapping, not a list"
        return f"{cause.full_key}: {accepted}, is accepted"
    if isinstance(cause, ConfigIndexError) and isinstance(cause.parent_node, ListConfig):
        return f"{cause.full_key}: no such item; the list has {len(cause.parent_node)}, counted from 0"
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key}: left unset (???); give it a value"
    if isinstance(cause, OmegaConfBaseException) and "Recursive interpolation" in str(cause):
        place = f"{cause.full_key}: " if cause.full_key else ""
        return f"{place}a cyclic interpolation: a value that is computed from itself"
    _, is_ours, ours = str(cause).partition("UserError raised while resolving interpolation: ")
    if is_ours:
        return ours.splitlines()[0]
    said = str(error).split("\nSet the environment variable", 1)[0]
    return " ".join(said.replace("object_type=dict", "").replace("full_key:", "at").split())
