"""Override lists -> `config.Run` objects, through Hydra's own config loader."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from hydra.core.override_parser.types import Override, OverrideType

from davinci.composition.choices import require_choice
from davinci.composition.conf import Chosen, Composed, Conf
from davinci.composition.errors import composition_errors, one_line
from davinci.composition.grammar import package_of, parse_overrides
from davinci.composition.heeded import require_heeded
from davinci.composition.template import Template, leaves_of
from davinci.config import Curriculum, Run, parse
from davinci.errors import UserError
from davinci.evaluation.probe_items import with_digest
from davinci.evaluation.suite import check

CONF = "conf/config.yaml"


class Line(NamedTuple):
    """An override, and the place it was written."""

    text: str
    where: str


@dataclass(frozen=True)
class _Made:
    """A template, the values that make it the config of other choices of files, and package -> the file."""

    template: Template
    values: Mapping[str, Any]
    files: Mapping[str, str]


@dataclass(frozen=True)
class _Kin:
    """The first template of those that differ only in which files they choose, and the leaves of its own."""

    template: Template
    leaves: Mapping[str, Any]


class Composer:
    """Composes many runs: once for each distinct list of group choices, then by setting values."""

    def __init__(self, conf: Conf) -> None:
        self._conf = conf
        self._made: dict[tuple[str, ...], _Made] = {}
        self._parsed: dict[str, Override] = {}
        self._kin: dict[tuple[str, ...], _Kin] = {}
        self._shared: dict[tuple[str, str], Any] = {}
        self._heeded: set[tuple[str, ...]] = set()

    def run(self, lines: Sequence[Line], **values: Any) -> Run:
        """The run that the override `lines` and then the top-level `values` make.

        Parts equal to those of a run made before are the same objects.

        Raises:
            UserError: naming the key, where it was set (a line's place, else a file) and what is accepted.
        """
        try:
            data, files = self._data(lines, values)
        except composition_errors as error:
            raise UserError(f"{self._blamed(lines, values)}: {one_line(error)}") from None
        self._require_heeded(lines)
        written = [(package_of(self._parse(line)), line.where) for line in lines]
        return self._share(to_run(data, origin_of(files, written)), data)

    def _require_heeded(self, lines: Sequence[Line]) -> None:
        parsed = [(self._parse(line), line.where) for line in lines]
        key = tuple(
            str(one.input_line) if self._conf.is_group(one.key_or_group) else one.key_or_group for one, _ in parsed
        )
        if key not in self._heeded:
            require_heeded(self._conf, parsed)
            self._heeded.add(key)

    def parse(self, line: Line) -> Override:
        """The parsed line; a mistake in its grammar, or its choice of a group, is a UserError that names its place."""
        return self._parse(line)

    def is_group(self, key: str) -> bool:
        """Whether `key` is a config group."""
        return self._conf.is_group(key)

    def _parse(self, line: Line) -> Override:
        if line.text not in self._parsed:
            (override,) = parse_overrides([line.text], line.where)
            require_choice(self._conf, override, line.where)
            self._parsed[line.text] = override
        return self._parsed[line.text]

    def _data(self, lines: Sequence[Line], values: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The resolved config as plain data, and the files of its groups."""
        overrides = [self._parse(line) for line in lines]
        kinds = [self._kind(override) for override in overrides]
        others = [override.key_or_group for override, kind in zip(overrides, kinds, strict=True) if kind == "other"]
        settings = {
            override.key_or_group: override.value()
            for override, kind in zip(overrides, kinds, strict=True)
            if kind == "plain"
        }
        composed = [override for override, kind in zip(overrides, kinds, strict=True) if kind != "plain"]
        # Hydra sets values after it has chosen groups, in the order they are written.
        if any(_related(key, other) for key in settings for other in others):
            composed, settings = overrides, {}
        made = self._make(composed)
        if not all(made.template.takes(key, value) for key, value in settings.items()):
            made, settings = self._make(overrides), {}
        return made.template.with_values({**made.values, **settings, **values}), made.files

    def _kind(self, override: Override) -> Literal["group", "plain", "other"]:
        """Whether an override chooses a group's file, sets one scalar, or does anything else."""
        value = override.value()
        if not isinstance(value, dict) and self._conf.is_group(override.key_or_group):
            return "group"
        is_scalar = value is None or isinstance(value, bool | int | float | str)
        is_change = override.type is OverrideType.CHANGE and override.package is None
        return "plain" if is_scalar and is_change else "other"

    def _make(self, overrides: Sequence[Override]) -> _Made:
        key = _lines(overrides)
        if key not in self._made:
            self._made[key] = self._exchanged(overrides) or self._composed(overrides)
        return self._made[key]

    def _composed(self, overrides: Sequence[Override]) -> _Made:
        composed = self._conf.compose(overrides)
        template = template_of(composed)
        chosen = self._chosen(overrides)
        if chosen is not None:
            kin = _lines([override for override in overrides if not self._conf.is_light(override)])
            self._kin.setdefault(kin, _Kin(template, leaves_of(chosen.data)))
        return _Made(template, {}, composed.files)

    def _exchanged(self, overrides: Sequence[Override]) -> _Made | None:
        """The template of other choices of files, if all that these change is the value of some leaves."""
        others = [override for override in overrides if not self._conf.is_light(override)]
        kin, chosen = self._kin.get(_lines(others)), self._chosen(overrides)
        if kin is None or chosen is None:
            return None
        leaves = leaves_of(chosen.data)
        if list(leaves) != list(kin.leaves):
            return None
        changed = {key: value for key, value in leaves.items() if json.dumps(value) != json.dumps(kin.leaves[key])}
        set_anyway = [override.key_or_group for override in others if self._kind(override) != "group"]
        if any(_related(key, other) for key in changed for other in set_anyway):
            return None
        if not all(kin.template.takes(key, value) for key, value in changed.items()):
            return None
        return _Made(kin.template, changed, chosen.files)

    def _chosen(self, overrides: Sequence[Override]) -> Chosen | None:
        try:
            return self._conf.chosen(overrides)
        except composition_errors:
            return None

    def _blamed(self, lines: Sequence[Line], values: Mapping[str, Any]) -> str:
        """The place of the line that turns a config that composes into one that does not."""
        for count in range(len(lines) - 1, -1, -1):
            try:
                self._data(lines[:count], values)
            except composition_errors:
                continue
            return lines[count].where
        return CONF

    def _share(self, run: Run, data: Mapping[str, Any]) -> Run:
        """`run`, with the objects of earlier runs where they are equal, which makes comparing thousands cheap."""
        parts: dict[str, Any] = {
            name: self._one(name, data[name], getattr(run, name)) for name in data if isinstance(data[name], dict)
        }
        stages = {
            name: self._one("stage", data["curriculum"]["stages"][name], stage)
            for name, stage in run.curriculum.stages.items()
        }
        if parts["curriculum"] is run.curriculum:  # seen for the first time
            parts["curriculum"] = Curriculum(name=run.curriculum.name, stages=stages)
            self._shared["curriculum", json.dumps(data["curriculum"])] = parts["curriculum"]
        return run.model_copy(update=parts)

    def _one(self, kind: str, data: Any, made: Any) -> Any:
        return self._shared.setdefault((kind, json.dumps(data)), made)


def template_of(composed: Composed) -> Template:
    """A template of a composed run, in which only `trunk_seed` may be computed from the seed.

    Raises:
        UserError: for another key that is: arms are composed once, and their runs differ in their seeds alone.
    """
    template = Template(composed.config)
    others = [key for key in template.readers("seed") if key != "trunk_seed"]
    if others:
        where = origin_of(composed.files, [])(others[0])
        raise UserError(
            f"{where}: {others[0]}: reads ${{seed}}; only trunk_seed may differ between the seeds of an arm"
        )
    return template


def to_run(data: dict[str, Any], origin: Callable[[str], str]) -> Run:
    """Validate resolved plain data; `origin` says where a dotted key was set."""
    run = parse(Run, data, where=origin)
    try:
        check(run.evaluation)
        run = with_digest(run)
    except UserError as error:
        raise UserError(f"{origin(str(error).partition(':')[0])}: {error}") from None
    return run


def _lines(overrides: Sequence[Override]) -> tuple[str, ...]:
    return tuple(str(override.input_line) for override in overrides)


def _related(one: str, other: str) -> bool:
    return one == other or one.startswith(other + ".") or other.startswith(one + ".")


def origin_of(files: Mapping[str, str], written: Sequence[tuple[str, str]]) -> Callable[[str], str]:
    """A function from a dotted key to the place that set it.

    Args:
        files: package -> the file of the group that fills it.
        written: (key, place) of each override; one of a group only chooses a file.
    """
    own = [(name, place) for name, place in written if name not in files]

    def find(key: str) -> str:
        places = [place for name, place in own if _related(key, name)]
        if places:
            return places[-1]
        owners = [package for package in files if key == package or key.startswith(package + ".")]
        return files[max(owners, key=len)] if owners else CONF

    return find
