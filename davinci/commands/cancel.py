"""``cancel``: stop what works on a sweep or a run."""

from __future__ import annotations

import argparse

from davinci.commands.names import find
from davinci.commands.output import print_json
from davinci.launching.cancelling import Cancelled, cancel_run, cancel_sweep
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
    print(f"to go on: python -m davinci retry {options.name}")
    return 0


def _text(done: Cancelled) -> str:
    lines = []
    if done.told:
        lines.append(f"told {some(done.told)} to stop: each worker checkpoints at its next step")
    if done.jobs:
        lines.append(f"cancelled {count(len(done.jobs), 'Slurm job')}: {some(done.jobs)}")
    if done.chains:
        lines.append(f"cancelled {count(len(done.chains), 'stretch').replace('stretchs', 'stretches')} of training")
    if done.kept:
        lines.append(f"{some(done.kept)} goes on: other runs need it")
    return "\n".join(lines or ["nobody is working on it"])
