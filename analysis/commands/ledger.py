"""``ledger``: the transparency card of a sweep, or of one model that it trained."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from analysis.commands.common import Commands, make_console
from davinci.store import Store, write_text

EXAMPLES = """\
  python -m analysis ledger qa_ratio_stage2_2                     ledger.json and ledger.md beside the report
  python -m analysis ledger qa_ratio_stage2_2 --run QA-70%/0      of the model that this arm and seed trained
  python -m analysis ledger qa_ratio_stage2_2 --watts 250 --pue 1.1 --carbon 0.38   the energy of this building
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add(
        "ledger",
        "write the transparency card of a sweep or a model",
        "Say what a sweep's records can prove: data with levels and licences, mixtures, compute and energy, "
        "architecture, hyperparameters, environment, evaluation protocols, negative results. As JSON "
        "(docs/ledger.schema.json) and Markdown.",
        EXAMPLES,
    )
    parser.add_argument("sweep", metavar="SWEEP", help="name of the sweep, as in sweeps/SWEEP.yaml")
    parser.add_argument("--run", metavar="RUN", help="id of a run, the beginning of one, or ARM/SEED: its card alone")
    parser.add_argument("--watts", type=_number(0.0), help="watts that one accelerator draws (default: its data sheet)")
    parser.add_argument("--pue", type=_number(1.0), help="power usage effectiveness of the building (default: 1.56)")
    parser.add_argument(
        "--carbon", type=_number(0.0), metavar="KG", help="kg of CO2 equivalent a kWh, to estimate emissions"
    )


def _number(least: float) -> Callable[[str], float]:
    """A parser of finite numbers from `least` on."""

    def number(text: str) -> float:
        found = float(text)
        if not least <= found < math.inf:
            raise argparse.ArgumentTypeError(f"{text}: a number of {least:g} or more is accepted")
        return found

    return number


def run(options: argparse.Namespace, store: Store) -> int:
    """Write the card's files and print its transparency table."""
    from rich.text import Text

    from analysis.findings import study
    from analysis.ledger import run_card, sweep_card
    from analysis.ledger.compute import Supply
    from analysis.ledger.markdown import energy_notes, openness_table, render
    from analysis.tables import render_terminal

    console = make_console()
    found = study(store, options.sweep)
    supply = Supply(options.watts, options.pue, options.carbon)
    card = sweep_card(found, supply) if options.run is None else run_card(found, options.run, supply)
    render_terminal(openness_table(card), console)
    console.print(Text(energy_notes(card.compute)[0]))
    for note in card.notes:
        console.print(Text(f"Note: {note}", style="yellow"))
    folder = store.sweep(options.sweep) / "report"
    stem = "ledger" if card.run is None else f"ledger-{card.run.id}"
    for suffix, text in ((".json", card.model_dump_json(indent=1) + "\n"), (".md", render(card))):
        write_text(folder / f"{stem}{suffix}", text)
    console.print(Text.assemble(("Ledger ", "bold"), str(folder / f"{stem}.json"), f", {stem}.md"))
    return 0
