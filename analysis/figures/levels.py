"""Figure 3: the pool as a map, a row a source, a column a Darwin Level, filled where the sweep reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from analysis import published
from analysis.figures.look import INK, MUTED, RULE, plain, shortened
from analysis.figures.plot import Asked, Plot
from analysis.panels import COLOURS, Line
from davinci.config.pool import Level
from davinci.data.cards import PoolCard, read_card
from davinci.errors import UserError
from davinci.planning.wording import tokens as worded
from davinci.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS: tuple[str, ...] = get_args(Level)
DOMAINS = ("general", "code", "science", "qa")
ROW, WIDTH = 0.2, 8.4  # inches of a row and of the map
NAME_LETTERS, NAME_LETTER = 42, 0.066  # of a name, and inches of a letter


@dataclass(frozen=True)
class Place:
    """A source at a level: its size in tokens, where known, and the arms that read it; `read` says whether any does."""

    source: str
    domain: str
    level: str
    tokens: float | None
    read: bool
    arms: tuple[str, ...] = ()


@dataclass(frozen=True)
class LevelMap:
    """What stands in the grid; a dot is filled where the sweep reads the source at that level."""

    title: str
    places: tuple[Place, ...]
    arms: int
    lines: tuple[Line, ...] = ()

    @property
    def sources(self) -> list[tuple[str, str]]:
        """(domain, source), by domain in the pool's order."""
        found = dict.fromkeys((place.domain, place.source) for place in self.places)
        return sorted(found, key=lambda one: _order(one[0]))

    def draw(self, axes: Axes) -> None:
        """Draw it, names left of the axes, in the room these have."""
        names = [shortened(source, NAME_LETTERS) for _, source in self.sources]
        box, inches = axes.get_position(), axes.get_figure(root=True).get_size_inches()  # type: ignore[union-attr]
        shift = max(0.0, NAME_LETTER * max(map(len, names)) - 0.5) / inches[0]
        axes.set_position((box.x0 + shift, box.y0, box.width - shift, box.height))
        rows = {name: index for index, name in enumerate(self.sources)}
        colours = {domain: COLOURS[index % len(COLOURS)] for index, domain in enumerate(_domains(self.places))}
        largest = max((place.tokens or 0 for place in self.places), default=0) or 1
        for index, (domain, _) in enumerate(rows):
            if index and domain != list(rows)[index - 1][0]:
                axes.axhline(index - 0.5, color="#9aa3ab", linewidth=0.8)
            else:
                axes.axhline(index - 0.5, color=RULE, linewidth=0.6)
        for place in self.places:
            y, x = rows[place.domain, place.source], LEVELS.index(place.level)
            colour = colours[place.domain]
            size = 3.0 + 7.5 * ((place.tokens or 0) / largest) ** 0.5
            fill = colour if place.read else "white"
            look: dict[str, Any] = {"marker": "o", "markersize": size, "markerfacecolor": fill, "linestyle": "none"}
            axes.plot([x - 0.3], [y], markeredgecolor=colour, markeredgewidth=0.9, zorder=3, **look)
            said = worded(place.tokens) if place.tokens else ""
            some = 0 < len(place.arms) < self.arms
            if some:
                said += f" · {len(place.arms)}/{self.arms}"
            axes.annotate(
                said, (x - 0.3, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=6 if some else 7,
                color=INK if place.read else MUTED,
            )  # fmt: skip
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(-0.6, len(LEVELS) - 0.4)
        axes.set_yticks(range(len(rows)), [plain(name) for name in names])
        axes.set_xticks(range(len(LEVELS)), LEVELS)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, labelsize=8, labelcolor=INK)
        axes.tick_params(axis="x", pad=0.5, labelsize=7.5)
        for domain in colours:
            first = next(index for index, (one, _) in enumerate(rows) if one == domain)
            axes.annotate(
                plain(domain), (1.0, first), xycoords=("axes fraction", "data"), xytext=(-3, 0), va="center",
                textcoords="offset points", fontsize=8, fontweight="bold", color=colours[domain], ha="right",
            )  # fmt: skip
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The map as data."""
        return [
            {
                "panel": self.title,
                "source_name": place.source,
                "domain": place.domain,
                "level": place.level,
                "tokens": place.tokens,
                "read": place.read,
                "arms": place.arms,
            }
            for place in self.places
        ]


def figure_3(asked: Asked) -> Plot:
    """The sources of the sweep's pools by level, those it reads filled."""
    maps = [_measured(asked)]
    if asked.options.paper in ("side", "overlay") and maps[0].title != PAPER_POOL:
        maps.append(_published())
    return _plot(maps, _note(len(asked.arms)))


def published_3() -> Plot:
    """The paper's pool alone."""
    return _plot([_published()], _note(0))


PAPER_POOL = "davinci"


def _plot(maps: Sequence[LevelMap], note: str) -> Plot:
    heights = tuple(1.1 + ROW * len(one.sources) for one in maps)
    rows = tuple(row for one in maps for row in one.rows)
    return Plot("3", tuple(maps), columns=1, notes=(note,), size=(WIDTH, 1.0), heights=heights, rows=rows)


def _note(arms: int) -> str:
    said = (
        "Filled: read by the sweep; hollow: in the pool, and not read. " if arms else "Filled: drawn on by the paper. "
    )
    return (
        said
        + "Numbers: tokens of the source at that level, and 1/3 where one of three arms reads it; dots grow with them."
    )


def _measured(asked: Asked) -> LevelMap:
    plan = asked.sweep.plan
    arms = [arm for arm in plan.arms if arm.label in asked.arms]
    reads: dict[tuple[str, str, str], dict[str, None]] = {}
    for run in plan.runs:
        if run.arm in asked.arms:
            for node in run.nodes:
                for name, use in plan.nodes[node].sources.items():
                    reads.setdefault((name, use.domain, use.depth), {})[run.arm] = None
    found: dict[tuple[str, str, str], Place] = {}
    for arm in arms:
        pool = arm.config.pool
        card = _card(asked.sweep.store, pool.name)
        for name, source in pool.sources.items():
            for level in source.depths:
                key = (name, source.domain, level)
                by = tuple(reads.pop(key, {})) or (found[key].arms if key in found else ())
                found[key] = Place(*key, _size(card, name, level, source.tokens), bool(by), by)
    for (name, domain, level), by in reads.items():  # of a pool that has changed since
        found[name, domain, level] = Place(name, domain, level, None, True, tuple(by))
    if not found:
        raise asked.lacks("has a pool without sources")
    pools = dict.fromkeys(arm.config.pool.name for arm in arms)
    return LevelMap(f"Pool {', '.join(pools)}", tuple(found.values()), len(arms))


def _card(store: Store, pool: str) -> PoolCard | None:
    """What the pool holds, where it is built in the store."""
    try:
        return read_card(store, pool)
    except UserError:
        return None


def _size(card: PoolCard | None, source: str, level: str, stated: int | None) -> float | None:
    if card is not None and source in card.sources and level in card.sources[source].variants:
        return float(card.sources[source].variants[level].tokens)
    return None if stated is None else float(stated)


def _published() -> LevelMap:
    places = []
    for row in published.rows("data_pool"):
        read = any(row[stage] == "1" for stage in row if stage.startswith("stage_"))
        size = 1e9 * float(row["pool_tokens_b"])
        places.append(Place(row["source"], row["domain"], row["darwin_level"], size, read))
    return LevelMap(f"The paper's pool, published ({published.SOURCE})", tuple(places), 0)


def _domains(places: Sequence[Place]) -> list[str]:
    return sorted(dict.fromkeys(place.domain for place in places), key=_order)


def _order(domain: str) -> tuple[int, str]:
    return (DOMAINS.index(domain) if domain in DOMAINS else len(DOMAINS), domain)
