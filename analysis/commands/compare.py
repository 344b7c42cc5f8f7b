"""``compare``: two runs, what differs in their configs and in their scores."""

from __future__ import annotations

import argparse

from analysis.commands.common import Commands
from davinci.errors import UserError
from davinci.store import Store

EXAMPLES = """\
  python -m analysis compare qa-30-s0 qa-70-s0
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add(
        "compare", "compare two runs", "Differences of two runs' configs, scores and losses.", EXAMPLES
    )
    parser.add_argument("runs", nargs=2, metavar="RUN", help="a run: its id, SWEEP/ID, or SWEEP/ARM/SEED")


def run(options: argparse.Namespace, store: Store) -> int:
    """Print the comparison."""
    raise UserError(f"compare {' '.join(options.runs)}: not in this version")
