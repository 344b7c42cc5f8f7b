"""The epoch ledger: tokens demanded from every domain in every stage, against what the pool holds."""

from __future__ import annotations

from collections.abc import Sequence

from davinci.config import Run
from davinci.data.cards import PoolCard
from davinci.planning.mixtures import PoolView
from davinci.planning.plan import Epochs


def ledger(runs: Sequence[Run], cards: dict[str, PoolCard | None]) -> tuple[Epochs, ...]:
    """One row an (arm, stage, domain); seeds demand the same, so the first run of each arm speaks for it.

    `epochs` divides the stage's demand by the tokens of the sources the stage may use; `cumulative` adds the stages
    before, each against its own sources.
    """
    rows: list[Epochs] = []
    first_of_arm: dict[str, Run] = {}
    for run in runs:
        first_of_arm.setdefault(run.arm, run)
    for run in first_of_arm.values():
        view = PoolView(run.pool, run.depth, cards[run.pool.name])
        seen: dict[str, float] = {}
        for name, stage in run.curriculum.stages.items():
            sources = view.weigh(stage.mixture, name)
            for domain in sorted({use.domain for use in sources.values()}):
                held = sum(view.tokens(source) for source, use in sources.items() if use.domain == domain)
                demanded = stage.tokens * stage.mixture.domains[domain]
                epochs = demanded / held if held else 0.0
                seen[domain] = seen.get(domain, 0.0) + epochs
                rows.append(
                    Epochs(
                        arm=run.arm,
                        stage=name,
                        name=domain,
                        demanded_tokens=demanded,
                        pool_tokens=held,
                        epochs=epochs,
                        cumulative=seen[domain],
                    )
                )
    return tuple(rows)
