"""``figure``: the paper's figures, of a sweep's records."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.commands.common import Commands
from analysis.figures import FIGURES, PUBLISHED
from davinci.errors import UserError, nearest
from davinci.store import Store

if TYPE_CHECKING:
    from analysis.figures.plot import Options, Plot

EXAMPLES = """\
  python -m analysis figure qa_ratio_stage2_2                      all that its records allow
  python -m analysis figure qa_introduction --figure 7             one of them
  python -m analysis figure qa_ratio_stage2_1 --figure 11b --paper overlay   published values in the same panels
  python -m analysis figure --figure 12 --paper only --out .       published values alone, without a sweep
  python -m analysis figure two_stage_curriculum --figure 4 --stages s1_2,s2_1   over other stages than its own
"""
ABOUT = "Draw the paper's figures from a sweep's records: PDF, PNG, and the data behind each as CSV.\n\nfigures:\n"


def add(commands: Commands) -> None:
    """Declare the command."""
    listed = "\n".join(f"  {number:<4} {what}" for number, (what, _) in FIGURES.items())
    parser = commands.add("figure", "draw the paper's figures of a sweep", ABOUT + listed, EXAMPLES)
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="name of a sweep, as in sweeps/SWEEP.yaml")
    parser.add_argument(
        "--figure", action="append", default=[], metavar="N", help="which; may be given several times (default: all)"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where to (default: STORE/sweeps/SWEEP/figures)")
    parser.add_argument(
        "--paper",
        choices=["side", "overlay", "none", "only"],
        default="side",
        help=f"published values, where there are any ({', '.join(PUBLISHED)}): in panels of their own, in the same "
        "panels, not, or nothing else (default: side)",
    )
    parser.add_argument("--arms", metavar="A,B", help="only these arms")
    parser.add_argument("--stages", metavar="A,B", help="over these stages instead of the figure's own")
    parser.add_argument("--benchmarks", metavar="A,B", help="of figures 8, 10, 11a and 12: these benchmarks")
    parser.add_argument(
        "--external",
        action="append",
        default=[],
        metavar="NAME",
        help="of figure 12: these external models (default: all)",
    )
    parser.add_argument(
        "--reference", default="", metavar="MODEL", help="of figure 12: the model that others are held to"
    )
    parser.add_argument("--suite", metavar="NAME|KEY", help="scores on a suite that `davinci evaluate` was told")


def run(options: argparse.Namespace, store: Store) -> int:
    """Draw each sweep's figures; without --figure those that its records do not allow are named with the reason."""
    for number in options.figure:
        if number not in FIGURES:
            raise UserError(f"--figure: no figure {number!r}; one of {', '.join(FIGURES)}{nearest(number, FIGURES)}")
    if options.paper == "only":
        return _published(options)
    if not options.sweeps:
        raise UserError("figure: name a sweep (or --paper only for the published values alone)")
    for name in options.sweeps:
        _draw(name, options, store)
    return 0


def _draw(name: str, options: argparse.Namespace, store: Store) -> None:
    from analysis.figures.plot import Asked, write
    from analysis.load import load
    from analysis.samples import Grid

    sweep = load(store, name, options.suite)
    grid = Grid(sweep)
    folder = Path(options.out) if options.out else store.sweep(name) / "figures"
    if options.out and len(options.sweeps) > 1:
        folder /= name
    made = False
    for number in options.figure or FIGURES:
        try:
            plot = _function("figure", number)(Asked(number, sweep, grid, _options(options)))
        except UserError as error:
            if options.figure:
                raise
            print(f"left out: {error}")
            continue
        made = True
        print("  ".join(str(path) for path in write(plot, folder, sweep.plan.audit.verdict)))
    if not made:
        raise UserError(f"figure: the records of sweep {name!r} allow none of the figures")


def _published(options: argparse.Namespace) -> int:
    from analysis.figures.plot import write

    if options.sweeps:
        raise UserError("--paper only draws no sweep; leave out the sweep, or take --paper side")
    for number in options.figure or PUBLISHED:
        if number not in PUBLISHED:
            raise UserError(
                f"--figure {number}: no published values of it as data; of {', '.join(PUBLISHED)} there are"
            )
        plot: Plot = _function("published", number)()
        print("  ".join(str(path) for path in write(plot, Path(options.out or "."), "controlled")))
    return 0


def _function(kind: str, number: str):  # type: ignore[no-untyped-def]
    return getattr(importlib.import_module(f"analysis.figures.{FIGURES[number][1]}"), f"{kind}_{number}")


def _options(options: argparse.Namespace) -> Options:
    from analysis.figures.plot import Options

    def names(text: str | None) -> tuple[str, ...]:
        return tuple(part.strip() for part in (text or "").split(",") if part.strip())

    return Options(
        paper=options.paper,
        arms=names(options.arms),
        stages=names(options.stages),
        benchmarks=names(options.benchmarks),
        externals=tuple(options.external),
        reference=options.reference,
    )
