"""A sweep, from a file or from the command line alone, expanded to its runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override

from davinci.composition.compose import Composer, parse_overrides
from davinci.composition.sweep_file import SweepFile, read_sweep_file
from davinci.config import Run
from davinci.errors import UserError, nearest
from davinci.planning.plan import Arm, Question

COMMAND_LINE = "command line"
# What a sweep file says in words of its own, and what belongs to a launch, not to an arm.
_LABELS = {"sweep": "", "arm": "arms", "seed": "seeds", "trunk_seed": "seeds", "seeds_from": "seeds_from"}
_PLACEMENT = ("store", "cluster", "tracking", "plan_only", "audit")


@dataclass(frozen=True)
class Sweep:
    """A sweep before it is planned."""

    runs: tuple[Run, ...]
    question: Question
    arms: tuple[Arm, ...]
    factor: tuple[str, ...]


def expand(arguments: Sequence[str], loader: ConfigLoader, folder: Path) -> Sweep:
    """Expand the arguments of ``launch.py -m``.

    Args:
        arguments: Hydra overrides; ``sweep=NAME`` names a file of `folder`, without it the swept keys are the factor.
        loader: Hydra's config loader on conf/.
        folder: the sweeps folder.
    """
    parsed = parse_overrides(arguments, COMMAND_LINE, loader)
    named = [override for override in parsed if override.key_or_group == "sweep"]
    rest = [override for override in parsed if override.key_or_group != "sweep"]
    if named:
        return _from_file(str(named[-1].value()), rest, loader, folder)
    return _ad_hoc(rest, loader)


def _from_file(name: str, extra: Sequence[Override], loader: ConfigLoader, folder: Path) -> Sweep:
    swept = [override.key_or_group for override in extra if override.is_sweep_override()]
    if swept:
        raise UserError(f"{COMMAND_LINE}: {', '.join(swept)} is swept on top of sweep={name}; give it one value")
    where = f"{folder.name}/{name}.yaml"
    for key in (override.key_or_group for override in extra):
        if key in _LABELS:
            raise UserError(f"{COMMAND_LINE}: {key} is set by {where} ({_LABELS[key]}); change it there or in a copy")
    file = read_sweep_file(folder, name)
    _check_keys(file, where)
    own = [line for override in extra if (line := override.input_line)]
    composer = Composer(loader)
    runs: list[Run] = []
    for label, overrides in file.arms.items():
        lines = [*file.fixed, *overrides, *own]
        first = _first_run(composer, [*file.fixed, *overrides], own, where, name)
        stages = first.curriculum.stages
        if file.seeds_from is not None and file.seeds_from not in stages:
            raise UserError(
                f"{where}: seeds_from: the curriculum has no stage {file.seeds_from!r}"
                + nearest(file.seeds_from, stages)
            )
        shared = file.seeds_from is not None and first.scale.shared_trunk
        trunk = {"seeds_from": file.seeds_from, "trunk_seed": file.seeds[0]} if shared else {}
        runs += [composer.run(lines, where, sweep=name, arm=label, seed=seed, **trunk) for seed in file.seeds]
    try:
        words = file.words(runs[0].evaluation)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    return Sweep(tuple(runs), words, file.labelled_arms(), file.factor)


def _check_keys(file: SweepFile, where: str) -> None:
    """Refuse overrides that would be ignored: labels anywhere, and in an arm what holds for the whole launch."""
    places: dict[str, Sequence[str]] = {"fixed": file.fixed}
    places |= {f"arms.{label}": overrides for label, overrides in file.arms.items()}
    for place, lines in places.items():
        for override in parse_overrides(lines, f"{where}: {place}"):
            key = override.key_or_group.partition(".")[0]
            if key in _LABELS:
                raise UserError(f"{where}: {place}: {override.key_or_group} cannot be overridden in a sweep file")
            if key in _PLACEMENT:
                raise UserError(f"{where}: {place}: {override.key_or_group} belongs on the command line")


def _first_run(composer: Composer, file: Sequence[str], own: Sequence[str], where: str, name: str) -> Run:
    """The run of the file's overrides and then the command line's `own`; an error blames the one that made it."""
    try:
        return composer.run([*file, *own], where, sweep=name)
    except UserError:
        if own:
            composer.run(file, where, sweep=name)  # The file's own mistake, if it raises; else:
            composer.run([*file, *own], COMMAND_LINE, sweep=name)
        raise


def _ad_hoc(overrides: Sequence[Override], loader: ConfigLoader) -> Sweep:
    """Every swept key but `seed` is the factor, every combination of their values an arm, the first the baseline."""
    fixed = [override.input_line or "" for override in overrides if not override.is_sweep_override()]
    axes: dict[str, list[str]] = {}
    for override in overrides:
        if override.is_sweep_override():
            axes[override.get_key_element()] = [str(value) for value in override.sweep_string_iterator()]
    seeds = [int(seed) for seed in axes.pop("seed", [])]
    digest = hashlib.sha256("\0".join(sorted(override.input_line or "" for override in overrides)).encode())
    name = f"adhoc-{digest.hexdigest()[:8]}"
    composer = Composer(loader)
    runs: list[Run] = []
    arms: list[Arm] = []
    for values in product(*axes.values()):
        arm = [f"{key}={value}" for key, value in zip(axes, values, strict=True)]
        label = " ".join(arm) or "run"
        arms.append(Arm(label=label, overrides=tuple(arm), is_baseline=not arms))
        lines = [*fixed, *arm]
        for seed in seeds or [composer.run(lines, COMMAND_LINE, sweep=name).seed]:
            runs.append(composer.run(lines, COMMAND_LINE, sweep=name, arm=label, seed=seed))
    question = Question(text=f"What changes with {', '.join(axes)}?" if axes else "One setting, no factor.")
    factor = tuple(key.lstrip("+~").rpartition("@")[2] for key in axes)
    return Sweep(tuple(runs), question, tuple(arms), factor)
