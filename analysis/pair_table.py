"""A comparison of two runs as tables: config, scores, losses; each says where it is not controlled."""

from __future__ import annotations

import math
from typing import Any

from analysis.pair import Pair, shown
from analysis.pair_parts import Metric
from analysis.tables import MINUS, NOISE, Table, Value, percent
from davinci.planning.wording import some

ALLOWED = {"factor": "the declared factor", "derived": "follows from the factor", "only": "the only difference"}


def stamp(pair: Pair) -> str:
    """What every output says of a comparison that is not controlled; empty for one that is."""
    return f"UNCONTROLLED comparison: {some(pair.uncontrolled, 6)}" if pair.uncontrolled else ""


def tables(pair: Pair) -> list[Table]:
    """Config, scores and losses; those with nothing to show are left out."""
    stamped = (stamp(pair),) if pair.uncontrolled else ()
    names = f"A {pair.left.name}, B {pair.right.name}"
    found = [
        Table(
            title=f"Config: {names}",
            headers=("Key", "", "A", "B"),
            stubs=2,
            groups=(
                tuple(
                    (
                        Value(one.key),
                        Value(ALLOWED.get(one.allowed, "not declared"), "faint" if one.allowed else "missing"),
                        Value(shown(one.left)),
                        Value(shown(one.right)),
                    )
                    for one in pair.config
                )
                or ((Value("no difference", "faint"), Value(), Value(), Value()),),
            ),
            notes=stamped,
        )
    ]
    if pair.scores:
        groups = [tuple(_score(one) for one in pair.scores if one.group == group) for group in ("benchmark", "domain")]
        title = f"Scores in percent: {names}"
        headers = ("", "A", "B", f"B {MINUS} A")
        found.append(Table(title, headers, 1, tuple(groups), (*stamped, *pair.notes)))
    if pair.losses:
        known = any(one.estimate is not None and "seeds" in one.estimate.covers for one in pair.losses)
        note = "Training: ± half of the 95% interval over recorded steps, paired, taken as independent. Held-out: " + (
            "± by the noise between the seeds of the sweep." if known else "one measurement, no interval."
        )
        headers = ("", "tokens", "A", "B", f"B {MINUS} A")
        rows = tuple(_loss(one) for one in pair.losses)
        found.append(Table(f"Losses: {names}", headers, 1, (rows,), (*stamped, note)))
    return found


def data(pair: Pair) -> list[dict[str, Any]]:
    """A row a number; scores in percent."""
    rows = []
    for one in (*pair.scores, *pair.losses):
        scale = 1.0 if one.group == "loss" else 100.0
        known = one.estimate is not None and bool(one.estimate.covers)
        rows.append(
            {
                "a": pair.left.run.id,
                "b": pair.right.run.id,
                "group": one.group,
                "metric": one.name,
                "tokens": one.tokens,
                "value_a": scale * one.left,
                "value_b": scale * one.right,
                "difference": scale * (one.right - one.left),
                "half_width": scale * float(one.estimate.half_width) if one.estimate and known else math.nan,
                "p_adjusted": one.p_adjusted,
                "told_apart": one.told_apart if one.group != "loss" and known else None,
                "covers": one.estimate.covers if one.estimate else (),
                "uncontrolled": "; ".join(pair.uncontrolled),
            }
        )
    return rows


def document(pair: Pair) -> dict[str, Any]:
    """The whole comparison for JSON."""
    return {
        "a": {"sweep": pair.left.sweep.plan.sweep, "run": pair.left.run.id, "name": pair.left.name},
        "b": {"sweep": pair.right.sweep.plan.sweep, "run": pair.right.run.id, "name": pair.right.name},
        "controlled": not pair.uncontrolled,
        "uncontrolled": list(pair.uncontrolled),
        "config": [
            {"key": one.key, "a": shown(one.left), "b": shown(one.right), "allowed": one.allowed or None}
            for one in pair.config
        ],
        "metrics": [
            {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
            for row in data(pair)
        ],
        "notes": list(pair.notes),
    }


def _score(one: Metric) -> tuple[Value, ...]:
    estimate = one.estimate
    if estimate is None or not estimate.covers:
        difference = Value(f"{percent(one.right - one.left, signed=True)} ± ?", "faint")
    else:
        half = percent(float(estimate.half_width))
        text = f"{percent(float(estimate.mean), signed=True)} ± {half}"
        difference = Value(text, "strong") if one.told_apart else Value(f"{NOISE} {text}", "faint")
    return Value(one.name), Value(percent(one.left)), Value(percent(one.right)), difference


def _loss(one: Metric) -> tuple[Value, ...]:
    difference = f"{one.right - one.left:+.4f}".replace("-", MINUS)
    if one.estimate is not None:
        difference += f" ± {float(one.estimate.half_width):.4f}"
    return (
        Value(one.name),
        Value(f"{one.tokens:,}"),
        Value(f"{one.left:.4f}"),
        Value(f"{one.right:.4f}"),
        Value(difference),
    )
