"""A sweep's findings as files: tables, figures, one self-contained page."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from analysis import emergence, layout, panels, published, tables, timeline
from analysis.comparison import Cell
from analysis.figures import drawing
from analysis.findings import Findings, study, verdict_text
from analysis.load import Sweep
from analysis.samples import Moment
from davinci.accounting.accelerators import peak_flops
from davinci.planning.identity import human_tokens
from davinci.store import write_text

__all__ = ["Findings", "page", "save_timeline", "study", "verdict_text", "write"]
PACKAGES = ("davinci", "torch", "lm_eval", "numpy", "scipy", "pandas", "matplotlib")


def write(found: Findings, folder: Path) -> list[Path]:
    """Write every file of the report into `folder` and return their paths, the page first.

    Each bears the verdict of a control audit that is not clean.
    """
    verdict = found.sweep.plan.audit.verdict
    stamp = "" if verdict == "controlled" else f"control audit: {verdict}"
    texts = {
        "report.html": page(found),
        "table.md": tables.render_markdown(found.table),
        "table.tex": tables.render_latex(found.table),
        "table.csv": tables.render_csv(found.table.data),
        "table.json": tables.render_json(found.table),
        "benchmarks.md": tables.render_markdown(found.chance_table)
        + "\n"
        + tables.render_markdown(found.benchmark_table),
        "scores.csv": tables.render_csv([row._asdict() | {"audit": verdict} for row in found.grid.all_rows]),
    }
    if found.models is not None:
        texts["models.md"] = tables.render_markdown(found.models)
        texts["models.tex"] = tables.render_latex(found.models)
        texts["models.csv"] = tables.render_csv(found.models.data)
    if found.courses:
        texts["emergence.csv"] = tables.render_csv(emergence.table(found.courses).data)
    for name, text in texts.items():
        write_text(folder / name, text)
    drawn = drawing.save(panels.score_panels(found.grid, found.main), folder / "figure", columns=2, stamp=stamp)
    drawn += drawing.save(panels.loss_panels(found.sweep), folder / "loss", columns=2, stamp=stamp)
    return [folder / name for name in texts] + drawn + save_timeline(found.sweep, found.courses, folder, stamp)


def save_timeline(sweep: Sweep, courses: Sequence[emergence.Course], folder: Path, stamp: str = "") -> list[Path]:
    """Draw the timeline of capabilities into `folder`; nothing where nothing was probed."""
    return timeline.save(courses, panels.styles(sweep), panels.boundaries(sweep, 0), folder / "emergence", stamp)


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
    score_panels = panels.score_panels(found.grid, found.main)
    loss_panels = panels.loss_panels(found.sweep)

    def drawn(some: Sequence[panels.Panel], prefix: str) -> list[tuple[panels.Panel, Markup]]:
        # Markup: matplotlib escapes the text it is given.
        return [(panel, Markup(drawing.svg(panel, f"{prefix}{index}"))) for index, panel in enumerate(some)]

    return environment.get_template("report.html").render(
        plan=plan,
        found=found,
        layout=layout,
        verdict=verdict_text(found),
        published_source=published.SOURCE,
        score_panels=drawn(score_panels, "score"),
        loss_panels=drawn(loss_panels, "loss"),
        spikes=sum(len(found.sweep.spikes.get(node, ())) for node in plan.nodes),
        emergence_table=emergence.table(found.courses),
        timeline=Markup(_timeline(found)) if found.courses else "",
        legend=list({line.label: line for panel in score_panels + loss_panels for line in panel.lines}.values()),
        groups=_groups(found),
        complete=_complete(found),
        provenance=[_provenance(found, arm, moment) for arm, moment in found.main.rows],
        cost=_cost(found.sweep),
        epochs=_epochs(found.sweep),
        environment=_environment(),
    )


def _timeline(found: Findings) -> str:
    sweep = found.sweep
    return timeline.svg(found.courses, panels.styles(sweep), panels.boundaries(sweep, 0), "timeline")


@dataclass(frozen=True)
class Line:
    """A row of the page's table; `index` names its provenance, `name` is the arm or the point, `sub` explains it."""

    index: int
    name: str
    sub: str
    is_baseline: bool
    cells: list[Cell]


def _groups(found: Findings) -> list[tuple[str, bool, list[Line]]]:
    """The table's rows in groups: their name, whether that is the baseline arm, and the rows."""
    baseline, by_arm = found.main.baseline, found.sweep.plan.question.table.rows == "arm"
    groups: list[tuple[str, bool, list[Line]]] = []
    for index, (arm, moment) in enumerate(found.main.rows):
        group, name = layout.stubs(found.main, arm, moment)
        sub = f"{human_tokens(moment.stage_tokens)} of {moment.stage}" if by_arm else ""
        if not groups or groups[-1][0] != group:
            groups.append((group, by_arm and arm == baseline, []))
        line = Line(index, name, sub, not by_arm and arm == baseline, found.main.row(arm, moment))
        groups[-1][2].append(line)
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
    cells = found.main.row(arm, moment)
    seeds = sorted({seed for cell in cells for seed in cell.by_seed})
    return {
        "arm": arm or layout.SHARED,
        "moment": moment,
        "runs": runs,
        "seeds": seeds,
        "columns": [
            (column, cell, [cell.by_seed.get(seed) for seed in seeds])
            for column, cell in zip(found.main.columns, cells, strict=True)
        ],
    }


def _cost(sweep: Sweep) -> dict[str, Any]:
    """Planned against recorded: tokens, and accelerator-hours between first and last row of each attempt."""
    plan, cost = sweep.plan, sweep.plan.cost
    tokens = sum(spent.tokens for spent in sweep.spent.values())
    seconds = sum(spent.seconds for spent in sweep.spent.values())
    peak = peak_flops(cost.gpu) * cost.gpus
    return {
        "tokens": tokens,
        "hours": cost.gpus * seconds / 3600,
        "flops": plan.flops * tokens / plan.tokens_shared,
        "nodes": len(plan.nodes),
        "done": len(sweep.done),
        "attempts": sum(spent.attempts for spent in sweep.spent.values()),
        "started": len(sweep.spent),
        "mfu": plan.flops * tokens / plan.tokens_shared / (seconds * peak) if seconds else None,
        "saved": 1 - plan.tokens_shared / plan.tokens_unshared,
    }


def _epochs(sweep: Sweep) -> list[dict[str, Any]]:
    """Epochs of each domain by stage, a row for the arms that agree."""
    ledger = [row for row in sweep.plan.epochs if row.source is None and row.pool_tokens]
    domains = list(dict.fromkeys(row.domain for row in ledger))
    rows = []
    for stage in dict.fromkeys(row.stage for row in ledger):
        by_arm: dict[str, dict[str, tuple[float, float]]] = {}
        for row in ledger:
            for arm in row.arms if row.stage == stage else ():
                by_arm.setdefault(arm, {})[row.domain] = row.epochs, row.cumulative
        alike: dict[str, list[str]] = {}
        for arm, values in by_arm.items():
            alike.setdefault(repr(sorted(values.items())), []).append(arm)
        for arms in alike.values():
            name = layout.SHARED if len(arms) == len(sweep.plan.arms) > 1 else ", ".join(arms)
            values = by_arm[arms[0]]
            rows.append({"stage": stage, "arm": name, "values": [(one, values.get(one)) for one in domains]})
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
