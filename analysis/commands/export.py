"""``export``: a sweep's records packed into an archive."""

from __future__ import annotations

import argparse

from analysis.commands.common import Commands
from davinci.errors import UserError
from davinci.store import Store

EXAMPLES = """\
  python -m analysis export qa_ratio_stage2_2
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add(
        "export", "pack a sweep's records", "Pack a sweep's records into an archive, without checkpoints.", EXAMPLES
    )
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help="name of a sweep, as in sweeps/SWEEP.yaml")


def run(options: argparse.Namespace, store: Store) -> int:
    """Write the archive."""
    raise UserError(f"export {' '.join(options.sweeps)}: not in this version")
