"""What an adaptive stage came to: its checks and decisions, as a checkpoint carries them and as ``realised.json`` keeps
them.

``realised.json`` in the folder of a node holds the decisions of the node's stage, from the stage's beginning on. It is
written whole at every check, before the next step is taken: whatever trains this stretch again reads its decisions
there and measures nothing. All tokens in it count from the beginning of the stage.
"""

from __future__ import annotations

import hashlib
import json

from pydantic import Field

from davinci.config import Frozen, Node, NotNegative, Positive, SourceUse, parse
from davinci.errors import UserError
from davinci.store import Store, read_json, write_json

VERSION = 1


class Check(Frozen):
    """What was measured after `tokens` tokens: held-out loss by domain, nats a token, or a benchmark's `score`."""

    tokens: Positive
    losses: dict[str, float] = Field(default_factory=dict)
    score: float | None = None


class Move(Frozen):
    """From `tokens` on the stage's mixture has the proportions `domains`."""

    tokens: Positive
    domains: dict[str, float]


class Decisions(Frozen):
    """The checks of each policy of one stage, and what followed: `moves` of its mixture, and where it `ended`, where
    that was before its last step."""

    until: tuple[Check, ...] = ()
    adapt: tuple[Check, ...] = ()
    moves: tuple[Move, ...] = ()
    ended: Positive | None = None

    def up_to(self, tokens: int) -> Decisions:
        """Those of the first `tokens` tokens."""
        return Decisions(
            until=tuple(check for check in self.until if check.tokens <= tokens),
            adapt=tuple(check for check in self.adapt if check.tokens <= tokens),
            moves=tuple(move for move in self.moves if move.tokens <= tokens),
            ended=self.ended if self.ended is not None and self.ended <= tokens else None,
        )


class Trail(Frozen):
    """Where an adaptive history stands, beside what any checkpoint says; also in the stages after it.

    `skipped` are the tokens of the plan's axis that were not trained, since initialisation. `sources` is the mixture
    read last, of whose order `sequences` were consumed. `decisions` are those of the stage that the state is in.
    """

    skipped: NotNegative
    sources: dict[str, SourceUse]
    sequences: NotNegative
    decisions: Decisions


def read_decisions(store: Store, node: str) -> Decisions | None:
    """What was decided in `node` and its stage before it; None where nothing is recorded.

    Raises:
        UserError: the file is damaged, or of a later version.
    """
    path = store.realised(node)
    try:
        data = read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(data, dict) or data.get("sha256") != _digest(data):
        raise UserError(
            f"{path}: damaged (its sha256 does not fit); restore it, or move the node's folder away to train and "
            "decide that stretch anew"
        )
    if data.get("version") != VERSION:
        raise UserError(f"{path}: version {data.get('version')}, this program reads {VERSION}")
    return parse(Decisions, data["decisions"], lambda key: str(path))


def write_decisions(store: Store, node: Node, decisions: Decisions) -> None:
    """Write the node's ``realised.json``, atomically, with a digest of its content."""
    data = {
        "version": VERSION,
        "node": node.id,
        "stage": node.stage_name,
        "stage_begin": node.stage_begin,
        "decisions": decisions.model_dump(mode="json"),
    }
    write_json(store.realised(node.id), data | {"sha256": _digest(data)})


def _digest(data: dict[str, object]) -> str:
    rest = {key: value for key, value in data.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
