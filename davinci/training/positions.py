"""Where a node's training goes on: at its own newest checkpoint, at its parent's end, or at initialisation: at random,
or with the weights that were imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from davinci import imported
from davinci.config import Node
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.model.weights import AVERAGE, load_weights
from davinci.realised import Trail
from davinci.store import Store
from davinci.training import checkpoints as saved
from davinci.training import optimizer, sharded
from davinci.training.spikes import Recent


@dataclass
class Position:
    """A step boundary.

    Attributes:
        tokens, step: since initialisation.
        cursors: draws of each source.
        window: nats and target counts of each domain since the last record.
        read: tokens read of each source.
        recent: what spikes are told by.
        average_begin: tokens at which the average of the weights began; None where none is kept.
        trail: what adaptive stages decided.
        folder: the checkpoint with the tensors; None at initialisation.
        pretrained: where that is not at random, the folder with its weights.
        has_moments, has_average: whether those in it count.
    """

    tokens: int
    step: int = 0
    cursors: dict[str, int] = field(default_factory=dict)
    window: dict[str, tuple[float, int]] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    recent: Recent = field(default_factory=Recent)
    average_begin: int | None = None
    trail: Trail | None = None
    folder: Path | None = None
    pretrained: Path | None = None
    has_moments: bool = False
    has_average: bool = False

    @property
    def is_sharded(self) -> bool:
        return self.folder is not None and saved.is_sharded(self.folder)


def find(node: Node, store: Store, due: Sequence[int], lacking: Sequence[int] = ()) -> Position | None:
    """The node's own newest checkpoint before the first of `due` that is missing and the first of `lacking`, else its
    parent's end, else initialisation; None where nothing is missing.

    The folder may hold some from before its begin, of a plan that did not cut the stage there: those do not count.
    """
    missing = [tokens for tokens in due if not _stands(store.checkpoint(node.id, tokens))]
    before = min([*missing[:1], *lacking], default=None)
    if before is None:
        return None
    saved.remove_leftovers(store.checkpoint(node.id, 0).parent)
    folder = saved.newest(store, node.id, node.begin, before)
    own = folder is not None
    if folder is None and node.parent is not None:
        folder = store.checkpoint(node.parent, node.begin)
        if not saved.is_valid(folder):
            raise UserError(
                f"node {node.id} starts from {folder}, which is missing or damaged; launch the sweep again to train "
                f"node {node.parent} again"
            )
    averages = node.stage.averages
    if folder is None:
        pretrained = imported.weights_of(node.model, store)
        begin = None if averages is None else node.begin
        return Position(node.begin, average_begin=begin, pretrained=pretrained)
    state = saved.read_state(folder)
    begins = state.tokens == node.stage_begin
    is_carried = averages is not None and state.average_begin is not None and not (begins and averages.state == "reset")
    read = {name: draws * node.stage.sequence_length for name, draws in state.cursors.items()}
    return Position(
        state.tokens,
        state.global_step,
        cursors={} if begins and node.stage.data_cursors == "reset" else dict(state.cursors),
        window=dict(state.window) if own else {},
        read=read if state.read is None else state.read,
        recent=state.recent,
        average_begin=None if averages is None else state.average_begin if is_carried else state.tokens,
        trail=state.trail,
        folder=folder,
        has_moments=not (begins and node.stage.optimizer_state == "reset"),
        has_average=is_carried,
    )


def load(position: Position, node: Node) -> tuple[Decoder, dict[str, Tensor], Decoder | None]:
    """The decoder at `position`, whole and on the CPU; its moments as `optimizer.state_tensors` gives them; and the
    average of its weights. None, or none, of the last two where they do not count or are not there."""
    decoder = Decoder(node.model, node.vocab_size)
    average = Decoder(node.model, node.vocab_size) if position.has_average else None
    if position.folder is None:
        if position.pretrained is None:
            decoder.initialise(node.initialisation_seed)
        else:
            load_weights(decoder, position.pretrained)
        return decoder, {}, None
    moments: dict[str, Tensor] = {}
    if position.is_sharded:
        moments = optimizer.empty_tensors(decoder) if position.has_moments else {}
        sharded.load(position.folder, tensors(decoder, moments, average), alone=True)
        return decoder, moments, average
    load_weights(decoder, position.folder)
    if position.has_moments:
        moments = saved.load_optimizer(position.folder)
    if average is not None:
        load_weights(average, position.folder, AVERAGE)
    return decoder, moments, average


def tensors(decoder: Decoder, moments: Mapping[str, Tensor], average: Decoder | None) -> dict[str, Tensor]:
    """All that a checkpoint in parts holds, by name; without gradients."""
    named = {"weight": decoder} | ({} if average is None else {"average": average})
    found = {f"{kind}.{name}": one for kind, model in named.items() for name, one in model.state_dict().items()}
    return found | dict(moments)


def _stands(folder: Path) -> bool:
    return saved.is_valid(folder) and not saved.is_rolling(folder)
