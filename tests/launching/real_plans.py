"""Small plans that a real training can carry out: a long stage, and an arm that leaves it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from plans import small_run, small_stage
from pools import DEPTH, POOL, SOURCES, VOCAB_SIZE, tiny_pool

from davinci.config import Run
from davinci.data.cards import read_card
from davinci.planning.build import build_plan
from davinci.planning.plan import Plan
from davinci.planning.sweep import Arm, Question, Sweep
from davinci.store import Store

LENGTH = 32
# A unit of the budgets: some steps of two sequences.
UNIT = 5 * 2 * LENGTH


def filled(folder: Path) -> Store:
    store = Store(folder)
    tiny_pool(store, tokens=4_000)
    return store


def stage(units: int, **lr: Any) -> dict[str, Any]:
    mixture = {"general": 0.1875, "code": 0.25, "science": 0.125, "qa": 0.4375}
    lr = {"shape": "constant", "start": 3e-3} | lr
    return small_stage(units * UNIT, sequence_length=LENGTH, lr=lr, mixture={"domains": mixture}, mask_questions=True)


def arm(label: str, stages: dict[str, dict[str, Any]], at: dict[str, list[int]]) -> Run:
    """`at` gives, by stage, the units into it at which the arm is evaluated."""
    model = small_run().model.model_dump(mode="json") | {
        "hidden_size": 16,
        "attention_heads": 2,
        "head_dim": 8,
        "mlp_intermediate_size": 32,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 64,
        "rope_theta": 1e4,
        "norm_eps": 1e-6,
        "initializer_range": 0.02,
    }
    sources = {name: {"domain": domain, "depths": [DEPTH]} for name, (domain, _) in SOURCES.items()}
    return small_run(
        arm=label,
        model=model,
        pool={"name": POOL, "tokenizer": "tokenizer.json", "vocab_size": VOCAB_SIZE, "sources": sources},
        curriculum={"name": "fork", "stages": stages},
        evaluation={
            "at": [{"stage": name, "tokens": units * UNIT} for name, found in at.items() for units in found],
            "heldout_sequences": 2,
        },
        checkpoint_every_tokens=UNIT // 2,
    )


def long(*at: int) -> Run:
    return arm("long", {"s": stage(6)}, {"s": [*at, 6]})


def fork(*at: int) -> Run:
    """Leaves the long arm after four units."""
    decay = stage(2, shape="linear", start=3e-3, stop=1e-4)
    return arm("fork", {"s": stage(4), "decay": decay}, {"s": list(at), "decay": [2]})


def planned(store: Store, *runs: Run) -> Plan:
    arms = [Arm(label=run.arm, overrides=(), is_baseline=place == 0, config=run) for place, run in enumerate(runs)]
    sweep = Sweep("fork", Question(text="?"), tuple(arms), (0,), ("curriculum", "evaluation"))
    return build_plan(sweep, cards={POOL: read_card(store, POOL)}, store=store)
