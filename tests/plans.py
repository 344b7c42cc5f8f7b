"""Plans written by hand, for tests of what comes after planning: `small_run` and `small_plan` fill in all that such a
test does not care about (launching, tracking and analysis use them; put ``tests`` on the path as `pools` needs it)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from davinci.config import Node, Run, parse
from davinci.planning.plan import Audit, Cost, Plan, PlannedRun, Spent
from davinci.planning.sweep import Arm, Question

NOTHING = Spent(unshared=0.0, shared=0.0, left=0.0)


def small_stage(tokens: int, **changes: Any) -> dict[str, Any]:
    """A stage of `tokens` tokens in steps of 8."""
    return {
        "tokens": tokens,
        "sequence_length": 4,
        "batch_size": [{"from_tokens": 0, "sequences": 2}],
        "lr": {"shape": "constant", "start": 0.1},
        "mixture": {"domains": {"general": 1.0}},
        "mask_questions": False,
        "optimizer_state": "carry",
    } | changes


def small_run(**changes: Any) -> Run:
    """A valid run; `changes` replace top-level keys; of evaluation, cluster and tracking only those they name."""
    data: dict[str, Any] = {
        "sweep": "fake",
        "arm": "base",
        "seed": 0,
        "trunk_seed": changes.get("seed", 0),
        "seeds_from": None,
        "store": "store",
        "scale": {
            "name": "tiny",
            "tokens_per_trillion": 1,
            "sequences_per_1024": 1,
            "sequence_length": 4,
            "peak_lr": 0.1,
            "final_lr": 0.1,
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
        "curriculum": {"name": "fake", "stages": {"a": small_stage(80)}},
        "optimizer": {
            "name": "adamw",
            "beta1": 0.9,
            "beta2": 0.9,
            "eps": 1e-8,
            "weight_decay": 0.0,
            "gradient_clip": 1.0,
        },
        "checkpoint_every_tokens": 24,
    }
    parts: dict[str, dict[str, Any]] = {
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
        "tracking": {"mode": "disabled", "project": "davinci-tests", "entity": None},
        "cluster": {
            "kind": "local",
            "workers": 2,
            "threads": 1,
            "gpu": "cpu_core",
            "gpus": 1,
            "mfu": 0.5,
            "price": None,
            "partition": None,
            "account": None,
            "qos": None,
            "time_minutes": 10,
            "cpus_per_task": 1,
            "memory_gb": 1,
            "gpus_per_node": 0,
            "max_parallel": 8,
        },
    }
    for name, part in parts.items():
        data[name] = part | changes.pop(name, {})
    return parse(Run, data | changes)


def small_plan(
    name: str, configs: Sequence[Run], runs: Sequence[PlannedRun], nodes: Iterable[Node], **changes: Any
) -> Plan:
    """A plan of `runs`; `configs` are the arms', the baseline first. It all costs nothing."""
    fields: dict[str, Any] = {
        "sweep": name,
        "question": Question(text="Does it resume?"),
        "arms": tuple(
            Arm(label=config.arm, overrides=(), is_baseline=place == 0, config=config)
            for place, config in enumerate(configs)
        ),
        "seeds": tuple(dict.fromkeys(run.seed for run in runs)),
        "runs": tuple(runs),
        "nodes": {node.id: node for node in nodes},
        "tokens_unshared": 0,
        "tokens_shared": 0,
        "tokens_left": 0,
        "flops_unshared": 0.0,
        "flops": 0.0,
        "flops_left": 0.0,
        "audit": Audit(factor=(), differing=(), derived=(), held_fixed=(), findings=()),
        "epochs": (),
        "warnings": (),
        "cost": Cost(
            gpu="cpu_core",
            gpus=1,
            mfu=0.5,
            mfu_measured=False,
            parallel=1,
            gpu_hours=NOTHING,
            days=NOTHING,
            price=None,
            evaluation_flops=None,
            evaluation_gpu_hours=None,
            parameters=(0,),
            checkpoint_bytes=0,
            record_bytes=0,
        ),
        "power": None,
        "orphans": (),
        "missing_sources": (),
    }
    return Plan(**(fields | changes))
