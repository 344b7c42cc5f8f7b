"""The report as one HTML page that loads nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import emergence, layout, published, tables
from analysis.findings import Findings, verdict_text
from analysis.ledger import sweep_card
from analysis.ledger.card import Card
from analysis.ledger.markdown import difference, energy_notes, evaluation_hours, untimed_notes
from analysis.report import sections
from analysis.report.charts import charts
from analysis.units import unit
from davinci.planning.identity import human_tokens
from davinci.planning.wording import some

if TYPE_CHECKING:
    from markupsafe import Markup

FOLDER = Path(__file__).parent / "page"
SCRIPTS = ("common.js", "curves.js", "effects.js", "strips.js", "controls.js", "tables.js")


def page(found: Findings, card: Card | None = None) -> str:
    """Everything about the sweep; `card` is its ledger's, made where it is not given."""
    plan, drawn = found.sweep.plan, charts(found)
    rows, left_out = sections.benchmarks(found)
    return render(
        "report.html",
        SCRIPTS,
        drawn,
        plan=plan,
        found=found,
        card=card or sweep_card(found),
        layout=layout,
        verdict=verdict_text(found),
        published_source=published.SOURCE,
        unit=unit,
        drawn=drawn,
        spikes=sum(len(found.sweep.spikes.get(node, ())) for node in plan.nodes),
        emergence_table=emergence.table(found.courses),
        lines=sections.lines(found),
        benchmark_rows=rows,
        left_out=left_out,
        behind=list(sections.behind(found)),
        arms=list(sections.arms(found)),
        epochs=sections.epochs(found.sweep),
        energy=energy_notes,
        untimed=untimed_notes,
        evaluation_hours=evaluation_hours,
        difference=difference,
    )


def render(template: str, scripts: tuple[str, ...], data: Any, **values: Any) -> str:
    """A template with the style sheet, the scripts and their data inside it.

    Everything from records is escaped where it stands. The page's policy lets run the scripts put in here (by their
    digest) and nothing else, and load nothing.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(tokens=human_tokens, percent=tables.percent, points=tables.points, some=some)
    code = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in scripts)
    script = f'"use strict";\n(() => {{\n{code}}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        data=embedded(data),
        **values,
    )


def embedded(data: Any) -> Markup:
    """`data` as JSON that can stand inside a script element whatever its strings hold."""
    from markupsafe import Markup

    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)
