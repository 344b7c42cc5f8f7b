"""Sweeps of finished runs, small enough to write by hand, for tests of the mirror; and the command that sends them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from plans import small_run

from davinci.store import Store, read_json, write_json
from davinci.tracking.records import Writer
from davinci.tracking.wandb_lineage import evaluation_of
from davinci.tracking.wandb_runs import shown

RUNS = ("qa-30-s0", "qa-50-s0")
EVALUATION = small_run().evaluation
NODES = {"trunk": (0, 100), "qa-30-leaf": (100, 200), "qa-50-leaf": (100, 200)}


def train(store: Store, node: str, attempt: int = 1) -> None:
    begin, end = NODES.get(node, (100, 200))
    with Writer(store.records(node), attempt) as writer:
        for tokens in range(begin + 10, end + 1, 10):
            writer.write(
                "train", tokens, tokens // 10, loss=300 / (100 + tokens), lr=0.1, batch=4, **{"loss/general": 1.5}
            )
        for domain in ("code", "general"):
            writer.write("heldout", end, end // 10, domain=domain, loss=0.9, bits_per_byte=0.4, sequences=8)


def evaluate(
    store: Store, node: str, tokens: int, score: float, attempt: int = 1, suite: str = EVALUATION.key, **more: Any
) -> None:
    with Writer(store.records(node), attempt) as writer:
        for name, domain, value in (("sums", "science", score), ("maths", "science", 1.0), ("prose", "general", 0.5)):
            values = {"benchmark": name, "domain": domain, "protocol": "ppl", "score": value, "suite": suite}
            values |= more
            writer.write("evaluation", tokens, tokens // 10, **values)


def make_sweep(store: Store, mode: str = "offline") -> None:
    manifests: dict[str, Any] = {}
    for arm in ("30", "50"):
        run, leaf = f"qa-{arm}-s0", f"qa-{arm}-leaf"
        manifests[run] = {
            "id": run,
            "sweep": "qa",
            "arm": f"QA-{arm}%",
            "seed": 0,
            "nodes": [{"id": node, "begin": NODES[node][0], "end": NODES[node][1]} for node in ("trunk", leaf)],
            "points": [],
            "config": {
                "arm": f"QA-{arm}%",
                "pool": {"sources": {"manuals": {"domain": "general"}, "lists": {"domain": "code"}}},
                "scale": {"name": "tiny"},
                "evaluation": EVALUATION.model_dump(mode="json"),
                "tracking": {"mode": mode, "project": "davinci-tests", "entity": None},
                "curriculum": {"stages": {"s1": {"tokens": 100}, "s2": {"mixture": {"qa": int(arm) / 100}}}},
            },
        }
        train(store, leaf)
        evaluate(store, leaf, 200, 0.25)
        evaluate(store, leaf, 200, 0.0, suite="another arm's")
    write_json(store.runs("qa"), manifests)
    write_json(store.sweep("qa") / "launched.json", make_plan(manifests))
    train(store, "trunk")
    # Past the range that the runs share: another sweep's, no part of these.
    with Writer(store.records("trunk"), 1) as writer:
        writer.write("train", 110, 11, loss=9.0)
    for node in NODES:
        write_json(store.node(node) / "done.json", {})


def make_many(store: Store, runs: int) -> None:
    """A sweep of so many runs, each with a stretch of its own on one trunk."""
    make_sweep(store, "online")
    template, manifests = read_json(store.runs("qa"))[RUNS[0]], {}
    for seed in range(runs):
        leaf, run = f"leaf-s{seed}", f"qa-30-s{seed}"
        nodes = [template["nodes"][0], {"id": leaf, "begin": 100, "end": 200}]
        manifests[run] = template | {"id": run, "seed": seed, "nodes": nodes}
        train(store, leaf)
        evaluate(store, leaf, 200, seed / runs)
        write_json(store.node(leaf) / "done.json", {})
    write_json(store.runs("qa"), manifests)


def make_plan(manifests: dict[str, Any]) -> dict[str, Any]:
    """As much of a plan as the mirror reads."""
    key = "curriculum.stages.s2.mixture"
    return {
        "question": {"text": "How much QA?"},
        "audit": {"factor": [key], "differing": [f"{key}.qa"]},
        "arms": [
            {
                "label": run["arm"],
                "is_baseline": run["arm"] == "QA-30%",
                "overrides": [f"mixture@{key}=qa{run['arm'][3:5]}"],
                "config": run["config"],
            }
            for run in manifests.values()
        ],
        "nodes": {
            node: {
                "stage_name": "s1" if node == "trunk" else "s2",
                "stage_begin": begin,
                "pool": "embedded",
                "tokenizer_digest": "t0",
                "sources": {"manuals": {"domain": "general", "depth": "L2", "digest": "d0", "weight": 1}},
            }
            for node, (begin, _) in NODES.items()
        },
    }


def sync(store: Store, *extra: str, input: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "davinci", "sync", "qa", "--store", str(store.root), *extra]
    return subprocess.run(command, input=input, capture_output=True, text=True, check=True)


def identities(store: Store) -> dict[str, str]:
    """W&B id of each run and trunk, and of the evaluation of each."""
    found = shown(store, "qa")
    return {name: one.id for name, one in found.items()} | {
        f"{name} evaluation": evaluation_of(one).id for name, one in found.items()
    }
