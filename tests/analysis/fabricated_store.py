"""A store as a finished sweep would leave it, with a known truth: three arms fork from one trunk a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from davinci.config import Node, Run, parse
from davinci.planning.plan import Plan, load_plan
from davinci.store import Store, write_json
from davinci.tracking.records import Writer

ARMS = {"QA-30%": 0.0, "QA-50%": 0.5, "QA-70%": 1.0}
BENCHMARKS = {
    "general_cloze": ("general", "ppl", 0.25),
    "general_order": ("general", "ppl", 0.25),
    "code_next": ("code", "ppl", 0.25),
    "code_order": ("code", "ppl", 0.25),
    "science_cloze": ("science", "ppl", 0.25),
    "arithmetic_ppl": ("science", "ppl", 0.25),
    "arithmetic_generative": ("science", "generative", 0.0),
}
Suite = Mapping[str, tuple[str, str, float]]  # benchmark -> domain, protocol, chance
# What one unit of an arm's dose adds to a domain's log-odds by the last point.
EFFECT = {"general": 0.0, "code": -0.1, "science": 1.0}
TRUNK = {"s1_1": (0, 1_000_000), "s2_1": (1_000_000, 1_240_000)}
BRANCH = ("s2_2", 1_240_000, 1_344_000)
POINTS = {1_260_480: "83.9B", 1_301_440: "252B", 1_342_400: "419B"}
MIXTURE = {"general": 0.19, "code": 0.03, "science": 0.08, "qa": 0.7}


def _stage(tokens: int, mixture: dict[str, float]) -> dict[str, Any]:
    return {
        "tokens": tokens,
        "sequence_length": 125,  # four of them divide every budget
        "batch_size": [{"from_tokens": 0, "sequences": 4}],
        "lr": {"shape": "constant", "start": 4e-4},
        "mixture": {"domains": mixture},
        "mask_questions": False,
        "optimizer_state": "carry",
    }


def _run(
    sweep: str, arm: str, seed: int, dose: float, shared_trunk: bool, suite: Suite, replicate: int
) -> dict[str, Any]:
    qa = 0.3 + 0.4 * dose
    mixture = {name: share * (1 - qa) / 0.3 for name, share in MIXTURE.items() if name != "qa"} | {"qa": qa}
    stages = {name: _stage(end - begin, MIXTURE) for name, (begin, end) in TRUNK.items()}
    stages[BRANCH[0]] = _stage(BRANCH[2] - BRANCH[1], mixture)
    return {
        "sweep": sweep,
        "arm": arm,
        "seed": seed,
        "trunk_seed": 0 if shared_trunk else seed,
        "seeds_from": BRANCH[0] if shared_trunk else None,
        "replicate": replicate,
        "store": "store",
        "scale": {
            "name": "tiny",
            "tokens_per_trillion": 244_141,
            "sequences_per_1024": 4,
            "sequence_length": 128,
            "peak_lr": 4e-3,
            "final_lr": 4e-4,
        },
        "model": {
            "name": "tiny",
            "layers": 4,
            "hidden_size": 128,
            "attention_heads": 4,
            "kv_heads": 2,
            "head_dim": 32,
            "mlp_intermediate_size": 352,
            "vocab_size": 1024,
            "max_position_embeddings": 256,
            "rope_theta": 1e4,
            "norm_eps": 1e-6,
            "qkv_bias": True,
            "tie_embeddings": True,
            "initializer_range": 0.02,
            "precision": "float32",
        },
        "pool": {
            "name": "embedded",
            "tokenizer": "tokenizer.json",
            "vocab_size": 1024,
            "sources": {f"{name}_text": {"domain": name, "depths": ["L2"], "tokens": 10**6} for name in MIXTURE},
        },
        "depth": {},
        "curriculum": {"name": "paper", "stages": stages},
        "optimizer": {
            "name": "adamw",
            "beta1": 0.9,
            "beta2": 0.95,
            "eps": 1e-8,
            "weight_decay": 0.1,
            "gradient_clip": 1.0,
        },
        "evaluation": {
            "suite": "embedded",
            "harness": "embedded",
            "benchmarks": {
                name: {
                    "domain": domain,
                    "task": name,
                    "protocol": protocol,
                    "num_fewshot": 0,
                    "metric": "acc",
                    "chance": chance,
                }
                for name, (domain, protocol, chance) in suite.items()
            },
            "at": [],
            "limit": None,
            "heldout_sequences": 32,
        },
        "tracking": {"mode": "disabled", "project": "davinci", "entity": None},
        "cluster": {
            "kind": "local",
            "workers": None,
            "threads": 1,
            "gpu": "cpu_core",
            "gpus": 1,
            "mfu": 0.35,
            "price": None,
            "partition": None,
            "account": None,
            "qos": None,
            "time_minutes": 60,
            "cpus_per_task": 1,
            "memory_gb": 4,
            "gpus_per_node": 0,
            "max_parallel": 64,
        },
        "checkpoint_every_tokens": 100_000,
    }


def _node(run: Run, name: str, parent: str | None, stage: str, begin: int, end: int) -> Node:
    data = {
        "id": name,
        "parent": parent,
        "stage_name": stage,
        "stage_begin": begin,
        "begin": begin,
        "end": end,
        "stage": run.curriculum.stages[stage].model_dump(mode="json"),
        "sources": {"qa_text": {"domain": "qa", "depth": "L2", "digest": "0" * 64, "weight": 1}},
        "mixture_position": 0,
        "initialisation_seed": run.seed,
        "data_seed": run.seed,
        "model": run.model.model_dump(mode="json"),
        "optimizer": run.optimizer.model_dump(mode="json"),
        "pool": "embedded",
        "tokenizer_digest": "0" * 64,
        "vocab_size": 1024,
        "checkpoint_every_tokens": 100_000,
    }
    return parse(Node, data)


def plan(
    sweep: str,
    arms: dict[str, float],
    seeds: Sequence[int],
    question: dict[str, Any],
    *,
    shared_trunk: bool = False,
    suites: Mapping[str, Suite] | None = None,
    replicates: Mapping[str, int] | None = None,
) -> Plan:
    """The plan of `arms` (label -> dose) by `seeds`; the first arm is the baseline.

    `suites` are the arms' own benchmarks, `replicates` the arms that repeat another; arms of one dose and replicate are
    one branch.
    """
    nodes: dict[str, Node] = {}
    runs, described = [], []
    for arm, dose in arms.items():
        replicate = (replicates or {}).get(arm, 0)
        suite = (suites or {}).get(arm, BENCHMARKS)
        made = [parse(Run, _run(sweep, arm, seed, dose, shared_trunk, suite, replicate)) for seed in seeds]
        described.append(
            {
                "label": arm,
                "overrides": [f"mixture@curriculum.stages.s2_2.mixture=qa{30 + 40 * dose:.0f}"],
                "is_baseline": not described,
                "config": made[0].model_dump(mode="json"),
            }
        )
        again = f"-again{replicate}" if replicate else ""
        for run in made:
            chain: list[Node] = []
            for stage, (begin, end) in TRUNK.items():
                parent = chain[-1].id if chain else None
                chain.append(_node(run, f"{stage}-v1-seed{run.trunk_seed}{again}", parent, stage, begin, end))
            leaf = f"{BRANCH[0]}-v1-dose{dose}-seed{run.seed}{again}"
            chain.append(_node(run, leaf, chain[-1].id, *BRANCH))
            nodes |= {node.id: node for node in chain}
            fork = {"node": chain[1].id, "tokens": 1_240_000, "stage": "s2_1", "stage_tokens": 240_000}
            fork["label"] = "1.00T"
            points = [fork] + [
                {"node": leaf, "tokens": at, "stage": BRANCH[0], "stage_tokens": at - BRANCH[1], "label": label}
                for at, label in POINTS.items()
            ]
            asked = "" if suite is BENCHMARKS else f"-{arm}"
            runs.append(
                {
                    "id": f"dose{dose}-s{run.seed}{again}{asked}",
                    "arm": arm,
                    "seed": run.seed,
                    "nodes": [node.id for node in chain],
                    "points": points,
                }
            )
    epochs = [
        {
            "arms": [arm],
            "stage": BRANCH[0],
            "domain": domain,
            "source": source,
            "demanded_tokens": 1e5,
            "pool_tokens": 10**6,
            "epochs": share,
            "cumulative": 2 * share,
        }
        for arm, dose in arms.items()
        for domain, share in {"general": 0.06 - 0.03 * dose, "qa": 0.03 + 0.04 * dose}.items()
        for source in (None, f"{domain}_text")
    ]
    data = {
        "sweep": sweep,
        "question": question,
        "arms": described,
        "seeds": list(seeds),
        "runs": runs,
        "nodes": {name: node.model_dump(mode="json") for name, node in nodes.items()},
        "tokens_unshared": 12_096_000,
        "tokens_shared": 4_656_000,
        "tokens_left": 0,
        "flops_unshared": 7.3e13,
        "flops": 2.8e13,
        "flops_left": 0.0,
        "audit": {
            "factor": ["curriculum.stages.s2_2.mixture"],
            "differing": ["curriculum.stages.s2_2.mixture.domains.qa"],
            "derived": ["curriculum.stages.s2_2.depth.qa"],
            "held_fixed": ["tokens", "flops"],
            "findings": [{"level": "noted", "text": "every arm sees 1,344,000 tokens and spends the same FLOPs"}],
        },
        "epochs": epochs,
        "warnings": [],
        "cost": {
            "gpu": "cpu_core",
            "gpus": 1,
            "mfu": 0.35,
            "mfu_measured": False,
            "parallel": 2,
            "gpu_hours": {"unshared": 0.58, "shared": 0.22, "left": 0.0},
            "days": {"unshared": 0.02, "shared": 0.01, "left": 0.0},
            "price": None,
            "evaluation_flops": None,
            "evaluation_gpu_hours": None,
            "parameters": [940_000],
            "checkpoint_bytes": 400_000_000,
            "record_bytes": 1_000_000,
        },
        "power": {"noise": 1.5, "source": "stated in the sweep file", "seeds": len(seeds), "detectable": 4.3},
        "orphans": [],
        "missing_sources": [],
    }
    return parse(Plan, data)


QUESTION = {
    "text": "How much of stage 2-2 should be question-answer data?",
    "hypothesis": {
        "text": "More QA practice lifts generated arithmetic, since only QA shows questions being answered.",
        "metric": "arithmetic_generative",
        "arm": "QA-70%",
        "direction": "increase",
    },
    "paper": {"section": "4.3.2", "table": "9", "published": "table9_qa_ratio_stage2_2"},
    "assumptions": ["The paper prints the proportions of stage 2-2 only at 70% QA; the other arms rescale the rest."],
}


def fabricate(
    root: Path,
    *,
    sweep: str = "qa_ratio",
    arms: dict[str, float] = ARMS,
    seeds: Sequence[int] = (0, 1, 2),
    question: dict[str, Any] = QUESTION,
    items: int = 60,
    effect: dict[str, float] = EFFECT,
    without: Sequence[str] = (),
    shared_trunk: bool = False,
    suites: Mapping[str, Suite] | None = None,
    replicates: Mapping[str, int] | None = None,
) -> Store:
    """Write a store below `root` and return it; runs in `without` leave their branch untrained.

    The answers to ``x_ppl`` and ``x_generative`` are those to the same items; so are those to one benchmark that two
    suites ask under two protocols.
    """
    store = Store(root)
    planned = plan(sweep, arms, seeds, question, shared_trunk=shared_trunk, suites=suites, replicates=replicates)
    write_json(store.sweep(sweep) / "launched.json", planned.model_dump(mode="json"))
    asked: list[Suite] = [BENCHMARKS]
    asked += [suite for suite in (suites or {}).values() if suite not in asked]
    names = list(dict.fromkeys(name for suite in asked for name in suite))
    random = np.random.default_rng(5)
    difficulty = {name: random.normal(0, 1, items) for name in ("shared", *names)}
    luck = {node: random.normal(0, 0.08) for node in planned.nodes}
    noise = {
        (node, name, protocol): random.logistic(0, 1, items)
        for node in planned.nodes
        for name, protocol in dict.fromkeys((name, suite[name][1]) for suite in asked for name in suite)
    }
    trained: set[str] = set()
    evaluated: set[tuple[str, int]] = set()
    for run in planned.runs:
        suite = (suites or {}).get(run.arm, BENCHMARKS)
        for node in run.nodes:
            if node == run.nodes[-1] and run.id in without:
                continue
            if node not in trained:
                trained.add(node)
                _train(store, planned.nodes[node], arms[run.arm])
            if (node, asked.index(suite)) in evaluated:
                continue
            evaluated.add((node, asked.index(suite)))
            for point in run.points:
                if point.node != node:
                    continue
                gain = (point.tokens - 1_240_000) / 102_400
                level = -0.3 + 0.3 * gain + luck[run.nodes[1]] + (luck[node] if node == run.nodes[-1] else 0.0)
                right = {}
                for name, (domain, protocol, _) in suite.items():
                    gained = effect[domain] * arms[run.arm] * gain
                    hard = difficulty["shared" if name.startswith("arithmetic") else name]
                    right[name] = level + gained - hard + noise[node, name, protocol] > 0.5
                _evaluate(store, node, point.tokens, suite, right, planned.config(run).evaluation.key)
    return store


def _train(store: Store, node: Node, dose: float) -> None:
    random = np.random.default_rng(node.end + node.data_seed)
    with Writer(store.records(node.id), attempt=1) as writer:
        for tokens in range(node.begin + 4_096, node.end + 1, 4_096):
            loss = 3.4 + 3.2 * np.exp(-tokens / 1.5e5) + random.normal(0, 0.04)
            if node.stage_name == BRANCH[0]:
                loss -= 0.35 * (0.3 + dose) * (1 - np.exp(-(tokens - BRANCH[1]) / 1e4))
            norm = 0.4 + 2.0 * np.exp(-tokens / 5e4) + 0.05 * np.sin(tokens / 7e3 + node.data_seed)
            measured = {"loss": float(loss), "grad_norm": float(norm)}
            writer.write("train", tokens, tokens // 512, **measured, lr=4e-4, tokens_per_second=9000.0)
        ends = [node.end] if node.stage_name != BRANCH[0] else [*POINTS, node.end]
        for tokens in ends:
            for index, domain in enumerate(MIXTURE):
                bits = 2.4 - 0.2 * index + 1.5 * np.exp(-tokens / 4e5) + random.normal(0, 0.01)
                if node.stage_name == BRANCH[0]:
                    bits += (0.08 if domain != "qa" else -0.25) * dose * (tokens - BRANCH[1]) / 1e5
                values = {"loss": float(bits), "bits_per_byte": float(bits)}
                writer.write("heldout", tokens, tokens // 512, domain=domain, **values)
    mark = {"node": node.id, "begin": node.begin, "end": node.end, "weights_digest": "ab" * 32}
    write_json(store.node(node.id) / "done.json", mark | {"attempt": 1, "train_rows": 0})


def with_routers(store: Store, arm: str, layers: int, sweep: str = "qa_ratio") -> None:
    """Rows of routers, which only runs of the arm have: 2 and 0.5 and the number of the layer and of the seed."""
    found = load_plan(store, sweep)
    for run in found.runs:
        node = found.nodes[run.nodes[-1]]
        with Writer(store.records(node.id), attempt=2) as writer:
            for tokens in range(node.begin + 4096, node.end + 1, 4096) if run.arm == arm else ():
                values = {
                    f"router/{name}/{layer}": value + layer + run.seed
                    for layer in range(layers)
                    for name, value in (("load_max", 2.0), ("entropy", 0.5))
                }
                writer.write("train", tokens, tokens // 512, loss=4.0, **values)


def _evaluate(
    store: Store, node: str, tokens: int, suite: Suite, answers: dict[str, np.ndarray], suite_key: str
) -> None:
    """Write the item file and the evaluation rows of one checkpoint; `answers` says which items were right."""
    key = f"{hash_of(node, tokens):016x}"[-16:] + suite_key
    size = len(next(iter(answers.values())))
    table = {
        "benchmark": np.repeat(list(answers), size),
        "item": np.tile(np.arange(size, dtype=np.int32), len(answers)),
        "score": np.concatenate(list(answers.values())).astype(float),
    }
    folder = store.node(node) / "evaluations"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), folder / f"{key}.parquet")
    with Writer(store.records(node), attempt=1) as writer:
        for name, right in answers.items():
            domain, protocol, chance = suite[name]
            about = {"benchmark": name, "domain": domain, "protocol": protocol, "metric": "acc", "chance": chance}
            kept = {"items": size, "key": key, "items_file": f"{key}.parquet", "suite": suite_key}
            writer.write("evaluation", tokens, tokens // 512, score=float(right.mean()), **about, **kept)


def hash_of(node: str, tokens: int) -> int:
    """A number that names an evaluation, the same in every process."""
    return int.from_bytes(f"{node}@{tokens}".encode()[-10:], "big")
