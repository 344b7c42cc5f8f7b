"""Nodes of a tiny curriculum on the tiny pool."""

from __future__ import annotations

from typing import Any

from pools import DEPTH, POOL, SOURCES, VOCAB_SIZE

from davinci.config import Model, Node, Stage, parse

LENGTH = 32
# Weights in the mixture's order, by source: QA-heavy, as in the paper's last stage.
WEIGHTS = {"prose": 3, "python": 4, "maths": 2, "pairs": 7}


def tiny_model(**changes: Any) -> Model:
    shape: dict[str, Any] = {
        "name": "test",
        "layers": 2,
        "hidden_size": 32,
        "attention_heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "mlp_intermediate_size": 64,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 64,
        "rope_theta": 10000.0,
        "norm_eps": 1e-6,
        "qkv_bias": True,
        "tie_embeddings": True,
        "initializer_range": 0.02,
        "precision": "float32",
    }
    return parse(Model, shape | changes)


def tiny_stage(steps: int = 24, **changes: Any) -> dict[str, Any]:
    """A stage of `steps` steps: the first half of them with 2 sequences, the second with 4."""
    half = steps // 2
    tokens = (2 * half + 4 * (steps - half)) * LENGTH
    return {
        "tokens": tokens,
        "sequence_length": LENGTH,
        "batch_size": [{"from_tokens": 0, "sequences": 2}, {"from_tokens": 2 * half * LENGTH, "sequences": 4}],
        "lr": {"shape": "cosine", "start": 3e-3, "stop": 3e-4, "warmup_tokens": 4 * LENGTH},
        "mixture": {"domains": {"general": 0.1875, "code": 0.25, "science": 0.125, "qa": 0.4375}},
        "mask_questions": True,
        "optimizer_state": "carry",
    } | changes


def tiny_node(**changes: Any) -> Node:
    """A node that trains a whole stage from initialisation, unless `changes` say otherwise."""
    stage = changes.pop("stage", None) or tiny_stage()
    data: dict[str, Any] = {
        "id": "trunk",
        "parent": None,
        "stage_name": "s",
        "stage_begin": 0,
        "begin": 0,
        "stage": stage,
        "sources": {
            name: {"domain": SOURCES[name][0], "depth": DEPTH, "digest": None, "weight": weight}
            for name, weight in WEIGHTS.items()
        },
        "mixture_position": 0,
        "initialisation_seed": 1,
        "data_seed": 2,
        "model": tiny_model().model_dump(mode="json"),
        "optimizer": {
            "name": "adamw",
            "beta1": 0.9,
            "beta2": 0.95,
            "eps": 1e-8,
            "weight_decay": 0.1,
            "gradient_clip": 1.0,
        },
        "pool": POOL,
        "tokenizer_digest": None,
        "vocab_size": VOCAB_SIZE,
        "checkpoint_every_tokens": 1 << 40,
    } | changes
    data.setdefault("end", data["stage_begin"] + parse(Stage, data["stage"]).grid.tokens_used)
    return parse(Node, data)


def boundary(node: Node, step: int) -> int:
    """Tokens since initialisation after `step` steps of the node's stage."""
    return node.stage_begin + node.stage.grid.tokens_at(step)
