"""The plan as one readable page."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from davinci.planning.identity import human_tokens
from davinci.planning.plan import Chain, Plan

_STYLE = {"controlled": "green", "warned": "yellow", "refused": "red", "noted": "dim"}


def show(plan: Plan, console: Console) -> None:
    """Print question, arms, stage tree, audit, epochs and cost."""
    console.rule(f"[bold]{plan.sweep}")
    console.print(f"[bold]{plan.question.text}[/]")
    if plan.question.hypothesis:
        console.print(f"Hypothesis: {plan.question.hypothesis.text}")
    for assumption in plan.question.assumptions:
        console.print(f"Assumption: {assumption}", style="dim")
    console.print(_tree(plan))
    console.print(_sharing(plan))
    console.print(_epochs(plan))
    verdict = plan.audit.verdict
    declared = ", ".join(plan.audit.factor) or "none"
    console.print(f"Audit: [{_STYLE[verdict]}]{verdict}[/] (declared factor: {declared})")
    for finding in plan.audit.findings:
        console.print(f"  {finding.text}", style=_STYLE[finding.level])
    if plan.missing_sources:
        count = len(plan.missing_sources)
        console.print(f"  {count} sources are not on this machine yet: ids are provisional, sizes from conf/pool")


def _tree(plan: Plan) -> Tree:
    """The chains of stages, a branch under the trunk it starts from."""
    counts = f"{_count(len(plan.arms), 'arm')} x {_count(len(plan.seeds), 'seed')}"
    tree = Tree(f"{_count(len(plan.runs), 'run')}: {counts}", guide_style="dim")
    chains = plan.chains()
    arms_of: dict[str, list[str]] = {}
    for run in plan.runs:
        for node in run.nodes:
            arms = arms_of.setdefault(node, [])
            if run.arm not in arms:
                arms.append(run.arm)
    branches: dict[str | None, Tree] = {None: tree}
    for chain in chains:
        branches[chain.name] = branches[chain.after].add(_chain_line(plan, chain, arms_of[chain.name]))
    return tree


def _chain_line(plan: Plan, chain: Chain, arms: list[str]) -> str:
    nodes = [plan.nodes[node] for node in chain.nodes]
    tokens = nodes[-1].end - nodes[0].begin
    stages = " → ".join(node.stage_name for node in nodes)
    who = "shared by all arms" if len(arms) == len(plan.arms) > 1 else ", ".join(arms)
    return f"{stages}  [bold]{human_tokens(tokens)}[/] tokens  {who}, seed {nodes[-1].data_seed}  [dim]{chain.name}[/]"


def _sharing(plan: Plan) -> Table:
    cost = plan.cost
    table = Table(title="Cost", title_justify="left", box=None, pad_edge=False, caption_justify="left")
    for column in ("", "tokens", "FLOPs", f"{cost.gpu} hours at {cost.mfu:.0%} MFU"):
        table.add_column(column, justify="right" if column else "left")
    for name, tokens, flops, hours in (
        ("every run alone", cost.tokens_unshared, cost.flops_unshared, cost.gpu_hours_unshared),
        ("each stage trained once", cost.tokens_shared, cost.flops_shared, cost.gpu_hours_shared),
        ("still to train", cost.tokens_left, cost.flops_left, cost.gpu_hours_left),
    ):
        table.add_row(name, human_tokens(tokens), f"{flops:.2e}", f"{hours:,.0f}" if hours >= 10 else f"{hours:.2f}")
    saved = cost.tokens_unshared - cost.tokens_shared
    sharing = f"; sharing saves {human_tokens(saved)} tokens ({saved / cost.tokens_unshared:.0%})" if saved else ""
    size = f"{cost.parameters / 1e6:,.2f}M parameters; checkpoints {cost.checkpoint_bytes / 1e9:,.2f} GB"
    table.caption = f"{_jobs(plan)}{sharing}.\n{size}."
    return table


def _jobs(plan: Plan) -> str:
    chains = plan.chains()
    trunks = {chain.after for chain in chains if chain.after}
    leaves = [chain for chain in chains if chain.name not in trunks]
    if not trunks:
        return f"{_count(len(plan.runs), 'run')}, nothing to share"
    return f"{len(plan.runs)} runs cost {_count(len(trunks), 'trunk')} + {len(leaves)} branches"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def _epochs(plan: Plan) -> Table:
    """Epochs of each domain: one line where all arms agree, one an arm where they do not."""
    table = Table(title="Epochs (this stage / since initialisation)", title_justify="left", box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("arm")
    domains = list(dict.fromkeys(row.name for row in plan.epochs))
    for domain in domains:
        table.add_column(domain, justify="right")
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in plan.epochs:
        shown = f"{row.epochs:.2f} / {row.cumulative:.2f}" if row.pool_tokens else "unknown"
        cells.setdefault((row.stage, row.arm), {})[row.name] = shown
    for stage in dict.fromkeys(stage for stage, _ in cells):
        rows = {arm: row for (name, arm), row in cells.items() if name == stage}
        alike = all(row == next(iter(rows.values())) for row in rows.values())
        for arm, shown_row in list(rows.items())[: 1 if alike else None]:
            table.add_row(stage, "all" if alike else arm, *(shown_row.get(domain, "–") for domain in domains))
    return table
