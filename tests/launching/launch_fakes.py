"""A plan small enough to read, and stand-ins for training and evaluation that take no time.

`install` replaces the modules that jobs import lazily. The stand-in's "weights" are a hash chain over steps, so that a
wrong resume shows. A test steers it through FIFOs in the folder FAKE_CONTROL: before step N of stage S, if ``S.N`` is
there, training opens it and waits until the test, which opens the other end, closes it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # Also where this is imported by a worker or a Slurm job.
from plans import small_plan, small_run, small_stage

from davinci.config import Node, Run, SourceUse, Stage
from davinci.planning.plan import Plan, PlannedRun, Point
from davinci.store import Store, atomic_file, write_json
from davinci.tracking.records import Writer

STEP_TOKENS = 8
STEPS = 10
TRUNK = ("a", "b")
BRANCH = "c"


def make_plan(
    arms: int = 2, seeds: int = 1, points: tuple[int, ...] = (40, 80), mode: str = "disabled", **changes: Any
) -> Plan:
    """`seeds` trunks of stages a and b, and on each `arms` branches c, evaluated `points` tokens into c.

    `changes` (of `plans.small_run`) are those of every arm; a list gives each arm its own.
    """
    stages = dict.fromkeys((*TRUNK, BRANCH), small_stage(STEP_TOKENS * STEPS))
    configs = [
        small_run(
            arm=f"arm{arm}",
            curriculum={"name": "fake", "stages": stages},
            tracking={"mode": mode},
            **{name: one[arm] if isinstance(one, list) else one for name, one in changes.items()},
        )
        for arm in range(arms)
    ]
    nodes: dict[str, Node] = {}
    runs = []
    for seed in range(seeds):
        for arm in range(arms):
            names = [f"{stage}-s{seed}" for stage in TRUNK] + [f"{BRANCH}{arm}-s{seed}"]
            for place, name in enumerate(names):
                nodes[name] = _node(configs[arm], name, names[place - 1] if place else None, place, seed)
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
                )
            )
    return small_plan("fake", configs, runs, nodes.values())


def _node(config: Run, name: str, parent: str | None, place: int, seed: int) -> Node:
    begin = place * STEP_TOKENS * STEPS
    stage: Stage = config.curriculum.stages[(*TRUNK, BRANCH)[place]]
    return Node(
        id=name,
        parent=parent,
        stage_name=(*TRUNK, BRANCH)[place],
        stage_begin=begin,
        begin=begin,
        end=begin + stage.tokens,
        stage=stage,
        sources={"prose": SourceUse(domain="general", depth="L0", digest="0", weight=1)},
        mixture_position=0,
        initialisation_seed=seed,
        data_seed=seed,
        model=config.model,
        optimizer=config.optimizer,
        pool="fake",
        tokenizer_digest="0",
        vocab_size=8,
        checkpoint_every_tokens=config.checkpoint_every_tokens,
    )


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
            if (control / f"{node.id}.hogs").exists():
                hog(control / f"{node.id}.hogs")
            if (control / f"{node.id}.{tokens}.deaf").exists():
                (control / f"{node.id}.{tokens}.deaf").rename(control / f"{node.id}.{tokens}.is-deaf")
                ctypes.PyDLL(None).sleep(120)  # With the interpreter's lock: no handler of a signal gets to run.
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


def hog(cgroup: Path) -> None:
    """Take memory until killed for it, in the control group that a file names, or where this process is."""
    if named := cgroup.read_text():
        Path(named, "cgroup.procs").write_text(str(os.getpid()))
    taken = []
    while len(taken) < 400:
        taken.append(b"x" * (10 << 20))
    raise RuntimeError("4 GB were not too much")


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
    return f"settings of {evaluation.key}"


def items_file(store: Store, node: Node, key: str) -> Path:
    return store.node(node.id) / "evaluations" / f"{key}.parquet"


def is_kept(weights: Sequence[Path], node: Node, evaluation: Any, store: Store) -> bool:
    return items_file(store, node, _key(weights, evaluation)).is_file()


def _key(weights: Sequence[Path], evaluation: Any) -> str:
    key = weights_digest(weights[-1].parent)[:12] + evaluation.key
    if [file.name for file in weights] != ["model.safetensors"]:
        key += "".join(f"-{file.parent.name}.{file.stem}" for file in weights)
    return key


def evaluate(
    checkpoint: Path, node: Node, evaluation: Any, store: Store, weights: Sequence[Path] = (), between: Any = None
) -> list[Any]:
    """The key of what is evaluated names the files, where it is not the checkpoint's own weights."""
    key = _key(weights, evaluation)
    path = items_file(store, node, key)
    rendezvous(f"{node.id}.evaluates")
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
            truncated=0,
            outcomes={},
            seconds=None,
            key=key,
        )
        for name, one in evaluation.benchmarks.items()
    ]


def stand_ins() -> dict[str, ModuleType]:
    """Modules to put in place of those that jobs import."""
    return {
        "davinci.training.loop": _module(train=train, Stopped=Stopped),
        "davinci.training.accelerators": _module(require_gpus=lambda asked: None),
        "davinci.training.numerics": _module(configure=lambda threads: None),
        "davinci.training.checkpoints": _module(is_valid=is_valid),
        "davinci.model.weights": _module(
            weights_digest=weights_digest, WEIGHTS="model.safetensors", AVERAGE="average.safetensors"
        ),
        "davinci.evaluation.evaluate": _module(evaluate=evaluate, items_file=items_file, is_kept=is_kept),
        "davinci.evaluation.settings": _module(settings_digest=settings_digest),
    }


def install() -> None:
    """Put the stand-ins where jobs import the real ones."""
    sys.modules.update(stand_ins())


def _module(**content: Any) -> ModuleType:
    module = ModuleType("stand_in")
    module.__dict__.update(content)
    return module
