"""What the commands share: how they are declared, and the console they print to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from davinci.command_line import Parser

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
STATUS = "exit status: 0 success, 2 a mistake (one line says which), 130 stopped by Ctrl-C"


class Commands:
    """Adds commands to a parser, each with the option that all have."""

    def __init__(self, parsers: argparse._SubParsersAction[Parser]) -> None:
        self._parsers = parsers

    def add(self, name: str, short: str, about: str, examples: str) -> argparse.ArgumentParser:
        """A command; `short` is its line in the list of commands, `about` what its own help says."""
        parser = self._parsers.add_parser(
            name,
            help=short,
            description=about,
            epilog=f"examples:\n{examples.rstrip()}\n\n{STATUS}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument(
            "--store",
            default="store",
            metavar="PATH",
            help="folder of the records, or an archive that `export` made, unpacked beside itself (default: ./store)",
        )
        parser.add_argument(
            "--source",
            default="store",
            choices=("store", "offline", "wandb"),
            help="where the numbers are read: the store's records, its offline W&B files, or a W&B server; the plan "
            "and per-item results are the store's (default: store)",
        )
        parser.set_defaults(command=name)
        return parser


def make_console() -> Console:
    """A console of at most `WIDTH` columns, so that tables read alike everywhere."""
    from rich.console import Console

    console = Console(highlight=False)
    return Console(highlight=False, width=min(console.width, WIDTH) if console.is_terminal else WIDTH)
