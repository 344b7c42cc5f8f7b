"""``compare``: two runs, what differs in their configs and what that did to scores and losses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from analysis.commands.common import Commands, make_console
from davinci.errors import UserError
from davinci.store import Store

EXAMPLES = """\
  python -m analysis compare qa-30-s0 qa-70-s0                        two runs by id, or the beginning of one
  python -m analysis compare qa_ratio_stage2_2/QA-30%/0 qa_ratio_stage2_2/QA-70%/0     by sweep, arm and seed
  python -m analysis compare qa-30-s0 cosine-decay-s0 --uncontrolled  runs that differ in more than one thing
"""
ABOUT = """\
How two runs' configs differ, then the differences of their scores (paired by item) and losses, B minus A.

Refused where it is no controlled comparison: runs of one sweep may differ in its declared factor and in what follows
from it, runs of two sweeps in one thing. --uncontrolled compares them all the same, and every output says so."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add("compare", "compare two runs: config, scores, losses", ABOUT, EXAMPLES)
    parser.add_argument(
        "runs",
        nargs=2,
        metavar="RUN",
        help="its id or the beginning of it, SWEEP/ID, or SWEEP/ARM/SEED (`davinci status`)",
    )
    parser.add_argument("--uncontrolled", action="store_true", help="compare what differs in more than one thing")
    parser.add_argument("--out", metavar="FOLDER", help="where files go (default: STORE/sweeps/SWEEP/compare/A-vs-B)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(options: argparse.Namespace, store: Store) -> int:
    """Print the comparison and write it as Markdown, CSV and JSON."""
    from rich.text import Text

    from analysis import pair_table
    from analysis.load import Sweep, load
    from analysis.pair import compare, controlled
    from analysis.pair_parts import Side
    from analysis.tables import render_csv, render_markdown, render_terminal
    from davinci.commands.names import find_run
    from davinci.planning.wording import some
    from davinci.store import write_text

    names = [find_run(store, name) for name in options.runs]
    if names[0] == names[1]:
        raise UserError(f"compare: {options.runs[0]} and {options.runs[1]} are one run, {names[0].id}")
    sweeps: dict[str, Sweep] = {}
    for name in names:
        if name.sweep not in sweeps:
            sweeps[name.sweep] = load(store, name.sweep)
    sides = []
    for name in names:
        found = [one for one in sweeps[name.sweep].plan.runs if one.id == name.id]
        if not found:
            raise UserError(f"compare: run {name.id} is not in the plan that {name.sweep} was last launched with")
        sides.append(Side(sweeps[name.sweep], found[0]))
    left, right = sides
    _, reasons = controlled(left, right)
    if reasons and not options.uncontrolled:
        raise UserError(
            f"compare: {left.name} and {right.name} are no controlled comparison, they differ in {some(reasons, 4)}; "
            "--uncontrolled compares them all the same, and says so"
        )
    pair = compare(left, right)
    tables, document = pair_table.tables(pair), pair_table.document(pair)
    place = f"{names[0].id}-vs-{names[1].id}"
    folder = Path(options.out) if options.out else store.sweep(names[0].sweep) / "compare" / place
    write_text(folder / "compare.md", "\n".join(render_markdown(table) for table in tables))
    write_text(folder / "compare.csv", render_csv(pair_table.data(pair)))
    write_text(folder / "compare.json", json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if options.json:
        print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
        return 0
    console = make_console()
    if said := pair_table.stamp(pair):
        console.print(Text(said, style="bold yellow"))
    for table in tables:
        render_terminal(table, console)
        console.print()
    if not pair.scores:
        for note in pair.notes:
            console.print(Text(note, style="yellow"))
    console.print(Text(f"Files  {folder / 'compare.md'}, compare.csv, compare.json"))
    return 0
