"""Writes a report's files into one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis import emergence, panels, tables, timeline
from analysis.figures import drawing
from analysis.findings import Findings
from analysis.ledger import sweep_card
from analysis.ledger.markdown import render
from analysis.load import Sweep
from analysis.report.index import summary
from analysis.report.page import page
from davinci.store import write_text


def write(found: Findings, folder: Path) -> list[Path]:
    """Write every file of the report into `folder` and return their paths, the page first.

    Each bears the verdict of a control audit that is not clean.
    """
    verdict = found.sweep.plan.audit.verdict
    stamp = "" if verdict == "controlled" else f"control audit: {verdict}"
    card = sweep_card(found)
    texts = {
        "report.html": page(found, card),
        "table.md": tables.render_markdown(found.table),
        "table.tex": tables.render_latex(found.table),
        "table.csv": tables.render_csv(found.table.data),
        "table.json": tables.render_json(found.table),
        "benchmarks.md": tables.render_markdown(found.chance_table)
        + "\n"
        + tables.render_markdown(found.benchmark_table),
        "scores.csv": tables.render_csv([row._asdict() | {"audit": verdict} for row in found.grid.all_rows]),
        "ledger.json": card.model_dump_json(indent=1) + "\n",
        "ledger.md": render(card),
        "summary.json": summary(found, card).model_dump_json(indent=1) + "\n",
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
