"""An id names a state of training: the hash of the canonical history from initialisation up to a token count.

The history is written as events over tokens (learning rate, batch size, sequence length, mixture, mask, data seed,
optimizer resets) plus what holds throughout (model, optimizer, tokenizer, initialisation seed). An event that changes
nothing is left out, so an id does not depend on how training was cut into stages, nor on anything after the token
count. Of an adaptive stage the policies and what they watch are written, not what they come to: an id is known before
anything is trained. Placement (store, cluster, tracking, evaluation, labels) never enters.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

from davinci.config import Averages, Frozen, Model, Node, Optimizer, SourceUse, Stage
from davinci.errors import UserError
from davinci.planning.differences import differences

SCHEME = 1
# Bumped by hand when the same history no longer gives the same weights (a golden trace changed).
NUMERICS = 1
# The same of what only some models have, by a key of the model: bumped when their training changed and no other's.
# experts.balance 2: the balancing loss is one of each sequence, not of what goes through a rank at once.
NUMERICS_OF = {"experts.balance": 2}

CHANNELS = ("batch_size", "lr", "mask_questions", "mixture", "optimizer_resets", "sequence_length")
# Channels that came later: there only where something happens on them, so that older ids stay.
LATER_CHANNELS = ("attention", "averages", "data_resets", "policies", "rope_theta")
# Differences shown of two histories; the rest is counted.
SHOWN = 4

_ABSOLUTE = re.compile(r"[/~]|\\\\|[A-Za-z]:[\\/]")
_REPR = re.compile(r"<.* at 0x[0-9a-fA-F]+>|<(function|class|built-in|bound method|module)\b.*>", re.DOTALL)


class Event(NamedTuple):
    """From `begin` on, `channel` is `value`: plain data that says where the value began. `key` is the value alone:
    two with the same key, one after the other, are one. `text` is its JSON."""

    begin: int
    channel: str
    value: Any
    key: Any
    text: str


@dataclass(frozen=True)
class StageSpan:
    """Part of a stage placed on the token axis of a run, from `begin` to `end` since initialisation.

    `stage_begin` is where the stage itself begins, `average_begin` where the average that it keeps does; `model` has
    the RoPE base that holds there; `watched` is what the policies of the stage watch (see `Node`).
    """

    name: str
    stage: Stage
    begin: int
    end: int
    sources: dict[str, SourceUse]
    stage_begin: int
    model: Model
    average_begin: int | None
    watched: dict[str, str | None] = field(default_factory=dict)

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Everything the span sets; what was set before it begins is set again there."""
        return tuple(Event(*change, encode(change[2], change[1])) for change in _changes(self))


@dataclass(frozen=True)
class Course:
    """What a run trains on and how, all but its seeds: the same for every seed of an arm. `model` is as it begins.
    `end_of_text` is the tokenizer's, and so part of its digest."""

    model: Model
    optimizer: Optimizer
    vocab_size: int
    tokenizer_digest: str | None
    spans: tuple[StageSpan, ...]
    end_of_text: int = 0

    @cached_property
    def throughout(self) -> dict[str, Any]:
        """What holds from initialisation to the end."""
        return {
            "scheme": SCHEME,
            "numerics": NUMERICS,
            **_own_numerics(self.model),
            "model": _plain(self.model, omit={"name": True, "vocab_size": True, "pretrained": {"name"}}),
            "vocab_size": self.vocab_size,
            "tokenizer": self.tokenizer_digest,
            "optimizer": _plain(self.optimizer),
        }

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Every change, in the order of its tokens."""
        last: dict[str, Any] = {
            "attention": "packed",
            "averages": None,
            "policies": None,
            "rope_theta": self.model.rope_theta,
        }
        found = []
        for span in self.spans:
            for event in span.events:
                if last.get(event.channel, _NOTHING) != event.key:
                    last[event.channel] = event.key
                    found.append(event)
        return tuple(sorted(found, key=lambda event: event.begin))

    @cached_property
    def _texts(self) -> dict[int, tuple[str, str]]:
        return {}

    def text(self, tokens: int) -> tuple[str, str]:
        """The canonical JSON of the history up to `tokens`, around the place where the seeds stand."""
        if tokens not in self._texts:
            parts: dict[str, list[str]] = {channel: [] for channel in CHANNELS}
            for event in self.events:
                if event.begin < tokens:
                    parts.setdefault(event.channel, []).append(event.text)
            whole = {key: encode(value, key) for key, value in self.throughout.items()}
            whole |= {channel: f"[{','.join(texts)}]" for channel, texts in parts.items()}
            whole["tokens"] = str(tokens)
            before, after = (
                ",".join(f'"{key}":{whole[key]}' for key in sorted(whole) if (key < "data_seed") == is_before)
                for is_before in (True, False)
            )
            self._texts[tokens] = f'{{{before},"data_seed":', f",{after}}}"
        return self._texts[tokens]


@dataclass(frozen=True)
class History:
    """Everything the weights of a run are a function of: its course and its seeds.

    `data_seeds` are ``(from tokens, seed)``, the first from 0 on; neighbours differ.
    """

    course: Course
    initialisation_seed: int
    data_seeds: tuple[tuple[int, int], ...]

    @property
    def spans(self) -> tuple[StageSpan, ...]:
        return self.course.spans

    @property
    def end(self) -> int:
        return self.course.spans[-1].end

    def data_seed_at(self, tokens: int) -> int:
        """The data seed of the step that begins at `tokens`."""
        return [seed for begin, seed in self.data_seeds if begin <= tokens][-1]


def state_id(history: History, tokens: int) -> str:
    """Readable id of the state after `tokens` tokens, such as ``1.83M-v1-4c541560ab12``."""
    digest = hashlib.sha256(canonical_text(history, tokens).encode()).hexdigest()
    return f"{human_tokens(tokens)}-v{SCHEME}-{digest[:12]}"


def canonical_text(history: History, tokens: int) -> str:
    """``encode(canonical(history, tokens))``, most of it computed once a course."""
    before, after = history.course.text(tokens)
    seeds = ",".join(f"[{begin},{seed}]" for begin, seed in history.data_seeds if begin < tokens)
    return f'{before}[{seeds}],"initialisation_seed":{history.initialisation_seed}{after}'


def canonical(history: History, tokens: int) -> dict[str, Any]:
    """The history up to `tokens` as plain data; equal data means equal training."""
    channels: dict[str, list[Any]] = {channel: [] for channel in CHANNELS}
    for event in history.course.events:
        if event.begin < tokens:
            channels.setdefault(event.channel, []).append(event.value)
    return {
        **history.course.throughout,
        **channels,
        "tokens": tokens,
        "initialisation_seed": history.initialisation_seed,
        "data_seed": [[begin, seed] for begin, seed in history.data_seeds if begin < tokens],
    }


def history_of_nodes(nodes: Sequence[Node]) -> History:
    """The history that a chain of nodes, from the root on, says it trains."""
    spans: list[StageSpan] = []
    for node in nodes:
        since = average_begin(
            node.stage.averages, node.begin, node.stage_begin, spans[-1].average_begin if spans else None
        )
        place = node.stage_name, node.stage, node.begin, node.end, node.sources, node.stage_begin
        spans.append(StageSpan(*place, node.model, since, node.watched))
    seeds: list[tuple[int, int]] = []
    for node in nodes:
        if not seeds or seeds[-1][1] != node.data_seed:
            seeds.append((node.begin, node.data_seed))
    last = nodes[-1]
    course = Course(
        nodes[0].model, last.optimizer, last.vocab_size, last.tokenizer_digest, tuple(spans), last.end_of_text
    )
    return History(course, last.initialisation_seed, tuple(seeds))


def average_begin(averages: Averages | None, begin: int, stage_begin: int, before: int | None) -> int | None:
    """Where the average began that is kept from `begin` on, in a stage that began at `stage_begin`; None where none is
    kept. `before` is the same of the stretch before."""
    if averages is None:
        return None
    is_carried = begin != stage_begin or averages.state == "carry"
    return before if before is not None and is_carried else begin


def check(stored: Sequence[Node], planned: Sequence[Node], where: str) -> None:
    """Refuse a stored node whose config does not give its id.

    Args:
        stored: its chain as the store holds it, from the root on.
        planned: the chain of the planned node of the same id.
        where: the file of the stored node, for the message.

    Raises:
        UserError: naming what the store says and what the id means.
    """
    node = stored[-1]
    found = history_of_nodes(stored)
    if state_id(found, node.end) == node.id:
        return
    apart = told(differences(canonical(found, node.end), canonical(history_of_nodes(planned), node.end)))
    raise UserError(
        f"{where}: the config there does not give the id {node.id}: {'; '.join(apart)} (stored -> what the id means); "
        "move that folder away to train it again"
    )


def told(apart: Mapping[str, tuple[Any, Any]]) -> tuple[str, ...]:
    """``key: before -> after`` for the first few differences, and how many more there are."""
    lines = [f"{key}: {_shown(before)} -> {_shown(after)}" for key, (before, after) in sorted(apart.items())]
    return tuple(lines[:SHOWN] + ([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []))


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def mixture_key(sources: Mapping[str, SourceUse]) -> list[list[Any]]:
    """A mixture as sorted ``[source, depth, digest, weight]`` rows."""
    return [[name, use.depth, use.digest, use.weight] for name, use in sorted(sources.items())]


def encode(value: Any, key: str = "") -> str:
    """Canonical JSON of plain data; `key` is where it stands, for the message.

    Raises:
        UserError: naming the key of what has no lasting value: anything but dicts with string keys, lists, strings,
            finite numbers, booleans and None, and strings that are absolute paths or default reprs, so that where a run
            was started, or an object's address, can never enter an id.
    """
    _require_plain(value, key)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def human_tokens(tokens: int) -> str:
    """Three significant digits and a unit: ``1.83M``; below a thousand the number itself."""
    if tokens < 1000:
        return str(tokens)
    value, unit = tokens / 1e3, "k"
    for name, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if tokens >= size:
            value, unit = tokens / size, name
            break
    digits = max(0, 2 - len(str(int(value))) + 1)
    return f"{value:.{digits}f}{unit}"


_NOTHING = object()


def _plain(value: Frozen, omit: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """A model's fields; those at a neutral default are left out, so that a new one leaves old ids alone."""
    return value.model_dump(mode="json", exclude=dict(omit), exclude_defaults=True)


def _own_numerics(model: Model) -> dict[str, dict[str, int]]:
    """The entries of `NUMERICS_OF` that are about `model`; empty for most, whose ids know nothing of it."""
    is_balanced = model.experts.count > 0 and model.experts.balance > 0
    return {"numerics_of": NUMERICS_OF} if is_balanced else {}


def _require_plain(value: Any, key: str) -> None:
    problem = ""
    if value is None or type(value) in (bool, int):
        return
    if type(value) is float:
        problem = "" if math.isfinite(value) else f"{value} is not a finite number"
    elif type(value) is str:
        if _ABSOLUTE.match(value):
            problem = f"{value!r} is an absolute path, which names a place and not a content"
        elif _REPR.match(value):
            problem = f"{value!r} is the default repr of an object, which says nothing of its content"
    elif type(value) is dict:
        for name, item in value.items():
            if type(name) is not str:
                problem = f"{name!r} as a key is no string"
                break
            _require_plain(item, f"{key}.{name}" if key else name)
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _require_plain(item, f"{key}.{index}" if key else str(index))
    else:
        what = "a callable" if callable(value) else f"of type {type(value).__name__}"
        problem = f"{value!r} is {what}"
    if problem:
        raise UserError(
            f"{key}: {problem}, so it cannot be part of an id; strings, numbers, booleans, null, lists and maps are "
            "accepted"
        )


def _policies(span: StageSpan) -> dict[str, Any]:
    """What a stage decides as it trains, and by which text; where it ends at the latest is not part of it."""
    stage = span.stage
    named = {"until": stage.until, "adapt": stage.adapt}
    found: dict[str, Any] = {name: _plain(one) for name, one in named.items() if one is not None}
    if stage.adapt is not None:
        found["own"] = dict(sorted(stage.mixture.domains.items()))
    return found | {"heldout": dict(span.watched)}


def _changes(span: StageSpan) -> Iterator[tuple[int, str, Any, Any]]:
    """An event but for its text, of everything a span sets."""
    stage, begin, end = span.stage, span.begin, span.end
    if begin and begin == span.stage_begin and stage.optimizer_state == "reset":
        yield begin, "optimizer_resets", begin, begin
    if begin and begin == span.stage_begin and stage.data_cursors == "reset":
        yield begin, "data_resets", begin, begin
    average = stage.averages and [span.average_begin, stage.averages.kind, stage.averages.half_life_tokens]
    yield begin, "averages", [begin, average], average
    for channel, value in (
        ("sequence_length", stage.sequence_length),
        ("mask_questions", stage.mask_questions),
        ("mixture", mixture_key(span.sources)),
        ("attention", stage.attention),
        ("rope_theta", span.model.rope_theta),
    ):
        yield begin, channel, [begin, value], value
    if stage.is_adaptive:
        policies = _policies(span)
        yield begin, "policies", [span.stage_begin, policies], encode([span.stage_begin, policies])
    else:
        yield begin, "policies", [begin, None], None
    in_force = [step for step in stage.batch_size if span.stage_begin + step.from_tokens <= begin][-1]
    for step in stage.batch_size:
        since = span.stage_begin + step.from_tokens
        if step is in_force or begin < since < end:
            yield max(begin, since), "batch_size", [max(begin, since), step.sequences], step.sequences
    for piece in stage.lr_pieces(span.stage_begin):
        if piece.end <= begin or piece.begin >= end:
            continue
        since = max(begin, piece.begin)
        # A constant is open-ended; a slope keeps the beginning and the end it was drawn between.
        if piece.kind == "constant" or piece.start == piece.stop:
            yield since, "lr", [since, "constant", piece.start], ("constant", piece.start)
        elif piece.kind == "inverse_sqrt":  # open-ended too
            curve = [piece.begin, piece.kind, piece.start, piece.timescale]
            yield since, "lr", curve, tuple(curve)
        else:
            slope = [piece.begin, piece.kind, piece.end, piece.start, piece.stop]
            yield since, "lr", slope, tuple(slope)
