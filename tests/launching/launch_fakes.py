"""A plan small enough to read, and stand-ins for training and evaluation that take no time.

`install` replaces the modules that jobs import lazily. The stand-in's "weights" are a hash chain over steps, so that a
wrong resume shows. A test steers it through FIFOs in the folder FAKE_CONTROL: before step N of stage S, if ``S.N`` is
there, training opens it and waits until the test, which opens the other end, closes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from davinci.config import Node, Run, Stage, parse
from davinci.planning.plan import Arm, Audit, Cost, Plan, PlannedRun, Point, Question
from davinci.store import Store, atomic_file, write_json
from davinci.tracking.records import Writer

STEP_TOKENS = 8
STEPS = 10
TRUNK = ("a", "b")
BRANCH = "c"


def make_plan(arms: int = 2, seeds: int = 1, points: tuple[int, ...] = (40, 80), mode: str = "disabled") -> Plan:
    """`seeds` trunks of stages a and b, and on each `arms` branches c, evaluated `points` tokens into c."""
    nodes: dict[str, Node] = {}
    runs = []
    for seed in range(seeds):
        for arm in range(arms):
            config = _run(f"arm{arm}", seed, mode)
            names = [f"{stage}-s{seed}" for stage in TRUNK] + [f"{BRANCH}{arm}-s{seed}"]
            for place, name in enumerate(names):
                nodes[name] = _node(config, name, names[place - 1] if place else None, place, seed)
            begin = nodes[names[-1]].begin
            runs.append(
                PlannedRun(
                    id=f"arm{arm}-s{seed}",
                    arm=f"arm{arm}",
                    seed=seed,
                    nodes=tuple(names),
                    points=tuple(
                        Point(node=names[-1], tokens=begin + one, stage=BRANCH, stage_tokens=one, label=str(one))
                        for one in points
                    ),
                    config=config,
                )
            )
    kinds = {"str": "cpu_core", "int": 1, "float": 1.0}  # The price plays no part in launching.
    cost = Cost(**{name: kinds[field.annotation.__name__] for name, field in Cost.model_fields.items()})
    return Plan(
        sweep="fake",
        question=Question(text="Does it resume?"),
        arms=tuple(Arm(label=f"arm{arm}", overrides=(), is_baseline=arm == 0) for arm in range(arms)),
        seeds=tuple(range(seeds)),
        runs=tuple(runs),
        nodes=nodes,
        audit=Audit(factor=(), differing_keys=(), findings=()),
        epochs=(),
        cost=cost,
        missing_sources=(),
    )


def save_plan(plan: Plan, store: Store) -> None:
    """Write plan.json and the run manifests, as the composition does."""
    folder = store.sweep(plan.sweep)
    write_json(folder / "plan.json", plan.model_dump(mode="json"))
    for run in plan.runs:
        manifest = run.model_dump(mode="json") | {
            "sweep": plan.sweep,
            "nodes": [{"id": one, "begin": plan.nodes[one].begin, "end": plan.nodes[one].end} for one in run.nodes],
        }
        write_json(folder / "runs" / f"{run.id}.json", manifest)


def _run(arm: str, seed: int, mode: str) -> Run:
    stage = {
        "tokens": STEP_TOKENS * STEPS,
        "sequence_length": 4,
        "batch_size": [{"from_tokens": 0, "sequences": 2}],
        "lr": {"shape": "constant", "start": 0.1},
        "mixture": {"domains": {"general": 1.0}},
        "mask_questions": False,
        "optimizer_state": "carry",
    }
    data: dict[str, Any] = {
        "sweep": "fake",
        "arm": arm,
        "seed": seed,
        "trunk_seed": seed,
        "seeds_from": None,
        "store": "store",
        "scale": {
            "name": "tiny",
            "tokens_per_trillion": 1,
            "sequences_per_1024": 1,
            "sequence_length": 4,
            "peak_lr": 0.1,
            "final_lr": 0.1,
            "shared_trunk": False,
        },
        "model": {
            "name": "fake",
            "layers": 1,
            "hidden_size": 4,
            "attention_heads": 1,
            "kv_heads": 1,
            "head_dim": 4,
            "mlp_intermediate_size": 4,
            "vocab_size": 8,
            "max_position_embeddings": 4,
            "rope_theta": 1.0,
            "norm_eps": 0.1,
            "qkv_bias": False,
            "tie_embeddings": True,
            "initializer_range": 0.1,
            "precision": "float32",
        },
        "pool": {
            "name": "fake",
            "tokenizer": "fake",
            "vocab_size": 8,
            "sources": {"prose": {"domain": "general", "depths": ["L0"]}},
        },
        "depth": {},
        "curriculum": {"name": "fake", "stages": dict.fromkeys((*TRUNK, BRANCH), stage)},
        "optimizer": {
            "name": "adamw",
            "beta1": 0.9,
            "beta2": 0.9,
            "eps": 1e-8,
            "weight_decay": 0.0,
            "gradient_clip": 1.0,
        },
        "evaluation": {
            "suite": "fake",
            "harness": "embedded",
            "benchmarks": {
                "sums": {"domain": "science", "task": "t", "protocol": "ppl", "num_fewshot": 0, "metric": "acc"},
                "words": {"domain": "general", "task": "t", "protocol": "ppl", "num_fewshot": 0, "metric": "acc"},
            },
            "at": [],
            "limit": None,
            "heldout_sequences": 1,
        },
        "tracking": {"mode": mode, "project": "davinci-tests", "entity": None},
        "cluster": {
            "kind": "local",
            "workers": 2,
            "threads": 1,
            "gpu": "cpu_core",
            "gpus": 1,
            "mfu": 0.5,
            "partition": None,
            "account": None,
            "qos": None,
            "time_minutes": 10,
            "cpus_per_task": 1,
            "memory_gb": 1,
            "gpus_per_node": 0,
            "max_parallel": 8,
        },
        "checkpoint_every_tokens": 24,
    }
    return parse(Run, data)


def _node(config: Run, name: str, parent: str | None, place: int, seed: int) -> Node:
    begin = place * STEP_TOKENS * STEPS
    stage: Stage = config.curriculum.stages[(*TRUNK, BRANCH)[place]]
    fields = {
        "id": name,
        "parent": parent,
        "stage_name": (*TRUNK, BRANCH)[place],
        "stage_begin": begin,
        "begin": begin,
        "end": begin + stage.tokens,
        "stage": stage,
        "sources": {"prose": {"domain": "general", "depth": "L0", "digest": "0", "weight": 1}},
        "initialisation_seed": seed,
        "data_seed": seed,
        "model": config.model,
        "optimizer": config.optimizer,
        "pool": "fake",
        "tokenizer_digest": "0",
        "vocab_size": 8,
        "checkpoint_every_tokens": config.checkpoint_every_tokens,
    }
    if "mixture_position" in Node.model_fields:
        fields["mixture_position"] = 0
    return Node(**fields)


class Stopped(Exception):
    pass


def rendezvous(name: str) -> None:
    """Meet the test at a FIFO of FAKE_CONTROL, if it made one."""
    fifo = Path(os.environ.get("FAKE_CONTROL", "/nonexistent")) / name
    if fifo.exists():
        with fifo.open("rb") as end:
            end.read()  # Until the test closes its end.
        fifo.unlink(missing_ok=True)


def train(
    node: Node, store: Store, *, checkpoints: Any, attempt: int, progress: Any, should_stop: Any, **_: Any
) -> None:
    control = Path(os.environ.get("FAKE_CONTROL", "/nonexistent"))
    due = sorted({*checkpoints, node.end})
    missing = [tokens for tokens in due if not is_valid(store.checkpoint(node.id, tokens))]
    if not missing:
        return
    folder = store.checkpoint(node.id, 0).parent
    mine = sorted(int(path.name) for path in folder.glob("[0-9]*")) if folder.is_dir() else []
    mine = [tokens for tokens in mine if tokens < missing[0] and is_valid(store.checkpoint(node.id, tokens))]
    if mine:
        tokens = mine[-1]
        weights = (store.checkpoint(node.id, tokens) / "model.safetensors").read_text()
    elif node.parent is None:
        tokens, weights = node.begin, f"seed {node.initialisation_seed}"
    else:
        tokens, weights = node.begin, (store.checkpoint(node.parent, node.begin) / "model.safetensors").read_text()
    if (control / f"{node.id}.fails").exists():
        raise RuntimeError("the loss went away")
    with Writer(store.records(node.id), attempt) as records:
        while tokens < node.end:
            rendezvous(f"{node.id}.{(tokens - node.begin) // STEP_TOKENS}")
            if (control / f"{node.id}.dies").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            while (control / f"{node.id}.{tokens}.awaits-stop").exists() and not should_stop():
                time.sleep(0.005)
            weights = hashlib.sha256(f"{weights} {node.id} {tokens}".encode()).hexdigest()
            tokens += STEP_TOKENS
            step = tokens // STEP_TOKENS
            records.write("train", tokens, step, loss=1.0 / step, **{"loss/general": 1.0 / step})
            progress(tokens, 1000.0, 1.0 / step)
            if tokens in due:
                records.write("heldout", tokens, step, domain="general", loss=0.5, bits_per_byte=0.25, sequences=1)
            if tokens in due or tokens % node.checkpoint_every_tokens == 0 or should_stop():
                records.commit()
                save(store.checkpoint(node.id, tokens), weights, step)
            if should_stop() and tokens < node.end:
                raise Stopped("stopped")


def save(folder: Path, weights: str, step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "model.safetensors") as path:
        path.write_text(weights)
    write_json(folder / "state.json", {"global_step": step, "digest": weights_digest(folder)})


def is_valid(folder: Path) -> bool:
    try:
        state = json.loads((folder / "state.json").read_text())
        return bool(state["digest"] == weights_digest(folder))
    except OSError:
        return False


def weights_digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def settings_digest(node: Node, evaluation: Any, store: Store) -> str:
    return hashlib.sha256(evaluation.model_copy(update={"at": ()}).model_dump_json().encode()).hexdigest()[:8]


def items_file(store: Store, node: Node, key: str) -> Path:
    return store.node(node.id) / "evaluations" / f"{key}.parquet"


def evaluate(checkpoint: Path, node: Node, evaluation: Any, store: Store) -> list[Any]:
    key = weights_digest(checkpoint)[:12] + settings_digest(node, evaluation, store)
    path = items_file(store, node, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("items")
    return [
        SimpleNamespace(
            benchmark=name,
            domain=one.domain,
            protocol=one.protocol,
            metric=one.metric,
            score=int(key[:4], 16) / 65536,
            items=10,
            chance=one.chance,
            key=key,
        )
        for name, one in evaluation.benchmarks.items()
    ]


def stand_ins() -> dict[str, ModuleType]:
    """Modules to put in place of those that jobs import."""
    return {
        "davinci.training.loop": _module(train=train, Stopped=Stopped),
        "davinci.training.numerics": _module(configure=lambda threads: None),
        "davinci.training.checkpoints": _module(is_valid=is_valid),
        "davinci.model.weights": _module(weights_digest=weights_digest),
        "davinci.evaluation.evaluate": _module(
            evaluate=evaluate, settings_digest=settings_digest, items_file=items_file
        ),
    }


def install() -> None:
    """Put the stand-ins where jobs import the real ones."""
    sys.modules.update(stand_ins())


def _module(**content: Any) -> ModuleType:
    module = ModuleType("stand_in")
    module.__dict__.update(content)
    return module
