"""``table``: a sweep's tables, printed."""

from __future__ import annotations

import argparse

from analysis.commands.common import Commands, make_console
from davinci.store import Store

EXAMPLES = """\
  python -m analysis table qa_ratio_stage2_2                      in the terminal
  python -m analysis table qa_ratio_stage2_2 --format latex       for a paper
  python -m analysis table qa_ratio_stage2_2 stage1 --format csv  the numbers of two sweeps
"""
FORMATS = ("terminal", "markdown", "latex", "csv", "json")


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add("table", "print a sweep's table", "Compute a sweep's table and print it.", EXAMPLES)
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help="name of a sweep, as in sweeps/SWEEP.yaml")
    parser.add_argument("--format", choices=FORMATS, default="terminal", help="default: terminal")


def run(options: argparse.Namespace, store: Store) -> int:
    """Print each sweep's table."""
    from analysis import tables
    from analysis.findings import study

    for name in options.sweeps:
        table = study(store, name).table
        match options.format:
            case "terminal":
                tables.render_terminal(table, make_console())
            case "markdown":
                print(tables.render_markdown(table))
            case "latex":
                print(tables.render_latex(table))
            case "csv":
                print(tables.render_csv(table.data), end="")
            case "json":
                print(tables.render_json(table), end="")
    return 0
