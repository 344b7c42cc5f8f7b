"""``export``: a sweep's records packed into an archive."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.common import Commands
from davinci.errors import UserError
from davinci.store import Store

EXAMPLES = """\
  python -m analysis export qa_ratio_stage2_2                 writes ./qa_ratio_stage2_2.tar.gz
  python -m analysis export qa_ratio_stage2_2 lr_decay --to archives
  python -m analysis report qa_ratio_stage2_2 --store qa_ratio_stage2_2.tar.gz   every table from the archive
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add(
        "export",
        "pack a sweep's records into an archive",
        "Pack what a sweep's tables are made of into an archive: plan, records, per-item results, cards, versions and\n"
        "digests, without checkpoints. The same records make the same bytes. Whoever has the archive gives it to the\n"
        "other commands as --store. Absolute paths are cut to their last part; values of environment variables that\n"
        "are keys or tokens stop the export.",
        EXAMPLES,
    )
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help="name of a sweep, as in sweeps/SWEEP.yaml")
    parser.add_argument("--to", default=".", metavar="FOLDER", help="where SWEEP.tar.gz is written (default: here)")
    parser.add_argument(
        "--external", action="append", default=[], metavar="NAME", help="another's model that was evaluated, too"
    )


def run(options: argparse.Namespace, store: Store) -> int:
    """Write the archives."""
    from analysis.pack import SUFFIX, pack

    if options.source != "store":
        raise UserError(f"--source {options.source}: export packs the store's records")
    for name in options.sweeps:
        target = Path(options.to) / f"{name}{SUFFIX}"
        try:
            count = pack(store, name, target, options.external)
        except OSError as error:
            raise UserError(f"--to {options.to}: cannot write {target.name} ({error.strerror})") from None
        print(f"{target}: {count} files, {target.stat().st_size / 1e6:.1f} MB")
    return 0
