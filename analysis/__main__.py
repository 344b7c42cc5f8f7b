"""python -m analysis: from a sweep's records to its tables, figures and report."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.commands import compare, emergence, export, figure, ledger, report, table, tune
from analysis.commands.common import STATUS, Commands
from analysis.pack import opened
from davinci.command_line import Parser
from davinci.errors import UserError, refused

COMMANDS = {
    "table": table,
    "figure": figure,
    "report": report,
    "ledger": ledger,
    "compare": compare,
    "emergence": emergence,
    "export": export,
    "tune": tune,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, 2 for a user's mistake."""
    parser = Parser(
        prog="python -m analysis",
        description="Tables, figures and reports from records. `COMMAND --help` has examples.",
        epilog=STATUS,
    )
    commands = Commands(parser.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    for module in COMMANDS.values():
        module.add(commands)
    options, rest = parser.parse_known_args(arguments)
    if rest and not hasattr(options, "sweeps"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # argparse takes names in one place only; those behind an option are names too
        options.sweeps += rest
    try:
        return COMMANDS[options.command].run(options, opened(Path(options.store), options.source))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `… | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a folder that only others may write, a full disk
        print(f"error: {refused(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
