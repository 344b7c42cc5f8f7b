"""Everything about one sweep, computed once, and written as files: tables, figures, one self-contained page."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from analysis import figures, layout, panels, published, tables
from analysis.comparison import AboveChance, Cell, Comparison, Verdict, above_chance, compare, judge
from analysis.load import Sweep, load
from analysis.samples import Grid, Moment
from analysis.tables import Table
from davinci.accounting.accelerators import peak_flops
from davinci.planning.identity import human_tokens
from davinci.store import Store, write_text

PACKAGES = ("davinci", "torch", "lm_eval", "numpy", "scipy", "pandas", "matplotlib")


@dataclass(frozen=True)
class Findings:
    """What the sweep's records say."""

    sweep: Sweep
    grid: Grid
    domains: Comparison
    benchmarks: Comparison
    table: Table
    benchmark_table: Table
    chance_table: Table
    verdict: Verdict | None
    chance: tuple[AboveChance, ...]


def study(store: Store, name: str) -> Findings:
    """Load the sweep's records and compute every table.

    Raises:
        UserError: no such sweep, or its plan names published figures that this project does not carry.
    """
    sweep = load(store, name)
    grid = Grid(sweep)
    paper = sweep.plan.question.paper
    domains = compare(grid, grid.domain_columns, published.read(paper.published) if paper and paper.published else None)
    benchmarks = compare(grid, grid.benchmark_columns)
    chance = above_chance(grid)
    return Findings(
        sweep=sweep,
        grid=grid,
        domains=domains,
        benchmarks=benchmarks,
        table=layout.paper_table(sweep, domains),
        benchmark_table=layout.paper_table(sweep, benchmarks),
        chance_table=layout.chance_table(chance, grid.moments[-1].name),
        verdict=judge(grid, domains, benchmarks),
        chance=tuple(chance),
    )


def write(found: Findings, folder: Path) -> list[Path]:
    """Write every file of the report into `folder` and return their paths, the page first."""
    texts = {
        "report.html": page(found),
        "table.md": tables.render_markdown(found.table),
        "table.tex": tables.render_latex(found.table),
        "table.csv": tables.render_csv(found.table.data),
        "table.json": tables.render_json(found.table),
        "benchmarks.md": tables.render_markdown(found.chance_table)
        + "\n"
        + tables.render_markdown(found.benchmark_table),
        "scores.csv": tables.render_csv([row._asdict() for row in found.grid.all_rows]),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    drawn = figures.save(panels.score_panels(found.grid, found.domains), folder / "figure", columns=2)
    drawn += figures.save(panels.loss_panels(found.sweep), folder / "loss", columns=2)
    return [folder / name for name in texts] + drawn


def verdict_text(found: Findings) -> str | None:
    """``supported: GSM8K, QA-70% − QA-30% at 419B is +3.1 ± 1.2``; None where no hypothesis is stated."""
    hypothesis, verdict = found.sweep.plan.question.hypothesis, found.verdict
    if hypothesis is None or verdict is None:
        return None
    if verdict.difference is None:
        return verdict.text
    difference = layout.interval_text(verdict.difference, signed=True)
    last = found.grid.moments[-1].name
    subject = f"{hypothesis.metric}, {hypothesis.arm} {tables.MINUS} {found.domains.baseline} at {last}"
    seeds = verdict.difference.seeds
    so_far = f" (so far: {seeds} of {len(found.sweep.plan.seeds)} seeds)" if seeds < len(found.sweep.plan.seeds) else ""
    return f"{verdict.text}: {subject} is {difference}{so_far}"


def page(found: Findings) -> str:
    """The report as one HTML page that loads nothing from outside."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(tokens=human_tokens, percent=tables.percent)
    plan = found.sweep.plan
    score_panels = panels.score_panels(found.grid, found.domains)
    loss_panels = panels.loss_panels(found.sweep)

    def drawn(some: Sequence[panels.Panel], prefix: str) -> list[tuple[panels.Panel, Markup]]:
        # Markup: matplotlib escapes the text it is given.
        return [(panel, Markup(figures.svg(panel, f"{prefix}{index}"))) for index, panel in enumerate(some)]

    return environment.get_template("report.html").render(
        plan=plan,
        found=found,
        layout=layout,
        verdict=verdict_text(found),
        published_source=published.SOURCE,
        score_panels=drawn(score_panels, "score"),
        loss_panels=drawn(loss_panels, "loss"),
        legend=list({line.label: line for panel in score_panels + loss_panels for line in panel.lines}.values()),
        groups=_groups(found.domains),
        complete=_complete(found),
        provenance=[_provenance(found, arm, moment) for arm, moment in found.domains.rows],
        cost=_cost(found.sweep),
        epochs=_epochs(found.sweep),
        environment=_environment(),
    )


def _groups(comparison: Comparison) -> list[tuple[str, list[tuple[int, Moment, list[Cell]]]]]:
    """The table's rows by arm, each with its number, which names its provenance."""
    groups: list[tuple[str, list[tuple[int, Moment, list[Cell]]]]] = []
    for index, (arm, moment) in enumerate(comparison.rows):
        label = arm or layout.SHARED
        if not groups or groups[-1][0] != label:
            groups.append((label, []))
        groups[-1][1].append((index, moment, comparison.row(arm, moment)))
    return groups


def _complete(found: Findings) -> int:
    """How many runs have every demanded score."""
    scores = found.sweep.scores
    return len(found.sweep.plan.runs) - scores.loc[scores["missing"] != "", "run"].nunique()


def _provenance(found: Findings, arm: str | None, moment: Moment) -> dict[str, Any]:
    """Run ids, node ids and evaluation keys behind one row of the table, and each column's score by seed."""
    scores = found.sweep.scores
    rows = scores[scores["tokens"] == moment.tokens]
    if arm is not None:
        rows = rows[rows["arm"] == arm]
    runs = []
    for run, part in rows.groupby("run", sort=False):
        reasons = sorted(set(part["missing"]) - {""})
        runs.append(
            {
                "run": run,
                "seed": int(part["seed"].iloc[0]),
                "node": part["node"].iloc[0],
                "keys": sorted(set(part["key"]) - {""}),
                "missing": "; ".join(reasons),
                "digest": str(found.sweep.done.get(part["node"].iloc[0], {}).get("weights_digest", "")),
            }
        )
    cells = found.domains.row(arm, moment)
    seeds = sorted({seed for cell in cells for seed in cell.by_seed})
    return {
        "arm": arm or layout.SHARED,
        "moment": moment,
        "runs": runs,
        "seeds": seeds,
        "columns": [
            (column, cell, [cell.by_seed.get(seed) for seed in seeds])
            for column, cell in zip(found.domains.columns, cells, strict=True)
        ],
    }


def _cost(sweep: Sweep) -> dict[str, Any]:
    """Planned against recorded: tokens, and hours of the workers between first and last row of each attempt."""
    cost = sweep.plan.cost
    tokens = sum(spent.tokens for spent in sweep.spent.values())
    seconds = sum(spent.seconds for spent in sweep.spent.values())
    peak = peak_flops(cost.gpu) * sweep.plan.runs[0].config.cluster.gpus
    return {
        "tokens": tokens,
        "hours": seconds / 3600,
        "nodes": len(sweep.plan.nodes),
        "done": len(sweep.done),
        "attempts": sum(spent.attempts for spent in sweep.spent.values()),
        "started": len(sweep.spent),
        "mfu": cost.flops_shared * tokens / cost.tokens_shared / (seconds * peak) if seconds else None,
        "saved": 1 - cost.tokens_shared / cost.tokens_unshared,
    }


def _epochs(sweep: Sweep) -> list[dict[str, Any]]:
    """Epochs by stage and arm, a row for all arms where they agree."""
    domains = list(dict.fromkeys(row.name for row in sweep.plan.epochs))
    rows = []
    for stage in dict.fromkeys(row.stage for row in sweep.plan.epochs):
        by_arm: dict[str, dict[str, tuple[float, float]]] = {}
        for row in sweep.plan.epochs:
            if row.stage == stage and row.pool_tokens:
                by_arm.setdefault(row.arm, {})[row.name] = row.epochs, row.cumulative
        alike = len(by_arm) > 1 and all(one == next(iter(by_arm.values())) for one in by_arm.values())
        shown = {layout.SHARED: next(iter(by_arm.values()))} if alike else by_arm
        rows += [
            {"stage": stage, "arm": arm, "values": [(name, values.get(name)) for name in domains]}
            for arm, values in shown.items()
        ]
    return rows


def _environment() -> list[tuple[str, str]]:
    """What this report was made with."""
    rows = [("Python", platform.python_version()), ("system", f"{platform.system()} {platform.machine()}")]
    for package in PACKAGES:
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            rows.append((package, "not installed"))
    return [*rows, ("byte order", sys.byteorder)]
