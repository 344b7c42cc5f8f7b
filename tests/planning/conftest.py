"""A small run as plain data, and the card of a small pool."""

import copy
import json

import pytest

from davinci.config import Run, parse
from davinci.data.cards import PoolCard


def _stage(tokens, mixture, lr):
    return {
        "tokens": tokens,
        "sequence_length": 16,
        "batch_size": [{"from_tokens": 0, "sequences": 2}],
        "lr": lr,
        "mixture": {"domains": mixture, "sources": {}},
        "mask_questions": False,
        "optimizer_state": "carry",
    }


RUN = {
    "sweep": "test",
    "arm": "base",
    "seed": 0,
    "trunk_seed": 0,
    "seeds_from": None,
    "store": "store",
    "scale": {
        "name": "test",
        "tokens_per_trillion": 1000,
        "sequences_per_1024": 2,
        "sequence_length": 16,
        "peak_lr": 0.01,
        "final_lr": 0.001,
    },
    "model": {
        "name": "test",
        "layers": 1,
        "hidden_size": 8,
        "attention_heads": 2,
        "kv_heads": 1,
        "head_dim": 4,
        "mlp_intermediate_size": 16,
        "vocab_size": 64,
        "max_position_embeddings": 32,
        "rope_theta": 10000.0,
        "norm_eps": 1e-6,
        "qkv_bias": True,
        "tie_embeddings": True,
        "initializer_range": 0.02,
        "precision": "float32",
    },
    "pool": {
        "name": "small",
        "tokenizer": "small",
        "vocab_size": 64,
        "sources": {
            "books": {"domain": "general", "depths": ["L1", "L2"], "tokens": 3000},
            "web": {"domain": "general", "depths": ["L2"], "tokens": 1000},
            "programs": {"domain": "code", "depths": ["L1", "L2"], "tokens": 2000},
            "answers": {"domain": "qa", "depths": ["L5"], "tokens": 500, "substages": ["second"]},
        },
    },
    "depth": {},
    "curriculum": {
        "name": "two",
        "stages": {
            "first": _stage(640, {"general": 0.75, "code": 0.25}, {"shape": "constant", "start": 0.01}),
            "second": _stage(320, {"general": 0.25, "qa": 0.75}, {"shape": "cosine", "start": 0.01, "stop": 0.001}),
        },
    },
    "optimizer": {
        "name": "adamw",
        "beta1": 0.9,
        "beta2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.1,
        "gradient_clip": 1.0,
    },
    "evaluation": {
        "suite": "test",
        "harness": "embedded",
        "benchmarks": {
            "cloze": {"domain": "general", "task": "cloze", "protocol": "ppl", "num_fewshot": 0, "metric": "acc"}
        },
        "at": [{"stage": "second", "tokens": 100}, {"stage": "second"}],
        "limit": None,
        "heldout_sequences": 4,
    },
    "tracking": {"mode": "disabled", "project": "test", "entity": None},
    "cluster": {
        "kind": "local",
        "workers": 1,
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
        "max_parallel": 1,
    },
    "checkpoint_every_tokens": 10000,
}


@pytest.fixture
def run_data():
    """The plain data of the run, free to change."""
    return copy.deepcopy(RUN)


@pytest.fixture
def make_run(run_data):
    """``make_run({"a.b": value}, seed=1)``: the run with dotted keys and top-level keys changed."""

    def make(changes=None, **top):
        data = copy.deepcopy(run_data)
        data.update(top)
        for key, value in (changes or {}).items():
            *path, last = key.split(".")
            target = data
            for part in path:
                target = target[int(part)] if isinstance(target, list) else target[part]
            target[int(last) if isinstance(target, list) else last] = value
        return parse(Run, data)

    return make


@pytest.fixture
def card():
    """A card that knows every source at every depth, with a digest that names both."""
    sizes = {"books": (3000, ("L1", "L2")), "web": (1000, ("L2",)), "programs": (2000, ("L1", "L2"))}
    sizes["answers"] = (500, ("L5",))
    domains = {name: source["domain"] for name, source in RUN["pool"]["sources"].items()}
    return PoolCard.model_validate_json(
        json.dumps(
            {
                "name": "small",
                "tokenizer": {"file": "tokenizer.json", "digest": "t0", "vocab_size": 64},
                "sources": {
                    name: {
                        "domain": domains[name],
                        "licence": {},
                        "archive": {},
                        "variants": {
                            depth: {
                                "digest": f"{name}-{depth}",
                                "tokens": tokens,
                                "documents": 10,
                                "bytes": tokens * 4,
                                "heldout_tokens": 100,
                                "heldout_documents": 1,
                                "heldout_bytes": 400,
                                "chain": [],
                            }
                            for depth in depths
                        },
                    }
                    for name, (tokens, depths) in sizes.items()
                },
            }
        )
    )
