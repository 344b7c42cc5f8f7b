"""Commands on a store: ``python -m davinci COMMAND``. Each imports what it needs when it is called."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from davinci.errors import UserError, nearest
from davinci.store import Store, read_json

if TYPE_CHECKING:
    from davinci.launching.status import RunState

EXAMPLES = """\
examples:
  python -m davinci data build embedded           build the pool that carries its own text
  python -m davinci status qa_ratio_stage2_2      arms x seeds: waiting, running, done, failed
  python -m davinci where qa-30-s0-1f2e3d4c       paths of a run's records, checkpoints and logs
  python -m davinci sync qa_ratio_stage2_2        send finished runs to W&B, offline or online as the sweep says
"""


# More seeds than this are counted instead of shown one by one.
SEEDS_SHOWN = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    store = Store(Path(options.store).absolute())
    try:
        return int(options.command(options, store) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `… | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--store", default="store", metavar="PATH", help="where everything is kept (default: ./store)")
    parser = argparse.ArgumentParser(
        prog="python -m davinci",
        description="Commands on a store. To launch a sweep: python launch.py -m sweep=NAME",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="pools of text").add_subparsers(required=True, metavar="ACTION")
    build = data.add_parser("build", parents=[shared], help="build a pool: text, tokenizer, shards, benchmark items")
    build.add_argument("pool", metavar="POOL")
    build.set_defaults(command=_data_build)

    where = commands.add_parser("where", parents=[shared], help="paths of a run, or of a sweep's plan, report and runs")
    where.add_argument("name", metavar="RUN|SWEEP")
    where.set_defaults(command=_where)

    status = commands.add_parser("status", parents=[shared], help="how a sweep's runs stand")
    status.add_argument("sweep", metavar="SWEEP")
    status.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    status.set_defaults(command=_status)

    sync = commands.add_parser("sync", parents=[shared], help="send finished runs to W&B; sends nothing twice")
    sync.add_argument("sweep", metavar="SWEEP")
    sync.add_argument("--watch", action="store_true", help="take ids of finished runs, one a line, from standard input")
    sync.set_defaults(command=_sync)
    return parser


def _data_build(options: argparse.Namespace, store: Store) -> None:
    from davinci.data.build import build
    from davinci.evaluation.embedded import make_tasks

    build(options.pool, store, print)
    make_tasks(store, options.pool)


def _where(options: argparse.Namespace, store: Store) -> None:
    manifests = {path.stem: path for path in (store.root / "sweeps").glob("*/runs/*.json")}
    plans = [path for name in ("plan", "launched") for path in (store.root / "sweeps").glob(f"*/{name}.json")]
    sweeps = {path.parent.name: path.parent for path in plans}
    if options.name in sweeps:
        folder = sweeps[options.name]
        for path in (folder / "plan.json", folder / "launched.json"):
            print(f"{path.stem.ljust(8)}  {path if path.is_file() else 'none'}")
        print(f"report    {folder / 'report'}")
        print(f"logs      {store.jobs(options.name)}")
        for path in sorted((folder / "runs").glob("*.json")):
            print(f"run       {path.stem}")
        return
    if options.name not in manifests:
        raise UserError(
            f"store {store.root} has no run or sweep {options.name!r}" + nearest(options.name, [*sweeps, *manifests])
        )
    manifest = read_json(manifests[options.name])
    print(f"manifest     {manifests[options.name]}")
    print(f"logs         {store.jobs(manifest['sweep'])}")
    for node in manifest["nodes"]:
        print(f"node         {store.node(node['id'])}  ({node['begin']} to {node['end']} tokens)")
        print(f"  records      {store.records(node['id'])}")
        for checkpoint in sorted(store.checkpoint(node["id"], 0).parent.glob("[0-9]*")):
            print(f"  checkpoint   {checkpoint}")
        for items in sorted((store.node(node["id"]) / "evaluations").glob("*.parquet")):
            print(f"  evaluation   {items}")


def _status(options: argparse.Namespace, store: Store) -> None:
    from davinci.launching.status import run_states
    from davinci.planning.plan import load_plan

    plan = load_plan(store, options.sweep)
    states = run_states(plan, store)
    if options.json:
        print(json.dumps({"sweep": plan.sweep, "runs": [state.model_dump() for state in states]}, indent=1))
        return
    for line in _table([arm.label for arm in plan.arms], plan.seeds, states):
        print(line)


def _table(arms: Sequence[str], seeds: Sequence[int], states: Sequence[RunState]) -> Iterator[str]:
    """Arms x seeds, or how many seeds stand how where they are too many to show; then what failed."""
    width = max(len(arm) for arm in arms) + 2
    if len(seeds) > SEEDS_SHOWN:
        counts = Counter((state.arm, state.state) for state in states)
        for arm in arms:
            found = [
                f"{counts[arm, name]} {name}" for name in ("done", "running", "waiting", "failed") if counts[arm, name]
            ]
            yield arm.ljust(width) + ", ".join(found)
        yield from _failed(states)
        return
    cells = {
        (state.arm, state.seed): f"{state.state} {100 * state.tokens // state.total_tokens}%"
        if state.state in ("running", "waiting") and state.tokens
        else state.state
        for state in states
    }
    yield " " * width + "".join(f"seed {seed}".ljust(16) for seed in seeds)
    for arm in arms:
        yield arm.ljust(width) + "".join(cells.get((arm, seed), "").ljust(16) for seed in seeds)
    yield from _failed(states)


def _failed(states: Sequence[RunState]) -> Iterator[str]:
    for state in states:
        if state.state == "failed":
            yield f"failed: {state.id} in {state.at}: {state.error}; log: {state.log}"


def _sync(options: argparse.Namespace, store: Store) -> None:
    from davinci.launching.lock import Lock
    from davinci.tracking.wandb_mirror import is_finished, is_mirrored, mirror, run_ids

    def send(runs: Sequence[str]) -> None:
        new = [run for run in runs if not is_mirrored(store, options.sweep, run)]
        if new:
            with Lock(store.wandb, on_wait=lambda owner: print(f"waiting for {owner}", flush=True)):
                mirror(store, options.sweep, new, lambda line: print(line, flush=True))

    everything = run_ids(store, options.sweep)
    if options.watch:
        os.nice(10)  # Training comes first.
        for line in sys.stdin:
            send([line.strip()])
        return
    finished = [run for run in everything if is_finished(store, options.sweep, run)]
    send(finished)
    print(f"{len(finished)} of {len(everything)} runs are finished and mirrored")


if __name__ == "__main__":
    sys.exit(main())
