"""Sweeps, from a file or from the command line alone, expanded to their composed arms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from davinci.composition.arms import Axis, Setting, axes_of, exclude, find, packages_of, settings
from davinci.composition.compose import Composer, Line
from davinci.composition.conf import STEERING, Conf
from davinci.composition.given import COMMAND_LINE, PLACEMENT, Given, read_arguments
from davinci.composition.grammar import covers, package_of, written
from davinci.composition.sweep_file import SuiteFile, SweepFile, read_sweep_file
from davinci.config import Run
from davinci.errors import UserError, nearest
from davinci.planning.differences import differences, leaves
from davinci.planning.sweep import Arm, Question, Sweep

# What a sweep file says in words of its own.
_LABELS = {
    "sweep": "the file's name",
    "arm": "arms",
    "seed": "seeds",
    "trunk_seed": "seeds",
    "seeds_from": "seeds_from",
    "replicate": "aa",
}
# What tells two runs apart that are trained and scored alike.
_WHO = frozenset({"sweep", "arm", "seed", "trunk_seed", "replicate"})


@dataclass(frozen=True)
class Expanded:
    """What the arguments of ``launch.py -m`` describe: one sweep, or those of the suite of that name and question."""

    sweeps: tuple[Sweep, ...]
    suite: str | None = None
    question: Question | None = None


def expand(arguments: Sequence[str], conf: Conf, folder: Path) -> Expanded:
    """Expand the arguments of ``launch.py -m``.

    Args:
        arguments: Hydra overrides; ``sweep=NAME`` names a file of `folder`, without it the swept keys are the factor.
        conf: conf/.
        folder: the sweeps folder.

    Raises:
        UserError: for any mistake in the arguments, the file or what they compose to.
    """
    given = read_arguments(arguments, conf)
    composer = Composer(conf)
    if given.sweep is None:
        return Expanded((_ad_hoc(given, composer),))
    file = read_sweep_file(folder, given.sweep)
    if isinstance(file, SweepFile):
        return Expanded((_FileSweep(file, f"{folder.name}/{given.sweep}.yaml", given, composer, conf).sweep(),))
    sweeps = [
        _FileSweep(study, f"{folder.name}/{name}.yaml", replace(given, sweep=name), composer, conf).sweep()
        for name, study in _studies(file, given.sweep, folder)
    ]
    return Expanded(tuple(sweeps), given.sweep, Question(text=file.question))


def _studies(suite: SuiteFile, name: str, folder: Path) -> Iterable[tuple[str, SweepFile]]:
    for study in suite.suite:
        try:
            file = read_sweep_file(folder, study)
        except UserError as error:
            raise UserError(f"{folder.name}/{name}.yaml: suite: {error}") from None
        if not isinstance(file, SweepFile):
            raise UserError(f"{folder.name}/{name}.yaml: suite: {study} is a suite itself; name its sweeps")
        yield study, file


def _ad_hoc(given: Given, composer: Composer) -> Sweep:
    """Every swept key but `seed` is the factor, every combination of their values an arm, the first the baseline."""
    try:
        among = settings({}, (), given.axes, COMMAND_LINE)
    except ValueError as error:
        raise UserError(f"{COMMAND_LINE}: {error}") from None
    name = f"adhoc-{given.digest}"
    arms: list[Arm] = []
    seeds = given.seeds
    for setting in among:
        lines = [Line(text, COMMAND_LINE) for text in (*given.fixed, *setting.extra)]
        seeds = seeds or (composer.run(lines, sweep=name).seed,)
        config = composer.run(lines, sweep=name, arm=setting.label, seed=seeds[0])
        arms.append(Arm(label=setting.label, overrides=setting.extra, is_baseline=not arms, config=config))
    try:
        _refuse_equal(arms)
    except ValueError as error:
        raise UserError(f"{COMMAND_LINE}: {error}") from None
    swept = [axis.keys[0] for axis in given.axes]
    factor = packages_of(swept, COMMAND_LINE)
    return Sweep(
        name=name,
        question=Question(text=f"What changes with {', '.join(swept)}?" if swept else "One setting, no factor."),
        arms=tuple(arms),
        seeds=seeds or (),
        factor=factor,
        derived={arm.label: _derived(arms[0].config, arm.config, factor) for arm in arms[1:]},
    )


class _FileSweep:
    """A sweep file and what the command line says on top of it.

    Args:
        file: the file.
        where: its name, for errors.
        given: the command line.
        composer: composes arms.
        conf: conf/.
    """

    def __init__(self, file: SweepFile, where: str, given: Given, composer: Composer, conf: Conf) -> None:
        self._file, self._where, self._given, self._composer, self._conf = file, where, given, composer, conf
        self._name = given.sweep or ""
        self._seeds = given.seeds or file.seeds
        self._swept = [axis.keys[0] for axis in given.axes]

    def sweep(self) -> Sweep:
        """The sweep; a UserError names the file (or the command line) and the key."""
        try:
            return self._sweep()
        except ValueError as error:
            raise UserError(f"{self._where}: {error}") from None

    def _sweep(self) -> Sweep:
        file = self._file
        self._check_lines()
        among = self._settings()
        baseline = find(file.baseline, among, "baseline") if file.baseline else among[0]
        stated = find(file.hypothesis.arm, among, "hypothesis.arm") if file.hypothesis else None
        if stated is baseline:
            raise ValueError(f"hypothesis.arm: {baseline.label} is the baseline; name the arm that differs from it")
        arms = [self._arm(setting, setting is baseline) for setting in among]
        self._check_scales(arms)
        if file.aa:
            arms = _replicated(arms)
        else:
            _refuse_equal(arms)
        base = next(arm.config for arm in arms if arm.is_baseline)
        factor = self._factor(arms)
        derived = {
            arm.label: _derived(base, arm.config, factor, self._counterfactual(baseline, setting, factor))
            for setting, arm in zip(among, arms, strict=True)
            if not arm.is_baseline
        }
        return Sweep(
            name=self._name,
            question=file.words(base.evaluation.suite, [arm.config for arm in arms], stated.label if stated else None),
            arms=tuple(arms),
            seeds=self._seeds,
            factor=factor,
            derived=derived,
            held_fixed=() if self._swept else file.held_fixed,
            match=file.match,
            placed=frozenset(
                self._composer.parse(Line(text, self._where)).key_or_group
                for lines in file.resources.values()
                for text in lines
            ),
            noise=file.noise,
            difference=file.difference,
        )

    def _check_lines(self) -> None:
        """Refuse overrides that would be ignored: labels anywhere, and in an arm what holds for the whole launch."""
        places: dict[str, Sequence[str]] = {"common": self._file.common}
        places |= {f"arms.{label}": lines for label, lines in self._file.arms.items()}
        for axis, values_of in (("grid", self._file.grid), ("zip", self._file.zip)):
            places[axis] = [f"{key}={written(value)}" for key, values in values_of.items() for value in values]
        for place, lines in places.items():
            for text in lines:
                override = self._composer.parse(Line(text, f"{self._where}: {place}"))
                key = override.key_or_group
                group = key.partition(".")[0]
                if group in _LABELS:
                    raise ValueError(f"{place}: {key} cannot be overridden in a sweep file; see {_LABELS[group]}")
                if group in (*PLACEMENT, *STEERING):
                    per_arm = " (a cluster key of one arm: under resources)" if group == "cluster" else ""
                    raise ValueError(f"{place}: {key} belongs on the command line{per_arm}")
                if override.is_sweep_override():
                    raise ValueError(f"{place}: {text} is swept; write its values as an axis, under grid")
        for name, lines in self._file.resources.items():
            for text in lines:
                key = self._composer.parse(Line(text, f"{self._where}: resources.{name}")).key_or_group
                if not key.startswith("cluster."):
                    raise ValueError(f"resources.{name}: {key} is no key of the cluster; cluster.gpus=8 is one")

    def _settings(self) -> list[Setting]:
        """The arms to compose. Names in the file are checked against the file's own arms, whatever is on top."""
        file, axes = self._file, axes_of(self._file)
        own = exclude(file.exclude, settings(file.arms, axes, (), self._where))
        for what, name in (
            ("baseline", file.baseline),
            ("hypothesis.arm", file.hypothesis.arm if file.hypothesis else None),
            *(("resources", name) for name in file.resources),
        ):
            if name is not None:
                find(name, own, what)
        for key in packages_of(file.zip, self._where):
            if key in self._given.packages:
                raise UserError(
                    f"{COMMAND_LINE}: {key} is an axis of {self._where} (zip); change it there or in a copy"
                )
        kept = [axis for axis in axes if not self._replaces(axis)]
        if len(kept) == len(axes) and not self._given.axes:
            return own
        if not file.arms and not kept and not self._given.axes:
            raise UserError(f"{COMMAND_LINE}: leaves {self._where} no axis to sweep")
        return exclude(file.exclude, settings(file.arms, kept, self._given.axes, self._where), must_match=False)

    def _replaces(self, axis: Axis) -> bool:
        """Whether the command line sets the key of `axis`: it then takes its place, as it does in Hydra."""
        return not self._given.packages.isdisjoint(packages_of(axis.keys, self._where))

    def _factor(self, arms: Sequence[Arm]) -> tuple[str, ...]:
        replaced = {key for axis in axes_of(self._file) if self._replaces(axis) for key in packages_of(axis.keys, "")}
        own = [key for key in self._file.factor if key not in replaced]
        for key in own:
            dotted = key.replace("[", ".").replace("]", "")  # as an item of a list is keyed in a config
            if not any(covers(dotted, leaf) for arm in arms for leaf, _ in leaves(arm.config)):
                known = {leaf[:end] for leaf, _ in leaves(arms[0].config) for end in _ends(leaf)}
                raise ValueError(f"factor: no config key {key!r}" + nearest(key, known))
        return tuple(dict.fromkeys([*own, *packages_of(self._swept, COMMAND_LINE)]))

    def _arm(self, setting: Setting, is_baseline: bool) -> Arm:
        lines = self._lines(setting)
        values = {"sweep": self._name, "arm": setting.label, "seed": self._seeds[0]}
        config = self._composer.run(lines, **values)
        if isinstance(self._file.seeds_from, dict) and "seeds_from" not in self._given.packages:
            stage = self._file.seeds_from.get(config.scale.name)
            if stage is not None:
                lines = [*lines, Line(f"seeds_from={stage}", self._where)]
                config = self._composer.run(lines, **values)
        overrides = (*(text for _, text in setting.lines), *self._resources(setting), *setting.extra)
        return Arm(label=setting.label, overrides=overrides, is_baseline=is_baseline, config=config)

    def _lines(self, setting: Setting, mixed_with: Setting | None = None, factor: Sequence[str] = ()) -> list[Line]:
        """Override lines of an arm; `mixed_with` another, whose lines take the place of those of `factor` keys."""
        where = self._where
        chosen = [*setting.lines]
        extra = (mixed_with or setting).extra  # the command line's axes are in the factor
        if mixed_with is not None:
            chosen = [line for line in setting.lines if not self._is_in(factor, line)]
            chosen += [line for line in mixed_with.lines if self._is_in(factor, line)]
        lines = [Line(text, f"{where}: common") for text in self._file.common]
        if isinstance(self._file.seeds_from, str) and "seeds_from" not in self._given.packages:
            lines.append(Line(f"seeds_from={self._file.seeds_from}", where))
        lines += [Line(text, f"{where}: {place}") for place, text in chosen]
        lines += [Line(text, f"{where}: resources") for text in self._resources(setting)]
        return lines + [Line(text, COMMAND_LINE) for text in (*self._given.fixed, *extra)]

    def _is_in(self, factor: Sequence[str], line: tuple[str, str]) -> bool:
        key = package_of(self._composer.parse(Line(line[1], self._where)))
        return any(covers(name, key) for name in factor)

    def _resources(self, setting: Setting) -> list[str]:
        return [text for name, lines in self._file.resources.items() if name in setting.names for text in lines]

    def _counterfactual(self, baseline: Setting, setting: Setting, factor: Sequence[str]) -> Run | None:
        """The baseline arm with the factor keys of `setting`'s; None where that is the arm of `setting` itself."""
        lines = self._lines(baseline, setting, factor)
        if sorted(lines) == sorted(self._lines(setting, setting, factor)):
            return None
        return self._composer.run(lines, sweep=self._name, arm=setting.label, seed=self._seeds[0])

    def _check_scales(self, arms: Sequence[Arm]) -> None:
        if isinstance(self._file.seeds_from, dict):
            known = {*self._conf.get_group_options("scale"), *(arm.config.scale.name for arm in arms)}
            for name in self._file.seeds_from:
                if name not in known:
                    raise ValueError(f"seeds_from: no scale {name!r}" + nearest(name, known))


def _ends(key: str) -> list[int]:
    return [index for index, character in enumerate(key) if character == "."] + [len(key)]


def _derived(base: Run, arm: Run, factor: Sequence[str], counterfactual: Run | None = None) -> frozenset[str]:
    """Keys outside the factor in which `arm` differs from `base` because of the factor: the counterfactual (None: the
    arm itself) differs there too."""
    differing = differences(base, arm, _WHO)
    own = differences(counterfactual, arm, _WHO) if counterfactual else {}
    return frozenset(key for key in differing if key not in own and not any(covers(name, key) for name in factor))


def _same(arms: Sequence[Arm]) -> list[list[int]]:
    """Indices of the arms, those that are trained and scored alike together."""
    groups: dict[str, list[int]] = {}
    for index, arm in enumerate(arms):
        key = arm.config.model_dump_json(exclude={*_WHO, *PLACEMENT})
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _refuse_equal(arms: Sequence[Arm]) -> None:
    for group in _same(arms):
        if len(group) > 1:
            one, other = arms[group[0]].label, arms[group[1]].label
            raise ValueError(f"arms: {one!r} and {other!r} are equal; a comparison of equal arms says aa: true")


def _replicated(arms: Sequence[Arm]) -> list[Arm]:
    """The arms of an A/A comparison: those that are equal get random streams of their own."""
    numbers = {index: number for group in _same(arms) for number, index in enumerate(group)}
    if not any(numbers.values()):
        raise ValueError("aa: true, but no two arms are equal")
    return [
        arm.model_copy(update={"config": arm.config.model_copy(update={"replicate": numbers[index]})})
        for index, arm in enumerate(arms)
    ]
