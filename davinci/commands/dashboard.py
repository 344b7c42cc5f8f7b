"""``dashboard``: a sweep's W&B workspace."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys

from davinci.store import Store, write_json
from davinci.tracking.dashboard import workspace
from davinci.tracking.wandb_runs import launched, shown
from davinci.tracking.wandb_session import client, plain_errors


def run(options: argparse.Namespace, store: Store) -> int:
    found = shown(store, options.sweep)
    tracking = next(iter(found.values())).tracking
    saved = options.save or tracking["mode"] == "online"
    entity = tracking["entity"]
    client(store)  # quiet, before wandb-workspaces imports it
    if saved and entity is None:
        with plain_errors():
            from wandb.apis.public import Api

            entity = Api(timeout=30).default_entity
    plan = launched(store, options.sweep)
    made = workspace(options.sweep, entity or "entity", found, plan, _table(options.sweep, store))
    path = store.sweep(options.sweep) / "dashboard.json"
    write_json(path, json.loads(made._to_model().model_dump_json(by_alias=True, exclude_none=True)))
    if saved:
        with plain_errors():
            made.save()
        print(made.url)
        return 0
    again = f"python -m davinci dashboard {options.sweep} --save --store {shlex.quote(str(store.root))}"
    print(f"{path}\ntracking is {tracking['mode']}; to send the runs: python -m davinci sync {options.sweep}; ", end="")
    print(f"to save the workspace in W&B: {again}")
    return 0


def _table(sweep: str, store: Store) -> str:
    """The ablation table in Markdown, with its intervals: what ``python -m analysis table`` prints."""
    command = [sys.executable, "-m", "analysis", "table", sweep, "--store", str(store.root), "--format", "markdown"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "1000"})
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return f"There is no table yet: {why}"
    return done.stdout
