"""Arguments of ``launch.py`` of whose mistakes Hydra says too much, too little or nothing: flags, and overrides that
choose a file of a config group."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override

from davinci.command_line import Parser
from davinci.composition.conf import Conf
from davinci.composition.errors import composition_errors, one_line
from davinci.composition.given import COMMAND_LINE
from davinci.composition.grammar import parse_overrides
from davinci.errors import UserError, nearest

# How Hydra begins what it says of flags that do not go together.
_FLAGS = ("Only one of --run", "The --resolve flag")


def require_choice(conf: Conf, override: Override, where: str) -> None:
    """Raise UserError, naming `where` the override was written, if it gives a group no choice (null, a number) or
    several, or names a group that there is not."""
    group, value = str(override.key_or_group), override.value()
    if conf.is_group(group):
        is_choice = isinstance(value, str) or (value is None and override.is_delete())
        is_several = isinstance(value, list) and not override.is_hydra_override()
        if is_several or not (is_choice or isinstance(value, list | dict) or override.is_sweep_override()):
            known = ", ".join(conf.get_group_options(group, ObjectType.CONFIG))
            raise UserError(f"{where}: {override.input_line}: {group} takes one of its choices: {known}")
    elif "/" in group:
        raise UserError(f"{where}: {override.input_line}: no group {group}{_nearest_group(conf, group)}")


def require_flags(arguments: Sequence[str]) -> None:
    """End with one line if Hydra's own parser would end with its usage."""
    parser = get_args_parser()
    parser.__class__ = Parser
    parser.parse_args(arguments)


def said_of(error: Exception, conf_folder: Path) -> str | None:
    """What is wrong with the arguments of ``launch.py``, on which Hydra failed with `error`; None if they are not at
    fault."""
    if str(error).startswith(_FLAGS):
        return f"{COMMAND_LINE}: {error}"
    try:
        _require_composed(sys.argv[1:], conf_folder)
    except UserError as mistake:
        return str(mistake)
    except composition_errors as mistake:
        return f"{COMMAND_LINE}: {one_line(mistake)}"
    return f"{COMMAND_LINE}: {one_line(error)}" if isinstance(error, composition_errors) else None


def _require_composed(arguments: Sequence[str], conf_folder: Path) -> None:
    options = get_args_parser().parse_args(arguments)
    hydra_lines = [line for line in options.overrides if line.startswith("hydra.")]
    if options.config_dir is not None:
        hydra_lines.append(f"hydra.searchpath=[file://{Path(options.config_dir).absolute()}]")
    with initialize_config_dir(str(conf_folder), version_base="1.3"):
        conf = Conf(GlobalHydra.instance().config_loader(), hydra_lines)
        overrides = parse_overrides(options.overrides, COMMAND_LINE)
        for override in overrides:
            require_choice(conf, override, COMMAND_LINE)
        conf.compose([one for one in overrides if not (one.is_hydra_override() or one.is_sweep_override())])


def _nearest_group(conf: Conf, group: str) -> str:
    """The groups that stand where `group` was looked for and are named alike; all of them where none is."""
    above, _, name = group.rpartition("/")
    names = conf.get_group_options(above, ObjectType.GROUP) if conf.is_group(above) else []
    if not names:
        return nearest(group, [one for one in conf.get_group_options("", ObjectType.GROUP) if one != "hydra"])
    near = nearest(name, names)
    _, is_near, close = near.partition("; nearest: ")
    if is_near:
        return "; nearest: " + ", ".join(f"{above}/{one}" for one in close.split(", "))
    return f"; below {above}/ there are: {', '.join(names)}"
