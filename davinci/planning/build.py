"""Sweeps -> plans: every run's nodes and points on one stage tree, and what is said of them."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from davinci.config import Evaluation, EvaluationPoint, Node, Run
from davinci.data.cards import PoolCard
from davinci.errors import UserError
from davinci.planning import pretrained
from davinci.planning.audit import audit
from davinci.planning.cost import Probe, cost, node_flops
from davinci.planning.documents import with_equal_documents
from davinci.planning.epochs import ledger, refuse_exhausted, repetitions
from davinci.planning.histories import BenchmarkDigest, Histories
from davinci.planning.identity import Course, History, StageSpan
from davinci.planning.matching import with_matched_models
from davinci.planning.moments import moments
from davinci.planning.noise import power
from davinci.planning.orphans import orphans
from davinci.planning.plan import Orphan, Plan, PlannedRun, Point
from davinci.planning.plan import State as PointState
from davinci.planning.stored import StoredNodes, finished, launched
from davinci.planning.sweep import Arm, Sweep
from davinci.planning.tree import State, Tree, floored
from davinci.store import Store


def build_plan(
    sweep: Sweep,
    *,
    cards: Mapping[str, PoolCard | None],
    store: Store | None = None,
    warn_only: bool = False,
    max_epochs: float = 4.0,
    probe: Probe | None = None,
    benchmark_digest: BenchmarkDigest = lambda run, name: None,
) -> Plan:
    """The plan of one sweep; see `build_plans`."""
    return build_plans(
        [sweep],
        cards=cards,
        store=store,
        warn_only=warn_only,
        max_epochs=max_epochs,
        probe=probe,
        benchmark_digest=benchmark_digest,
    )[0]


def build_plans(
    sweeps: Sequence[Sweep],
    *,
    cards: Mapping[str, PoolCard | None],
    store: Store | None = None,
    warn_only: bool = False,
    max_epochs: float = 4.0,
    probe: Probe | None = None,
    benchmark_digest: BenchmarkDigest = lambda run, name: None,
) -> tuple[Plan, ...]:
    """Plan sweeps on one stage tree: what two of them have in common is the same nodes in both plans.

    Args:
        sweeps: what composition made.
        cards: pool name -> card, None where the pool is not on this machine.
        store: what is finished there costs nothing, and nodes are cut where they were cut before.
        warn_only: the audit warns instead of refusing.
        max_epochs: a source seen more often is warned of.
        probe: measured speed, instead of the cluster's MFU.
        benchmark_digest: asked for the benchmarks that stages watch as they train.

    Raises:
        UserError: a mistake in a config that only shows with the pool at hand, or a stored node whose config does not
            give its id.
    """
    sweeps = [with_equal_documents(with_matched_models(sweep), cards) for sweep in sweeps]
    pretrained.require(sweeps, cards, store)
    tree = _Tree(sweeps, Histories(cards, benchmark_digest), StoredNodes(store))
    return tuple(_plan(sweep, runs, tree, cards, store, warn_only, max_epochs, probe) for sweep, runs in tree.runs)


def slug(label: str) -> str:
    """`label` as a short lower-case name for ids: ``QA-30%`` gives ``qa-30``."""
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-") or "arm"


def paper_label(tokens: float) -> str:
    """Tokens as a paper's table prints them: ``84B``, ``1T``, ``7.42T``."""
    value, unit = (tokens / 1e12, "T") if tokens >= 9.995e11 else (tokens / 1e9, "B")
    return f"{value:.0f}{unit}" if value >= 10 else f"{value:.3g}{unit}"


def _plan(
    sweep: Sweep,
    runs: Sequence[PlannedRun],
    tree: _Tree,
    cards: Mapping[str, PoolCard | None],
    store: Store | None,
    warn_only: bool,
    max_epochs: float,
    probe: Probe | None,
) -> Plan:
    nodes = {node: tree.nodes[node] for run in runs for node in run.nodes}
    flops = {node.id: node_flops(node) for node in nodes.values()}
    done = finished(store, nodes)
    left = nodes.keys() - done
    flops_by_arm = {run.arm: sum(flops[node] for node in run.nodes) for run in runs if run.seed == sweep.seeds[0]}
    epochs = ledger(sweep, cards)
    refuse_exhausted(sweep, epochs)
    return Plan(
        sweep=sweep.name,
        question=sweep.question,
        arms=sweep.arms,
        seeds=sweep.seeds,
        runs=tuple(runs),
        nodes=nodes,
        tokens_unshared=sum(nodes[run.nodes[-1]].end for run in runs),
        tokens_shared=sum(_tokens(node) for node in nodes.values()),
        tokens_left=sum(_tokens(nodes[node]) for node in left),
        flops_unshared=math.fsum(flops_by_arm[run.arm] for run in runs),
        flops=math.fsum(flops.values()),
        flops_left=math.fsum(flops[node] for node in left),
        audit=audit(sweep, runs, nodes, flops_by_arm, cards, epochs, warn_only),
        epochs=epochs,
        warnings=repetitions(epochs, max_epochs),
        cost=cost(sweep, runs, nodes, done, probe),
        power=power(sweep, store),
        orphans=_orphans(sweep, runs, nodes, store),
        missing_sources=missing_sources(nodes.values()),
    )


def _tokens(node: Node) -> int:
    return node.end - node.begin


def _orphans(
    sweep: Sweep, runs: Sequence[PlannedRun], nodes: Mapping[str, Node], store: Store | None
) -> tuple[Orphan, ...]:
    previous = launched(store, sweep.name, nodes)
    if previous is None:
        return ()
    return orphans(previous, runs, nodes, sweep.arms, finished(store, previous["nodes"]))


def missing_sources(nodes: Iterable[Node]) -> tuple[str, ...]:
    """Sources the nodes read that are not on this machine."""
    mixtures = {id(node.sources): node.sources for node in nodes}
    return tuple(sorted({name for used in mixtures.values() for name, use in used.items() if use.digest is None}))


class _Stop(NamedTuple):
    """An evaluation of an arm, whatever the seed: a `Point` without its node, `states` by their tokens."""

    tokens: int
    stage: str
    stage_tokens: int
    label: str
    weights: Literal["trained", "average"]
    states: tuple[int, ...]


@dataclass
class _Shared:
    """What the seeds of an arm have in common."""

    arm: Arm
    stops: tuple[_Stop, ...]
    spans: tuple[tuple[StageSpan, int], ...]


class _Tree:
    """The runs of all sweeps with their nodes. Of runs that share a node, the first one's config speaks for it."""

    def __init__(self, sweeps: Sequence[Sweep], histories: Histories, stored: StoredNodes) -> None:
        self.nodes: dict[str, Node] = {}
        self._positions: dict[int, tuple[int, ...]] = {}
        wanted = [
            (shared, seed, history)
            for sweep in sweeps
            for arm in sweep.arms
            for shared in [self._shared(arm, histories.course(arm.config))]
            for seed, history in zip(sweep.seeds, histories.of(arm.config, sweep.seeds), strict=True)
        ]
        tree = Tree([history for _, _, history in wanted])
        for index, (shared, _, _) in enumerate(wanted):
            for stop in shared.stops:
                for tokens in stop.states:  # An end of a node is a checkpoint that stays.
                    tree.cut(index, tokens)
        stored.cut(tree, [history for _, _, history in wanted])
        planned = iter(
            self._planned(shared, seed, history, tree.states(index))
            for index, (shared, seed, history) in enumerate(wanted)
        )
        self.runs = [(sweep, [next(planned) for _ in sweep.arms for _ in sweep.seeds]) for sweep in sweeps]
        stored.check(self.nodes)

    def _shared(self, arm: Arm, course: Course) -> _Shared:
        if id(course) not in self._positions:
            self._positions[id(course)] = _mixture_positions(course.spans)
        return _Shared(
            arm, _stops(arm.config, course), tuple(zip(course.spans, self._positions[id(course)], strict=True))
        )

    def _planned(self, shared: _Shared, seed: int, history: History, states: Sequence[State]) -> PlannedRun:
        begin, parent = 0, None
        spans = iter(shared.spans)
        span, position = next(spans)
        for state in states:
            if begin == span.end:
                span, position = next(spans)
            if state.id not in self.nodes:
                self.nodes[state.id] = _node(shared.arm.config, history, state, begin, parent, span, position)
            begin, parent = state
        tokens = [state.tokens for state in states]

        def at(place: int) -> str:
            return states[bisect_left(tokens, place)].id

        points = tuple(
            Point(
                node=at(stop.tokens),
                tokens=stop.tokens,
                stage=stop.stage,
                stage_tokens=stop.stage_tokens,
                label=stop.label,
                weights=stop.weights,
                states=tuple(PointState(node=at(place), tokens=place) for place in stop.states),
            )
            for stop in shared.stops
        )
        arm, leaf = shared.arm.label, states[-1].id.rsplit("-", 1)[1]
        return PlannedRun(
            id=f"{slug(arm)}-s{seed}-{leaf[:8]}",
            arm=arm,
            seed=seed,
            nodes=tuple(state.id for state in states),
            points=points,
        )


def _node(
    config: Run, history: History, state: State, begin: int, parent: str | None, span: StageSpan, position: int
) -> Node:
    # Every part is validated already; ten thousand times over, checking again would be most of planning.
    return Node.model_construct(
        id=state.id,
        parent=parent,
        stage_name=span.name,
        stage_begin=span.stage_begin,
        begin=begin,
        end=state.tokens,
        stage=span.stage,
        sources=span.sources,
        mixture_position=position,
        mixture_begin=None if span.begin == span.stage_begin else span.begin,
        watched=span.watched,
        benchmark=_watched_benchmark(config, span),
        max_epochs={name: limit for name in span.sources if (limit := config.pool.epochs_allowed(name)) is not None},
        initialisation_seed=history.initialisation_seed,
        data_seed=history.data_seed_at(begin),
        model=span.model,
        optimizer=history.course.optimizer,
        pool=config.pool.name,
        tokenizer_digest=history.course.tokenizer_digest,
        vocab_size=history.course.vocab_size,
        checkpoint_every_tokens=config.checkpoint_every_tokens,
        end_of_text=history.course.end_of_text,
    )


def _watched_benchmark(config: Run, span: StageSpan) -> Evaluation | None:
    """The suite of the one benchmark that decides where the stage ends; None where none does."""
    benchmark = span.stage.until.benchmark if span.stage.until else None
    return None if benchmark is None else config.evaluation.only(benchmark)


def _mixture_positions(spans: Sequence[StageSpan]) -> tuple[int, ...]:
    """Sequences of each span's mixture order consumed before it: a stage that repeats a mixture continues its order."""
    positions = [0]
    for before, after in pairwise(spans):
        consumed = (before.end - before.begin) // before.stage.sequence_length
        goes_on = before.sources == after.sources and after.stage.data_cursors == "carry"
        positions.append(positions[-1] + consumed if goes_on else 0)
    return tuple(positions)


def _stops(config: Run, course: Course) -> tuple[_Stop, ...]:
    found: dict[int, _Stop] = {}
    for wanted, span in moments(config, course.spans):
        stop = _stop(config, wanted, span, course.spans)
        other = found.setdefault(stop.tokens, stop)
        if (other.weights, other.states) != (stop.weights, stop.states):
            raise UserError(
                f"evaluation.at: asks two kinds of weights of the state {stop.label} into {stop.stage}; make them two "
                "arms, which share the training"
            )
    return tuple(sorted(found.values()))


def _stop(config: Run, wanted: EvaluationPoint, span: StageSpan, spans: Sequence[StageSpan]) -> _Stop:
    grid = span.stage.grid
    asked = span.stage.tokens if wanted.tokens is None else wanted.tokens
    stage_tokens = grid.tokens_at(grid.step_at(asked))
    if stage_tokens == 0:
        raise UserError(
            f"evaluation.at: {asked} tokens into {span.name} is before its first step of "
            f"{grid.batch_at(0) * span.stage.sequence_length} tokens"
        )
    label = paper_label(asked / config.scale.tokens_per_trillion * 1e12)
    tokens = span.stage_begin + stage_tokens
    return _Stop(tokens, span.name, stage_tokens, label, wanted.weights, _averaged(wanted, tokens, spans))


def _averaged(wanted: EvaluationPoint, tokens: int, spans: Sequence[StageSpan]) -> tuple[int, ...]:
    """The states, in tokens since initialisation, whose mean is evaluated; none where it is the state at `tokens`."""
    if wanted.spacing_tokens is None:
        return ()
    places = [tokens - back * wanted.spacing_tokens for back in reversed(range(wanted.average_of))]
    states = tuple(dict.fromkeys(floored(spans, place) for place in places if place > 0))
    if len(states) < wanted.average_of or states[0] == 0:
        raise UserError(
            f"evaluation.at: {wanted.average_of} states {wanted.spacing_tokens} tokens apart, the last at {tokens} "
            f"tokens, are only {len([state for state in states if state])} whole steps of training; ask for fewer, or "
            "another spacing_tokens"
        )
    if wanted.weights == "average":
        without = [span.name for span in spans if span.end >= states[0] and span.begin < tokens]
        without = [span.name for span in spans if span.name in without and span.stage.averages is None]
        if without:
            raise UserError(f"evaluation.at: the states to average reach back to {without[0]}, which keeps no averages")
    return states
