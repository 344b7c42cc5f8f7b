"""Runs -> Plan."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from davinci.accounting.accelerators import peak_flops
from davinci.accounting.flops import train_flops_per_token
from davinci.accounting.shapes import parameters
from davinci.config import EvaluationPoint, Node, Run
from davinci.data.cards import PoolCard
from davinci.errors import UserError
from davinci.planning.audit import audit
from davinci.planning.epochs import ledger
from davinci.planning.identity import History, StageSpan, mixture_key, state_id
from davinci.planning.mixtures import PoolView
from davinci.planning.plan import Arm, Cost, Plan, PlannedRun, Point, Question


def history_of(run: Run, card: PoolCard | None) -> History:
    """Place the stages of `run` on its token axis; every stage ends with its last whole step."""
    view = PoolView(run.pool, run.depth, card)
    stages = list(run.curriculum.stages)
    own_seed_from = 0 if run.seeds_from is None else stages.index(run.seeds_from)
    spans, position = [], 0
    for index, (name, stage) in enumerate(run.curriculum.stages.items()):
        spans.append(
            StageSpan(
                name=name,
                stage=stage,
                begin=position,
                end=position + stage.grid.tokens_used,
                sources=view.weigh(stage.mixture, name),
                data_seed=run.seed if index >= own_seed_from else run.trunk_seed,
            )
        )
        position = spans[-1].end
    return History(
        model=run.model,
        optimizer=run.optimizer,
        vocab_size=vocabulary(run, card),
        tokenizer_digest=card.tokenizer.digest if card else None,
        initialisation_seed=run.seed if own_seed_from == 0 else run.trunk_seed,
        spans=tuple(spans),
    )


def vocabulary(run: Run, card: PoolCard | None) -> int:
    """Vocabulary size of the model, checked against the built tokenizer's."""
    if card and card.tokenizer.vocab_size > run.model.vocab_size:
        raise UserError(
            f"model.vocab_size: {run.model.vocab_size} is smaller than the {card.tokenizer.vocab_size} of pool "
            f"{run.pool.name}'s tokenizer"
        )
    return run.model.vocab_size


def build_plan(
    runs: Sequence[Run],
    *,
    question: Question,
    arms: Sequence[Arm],
    factor: Sequence[str],
    cards: dict[str, PoolCard | None],
    done: frozenset[str] = frozenset(),
    warn_only: bool = False,
) -> Plan:
    """Build the plan of a sweep.

    Args:
        runs: one a (arm, seed), all of one sweep.
        question: the sweep's words.
        arms: in the order of the table; one is the baseline.
        factor: config keys the arms may differ in.
        cards: pool name -> card, None where the pool is not on this machine.
        done: ids of nodes the store has finished (their tokens cost nothing).
        warn_only: the audit warns instead of refusing.
    """
    nodes: dict[str, Node] = {}
    planned = []
    for run in runs:
        history = history_of(run, cards[run.pool.name])
        own = _nodes_of(run, history)
        nodes.update({node.id: node for node in own})
        leaf = own[-1].id.rsplit("-", 1)[1]
        planned.append(
            PlannedRun(
                id=f"{slug(run.arm)}-s{run.seed}-{leaf[:8]}",
                arm=run.arm,
                seed=run.seed,
                nodes=tuple(node.id for node in own),
                points=_points(run, history, own),
                config=run,
            )
        )
    missing = sorted({name for node in nodes.values() for name, use in node.sources.items() if use.digest is None})
    baseline = next(arm.label for arm in arms if arm.is_baseline)
    flops = {plan.arm: _flops(nodes[node] for node in plan.nodes) for plan in planned}
    return Plan(
        sweep=runs[0].sweep,
        question=question,
        arms=tuple(arms),
        seeds=tuple(dict.fromkeys(run.seed for run in runs)),
        runs=tuple(planned),
        nodes=nodes,
        audit=audit(runs, factor, baseline, flops, warn_only),
        epochs=ledger(runs, cards),
        cost=_cost(runs[0], planned, nodes, done),
        missing_sources=tuple(missing),
    )


def node_flops(node: Node) -> float:
    """Training FLOPs of a node."""
    return (node.end - node.begin) * train_flops_per_token(node.model, node.vocab_size, node.stage.sequence_length)


def slug(label: str) -> str:
    """`label` as a short lower-case name for ids: ``QA-30%`` gives ``qa-30``."""
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-") or "arm"


def _nodes_of(run: Run, history: History) -> list[Node]:
    nodes: list[Node] = []
    positions = _mixture_positions(history.spans)
    for span, position in zip(history.spans, positions, strict=True):
        nodes.append(
            Node(
                id=state_id(history, span.end),
                parent=nodes[-1].id if nodes else None,
                stage_name=span.name,
                stage_begin=span.begin,
                begin=span.begin,
                end=span.end,
                stage=span.stage,
                sources=span.sources,
                mixture_position=position,
                initialisation_seed=history.initialisation_seed,
                data_seed=span.data_seed,
                model=history.model,
                optimizer=history.optimizer,
                pool=run.pool.name,
                tokenizer_digest=history.tokenizer_digest,
                vocab_size=history.vocab_size,
                checkpoint_every_tokens=run.checkpoint_every_tokens,
            )
        )
    return nodes


def _mixture_positions(spans: Sequence[StageSpan]) -> list[int]:
    """Sequences of each span's mixture order consumed before it: a stage that repeats a mixture continues its order."""
    positions = [0]
    for before, after in pairwise(spans):
        same = mixture_key(before.sources) == mixture_key(after.sources)
        consumed = (before.end - before.begin) // before.stage.sequence_length
        positions.append(positions[-1] + consumed if same else 0)
    return positions


def _points(run: Run, history: History, nodes: Sequence[Node]) -> tuple[Point, ...]:
    places = {span.name: (span, node) for span, node in zip(history.spans, nodes, strict=True)}
    points = [_point(run, wanted, *places[wanted.stage]) for wanted in run.evaluation.at]
    return tuple(sorted({point.tokens: point for point in points}.values(), key=lambda point: point.tokens))


def _point(run: Run, wanted: EvaluationPoint, span: StageSpan, node: Node) -> Point:
    grid = span.stage.grid
    asked = span.stage.tokens if wanted.tokens is None else wanted.tokens
    stage_tokens = grid.tokens_at(grid.step_at(asked))
    if stage_tokens == 0:
        raise UserError(
            f"evaluation.at: {asked} tokens into {span.name} is before its first step of "
            f"{grid.batch_at(0) * span.stage.sequence_length} tokens"
        )
    return Point(
        node=node.id,
        tokens=span.begin + stage_tokens,
        stage=span.name,
        stage_tokens=stage_tokens,
        label=paper_label(asked / run.scale.tokens_per_trillion * 1e12),
    )


def paper_label(tokens: float) -> str:
    """Tokens as a paper's table prints them: ``84B``, ``1T``, ``7.42T``."""
    value, unit = (tokens / 1e12, "T") if tokens >= 9.995e11 else (tokens / 1e9, "B")
    return f"{value:.0f}{unit}" if value >= 10 else f"{value:.3g}{unit}"


def _cost(run: Run, planned: Sequence[PlannedRun], nodes: dict[str, Node], done: frozenset[str]) -> Cost:
    """Totals over the tree. GPU-hours = FLOPs / (peak FLOP/s x MFU x 3600); a checkpoint is weights and two moments."""
    left = [node for node in nodes.values() if node.id not in done]
    alone = [nodes[node] for plan in planned for node in plan.nodes]
    rate = peak_flops(run.cluster.gpu) * run.cluster.mfu * 3600
    any_node = next(iter(nodes.values()))
    size = parameters(any_node.model, any_node.vocab_size)
    checkpoints = {(point.node, point.tokens) for plan in planned for point in plan.points}
    checkpoints |= {(node.id, node.end) for node in nodes.values()}
    return Cost(
        tokens_unshared=_tokens(alone),
        tokens_shared=_tokens(nodes.values()),
        tokens_left=_tokens(left),
        flops_unshared=_flops(alone),
        flops_shared=_flops(nodes.values()),
        flops_left=_flops(left),
        gpu=run.cluster.gpu,
        mfu=run.cluster.mfu,
        gpu_hours_unshared=_flops(alone) / rate,
        gpu_hours_shared=_flops(nodes.values()) / rate,
        gpu_hours_left=_flops(left) / rate,
        parameters=size,
        checkpoint_bytes=len(checkpoints) * size * 12,
    )


def _tokens(nodes: Iterable[Node]) -> int:
    return sum(node.end - node.begin for node in nodes)


def _flops(nodes: Iterable[Node]) -> float:
    return sum(node_flops(node) for node in nodes)
