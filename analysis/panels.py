"""What the figures show, as plain data: an arm a line, its seeds a band, the stages they share in grey."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison import Comparison
from analysis.load import Curves, Sweep
from analysis.samples import DOMAINS, Grid
from analysis.units import PERCENT, unit
from davinci.planning.identity import human_tokens

# Okabe & Ito 2008, Color Universal Design: told apart by all common forms of colour blindness. Yellow is left out and
# those of less than 3:1 on white come last; they are drawn on a dark edge.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
LIGHT_COLOURS = COLOURS[5:]
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
SHARED_COLOUR = "#8a929a"
SHARED_LABEL = "shared by all arms"
# A training curve is averaged over this share of its rows.
SMOOTHING = 0.02
# What is drawn of routers (docs/instruments.md), and of how many layers, evenly spread.
ROUTING = {"load_max": ("Busiest expert", "load over an even one"), "entropy": ("Entropy of choices", "1: even")}
ROUTED_LAYERS = 6


@dataclass(frozen=True)
class Line:
    """One curve: `x` in the panel's unit, most often tokens since initialisation; `low` and `high` are the lowest and
    highest seed.

    Attributes:
        half: half of the 95% interval of each point, NaN where none is known; drawn where `whiskers`.
        tag: what is written at the line's end, such as its gain.
        name: of the line in the data, where `label` stands for several.
        published: not measured here: dashed, its markers hollow.
        faint: context: thin and light, and not in the legend.
        joined: whether its points are joined.
        values: what else the data says of the whole line (its gain, run ids).
    """

    label: str
    colour: str
    marker: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    half: np.ndarray | None = None
    whiskers: bool = False
    tag: str = ""
    name: str = ""
    published: bool = False
    faint: bool = False
    joined: bool = True
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """One plot. `boundaries` are stage starts (tokens, stage); `ticks` overrides the x axis; `guide` is (y, label);
    `spikes` are (tokens, colour) of steps to be marked; `levels` are (y, colour) of dotted lines, the height that lines
    started at; `categories`: the ticks are names, with room for points beside each other."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    boundaries: tuple[tuple[int, str], ...]
    ticks: tuple[tuple[float, str], ...] = ()
    guide: tuple[float, str] | None = None
    spikes: tuple[tuple[float, str], ...] = ()
    levels: tuple[tuple[float, str], ...] = ()
    categories: bool = False


def styles(sweep: Sweep) -> dict[str, tuple[str, str]]:
    """Colour and marker of each arm."""
    found = {}
    for index, arm in enumerate(sweep.plan.arms):
        turn, colour = divmod(index, len(COLOURS))  # from the eighth arm on colours return with another marker
        found[arm.label] = COLOURS[colour], MARKERS[(index + turn) % len(MARKERS)]
    return found


def score_panels(grid: Grid, comparison: Comparison) -> list[Panel]:
    """A panel a column: score in percent over tokens. Every arm's line starts at the last point all arms share."""
    shared = [moment for moment in grid.moments if moment.shared]
    own = [moment for moment in grid.moments if not moment.shared]
    stages = {moment.stage: moment.tokens - moment.stage_tokens for moment in own}
    ticks = [(moment.tokens, moment.label) for moment in own]
    if shared:
        ticks.insert(0, (shared[-1].tokens, "0" if shared[-1].tokens in stages.values() else shared[-1].label))
    x_label = f"tokens into {', '.join(stages)}" if stages else "tokens"
    panels = []
    for column in comparison.columns:
        lines, of = [], unit(column.name)
        for arm, (colour, marker) in styles(grid.sweep).items():
            moments = [(None, moment) for moment in shared[-1:]] + [(arm, moment) for moment in own]
            keys = [(who, moment.tokens, column.name) for who, moment in moments]
            cells = [comparison.cells[key] for key in keys if key in comparison.cells]
            points = [(cell.moment.tokens, list(cell.by_seed.values())) for cell in cells if cell.by_seed]
            if any(tokens > (shared[-1].tokens if shared else -1) for tokens, _ in points):
                lines.append(_line(arm, colour, marker, points, of.scale))
        if shared:
            points = [
                (moment.tokens, list(comparison.cells[None, moment.tokens, column.name].by_seed.values()))
                for moment in shared
            ]
            lines.append(_line(SHARED_LABEL, SHARED_COLOUR, "o", [one for one in points if one[1]], of.scale))
        chances = [one for one in set(comparison.chance[column.name].values()) if one is not None]
        panels.append(
            Panel(
                title=column.name,
                x_label=x_label,
                y_label="score, %" if of is PERCENT else of.name,
                lines=tuple(line for line in lines if line.x.size),
                boundaries=boundaries(grid.sweep, ticks[0][0]),
                ticks=tuple(ticks) if len(ticks) <= 6 else (),
                guide=(100 * chances[0], "chance") if len(chances) == 1 else None,
            )
        )
    return panels


def loss_panels(sweep: Sweep) -> list[Panel]:
    """Training loss over the whole run and over the stages the arms do not share; held-out bits per byte by domain."""
    fork = fork_of(sweep)
    training = _training_lines(sweep, sweep.train, "loss")
    panels = []
    if training and fork:
        panels.append(_panel(sweep, "Training loss, whole run", "nats per token", training, 0, _spikes(sweep, 0)))
    if training:
        title = "Training loss, where arms differ" if fork else "Training loss"
        own = [_after(line, fork) for line in training]
        panels.append(_panel(sweep, title, "nats per token", own, fork, _spikes(sweep, fork)))
    for domain in sorted(set(sweep.heldout["domain"].dropna()), key=_domain_order):
        for averaged, title in ((False, f"Held-out {domain}"), (True, f"Held-out {domain}, averaged weights")):
            lines = _heldout_lines(sweep, domain, averaged)
            if lines or not averaged:
                panels.append(_panel(sweep, title, "bits per byte", [_after(one, fork) for one in lines], fork))
    return panels


def routing_panels(sweep: Sweep) -> list[Panel]:
    """What `ROUTING` names, layer by layer, over the whole run; none where no run has experts."""
    recorded = sweep.recorded.nodes
    names = {name for found in recorded.values() for name in found.names if name.startswith("train/router/load_max/")}
    layers = sorted(int(name.rsplit("/", 1)[1]) for name in names)
    if len(layers) > ROUTED_LAYERS:
        layers = [layers[at] for at in np.linspace(0, len(layers) - 1, ROUTED_LAYERS).round().astype(int)]
    panels = []
    for statistic, (title, y_label) in ROUTING.items():
        for layer in layers:
            metric = f"router/{statistic}/{layer}"
            lines = _training_lines(sweep, Curves(recorded, metric), metric)
            panels.append(_panel(sweep, f"{title}, layer {layer}", y_label, lines, 0))
    return panels


def _domain_order(domain: str) -> tuple[int, str]:
    """The order of the table's columns, then the domains that no benchmark has."""
    return (DOMAINS.index(domain) if domain in DOMAINS else len(DOMAINS), domain)


def _panel(
    sweep: Sweep,
    title: str,
    y_label: str,
    lines: Iterable[Line],
    begin: int,
    spikes: Iterable[tuple[float, str]] = (),
) -> Panel:
    kept = tuple(line for line in lines if line.x.size)
    return Panel(title, "tokens since initialisation", y_label, kept, boundaries(sweep, begin), spikes=tuple(spikes))


def _line(label: str, colour: str, marker: str, points: Sequence[tuple[int, list[float]]], scale: float) -> Line:
    values = [(tokens, scale * np.array(seeds)) for tokens, seeds in points]
    return Line(
        label=label,
        colour=colour,
        marker=marker,
        x=np.array([tokens for tokens, _ in values], float),
        mean=np.array([np.mean(seeds) for _, seeds in values]),
        low=np.array([min(seeds) for _, seeds in values]),
        high=np.array([max(seeds) for _, seeds in values]),
    )


def _after(line: Line, begin: int) -> Line:
    keep = line.x >= begin
    return replace(line, x=line.x[keep], mean=line.mean[keep], low=line.low[keep], high=line.high[keep])


def boundaries(sweep: Sweep, begin: int) -> tuple[tuple[int, str], ...]:
    """Where stages start at or after `begin`; a run's very start is no boundary.

    By the arms' curricula: nodes are also cut inside a stage, and one node may be part of stages of different names.
    """
    starts: dict[int, list[str]] = {}
    for arm in sweep.plan.arms:
        position = 0
        for name, stage in arm.config.curriculum.stages.items():
            names = starts.setdefault(position, [])
            if name not in names:
                names.append(name)
            position += stage.grid.tokens_used
    return tuple((tokens, ", ".join(starts[tokens])) for tokens in sorted(starts) if tokens >= begin and tokens > 0)


def _owners(sweep: Sweep) -> dict[str, set[str]]:
    """The arms each node belongs to."""
    arms: dict[str, set[str]] = defaultdict(set)
    for run in sweep.plan.runs:
        for node in run.nodes:
            arms[node].add(run.arm)
    return arms


def fork_of(sweep: Sweep) -> int:
    """Tokens up to which all arms are one; 0 where they differ from the start, are one to the end, or there is one."""
    if len(sweep.plan.arms) == 1:
        return 0
    owners = _owners(sweep)
    shared = [sweep.plan.nodes[node].end for node, arms in owners.items() if len(arms) == len(sweep.plan.arms)]
    fork = max(shared, default=0)
    return fork if fork < max(node.end for node in sweep.plan.nodes.values()) else 0


def grouped(sweep: Sweep) -> list[tuple[str, str, str, list[str]]]:
    """``(label, colour, marker, nodes)`` of the shared stretch and of each arm's own."""
    owners = _owners(sweep)
    many = len(sweep.plan.arms)
    shared = [node for node, arms in owners.items() if len(arms) == many > 1]
    groups = [(SHARED_LABEL, SHARED_COLOUR, "o", shared)] if shared else []
    for arm, (colour, marker) in styles(sweep).items():
        own = [node for node, arms in owners.items() if arm in arms and node not in shared]
        groups.append((arm, colour, marker, own))
    return groups


def _spikes(sweep: Sweep, begin: int) -> list[tuple[float, str]]:
    """Tokens and colour of each step from `begin` on whose loss or gradient norm was a spike."""
    return [
        (float(tokens), colour)
        for _, colour, _, nodes in grouped(sweep)
        for node in nodes
        for tokens in sweep.spikes.get(node, ())
        if tokens >= begin
    ]


def _training_lines(sweep: Sweep, curves: Mapping[str, pd.DataFrame], metric: str) -> list[Line]:
    lines = []
    for label, colour, _, nodes in grouped(sweep):
        frames = [curves[node].dropna() for node in nodes if node in curves]
        if not frames or not (rows := pd.concat(frames)).size:
            continue
        by_tokens = rows.groupby("tokens")[metric].agg(["mean", "min", "max"])
        window = max(1, round(SMOOTHING * len(by_tokens)))
        by_tokens = by_tokens.rolling(window, min_periods=1, center=True).mean()
        values = by_tokens.to_numpy().T
        lines.append(Line(label, colour, "", by_tokens.index.to_numpy(float), *values))
    return lines


def _heldout_lines(sweep: Sweep, domain: str, averaged: bool) -> list[Line]:
    rows = sweep.heldout[(sweep.heldout["domain"] == domain) & sweep.heldout["bits_per_byte"].notna()]
    rows = rows[rows["averaged"] == averaged]
    points: dict[str, list[tuple[int, list[float]]]] = {}
    lines = []
    for label, colour, marker, nodes in grouped(sweep):
        own = rows[rows["node"].isin(nodes)]
        by_tokens: dict[int, list[float]] = defaultdict(list)
        for row in own.to_dict("records"):
            by_tokens[row["tokens"]].append(row["bits_per_byte"])
        points[label] = sorted(by_tokens.items())
        if label != SHARED_LABEL and points[label]:
            lines.append(_line(label, colour, marker, points.get(SHARED_LABEL, [])[-1:] + points[label], 1.0))
    if points.get(SHARED_LABEL):
        lines.append(_line(SHARED_LABEL, SHARED_COLOUR, "o", points[SHARED_LABEL], 1.0))
    return lines


def token_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Three or four round token counts between `low` and `high`, with their names."""
    span = max(high - low, 1.0)
    unit = 10 ** np.floor(np.log10(span / 3))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if span / (unit * factor) <= 4)
    first = np.ceil(low / step) * step
    return [(float(x), human_tokens(round(x)) if x else "0") for x in np.arange(first, high + step * 1e-6, step)]
