"""Runs that begin with imported weights: they have to be there, of the run's shape and its pool's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from davinci import imported
from davinci.config import Pretrained, Run
from davinci.data.cards import PoolCard
from davinci.errors import UserError
from davinci.planning.differences import differences
from davinci.planning.sweep import Sweep
from davinci.store import Store


def require(sweeps: Sequence[Sweep], cards: Mapping[str, PoolCard | None], store: Store | None) -> None:
    """Compare every arm with what was imported. Without a store nothing is compared.

    Raises:
        UserError: nothing of that name was imported, or it has other weights, another shape or another tokenizer.
    """
    for sweep in sweeps:
        for arm in sweep.arms:
            if store is not None and arm.config.model.pretrained is not None:
                _require(arm.config, cards[arm.config.pool.name], store)


def notes(sweep: Sweep) -> list[str]:
    """For the audit: which arms begin with which weights."""
    begins: dict[str, list[str]] = {}
    for arm in sweep.arms:
        one = arm.config.model.pretrained
        if isinstance(one, Pretrained):  # which the audit of a config that was not validated need not find
            begins.setdefault(f"{one.name} ({one.digest[:12]})", []).append(arm.label)
    return [
        f"{', '.join(labels)}: training begins with the imported weights {what}, whatever the seed: seeds vary the "
        "order of the data only, and intervals are those of going on from these weights"
        for what, labels in begins.items()
    ]


def _require(run: Run, card: PoolCard | None, store: Store) -> None:
    wanted = run.model.pretrained
    assert wanted is not None
    found = imported.read(store, wanted.name)
    where = store.imported(wanted.name)
    if found.digest != wanted.digest:
        raise UserError(
            f"model.pretrained.digest: {where} has the weights {found.digest[:12]}, not {wanted.digest[:12]}; "
            "import the folder again under another name"
        )
    ours, theirs = (one.model_dump(exclude=set(imported.FREE)) for one in (run.model, found.model))
    for key, (said, is_so) in sorted(differences(ours, theirs).items()):
        if key in imported.FREE:
            continue
        raise UserError(f"arm {run.arm}: model.{key}: {said}, but the imported weights {wanted.name} have {is_so}")
    if card is not None and found.tokenizer_digest not in (None, card.tokenizer.digest):
        raise UserError(
            f"pool: {run.pool.name} has another tokenizer than the imported weights {wanted.name}; tokenise text with "
            f"theirs: python -m davinci data tokenize FILES --pool NAME --tokenizer {where / imported.SMALL_FILES}"
        )
