"""``tune``: the value of one key that each variant of a sweep does best with, and the sweep that compares them so."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.commands.common import Commands, make_console
from davinci.errors import UserError
from davinci.store import Store, write_text

if TYPE_CHECKING:
    from analysis.load import Sweep
    from analysis.tuning import Pick

EXAMPLES = """\
  python -m analysis tune arch_zoo                                    each variant's held-out loss by learning rate
  python -m analysis tune arch_zoo --to sweeps/arch_zoo_tuned.yaml --seeds 1,2,3
  python launch.py -m sweep=arch_zoo_tuned                            the variants, each at its own
  python -m analysis tune arch_zoo --compared arch_zoo_tuned          sizes, cost, loss against the baseline
"""
ABOUT = """\
Pick, for each variant of a sweep, the value of one key of its grid by held-out loss alone; write the sweep file that
compares the variants at what was picked, with seeds that had no part in the pick; print that comparison."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add("tune", "pick each variant's learning rate, then compare", ABOUT, EXAMPLES)
    parser.add_argument("sweep", metavar="SWEEP", help="name of the sweep with every variant at every value")
    parser.add_argument("--key", default="scale.peak_lr", help="the key of its grid (default: scale.peak_lr)")
    parser.add_argument("--to", metavar="FILE", help="write the comparing sweep there; SWEEP is read beside it")
    parser.add_argument("--seeds", default="1,2,3", help="of the comparing sweep (default: 1,2,3)")
    parser.add_argument("--compared", metavar="SWEEP", help="print that comparing sweep's table instead")
    parser.add_argument("--format", choices=("terminal", "markdown", "csv"), default="terminal")


def run(options: argparse.Namespace, store: Store) -> int:
    """Print the picks or the comparison; write the comparing sweep."""
    from analysis import tables, tuning
    from analysis.load import load

    sweep = load(store, options.sweep)
    found = tuning.picks(sweep, options.key)
    table = tuning.picks_table(found, options.key)
    if options.compared is not None:
        second = load(store, options.compared)
        _require_fresh(sweep.plan.seeds, second.plan.seeds, options.compared)
        table = tuning.compared_table(second, options.key)
    if options.format == "terminal":
        tables.render_terminal(table, make_console())
    else:
        render = tables.render_markdown if options.format == "markdown" else lambda one: tables.render_csv(one.data)
        print(render(table), end="")
    if options.to is not None:
        seeds = _seeds(options.seeds)
        _require_fresh(sweep.plan.seeds, seeds, "--seeds")
        _write(Path(options.to), sweep, found, options.key, seeds)
    return 0


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.split(","))
    except ValueError:
        raise UserError(f"--seeds {text}: whole numbers are expected, as in 1,2,3") from None


def _require_fresh(tuned: tuple[int, ...], seeds: tuple[int, ...], what: str) -> None:
    if used := sorted({*tuned} & {*seeds}):
        raise UserError(f"{what}: seed {used[0]} had a part in the pick; give others than {', '.join(map(str, tuned))}")


def _write(path: Path, sweep: Sweep, found: Sequence[Pick], key: str, seeds: tuple[int, ...]) -> None:
    import yaml

    from analysis import tuning

    name, scale = sweep.plan.sweep, sweep.plan.arms[0].config.scale.name
    source = path.parent / f"{name}.yaml"
    try:
        file = yaml.safe_load(source.read_text(encoding="utf-8"))
        made = tuning.comparing_file(file, found, key, seeds)
        text = yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=120)
        about = (
            f"# Written by `python -m analysis tune {name}`: each variant with the {key} of its lowest held-out loss\n"
            f"# at scale={scale}. At another scale tune again.\n"
        )
        write_text(path, about + text)
    except OSError as error:
        raise UserError(f"--to {path}: {error.filename}: {error.strerror}") from None
    print(f"{path}: {len(found)} variants; python launch.py -m sweep={path.stem}")
