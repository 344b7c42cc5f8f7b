"""``table``: a table of one sweep or several, or of the paper's own figures, from one specification."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.commands.common import Commands, make_console
from davinci.errors import UserError
from davinci.store import Store, write_text

if TYPE_CHECKING:
    from analysis.tables import Table

EXAMPLES = """\
  python -m analysis table qa_ratio_stage2_2                        in the terminal, as the sweep file lays it out
  python -m analysis table qa_ratio_stage2_2 --spec table9 paper=side      measured beside published
  python -m analysis table lr_decay --spec mine.yaml --format latex        a layout of one's own, for a paper
  python -m analysis table qa_ratio_stage2_2 lr_decay points=last          two sweeps in one table
  python -m analysis table qa_ratio_stage2_2 points=last average_last=3 equivalence=1
  python -m analysis table --published 7                            the paper's Table 7 with its averages recomputed
"""
FORMATS = ("terminal", "markdown", "latex", "csv", "json")
ABOUT = """\
Compute a table and print it. KEY=VALUE stands on top of the specification: paper=side|below|none, decimals=2,
points=last, columns=[Code,Overall], baseline=ARM, average_last=3, equivalence=1.0, layout=models and the like
(docs/statistics.md)."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add("table", "print a table of one sweep or several", ABOUT, EXAMPLES)
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP|KEY=VALUE", help="name of a sweep, as in sweeps/SWEEP.yaml")
    parser.add_argument("--spec", metavar="NAME|FILE", help="table6 to table10, or a YAML file of the same keys")
    parser.add_argument("--published", metavar="N", help="the paper's Table N (6 to 10) from its own figures, no sweep")
    parser.add_argument("--format", choices=FORMATS, default="terminal", help="default: terminal")
    parser.add_argument("--output", metavar="FILE", help="write there instead of printing")
    parser.add_argument(
        "--suite", metavar="NAME|KEY", help="a suite that `davinci evaluate` was told, instead of its own"
    )
    parser.add_argument(
        "--external",
        action="append",
        default=[],
        metavar="NAME",
        help="a model that `davinci evaluate hf:PATH` evaluated, for layout=models",
    )


def run(options: argparse.Namespace, store: Store) -> int:
    """Print the table."""
    from analysis.spec import read_spec
    from analysis.tabulate import tabulate

    names = [text for text in options.sweeps if "=" not in text]
    given = [text for text in options.sweeps if "=" in text]
    if options.published is not None:
        if names:
            raise UserError(
                "--published: it takes no sweep; for measured beside published: SWEEP --spec tableN paper=side"
            )
        from analysis.recomputed import published_table

        wanted = f"table{options.published.removeprefix('table')}"
        spec, _ = read_spec(options.spec or wanted, given)
        tables = [published_table(spec)]
    elif names:
        spec, where = read_spec(options.spec, given)
        tables = tabulate(store, names, spec, where, suite=options.suite, externals=options.external)
    else:
        raise UserError("table: name a sweep, or --published N for a table of the paper")
    _show(tables, options.format, options.output)
    return 0


def _show(shown: list[Table], form: str, output: str | None) -> None:
    from analysis import tables

    console = make_console()
    if form == "terminal" and output is None:
        for table in shown:
            tables.render_terminal(table, console)
        return
    if form == "terminal":
        with console.capture() as captured:
            for table in shown:
                tables.render_terminal(table, console)
        text = captured.get()
    else:
        render = {
            "markdown": tables.render_markdown,
            "latex": tables.render_latex,
            "csv": lambda table: tables.render_csv(table.data),
            "json": tables.render_json,
        }[form]
        text = "\n".join(render(table) for table in shown)
    if output is None:
        print(text, end="")
        return
    try:
        write_text(Path(output), text)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror})") from None
