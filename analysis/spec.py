"""A table's specification: what it shows of which arms, said once, for every sweep and every format.

`analysis/specs/` has those of the paper's Tables 6 to 10; a file of one's own has the same keys. What a specification
leaves out is as the sweep file says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from analysis import published
from analysis.cells import View, is_at
from analysis.layout import Paper
from analysis.samples import Column, Grid
from davinci.config import Frozen, PositiveFloat, parse
from davinci.errors import UserError, nearest

FOLDER = Path(__file__).parent / "specs"


class Spec(Frozen):
    """What a table shows.

    Attributes:
        title: instead of one made from the sweep's name.
        layout: ``arms``, a row an arm and point; ``models``, a row a benchmark and average, a column an arm.
        arms: which, in the table's order.
        baseline: the arm that differences are taken to.
        rows: what groups the rows.
        points: which evaluated points; labels (``83.9B``) name some.
        columns: benchmarks, domains, Overall and held-out losses, in order; may differ by evaluation suite, as
            ``{suite: columns}``.
        groups: names over columns that stand side by side.
        average_last: score arms by the mean over that many evaluated points; needs `points: last`.
        equivalence: margin in points within which arms are declared to be as good.
        published: file of the paper's figures.
        paper: where they stand.
        decimals: of percentages.
    """

    title: str | None = None
    layout: Literal["arms", "models"] = "arms"
    arms: tuple[str, ...] = ()
    baseline: str | None = None
    rows: Literal["arm", "point"] | None = None
    points: Literal["all", "last"] | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    columns: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    groups: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    average_last: Annotated[int, Field(ge=1)] | None = None
    equivalence: PositiveFloat | None = None
    published: str | None = None
    paper: Paper = "below"
    decimals: Annotated[int, Field(ge=0, le=6)] = 1

    def columns_for(self, suite: str) -> tuple[str, ...]:
        """Names of the columns on that suite; empty for those that the sweep asks for."""
        return self.columns.get(suite, ()) if isinstance(self.columns, dict) else self.columns


def read_spec(name: str | None, given: Sequence[str] = ()) -> tuple[Spec, str]:
    """A specification and what to call it in messages.

    Args:
        name: of one in `FOLDER`, or the path of a YAML file; None for an empty one.
        given: ``key=value``, each instead of what the file says.

    Raises:
        UserError: no such file, text that is not YAML, or a wrong key or value.
    """
    data, where = ({}, "table") if name is None else _read(name)
    said = {}
    for text in given:
        key, _, value = text.partition("=")
        try:
            said[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            said[key] = value
    return parse(Spec, data | said, where=lambda key: "" if key.split(".")[0] in said else where), where


def _read(name: str) -> tuple[dict[str, Any], str]:
    path = Path(name) if Path(name).suffix in (".yaml", ".yml") else FOLDER / f"{name}.yaml"
    known = [file.stem for file in FOLDER.glob("*.yaml")]
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--spec {name}: there is none{nearest(name, known)}; or give a YAML file's path") from None
    except OSError as error:
        raise UserError(f"--spec {name}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"--spec {name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"--spec {name}: a mapping is expected, of keys such as arms, columns, baseline")
    return data, path.name if path.parent == FOLDER else str(path)


def view(spec: Spec, grid: Grid, where: str) -> View:
    """What the specification shows of a sweep.

    Raises:
        UserError: the sweep has no such arm or point.
    """
    plan = grid.sweep.plan
    own = View.of(plan)
    for key, labels in (("arms", spec.arms), ("baseline", [spec.baseline] if spec.baseline else [])):
        for label in labels:
            if label not in own.arms:
                raise UserError(f"{where}: {key}: sweep {plan.sweep!r} has no arm {label!r}{nearest(label, own.arms)}")
    points = own.points if spec.points is None else spec.points
    if not isinstance(points, str):
        for label in points:
            if not any(is_at(moment, label) for moment in grid.moments):
                names = [moment.name for moment in grid.moments]
                raise UserError(f"{where}: points: sweep {plan.sweep!r} has no {label!r}{nearest(label, names)}")
    average_last = own.average_last if spec.average_last is None else spec.average_last
    if average_last > 1 and points != "last":
        raise UserError(f"{where}: average_last: {average_last} points in one row; it needs points: last")
    return View(
        arms=spec.arms or own.arms,
        baseline=spec.baseline or own.baseline,
        rows=spec.rows or own.rows,
        points=points,
        average_last=average_last,
        equivalence=own.equivalence if spec.equivalence is None else spec.equivalence,
    )


def columns(spec: Spec, grid: Grid, where: str) -> list[Column]:
    """The table's columns on a sweep.

    Raises:
        UserError: the sweep's suite has no such benchmark, domain or average.
    """
    suite = next(arm.config.evaluation.suite for arm in grid.sweep.plan.arms if arm.is_baseline)
    wanted = spec.columns_for(suite)
    known = {column.name.lower(): column for column in reversed(grid.known_columns)}
    found = {}
    for name in wanted:
        if name.lower() not in known:
            names = [column.name for column in known.values()]
            raise UserError(
                f"{where}: columns: suite {suite} of sweep {grid.sweep.plan.sweep!r} has no {name!r}"
                + nearest(name, names)
            )
        found[name.lower()] = known[name.lower()]
    return list(found.values()) or grid.table_columns


def figures(spec: Spec, grid: Grid) -> published.Published | None:
    """The published figures that stand beside: the specification's, or those that the sweep file names."""
    paper = grid.sweep.plan.question.paper
    name = spec.published or (paper.published if paper else None)
    return published.read(name) if name and spec.paper != "none" else None


def spans(spec: Spec, names: Sequence[str], width: int) -> tuple[tuple[str, int], ...]:
    """The names over columns `names`, each of which is `width` wide; none where the specification has no groups."""
    if not spec.groups:
        return ()
    found: list[tuple[str, int]] = []
    for name in names:
        over = next((group for group, members in spec.groups.items() if name in members), "")
        if found and found[-1][0] == over:
            found[-1] = over, found[-1][1] + width
        else:
            found.append((over, width))
    return tuple(found)
