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
        console.print(f"  {len(plan.missing_sources)} sources are not on this machine: this plan cannot be launched yet")


def _tree(plan: Plan) -> Tree:
    """Chains as a tree; chains that differ in nothing but their seed stand on one line."""
    tree = Tree(f"{len(plan.runs)} runs: {len(plan.arms)} arms x {len(plan.seeds)} seeds", guide_style="dim")
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
    left = cost.tokens_shared - cost.tokens_done
    table = Table(title="Cost", title_justify="left", box=None, pad_edge=False)
    for column in ("", "tokens", "FLOPs", f"{cost.gpu} hours at {cost.mfu:.0%} MFU"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row(
        "every run alone", human_tokens(cost.tokens_unshared), f"{cost.flops_unshared:.2e}", _hours(cost.gpu_hours_unshared)
    )
    table.add_row("still to train, trunks shared", human_tokens(left), f"{cost.flops_shared:.2e}", _hours(cost.gpu_hours_shared))
    saved = cost.tokens_unshared - cost.tokens_shared
    table.caption = (
        f"{_jobs(plan)}. Sharing saves {human_tokens(saved)} tokens ({saved / cost.tokens_unshared:.0%}, "
        f"{cost.tokens_unshared / cost.tokens_shared:.2f}x); {human_tokens(cost.tokens_done)} are already trained. "
        f"{cost.parameters / 1e6:,.2f}M parameters, checkpoints {cost.checkpoint_bytes / 1e9:,.1f} GB."
    )
    table.caption_justify = "left"
    return table


def _jobs(plan: Plan) -> str:
    chains = plan.chains()
    trunks = {chain.after for chain in chains if chain.after}
    leaves = [chain for chain in chains if chain.name not in trunks]
    if not trunks:
        return f"{len(plan.runs)} runs, nothing to share"
    return f"{len(plan.runs)} runs cost {len(trunks)} trunks + {len(leaves)} branches"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2f}"


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
    for stage in dict.fromkeys(row.stage for row in plan.epochs):
        rows = {arm: cells[stage, arm] for name, arm in cells if name == stage}
        alike = all(row == next(iter(rows.values())) for row in rows.values())
        for arm, row in list(rows.items())[: 1 if alike else None]:
            table.add_row(stage, "all" if alike else arm, *(row.get(domain, "–") for domain in domains))
    return table
