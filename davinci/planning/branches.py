"""The stage tree drawn as a table: what is trained, how often, and for whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from davinci.config import Node
from davinci.planning.identity import human_tokens
from davinci.planning.plan import Plan

# Lines of the tree at most: a sweep of a thousand arms still fits a page.
LINES = 40


@dataclass
class _Branch:
    """Chains of equal stages, tokens, arms and branches, under parents drawn as one: they differ in seeds only."""

    stages: str
    tokens: int
    arms: tuple[str, ...]
    seeds: set[int]
    ends: tuple[str, ...]
    shape: int = 0
    chains: int = 1
    jobs_below: int = 0
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
    for count, row in enumerate(_rows(roots, width, "", every)):
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
            ends=tuple(f"{arm} ends with {node.stage_name}" for node in nodes[:-1] for arm in leaves.get(node.id, ())),
            jobs_below=sum(one.chains + one.jobs_below for one in below),
            branches=below,
        )
        below_it = tuple((one.shape, one.chains) for one in below)
        shape = (branch.stages, branch.tokens, branch.arms, branch.ends, below_it)
        branch.shape = known.setdefault(shape, len(known))
        waiting.setdefault(chain.after, []).append(branch)
    return _joined(waiting.get(None, [])[::-1])


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
        one.seeds |= twin.seeds
        pairs.extend(zip(one.branches, twin.branches, strict=True))


def _stages(nodes: Sequence[Node]) -> str:
    """``s1_1 → s1_2``; a stage that is not trained whole says from and to which of its tokens."""
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
            + (f" from {human_tokens(begin)}" if begin else "")
            + (f" to {human_tokens(end)}" if end < own[-1].stage.grid.tokens_used else "")
        )
    return " → ".join(texts)


def _length(branches: Sequence[_Branch], width: int) -> int:
    """Lines that drawing takes with at most `width` branches under each."""
    count, waiting = 0, [branches]
    while waiting:
        here = waiting.pop()
        count += min(len(here), width) + (len(here) > width)
        waiting.extend(branch.branches for branch in here[:width])
    return count


def _rows(branches: Sequence[_Branch], width: int, guide: str, every: tuple[int, int]) -> Iterator[tuple[Text, ...]]:
    top = not guide
    for index, branch in enumerate(branches[:width]):
        last = index == len(branches) - 1
        mark = "" if top else "└─ " if last else "├─ "
        who = _who(branch, every)
        label = Text(guide[:-3] + mark if guide else "", "dim").append(branch.stages, "default")
        yield label, Text(human_tokens(branch.tokens)), Text(f"{branch.chains:,}"), Text(who)
        below = (guide[:-3] + ("   " if last or top else "│  ") if guide else "") + "   "
        yield from _rows(branch.branches, width, below, every)
    rest = branches[width:]
    if rest:
        more = sum(branch.chains + branch.jobs_below for branch in rest)
        noun = "branch" if len(rest) == 1 else "branches"
        text = f"{guide[:-3] if guide else ''}└─ … {len(rest):,} more {noun} like these"
        tokens = sum(branch.tokens * branch.chains for branch in rest)
        yield Text(text, "dim"), Text(""), Text(f"{more:,}", "dim"), Text(f"{human_tokens(tokens)} tokens", "dim")


def _who(branch: _Branch, every: tuple[int, int]) -> str:
    arms, seeds = branch.arms, sorted(branch.seeds)
    who = "all arms" if len(arms) == every[0] > 1 else ", ".join(arms[:3])
    if len(arms) > 3 and len(arms) != every[0]:
        who += f" and {len(arms) - 3:,} more"
    if branch.ends:
        who += f" ({'; '.join(branch.ends[:3])})"
    if every[1] == 1:
        return who
    if len(seeds) == every[1]:
        return f"{who}, {'all seeds' if branch.chains == 1 else 'a seed each'}"
    shown = ", ".join(map(str, seeds[:6])) + (", …" if len(seeds) > 6 else "")
    return f"{who}, seed{'s' if len(seeds) > 1 else ''} {shown}"
