"""A store in which every node of a plan is finished, as far as a reader of files can tell.

Nobody trains a thousand runs to time how they are found done: node.json, records.jsonl and done.json are written by the
launcher's own code, the weights and per-item scores are empty files that only have to be there.
"""

from __future__ import annotations

from collections.abc import Sequence

from davinci.launching.demands import Probing, demanded, probed, suites
from davinci.launching.job import mark_done
from davinci.launching.reconcile import Asked, Settings, asked_of
from davinci.planning.plan import Plan
from davinci.store import Store, write_json
from davinci.tracking.records import Writer


def finish_nodes(plan: Plan, store: Store) -> None:
    """Make every node of `plan` look trained and evaluated; the pool and its tasks must be in `store` already."""
    demands, known, probing = demanded(plan), suites(plan), probed(plan)
    settings: Settings = {}
    for node in plan.nodes.values():
        asked = asked_of(node, demands.get(node.id, ()), known, store, settings)
        write_json(store.node(node.id) / "node.json", node.model_dump(mode="json"))
        for tokens in {node.end, *(one.demand.tokens for one in asked)}:
            folder = store.checkpoint(node.id, tokens)
            folder.mkdir(parents=True)
            write_json(folder / "state.json", {"numerics": {}})
            (folder / "model.safetensors").touch()
        probes = probing.get(node.id, ())
        _record(plan, node.id, asked, probes, store)
        mark_done(node, asked, None, "0" * 64, 1, store, probes)


def _record(plan: Plan, name: str, asked: Sequence[Asked], probes: Sequence[Probing], store: Store) -> None:
    node = plan.nodes[name]
    items = store.node(name) / "evaluations" / "items.parquet"
    items.parent.mkdir(parents=True, exist_ok=True)
    items.touch()
    with Writer(store.records(name), 1) as records:
        for step in node.steps:
            records.write("train", node.stage_begin + node.stage.grid.tokens_at(step + 1), step + 1, loss=1.0)
        for domain in ("general", "code", "science", "qa"):
            records.write("heldout", node.end, node.steps.stop, domain=domain, loss=1.0)
        for probe in probes:
            for tokens in node.probed_at(probe.every_tokens):
                records.write("probe", tokens, 0, suite=probe.key, capability="any", capabilities=1)
        for one in asked:
            for benchmark, about in one.evaluation.benchmarks.items():
                records.write(
                    "evaluation",
                    one.demand.tokens,
                    node.steps.stop,
                    benchmark=benchmark,
                    domain=about.domain,
                    protocol=about.protocol,
                    suite=one.demand.suite,
                    settings=one.settings,
                    items_file=f"evaluations/{items.name}",
                    score=0.5,
                )
