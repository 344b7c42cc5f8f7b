"""``figure``: a sweep's figures, drawn."""

from __future__ import annotations

import argparse

from analysis.commands.common import Commands
from davinci.store import Store

EXAMPLES = """\
  python -m analysis figure qa_ratio_stage2_2
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add("figure", "draw a sweep's figures", "Draw scores and losses over tokens.", EXAMPLES)
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help="name of a sweep, as in sweeps/SWEEP.yaml")


def run(options: argparse.Namespace, store: Store) -> int:
    """Draw each sweep's figures into its folder."""
    from analysis import panels
    from analysis.figures import drawing
    from analysis.findings import study

    for name in options.sweeps:
        found = study(store, name)
        folder = store.sweep(name) / "report"
        drawn = drawing.save(panels.score_panels(found.grid, found.main), folder / "figure", columns=2)
        drawn += drawing.save(panels.loss_panels(found.sweep), folder / "loss", columns=2)
        print("\n".join(str(path) for path in drawn))
    return 0
