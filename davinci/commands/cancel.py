"""``cancel``: stop what works on a sweep or a run."""

from __future__ import annotations

import argparse

from davinci.commands.names import find
from davinci.commands.output import command, print_json
from davinci.launching.cancelling import Stopped, cancel_run, cancel_sweep
from davinci.planning.plan import load_plan
from davinci.planning.wording import count, some
from davinci.store import Store


def run(options: argparse.Namespace, store: Store) -> int:
    name = find(store, options.name)
    sweep = name if isinstance(name, str) else name.sweep
    plan = load_plan(store, sweep)
    done = cancel_sweep(plan, store) if isinstance(name, str) else cancel_run(plan, name.id, store)
    if options.json:
        print_json({"sweep": sweep, "run": None if isinstance(name, str) else name.id, **done.model_dump(mode="json")})
        return 0
    print(_text(done))
    if done.chains:
        print(f"to go on: {command(store, 'retry', options.name)}")
    return 0


def _text(done: Stopped) -> str:
    lines = [f"cancelled {count(len(done.chains), 'job')}; those that run checkpoint and stop"] if done.chains else []
    if done.beside:
        lines.append(f"cancelled {count(len(done.beside), 'evaluation')} on demand; `evaluate` submits them again")
    if done.told:
        lines.append(f"told {some(done.told)} to stop")
    if done.jobs:
        lines.append(f"told Slurm to cancel {some(done.jobs)}")
    if done.kept:
        lines.append(f"other runs need {some(done.kept)}, which goes on")
    return "\n".join(lines)
