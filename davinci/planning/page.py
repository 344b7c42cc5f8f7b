"""The plan as one readable page, 80 columns or wider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from davinci.planning.branches import drawn
from davinci.planning.plan import Epochs, Finding, Plan, Power, Spent
from davinci.planning.rungs import rungs
from davinci.planning.sweep import Arm
from davinci.planning.wording import count, some, tokens

_STYLE = {"controlled": "bold green", "warned": "bold yellow", "refused": "bold red"}
_MARK = {"refused": ("refused", "red"), "warned": ("warning", "yellow"), "noted": ("noted", "dim")}
# One page: what is beyond these is in plan.json.
ARMS, FINDINGS, LEDGER, SOURCES, ORPHANS = 12, 15, 12, 6, 8


def show(plan: Plan, console: Console) -> None:
    """Print question, arms, stage tree, cost, audit, epochs, power and what stands in the way of a launch."""
    verdict = plan.audit.verdict
    console.rule(Text(plan.sweep, "bold").append(f" · {verdict}", _STYLE[verdict]))
    console.print(_question(plan), highlight=False)
    if plan.studies:
        _section(
            console, "Studies: tokens alone, shared within the study, and trained by no other study", _studies(plan)
        )
    else:
        _section(console, _counts(plan), _arms(plan))
        _section(console, "Of the ladder", *rungs(plan.arms))
    _section(console, "Stages, each trained once", drawn(plan))
    _section(console, "Cost", _cost(plan), *_cost_notes(plan))
    _section(console, "Audit", *_audit(plan))
    if plan.studies:  # the stages of each are on its own page
        _section(console, "Epochs since initialisation", *_repeated(plan))
    else:
        _section(console, "Epochs: in the stage / since initialisation", _epochs(plan), Text(" "), *_repeated(plan))
        _section(console, "Power", _power(plan.power, len(plan.seeds)))
    _section(console, "Orphaned by an edit", *_orphans(plan))
    _section(console, "Not on this machine", *_missing(plan))


def _section(console: Console, title: str, *parts: RenderableType) -> None:
    if parts:
        console.print()
        console.print(Text(title, "bold"))
        for part in parts:
            console.print(Padding(part, (0, 0, 0, 2), expand=False), highlight=False)


def _question(plan: Plan) -> RenderableType:
    lines = [("Question", Text(plan.question.text, "bold"))]
    if plan.question.hypothesis:
        said = plan.question.hypothesis
        moves = {"increase": "rises", "decrease": "falls", "any": "moves"}[said.direction]
        lines.append(("Expected", Text(f"{said.metric} of {said.arm} {moves}. {said.text}")))
    if plan.question.paper:
        paper = plan.question.paper
        places = [f"section {paper.section}", paper.table and f"Table {paper.table}"]
        places.append(paper.figure and f"Figure {paper.figure}")
        lines.append(("Paper", Text(", ".join(place for place in places if place))))
    for index, assumption in enumerate(plan.question.assumptions):
        lines.append(("" if index else "Assumed", Text(assumption)))
    return _hanging(lines)


def _hanging(lines: Iterable[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines:
        table.add_row(name, text)
    return table


def _table(*columns: str, left: int = 1) -> Table:
    """A plain table whose first `left` columns are words and the others numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        words = index < left
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


def _counts(plan: Plan) -> str:
    if len(plan.runs) == 1:
        return "One run"
    return f"{count(len(plan.runs), 'run')}: {count(len(plan.arms), 'arm')} x {count(len(plan.seeds), 'seed')}"


def _arms(plan: Plan) -> RenderableType:
    lines = [
        (arm.label, "baseline" if arm.is_baseline and len(plan.arms) > 1 else "", _own(arm, plan.arms))
        for arm in plan.arms[:ARMS]
    ]
    table = Table.grid(padding=(0, 2, 0, 0))
    for index in range(max(1, *(sum(map(bool, line)) for line in lines))):
        table.add_column(overflow="fold", style="dim" if index else "")
    for line in lines:
        table.add_row(*map(Text, line[: len(table.columns)]))
    if len(plan.arms) > ARMS:
        table.add_row(Text(f"… and {len(plan.arms) - ARMS:,} more arms", "dim"))
    return table


def _own(arm: Arm, arms: Sequence[Arm]) -> str:
    """The overrides that not every arm has."""
    common = set(arms[0].overrides).intersection(*(one.overrides for one in arms[1:])) if len(arms) > 1 else set()
    return " ".join(line for line in arm.overrides if line not in common)


def _studies(plan: Plan) -> RenderableType:
    table = _table("study", "runs", "alone", "shared", "own", "FLOPs", "audit")
    for study in plan.studies:
        table.add_row(
            Text(study.sweep),
            f"{study.runs:,}",
            tokens(study.tokens_unshared),
            tokens(study.tokens_shared),
            tokens(study.tokens_own),
            f"{study.flops:.2e}",
            Text(study.verdict, _STYLE[study.verdict]),
        )
    return table


def _cost(plan: Plan) -> RenderableType:
    cost = plan.cost
    columns = ["", "tokens", "FLOPs", f"{cost.gpu}-hours", "wall time"] + (["price"] if cost.price else [])
    table = _table(*columns)
    rows = (
        ("every run alone", plan.tokens_unshared, plan.flops_unshared, "unshared"),
        ("each stage once", plan.tokens_shared, plan.flops, "shared"),
        ("still to train", plan.tokens_left, plan.flops_left, "left"),
    )
    for name, trained, flops, which in rows:
        cells = [tokens(trained), f"{flops:.2e}" if flops else "0", _amount(_spent(cost.gpu_hours, which))]
        cells.append(_duration(_spent(cost.days, which)))
        if cost.price:
            cells.append(f"{_spent(cost.price, which):,.2f}")
        table.add_row(name, *cells, style="bold" if which == "left" else None)
    return table


def _spent(spent: Spent, which: str) -> float:
    return {"unshared": spent.unshared, "shared": spent.shared, "left": spent.left}[which]


def _cost_notes(plan: Plan) -> Iterator[RenderableType]:
    cost = plan.cost
    ratio = plan.tokens_unshared / plan.tokens_shared if plan.tokens_shared else 1.0
    saved = plan.tokens_unshared - plan.tokens_shared
    if saved:
        share = f"{tokens(saved)} of {tokens(plan.tokens_unshared)} tokens ({saved / plan.tokens_unshared:.1%})"
        yield Text(f"Sharing saves {share}: {ratio:.2f} times fewer.")
    else:
        yield Text("Nothing to share: every run alone costs the same.")
    known = "measured on this machine" if cost.mfu_measured else "assumed; probe=true measures it"
    jobs = f"at most {count(cost.parallel, 'job')} at once, {cost.gpus} {cost.gpu} each"
    yield Text(f"{cost.mfu:.1%} MFU ({known}); {jobs}.")
    evaluation = "Evaluation: not known, a benchmark does not say its items."
    if cost.evaluation_flops is not None:
        hours = "" if cost.evaluation_gpu_hours is None else f", {_amount(cost.evaluation_gpu_hours)} {cost.gpu}-hours"
        evaluation = f"Evaluation on top: {cost.evaluation_flops:.2e} FLOPs{hours}."
    yield Text(evaluation)
    disk = f"checkpoints {_bytes(cost.checkpoint_bytes)}, records {_bytes(cost.record_bytes)}"
    active = "" if cost.active_parameters in ((), cost.parameters) else f", {_sizes(cost.active_parameters)} active"
    yield Text(f"{_sizes(cost.parameters)} parameters{active}; disk: {disk}.")


def _audit(plan: Plan) -> Iterator[RenderableType]:
    audit = plan.audit
    verdict = Text(audit.verdict, _STYLE[audit.verdict])
    if audit.verdict == "controlled" and plan.studies:
        verdict.append(
            ": in every study arms differ in its factor and what derives from it, in nothing else", "default"
        )
    elif audit.verdict == "controlled" and len(plan.arms) > 1:
        verdict.append(": arms differ in the declared factor and what derives from it, in nothing else", "default")
    elif audit.verdict == "refused":
        verdict.append(": cannot be launched as it is; audit=warn launches it and marks every output", "default")
    yield verdict
    lines = []
    if audit.factor and not plan.studies:
        lines.append(("factor", Text(f"{some(audit.factor)} ({count(len(audit.differing), 'key')} changed)")))
    if audit.derived and not plan.studies:
        lines.append(("derived", Text(f"{count(len(audit.derived), 'key')}: {some(audit.derived, 3)}")))
    if audit.held_fixed and not plan.studies:
        lines.append(
            ("held fixed", Text(" and ".join({"flops": "FLOPs"}.get(name, name) for name in audit.held_fixed)))
        )
    if audit.claim and not plan.studies:
        lines.append(("claims", Text(audit.claim.text)))
    findings = [one for one in audit.findings if not plan.studies or one.level != "noted"]
    yield _hanging([*lines, *map(_finding, findings[:FINDINGS])])
    if len(audit.findings) > len(findings[:FINDINGS]):
        yield Text(f"… and {len(audit.findings) - len(findings[:FINDINGS]):,} more findings in plan.json", "dim")


def _finding(finding: Finding) -> tuple[str, Text]:
    mark, style = _MARK[finding.level]
    return mark, Text(finding.text, "" if finding.level == "noted" else style)


def _epochs(plan: Plan) -> RenderableType:
    """Domains of every stage: one line where all arms agree, else one for each distinct line."""
    rows = [row for row in plan.epochs if row.source is None]
    domains = list(dict.fromkeys(row.domain for row in rows))
    table = _table("stage", "arms", *domains, left=2)
    for stage in dict.fromkeys(row.stage for row in rows):
        cells: dict[str, dict[str, str]] = {}
        for row in rows:
            if row.stage == stage:
                for arm in row.arms:
                    cells.setdefault(arm, {})[row.domain] = f"{row.epochs:.2f} / {row.cumulative:.2f}"
        alike: dict[tuple[str, ...], list[str]] = {}
        for arm, own in cells.items():
            alike.setdefault(tuple(own.get(domain, "–") for domain in domains), []).append(arm)
        for index, (line, arms) in enumerate(list(alike.items())[:LEDGER]):
            who = "all" if len(arms) == len(plan.arms) else some(arms, 3, 30)
            table.add_row("" if index else stage, Text(who), *line)
        if len(alike) > LEDGER:
            table.add_row("", Text(f"… and {len(alike) - LEDGER:,} more mixtures", "dim"))
    return table


def _repeated(plan: Plan) -> Iterator[RenderableType]:
    """The sources read most often, and the warnings about them."""
    final: dict[tuple[str, str], Epochs] = {}
    demanded: dict[tuple[str, str], float] = {}
    for row in plan.epochs:
        if row.source is not None:
            for arm in row.arms:
                final[row.source, arm] = row
                demanded[row.source, arm] = demanded.get((row.source, arm), 0.0) + row.demanded_tokens
    most: dict[str, tuple[str, Epochs]] = {}
    for (source, arm), row in final.items():
        if source not in most or row.cumulative > most[source][1].cumulative:
            most[source] = arm, row
    groups: dict[tuple[str, str, str], list[str]] = {}
    for source, (arm, row) in sorted(most.items(), key=lambda item: -item[1][1].cumulative):
        groups.setdefault((row.domain, f"{row.cumulative:.2f}", arm), []).append(source)
    table = _table("sources most often seen", "arm", "read", "held", "epochs", left=2)
    for (_, epochs, arm), sources in list(groups.items())[:SOURCES]:
        read = sum(demanded[source, arm] for source in sources)
        held = sum(final[source, arm].pool_tokens for source in sources)
        table.add_row(Text(some(sources, 1)), Text(arm), tokens(read), tokens(held), epochs)
    if groups:
        yield table
    for warning in plan.warnings:
        yield Text(warning, "yellow")


def _power(power: Power | None, seeds: int) -> RenderableType:
    if power is None:
        return Text("unknown: no estimate of the noise between seeds; state `noise:` in the sweep file")
    noise = f"noise {power.noise:.3g} {power.unit}, {power.source}"
    if power.detectable is None:
        text = f"unknown: one seed cannot tell a difference from noise ({noise})"
    else:
        least = f"{power.detectable:.{2 if power.unit == 'points' else 3}f} {power.unit}"
        text = f"smallest difference found with 80% power: {least} with {seeds} seeds ({noise})"
    if power.difference is not None and power.seeds_needed is not None:
        text += f"; {power.difference:g} {power.unit} needs {count(power.seeds_needed, 'seed')}"
    return Text(text)


def _orphans(plan: Plan) -> Iterator[RenderableType]:
    for orphan in plan.orphans[:ORPHANS]:
        why = "; ".join(orphan.diff[:4]) + (f"; and {len(orphan.diff) - 4} more" if len(orphan.diff) > 4 else "")
        yield Text(f"finished run {orphan.arm} seed {orphan.seed}: {why or 'its arm or seed was taken out'}", "yellow")
    if len(plan.orphans) > ORPHANS:
        yield Text(f"… and {len(plan.orphans) - ORPHANS:,} more in plan.json", "dim")


def _missing(plan: Plan) -> Iterator[RenderableType]:
    if plan.missing_sources:
        which = f"{count(len(plan.missing_sources), 'source')} ({some(plan.missing_sources, 3)})"
        yield Text(f"{which}: sizes are those of conf/pool and ids are provisional.", "yellow")
        yield Text("This plan can be read but not launched.", "yellow")


def _amount(value: float) -> str:
    """Three significant digits; whole numbers from a hundred on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(days: float) -> str:
    for unit, size in (("days", 1.0), ("h", 1 / 24), ("min", 1 / 1440)):
        if days >= 2 * size:
            return f"{_amount(days / size)} {unit}"
    return f"{_amount(days * 86400)} s"


def _bytes(count: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{_amount(count / size)} {unit}"
    return f"{_amount(count / 1e3)} kB"


def _sizes(sizes: Sequence[int]) -> str:
    """``0.63M``, or from the smallest to the largest model."""
    ends = dict.fromkeys((sizes[0], sizes[-1]))
    shown = [f"{size / 1e9:.2f}B" if size >= 1e9 else f"{size / 1e6:.2f}M" for size in ends]
    return " to ".join(shown)
