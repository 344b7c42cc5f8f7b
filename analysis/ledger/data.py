"""The data a card speaks of: from the plan, and from the pool's card where that is at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.ledger.card import Archive, Data, DataSource, Mixture, StageMixture
from analysis.ledger.scope import Scope
from davinci.config import SourceUse
from davinci.data.cards import PoolCard, SourceCard, read_card
from davinci.data.data_cards import same_documents, steps
from davinci.errors import UserError


def data(scope: Scope) -> Data:
    """Every source at every level that the runs read, in the order of domain and name."""
    first = next(iter(scope.nodes.values()))
    card = _card(scope, first.pool)
    read: dict[tuple[str, str], SourceUse] = {}
    for node in scope.nodes.values():
        for name, use in node.sources.items():
            read.setdefault((name, use.depth), use)
    epochs, most = _seen(scope)
    sources = [
        _source(name, use, card.sources.get(name) if card else None, epochs.get(name, {}), most.get(name, 0.0))
        for (name, _), use in sorted(read.items(), key=lambda one: (one[1].domain, one[0]))
    ]
    return Data(
        pool=first.pool,
        tokenizer_digest=first.tokenizer_digest,
        vocab_size=first.vocab_size,
        sources=tuple(sources),
    )


def mixture(scope: Scope) -> Mixture:
    """The proportions of every stage, a row for the arms that agree, and the sweep file's words on them."""
    question = scope.plan.question
    rows: dict[tuple[str, int, str], list[str]] = {}
    domains: dict[tuple[str, int, str], dict[str, float]] = {}
    for arm in scope.arms:
        for name, stage in arm.config.curriculum.stages.items():
            key = name, stage.grid.tokens_used, repr(sorted(stage.mixture.domains.items()))
            rows.setdefault(key, []).append(arm.label)
            domains[key] = dict(stage.mixture.domains)
    order = {name: at for arm in scope.arms for at, name in enumerate(arm.config.curriculum.stages)}
    return Mixture(
        question=question.text,
        hypothesis=question.hypothesis.text if question.hypothesis else None,
        assumptions=question.assumptions,
        factor=scope.plan.audit.factor,
        overrides={arm.label: arm.overrides for arm in scope.arms},
        mixtures=tuple(
            StageMixture(stage=key[0], arms=tuple(arms), tokens=key[1], domains=domains[key])
            for key, arms in sorted(rows.items(), key=lambda row: order[row[0][0]])
        ),
    )


def _card(scope: Scope, pool: str) -> PoolCard | None:
    try:
        return read_card(scope.store, pool)
    except (OSError, UserError) as error:
        scope.found.sweep.notes.append(f"the card of pool {pool} cannot be read ({error})")
        return None


def _seen(scope: Scope) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Epochs since initialisation by source and arm, and the most tokens of each source that one run reads."""
    labels = {arm.label for arm in scope.arms}
    epochs: dict[str, dict[str, float]] = {}
    tokens: dict[str, dict[str, float]] = {}
    for row in scope.plan.epochs:
        for arm in row.arms if row.source is not None else ():
            if arm in labels and row.source is not None:
                own = epochs.setdefault(row.source, {})
                own[arm] = max(own.get(arm, 0.0), row.cumulative)
                own = tokens.setdefault(row.source, {})
                own[arm] = own.get(arm, 0.0) + row.demanded_tokens
    return epochs, {name: max(by_arm.values()) for name, by_arm in tokens.items()}


def _source(
    name: str, use: SourceUse, card: SourceCard | None, epochs: dict[str, float], tokens_read: float
) -> DataSource:
    variant = card.variants.get(use.depth) if card else None
    licence = card.licence if card else {}
    spdx, note = licence.get("spdx"), licence.get("note")
    return DataSource(
        name=name,
        domain=use.domain,
        level=use.depth,
        licence=str(spdx) if spdx else None,
        licence_note=str(note or ""),
        archives=tuple(_archive(one, about) for one, about in sorted((card.archive if card else {}).items())),
        tokens=variant.tokens if variant else None,
        documents=variant.documents if variant else None,
        bytes=variant.bytes if variant else None,
        heldout_tokens=variant.heldout_tokens if variant else None,
        digest=use.digest,
        matches_pool=variant.digest == use.digest if variant and use.digest else None,
        processing=steps(variant.chain) if variant else (),
        same_documents=same_documents(card.variants, use.depth) if card and variant else (),
        tokens_read=tokens_read,
        epochs=epochs,
    )


def _archive(name: str, about: Any) -> Archive:
    about = about if isinstance(about, Mapping) else {}
    return Archive(name=name, **{key: str(about.get(key, "")) for key in ("kind", "version", "sha256")})
