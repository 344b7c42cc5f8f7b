"""``report``: a sweep's tables, figures and web page."""

from __future__ import annotations

import argparse

from analysis.commands.common import Commands, make_console
from davinci.store import Store

EXAMPLES = """\
  python -m analysis report qa_ratio_stage2_2                       print the table, write the report
  python -m analysis report qa_ratio_stage2_2 --suite NAME          of what `davinci evaluate --suite` was told
  python -m analysis report qa_ratio_stage2_2 --external SmolLM2-135M   another's model as a column
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add(
        "report",
        "print a sweep's table and write its report",
        "Compute a sweep's table from its records, print it, and write tables, figures and a web page.",
        EXAMPLES,
    )
    parser.add_argument("sweep", metavar="SWEEP", help="name of the sweep, as in sweeps/SWEEP.yaml")
    parser.add_argument(
        "--suite", metavar="NAME|KEY", help="instead of the sweep's own, a suite that `davinci evaluate` was told"
    )
    parser.add_argument(
        "--external",
        action="append",
        default=[],
        metavar="NAME",
        help="a model that `davinci evaluate hf:PATH` evaluated, as a column of a table of benchmarks by model",
    )


def run(options: argparse.Namespace, store: Store) -> int:
    """Print the table and write the report's files."""
    from rich.text import Text

    from analysis.report import study, verdict_text, write
    from analysis.tables import render_terminal

    console = make_console()
    found = study(store, options.sweep, options.suite, options.external)
    render_terminal(found.table, console)
    console.print()
    if found.models is not None:
        render_terminal(found.models, console)
        console.print()
    if (verdict := verdict_text(found)) is not None:
        console.print(Text.assemble(("Hypothesis ", "bold"), verdict))
    above = [row.name for row in found.chance if row.above]
    if found.chance:
        names = ", ".join(above) or "none"
        console.print(Text.assemble(("Above chance ", "bold"), f"{len(above)} of {len(found.chance)}: {names}"))
    for note in found.sweep.notes:
        console.print(Text(f"Note: {note}", style="yellow"))
    folder = store.sweep(options.sweep) / ("report" if options.suite is None else f"report-{options.suite}")
    paths = write(found, folder)
    console.print(Text.assemble(("Report ", "bold"), str(paths[0])))
    console.print(Text(f"       {', '.join(path.name for path in paths[1:])}", style="bright_black"))
    return 0
