"""python -m analysis: from a sweep's records to its table and report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from davinci.errors import UserError
from davinci.store import Store

WIDTH = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description="Tables, figures and reports from records.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    report = commands.add_parser(
        "report",
        help="print a sweep's table and write its report",
        description="Compute a sweep's table from its records, print it, and write tables, figures and a web page.",
        epilog="example: python -m analysis report qa_ratio_stage2_2 --store ./store",
    )
    report.add_argument("sweep", metavar="SWEEP", help="name of the sweep, as in sweeps/SWEEP.yaml")
    report.add_argument("--store", default="store", metavar="PATH", help="folder of its records (default: store)")
    report.add_argument(
        "--suite", metavar="NAME|KEY", help="instead of the sweep's own, a suite that `davinci evaluate` was told"
    )
    report.add_argument(
        "--external",
        action="append",
        default=[],
        metavar="NAME",
        help="a model that `davinci evaluate hf:PATH` evaluated, as a column of a table of benchmarks by model",
    )
    emergence = commands.add_parser(
        "emergence",
        help="print when a sweep's capabilities emerged, and draw the timeline",
        description="When each capability that a sweep probes rose above chance for good: a table and a timeline.",
        epilog="example: python -m analysis emergence qa_ratio_stage2_2 --store ./store",
    )
    emergence.add_argument("sweep", metavar="SWEEP", help="name of the sweep, as in sweeps/SWEEP.yaml")
    emergence.add_argument("--store", default="store", metavar="PATH", help="folder of its records (default: store)")
    options = parser.parse_args(arguments)
    store = Store(Path(options.store))
    try:
        if options.command == "report":
            return _report(options.sweep, store, options.suite, options.external)
        return _emergence(options.sweep, store)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _report(name: str, store: Store, suite: str | None, externals: Sequence[str]) -> int:
    # Imported here so that --help and a mistyped command answer at once.
    from analysis.report import study, verdict_text, write
    from analysis.tables import render_terminal

    console = Console(highlight=False)
    console = Console(highlight=False, width=min(console.width, WIDTH) if console.is_terminal else WIDTH)
    found = study(store, name, suite, externals)
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
    paths = write(found, store.sweep(name) / ("report" if suite is None else f"report-{suite}"))
    console.print(Text.assemble(("Report ", "bold"), str(paths[0])))
    console.print(Text(f"       {', '.join(path.name for path in paths[1:])}", style="bright_black"))
    return 0


def _emergence(name: str, store: Store) -> int:
    from analysis import emergence
    from analysis.load import load
    from analysis.report import save_timeline
    from analysis.tables import render_terminal

    sweep = load(store, name)
    found = emergence.courses(sweep)
    if not found:
        raise UserError(f"sweep {name!r} has no probes; launch it with evaluation.probes.every_tokens=N")
    console = Console(highlight=False)
    console = Console(highlight=False, width=min(console.width, WIDTH) if console.is_terminal else WIDTH)
    render_terminal(emergence.table(found), console)
    paths = save_timeline(sweep, found, store.sweep(name) / "report")
    console.print(Text.assemble(("Timeline ", "bold"), ", ".join(str(path) for path in paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
