"""``emergence``: when a sweep's capabilities rose above chance."""

from __future__ import annotations

import argparse

from analysis.commands.common import Commands, make_console
from davinci.errors import UserError
from davinci.store import Store

EXAMPLES = """\
  python -m analysis emergence qa_ratio_stage2_2 --store ./store
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add(
        "emergence",
        "print when a sweep's capabilities emerged, and draw the timeline",
        "When each capability that a sweep probes rose above chance for good: a table and a timeline.",
        EXAMPLES,
    )
    parser.add_argument("sweep", metavar="SWEEP", help="name of the sweep, as in sweeps/SWEEP.yaml")


def run(options: argparse.Namespace, store: Store) -> int:
    """Print the table and draw the timeline."""
    from rich.text import Text

    from analysis import emergence
    from analysis.load import load
    from analysis.report.files import save_timeline
    from analysis.tables import render_terminal

    sweep = load(store, options.sweep)
    found = emergence.courses(sweep)
    if not found:
        raise UserError(f"sweep {options.sweep!r} has no probes; launch it with evaluation.probes.every_tokens=N")
    console = make_console()
    render_terminal(emergence.table(found), console)
    paths = save_timeline(sweep, found, store.sweep(options.sweep) / "report")
    console.print(Text.assemble(("Timeline ", "bold"), ", ".join(str(path) for path in paths)))
    return 0
