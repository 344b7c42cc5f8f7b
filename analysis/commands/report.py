"""``report``: a sweep's tables, figures and web page, and the index over all sweeps."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from analysis.commands.common import Commands, make_console
from davinci.errors import UserError
from davinci.store import Store

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = """\
  python -m analysis report qa_ratio_stage2_2                       print the table, write the report
  python -m analysis report                                         every sweep of the store, and the index over them
  python -m analysis report --index                                 the index alone, from the reports there are
  python -m analysis report qa_ratio_stage2_2 --suite NAME          of what `davinci evaluate --suite` was told
  python -m analysis report qa_ratio_stage2_2 --external SmolLM2-135M   another's model as a column
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add(
        "report",
        "print sweeps' tables and write their reports",
        "Compute a sweep's table from its records, print it, and write tables, figures, a web page that needs nothing "
        "else, and a transparency card; then sweeps/index.html over all sweeps.",
        EXAMPLES,
    )
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="names of sweeps (default: all of the store)")
    parser.add_argument("--index", action="store_true", help="write the index alone, reports as they are")
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
    """Write the reports and the index; a sweep that cannot be read does not keep the others from theirs."""
    from rich.text import Text

    from analysis.report.index import write_index

    console = make_console()
    names = options.sweeps or sorted(path.parent.name for path in (store.root / "sweeps").glob("*/launched.json"))
    if options.index and (options.sweeps or options.suite or options.external):
        raise UserError("--index takes no sweeps and no other option: it lists the reports there are")
    if not names:
        raise UserError(f"store {store.root} has no sweep; launch one, or give --store")
    failed = 0
    for name in () if options.index else names:
        try:
            _report(name, options, store, console)
        except UserError as error:
            if len(names) == 1:
                raise
            print(f"error: {name}: {error}", file=sys.stderr)
            failed += 1
    path, reported, without = write_index(store)
    rest = f", {without} without a report" if without else ""
    console.print(Text.assemble(("Index  ", "bold"), f"{path} ({reported} reported{rest})"))
    return 2 if failed else 0


def _report(name: str, options: argparse.Namespace, store: Store, console: Console) -> None:
    """Print one sweep's table and write its report's files."""
    from rich.text import Text

    from analysis.findings import study, verdict_text
    from analysis.report import write
    from analysis.tables import render_terminal

    found = study(store, name, options.suite, options.external)
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
    folder = store.sweep(name) / ("report" if options.suite is None else f"report-{options.suite}")
    paths = write(found, folder)
    console.print(Text.assemble(("Report ", "bold"), str(paths[0])))
    console.print(Text(f"       {', '.join(path.name for path in paths[1:])}", style="bright_black"))
