"""The index over all sweeps of a store: what each asked, what came out, and the way to its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from analysis.findings import Findings, verdict_text
from analysis.ledger.card import Card
from analysis.units import unit
from davinci.config import Frozen
from davinci.errors import UserError
from davinci.planning.plan import load_plan
from davinci.store import Store, write_text


class Effect(Frozen):
    """An arm's difference to the baseline at its last point, in points of score or the metric's unit; `half` of the
    95% interval."""

    arm: str
    mean: float
    half: float | None
    apart: bool


class Summary(Frozen):
    """What the index says of a sweep (``summary.json``); `metric` is the hypothesis's, or else the last column."""

    version: int = 1
    sweep: str
    question: str
    paper: str | None
    verdict: str | None
    word: str | None
    arms: int
    seeds: int
    runs: int
    complete: int
    audit: str
    tokens: int
    hours: float
    accelerator: str
    metric: str
    decimals: int = 1
    effects: tuple[Effect, ...]


def summary(found: Findings, card: Card) -> Summary:
    """The sweep in a few numbers."""
    from analysis.report.charts import effects

    plan, columns = found.sweep.plan, {one["title"]: one for one in effects(found)}
    wanted = plan.question.hypothesis.metric.lower() if plan.question.hypothesis else ""
    metric = next((name for name in columns if name.lower() == wanted), found.main.columns[-1].name)
    rows: list[dict[str, Any]] = columns[metric]["rows"] if metric in columns else []
    lacking = {run for one in card.negatives.troubles if one.kind == "incomplete" for run in one.runs}
    return Summary(
        sweep=plan.sweep,
        question=plan.question.text,
        paper=card.paper,
        verdict=verdict_text(found),
        word=found.verdict.word if found.verdict else None,
        arms=len(plan.arms),
        seeds=len(plan.seeds),
        runs=len(plan.runs),
        complete=len(plan.runs) - len(lacking),
        audit=plan.audit.verdict,
        tokens=card.compute.tokens_recorded,
        hours=card.compute.hours_recorded + card.compute.evaluation_hours_recorded,
        accelerator=card.compute.accelerator,
        metric=metric,
        decimals=1 + unit(metric).finer,
        effects=tuple(
            Effect(arm=plan.arms[row["arm"]].label, mean=row["mean"], half=row["half"], apart=row["apart"])
            for row in rows
        ),
    )


def write_index(store: Store) -> tuple[Path, int, int]:
    """Write ``sweeps/index.html`` of every sweep that was launched; returns its path, how many have a report, how many
    have none."""
    from analysis.report.page import render

    entries = [_entry(store, path.parent) for path in sorted((store.root / "sweeps").glob("*/launched.json"))]
    path = store.root / "sweeps" / "index.html"
    reported = sum(entry["summary"] is not None for entry in entries)
    write_text(path, render("index.html", ("tables.js",), None, entries=entries, store=store.root.name))
    return path, reported, len(entries) - reported


def _entry(store: Store, folder: Path) -> dict[str, Any]:
    """A sweep as the index lists it; without a report that can be read, by what was planned."""
    found: dict[str, Any] = {"name": folder.name, "summary": None, "question": "", "problem": ""}
    try:
        found["summary"] = Summary.model_validate_json((folder / "report" / "summary.json").read_bytes())
        found["link"] = f"{quote(folder.name)}/report/report.html"
        reach = [abs(one.mean) + (one.half or 0.0) for one in found["summary"].effects]
        found["span"] = max([10.0 ** (1 - found["summary"].decimals), *reach])
    except (OSError, ValidationError):
        try:
            plan = load_plan(store, folder.name)
            found["question"] = f"{plan.question.text} {len(plan.arms)} arms, {len(plan.seeds)} seeds"
        except UserError as error:
            found["problem"] = str(error)
    return found
