"""The parser of ``python -m davinci`` and ``python -m analysis``: argparse's, but a mistake is one line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from davinci.errors import nearest


class Parser(argparse.ArgumentParser):
    """Ends with status 2 and one line that says what is accepted, and the nearest name."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help)\n")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's; but an option that a command has not is told from the command's own."""
        found, rest = super().parse_known_args(args, namespace)
        unknown = [text.partition("=")[0] for text in rest if text.startswith("-")]
        if unknown:
            self.error(f"no option {unknown[0]}" + nearest(unknown[0], self._option_string_actions))
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(one) for one in action.choices]
            near = nearest(str(value), known)
            near = near if near.startswith("; nearest") else f"; accepted: {', '.join(known)}"
            raise argparse.ArgumentError(action, f"no {value!r}{near}")
