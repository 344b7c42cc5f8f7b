"""Planning a sweep against plain Hydra composing the same jobs.

Ours expands, composes, validates, hashes, audits and trees every run; the peer only composes each job's config, as
Hydra's basic sweeper and launcher do. Usage: python benchmarks/planning.py [--quick]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from _table import Row, finish
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from davinci.composition import resolvers
from davinci.composition.expand import Sweep, expand
from davinci.data.cards import PoolCard, SourceCard, TokenizerCard, VariantCard
from davinci.planning.build import build_plan

ROOT = Path(__file__).resolve().parent.parent


def sweep_lines(seeds: int) -> list[str]:
    """200 arms: two depths, four mixtures, five values each of two numbers; every arm with `seeds` seeds."""
    return [
        "depth=l1,l2",
        "mixture@curriculum.stages.s2_2.mixture=qa30,qa40,qa50,qa70",
        "optimizer.beta2=0.9,0.92,0.94,0.96,0.98",
        "curriculum.stages.s2_2.lr.start=0.0001,0.0002,0.0003,0.0004,0.0005",
        f"seed=range({seeds})",
    ]


def a_card(sweep: Sweep) -> PoolCard:
    """A card that holds every source of the sweep's pool at every depth."""
    pool = sweep.runs[0].pool

    def variant(digest: str) -> VariantCard:
        counts = dict.fromkeys(("heldout_tokens", "heldout_documents", "heldout_bytes"), 1)
        return VariantCard(digest=digest, tokens=10**6, documents=1000, bytes=4 * 10**6, chain=(), **counts)

    sources = {
        name: SourceCard(
            domain=source.domain,
            licence={},
            archive={},
            variants={depth: variant(f"{name}@{depth}") for depth in source.depths},
        )
        for name, source in pool.sources.items()
    }
    tokenizer = TokenizerCard(file="tokenizer.json", digest="0", vocab_size=pool.vocab_size)
    return PoolCard(name=pool.name, tokenizer=tokenizer, sources=sources)


def plan_seconds(loader: ConfigLoader, seeds: int) -> tuple[int, float]:
    """Runs of the sweep, and seconds until it is planned."""
    started = time.perf_counter()
    sweep = expand(sweep_lines(seeds), loader, Path("sweeps"))
    card = a_card(sweep)
    plan = build_plan(
        sweep.runs,
        question=sweep.question,
        arms=sweep.arms,
        factor=sweep.factor,
        cards={card.name: card},
        warn_only=True,
    )
    seconds = time.perf_counter() - started
    assert plan.audit.verdict == "controlled" and len(plan.runs) == 200 * seeds
    return len(plan.runs), seconds


def hydra_seconds(loader: ConfigLoader, jobs: int) -> float:
    """Seconds plain Hydra needs to compose `jobs` of the same jobs."""
    master = loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
    started = time.perf_counter()
    for job in range(jobs):
        overrides = [
            f"depth=l{1 + job % 2}",
            f"mixture@curriculum.stages.s2_2.mixture=qa{(30, 40, 50, 70)[job % 4]}",
            f"optimizer.beta2={0.9 + job % 5 / 50:g}",
            f"curriculum.stages.s2_2.lr.start={0.0001 * (1 + job % 5):g}",
            f"seed={job}",
        ]
        for _ in range(2):  # the sweeper composes every job to check it, the launcher again to run it
            loader.load_sweep_config(master, overrides)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 runs against 20 jobs")
    quick = parser.parse_args().quick
    resolvers.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        jobs = 20 if quick else 100
        peer = hydra_seconds(loader, jobs) / jobs
        runs, seconds = plan_seconds(loader, 1 if quick else 5)
    ours = seconds / runs
    row = Row(
        f"plan a run ({runs} runs)", f"{1e3 * ours:.2f} ms", f"{1e3 * peer:.0f} ms", peer / ours, 10 if quick else 40
    )
    finish("Planning: a run planned against a job composed by plain Hydra 1.3", [row])


if __name__ == "__main__":
    main()
