"""The stage tree drawn as a table: what is trained, how often, and for whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rich.table import Table
from rich.text import Text

from davinci.config import Node
from davinci.planning.plan import Plan
from davinci.planning.wording import some
from davinci.planning.wording import tokens as short

# Lines of the tree at most: a sweep of a thousand arms still fits a page.
LINES = 30


@dataclass
class _Branch:
    """Chains of equal stages, tokens, arms and branches, under parents drawn as one: they differ in seeds only."""

    stages: str
    tokens: int
    arms: tuple[str, ...]
    seeds: set[int]
    ends: tuple[str, ...]
    shape: int = 0
    kind: int = 0  # shape without the arms: branches to be counted together where there are too many
    chains: int = 1
    jobs_below: int = 0
    tokens_below: int = 0
    branches: list[_Branch] = field(default_factory=list)


def drawn(plan: Plan, lines: int = LINES) -> Table:
    """The tree in at most about `lines` lines. Chains that differ only in seeds are one line; where many branches hang
    from one trunk, the first are drawn and the others counted."""
    roots = _merged(plan)
    width = next((width for width in (12, 8, 5, 3, 2) if _length(roots, width) <= lines), 1)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", overflow="fold")
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("jobs", justify="right", no_wrap=True)
    table.add_column("for", overflow="fold")
    every = len(plan.arms), len(plan.seeds)
    for count, row in enumerate(_rows(roots, width, None, every)):
        if count == lines:
            table.add_row(Text("… the rest of the tree is in plan.json", "dim"))
            break
        table.add_row(*row)
    return table


def _merged(plan: Plan) -> list[_Branch]:
    """The chains as branches, equal siblings merged."""
    arms: dict[str, dict[str, None]] = {}
    seeds: dict[str, set[int]] = {}
    for run in plan.runs:
        for node in run.nodes:
            arms.setdefault(node, {})[run.arm] = None
            seeds.setdefault(node, set()).add(run.seed)
    waiting: dict[str | None, list[_Branch]] = {}
    known: dict[tuple[object, ...], int] = {}
    leaves: dict[str, dict[str, None]] = {}
    for run in plan.runs:
        leaves.setdefault(run.nodes[-1], {})[run.arm] = None
    for chain in reversed(plan.chains()):  # children before their parents
        nodes = [plan.nodes[node] for node in chain.nodes]
        below = _joined(waiting.pop(chain.name, [])[::-1])
        branch = _Branch(
            stages=_stages(nodes),
            tokens=nodes[-1].end - nodes[0].begin,
            arms=tuple(arms[chain.nodes[0]]),
            seeds=set(seeds[chain.nodes[0]]),
            ends=_ends(nodes, leaves),
            jobs_below=sum(one.chains + one.jobs_below for one in below),
            tokens_below=sum(one.tokens * one.chains + one.tokens_below for one in below),
            branches=below,
        )
        below_it = tuple((one.shape, one.chains) for one in below)
        shape = (branch.stages, branch.tokens, branch.arms, branch.ends, below_it)
        branch.shape = known.setdefault(shape, len(known))
        kind = (branch.stages, branch.tokens, tuple((one.kind, one.chains) for one in below))
        branch.kind = known.setdefault(kind, len(known))
        waiting.setdefault(chain.after, []).append(branch)
    return _joined(waiting.get(None, [])[::-1])


def _ends(nodes: Sequence[Node], leaves: Mapping[str, Mapping[str, None]]) -> tuple[str, ...]:
    """Where runs end on the way through a chain."""
    texts = []
    for node, following in pairwise(nodes):
        if node.id in leaves:
            arms = list(leaves[node.id])
            inside = following.stage_begin == node.stage_begin
            place = f"{short(node.end - node.stage_begin)} of {node.stage_name}" if inside else node.stage_name
            texts.append(f"{arms[0]} ends at {place}" if len(arms) == 1 else f"{len(arms)} end at {place}")
    return tuple(texts)


def _joined(siblings: Sequence[_Branch]) -> list[_Branch]:
    """Siblings of one shape as one branch."""
    first: dict[int, _Branch] = {}
    for branch in siblings:
        known = first.setdefault(branch.shape, branch)
        if known is not branch:
            _absorb(known, branch)
    return list(first.values())


def _absorb(into: _Branch, other: _Branch) -> None:
    pairs = [(into, other)]
    while pairs:
        one, twin = pairs.pop()
        one.chains += twin.chains
        one.jobs_below += twin.jobs_below
        one.tokens_below += twin.tokens_below
        one.seeds |= twin.seeds
        pairs.extend(zip(one.branches, twin.branches, strict=True))


def _stages(nodes: Sequence[Node]) -> str:
    """``s1_1 → s1_2``; a stage that is not trained whole says from and to which of its tokens, one that may end before
    its tokens that these are a maximum."""
    parts: list[tuple[str, list[Node]]] = []
    for node in nodes:
        if parts and parts[-1][0] == node.stage_name:
            parts[-1][1].append(node)
        else:
            parts.append((node.stage_name, [node]))
    texts = []
    for name, own in parts:
        begin, end = own[0].begin - own[0].stage_begin, own[-1].end - own[0].stage_begin
        texts.append(
            name
            + (f" from {short(begin)}" if begin else "")
            + (f" to {short(end)}" if end < own[-1].stage.grid.tokens_used else "")
            + (" (at most)" if own[-1].stage.until else "")
        )
    return " → ".join(texts)


def _alike(branches: Sequence[_Branch], width: int) -> Iterator[tuple[list[_Branch], list[_Branch]]]:
    """``(drawn, counted)`` for each kind among siblings."""
    kinds: dict[int, list[_Branch]] = {}
    for branch in branches:
        kinds.setdefault(branch.kind, []).append(branch)
    for alike in kinds.values():
        yield (alike, []) if len(alike) <= width + 1 else (alike[:width], alike[width:])


def _length(branches: Sequence[_Branch], width: int) -> int:
    """Lines that drawing takes with at most about `width` branches of a kind under each."""
    count, waiting = 0, [branches]
    while waiting:
        for shown, rest in _alike(waiting.pop(), width):
            count += len(shown) + bool(rest)
            waiting.extend(branch.branches for branch in shown)
    return count


def _rows(
    branches: Sequence[_Branch], width: int, guide: str | None, every: tuple[int, int]
) -> Iterator[tuple[Text, ...]]:
    """Lines of `branches`; `guide` is drawn before them, null for roots."""
    lines: list[_Branch | list[_Branch]] = []
    for shown, rest in _alike(branches, width):
        lines += [*shown, rest] if rest else shown
    for index, line in enumerate(lines):
        last = index == len(lines) - 1
        before = "" if guide is None else guide + ("└─ " if last else "├─ ")
        if isinstance(line, list):
            jobs = sum(branch.chains + branch.jobs_below for branch in line)
            total = sum(branch.tokens * branch.chains + branch.tokens_below for branch in line)
            cells = (
                f"{before}… {len(line):,} more like these",
                "",
                f"{jobs:,}",
                f"{short(total)} tokens together",
            )
            yield tuple(Text(cell, "dim") for cell in cells)
        else:
            label = Text(before, "dim").append(line.stages, "default")
            yield label, Text(short(line.tokens)), Text(f"{line.chains:,}"), Text(_who(line, every))
            below = "" if guide is None else guide + ("   " if last else "│  ")
            yield from _rows(line.branches, width, below, every)


def _who(branch: _Branch, every: tuple[int, int]) -> str:
    arms, seeds = branch.arms, sorted(branch.seeds)
    who = "all arms" if len(arms) == every[0] > 1 else some(arms, 3, 40)
    if branch.ends:
        who += f" ({some(branch.ends, 3)})"
    if every[1] == 1:
        return who
    if len(seeds) == every[1]:  # as many jobs as seeds: one each, which the line says already
        return f"{who}, all seeds" if branch.chains == 1 else who
    shown = ", ".join(map(str, seeds[:6])) + (", …" if len(seeds) > 6 else "")
    return f"{who}, seed{'s' if len(seeds) > 1 else ''} {shown}"
