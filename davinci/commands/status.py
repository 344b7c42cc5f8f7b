"""``status``: how a sweep's runs stand, once or for as long as they run."""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live

from davinci.commands.output import command, make_console, print_json, print_json_line
from davinci.commands.status_page import StatusPage
from davinci.launching.progress import PLAIN_SECONDS
from davinci.launching.status import SweepState, sweep_state
from davinci.planning.plan import load_plan
from davinci.store import Store

WATCH_SECONDS = 2.0


def run(options: argparse.Namespace, store: Store) -> int:
    """0, or 1 if a run failed, is blocked or was cancelled."""
    if options.watch:
        return _watch(options, store)
    gc.disable()  # Of a thousand runs a tenth of the time goes into looking for rubbish, and there is none.
    plan = load_plan(store, options.sweep)
    state = sweep_state(plan, store)
    if options.json:
        print_json(state.model_dump(mode="json"))
    else:
        console = make_console()
        page = StatusPage(plan, state, console.width, command(store, "retry", plan.sweep))
        console.print(Group(page.table(), *page.notes(), page.summary()), soft_wrap=not console.is_terminal)
    return _status(state)


def _status(state: SweepState) -> int:
    return int(any(state.counts.get(name) for name in ("failed", "blocked", "cancelled")))


def _watch(options: argparse.Namespace, store: Store) -> int:
    """Show the state again and again until no run is running or waiting."""
    console = make_console()
    if options.json or not console.is_terminal:
        return _stream(options, store)
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        for page in _pages(options.sweep, store, console):
            live.update(_screen(page, console), refresh=True)
            if page.state.is_settled:
                # What stays on the screen when it is over is the whole of it.
                live.update(Group(page.table(), *page.notes(), page.summary()), refresh=False)
                break
            time.sleep(WATCH_SECONDS)
    return _status(page.state)


def _stream(options: argparse.Namespace, store: Store) -> int:
    """For a pipe: a line whenever something changed, looked for every few seconds."""
    last: object = None
    for page in _pages(options.sweep, store, Console(width=1)):
        line = page.summary().plain
        if options.json:
            print_json_line(page.state.model_dump(mode="json"))
        elif line != last:
            print(line, flush=True)
        last = line
        if page.state.is_settled:
            break
        time.sleep(PLAIN_SECONDS)
    return _status(page.state)


def _pages(sweep: str, store: Store, console: Console) -> Iterator[StatusPage]:
    """What there is to show, each time it is asked for; the plan is read again when it was launched anew."""
    path = store.sweep(sweep) / "launched.json"
    plan, stamp = load_plan(store, sweep), None
    while True:
        now = path.stat().st_mtime_ns
        if now != stamp:
            plan, stamp = load_plan(store, sweep), now
        yield StatusPage(plan, sweep_state(plan, store), console.width, command(store, "retry", sweep))


def _screen(page: StatusPage, console: Console) -> RenderableType:
    """The page cut to the terminal's height, the summary first: what does not fit is cut off below."""
    notes = page.notes()
    return Group(page.summary(), page.table(max(3, console.height - 3 - len(notes))), *notes)
