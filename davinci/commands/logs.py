"""``logs``: what the jobs of a run printed."""

from __future__ import annotations

import argparse
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from davinci.commands.names import RunName, find_run
from davinci.commands.output import print_json, print_json_line
from davinci.errors import UserError
from davinci.launching.job import log_path
from davinci.launching.status import run_states
from davinci.launching.tasks import EVALUATION, tasks
from davinci.planning.plan import Chain, Plan, PlannedRun, load_plan
from davinci.store import Store

FOLLOW_SECONDS = 0.5
# How often following asks whether the run is over.
STATE_SECONDS = 2.0


@dataclass
class _Log:
    """A chain's log and how far it was read."""

    chain: str
    path: Path
    position: int = 0
    _partial: bytes = field(default=b"", repr=False)

    def new_lines(self) -> list[str]:
        """Whole lines since the last call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.position)
                block = file.read()
        except FileNotFoundError:
            return []
        self.position += len(block)
        *lines, self._partial = (self._partial + block).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def rest(self) -> list[str]:
        """What stands after the last whole line."""
        rest, self._partial = self._partial, b""
        return [rest.decode(errors="replace")] if rest else []


def run(options: argparse.Namespace, store: Store) -> int:
    if options.lines is not None and options.lines < 0:
        raise UserError(f"--lines {options.lines}: 0 or more are accepted")
    name = find_run(store, options.run)
    plan = load_plan(store, name.sweep)
    logs = _logs(plan, name, store)
    if options.follow:
        return _follow(options, plan, name, logs, store)
    if not any(log.path.is_file() for log in logs):
        raise UserError(f"run {name.id} has no log yet; its jobs write {logs[-1].path}")
    found = []
    for log in logs:
        lines = log.new_lines() + log.rest()
        found.append(
            {
                "chain": log.chain,
                "path": str(log.path),
                "lines": lines if options.lines is None else _last(lines, options),
            }
        )
    if options.json:
        print_json({"run": name.id, "sweep": name.sweep, "logs": found})
        return 0
    for one in found:
        print(f"==> {one['path']} <==")
        for line in one["lines"]:
            print(line)
    return 0


def _last(lines: list[str], options: argparse.Namespace) -> list[str]:
    return list(deque(lines, maxlen=options.lines))


def _logs(plan: Plan, name: RunName, store: Store) -> list[_Log]:
    """Logs of the run's chains, from the root to the leaf. What another sweep trained was logged there."""
    nodes = set(_planned(plan, name).nodes)
    logs = []
    for chain in tasks(plan):
        if nodes.isdisjoint(chain.nodes):
            continue
        path = log_path(store, plan.sweep, chain.name)
        elsewhere = [] if path.is_file() else [store.root.glob(f"jobs/*/{name}.log") for name in _names(chain)]
        found = sorted(path for paths in elsewhere for path in paths)
        logs += [_Log(chain.name, one) for one in found or [path]]
    return logs


def _names(task: Chain) -> list[str]:
    """What jobs are called that do something of the task, in other sweeps."""
    ending = EVALUATION if task.name.endswith(EVALUATION) else ""
    return [node + ending for node in task.nodes]


def _planned(plan: Plan, name: RunName) -> PlannedRun:
    return next(run for run in plan.runs if run.id == name.id)


def _follow(options: argparse.Namespace, plan: Plan, name: RunName, logs: list[_Log], store: Store) -> int:
    """Print what there is, then what is added, until the run is over or cannot go on."""
    shown: Path | None = None
    is_first, is_over, asked, state = True, False, 0.0, ""
    while True:
        for log in logs:
            lines = log.new_lines() + (log.rest() if is_over else [])
            if is_first and options.lines is not None:
                lines = _last(lines, options)
            for line in lines:
                if options.json:
                    print_json_line({"chain": log.chain, "path": str(log.path), "line": line})
                    continue
                if log.path != shown:
                    print(f"==> {log.path} <==")
                    shown = log.path
                print(line, flush=True)
        if is_over:
            return int(state != "done")
        is_first = False
        now = time.monotonic()
        if now - asked >= STATE_SECONDS:
            asked = now
            state = next(one.state for one in run_states(plan, store) if one.id == name.id)
            is_over = state not in ("running", "waiting")
        if not is_over:
            time.sleep(FOLLOW_SECONDS)
