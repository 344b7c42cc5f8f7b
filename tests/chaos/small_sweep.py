"""A sweep small enough for CI: 24 real trainings of a few seconds, scored by a stand-in that depends on every bit of
the weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import launch_fakes
from pools import POOL, tiny_pool
from real_plans import UNIT, arm, stage

from davinci.data.cards import read_card
from davinci.launching.manifests import record
from davinci.planning.build import build_plan
from davinci.planning.plan import Plan
from davinci.planning.sweep import Arm, Question, Sweep
from davinci.store import Store

TESTS = Path(__file__).parents[1]
NAME = "chaos"
ARMS, SEEDS = 12, (0, 1)
TRUNK, BRANCH = 24, 24  # units

# What every process of the disturbed sweep loads: the stand-in for evaluation, and a pause after each step, so that a
# training lasts long enough to be struck without taking a core.
SITE = """
import os, sys, time
import launch_fakes
from davinci.launching import cancelled
sys.modules.update({name: one for name, one in launch_fakes.stand_ins().items() if name.startswith("davinci.eval")})
look, pause = cancelled.Watch.__call__, float(os.environ.get("CHAOS_PAUSE", "0"))
def slow(self):
    time.sleep(pause)
    return look(self)
cancelled.Watch.__call__ = slow
"""


def filled(folder: Path, **cluster: Any) -> tuple[Store, Plan]:
    """A store with a pool, in which the sweep is recorded as launched."""
    store = Store(folder)
    tiny_pool(store, tokens=40_000)
    arms = []
    for number in range(ARMS):
        decay = stage(BRANCH, shape="linear", start=3e-3, stop=1e-4 * (1 + number))
        run = arm(f"stop{number}", {"s": stage(TRUNK), "decay": decay}, {"s": [TRUNK], "decay": [BRANCH]})
        run = run.model_copy(
            update={
                "sweep": NAME,
                "cluster": run.cluster.model_copy(update=cluster),
                "checkpoint_every_tokens": 4 * UNIT,
            }
        )
        arms.append(Arm(label=run.arm, overrides=(), is_baseline=number == 0, config=run))
    sweep = Sweep(NAME, Question(text="Does it survive?"), tuple(arms), SEEDS, ("curriculum",))
    plan = build_plan(sweep, cards={POOL: read_card(store, POOL)}, store=store)
    record(plan, store)
    return store, plan


def environment(folder: Path, pause: float) -> dict[str, str]:
    """Variables of every process of the sweep."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITE)
    path = [str(folder), str(TESTS / "launching"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "CHAOS_PAUSE": str(pause)}


def stand_ins() -> dict[str, Any]:
    """Modules for this process, as `SITE` has them for others."""
    return {name: one for name, one in launch_fakes.stand_ins().items() if name.startswith("davinci.evaluation")}
