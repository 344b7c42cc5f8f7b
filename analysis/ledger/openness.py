"""The rows of a transparency table, each answered by what the records show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from analysis.ledger.card import Architecture, Data, Environment, Negatives, Openness, Word
from analysis.ledger.scope import Scope
from davinci.launching.reconcile import checkpoints, looks_whole
from davinci.launching.snapshot import code_folder
from davinci.planning.wording import count, some

Part = Literal["model", "data", "process", "exploration"]


def openness(
    scope: Scope, data: Data, architecture: Iterable[Architecture], environment: Environment, negatives: Negatives
) -> tuple[Openness, ...]:
    """Every row, from what is held in the store and what is computed from it."""
    return (
        *_model(scope, list(architecture)),
        *_data(data),
        *_process(scope, environment),
        *_exploration(scope, negatives),
    )


def _row(part: Part, name: str, state: Word, evidence: str) -> Openness:
    return Openness(part=part, name=name, state=state, evidence=evidence)


def _share(part: Part, name: str, have: int, of: int, evidence: str) -> Openness:
    """Yes where all have it, no where none has."""
    state: Word = "no" if not have else "yes" if have == of else "partial"
    return _row(part, name, state, evidence)


def _model(scope: Scope, architecture: list[Architecture]) -> Iterable[Openness]:
    ends = {run.nodes[-1]: scope.nodes[run.nodes[-1]].end for run in scope.runs}
    there = {name: checkpoints(name, scope.store) for name in scope.nodes}
    final = {name for name, end in ends.items() if looks_whole(scope.store.checkpoint(name, end))}
    runs = [run for run in scope.runs if run.nodes[-1] in final]
    text = f"{len(runs)} of {count(len(scope.runs), 'run')} have the weights of their last state in the store"
    yield _share("model", "Final weights", len(runs), len(scope.runs), text)
    between = {
        run.id: sum(tokens != ends.get(node) for node in run.nodes for tokens in there[node]) for run in scope.runs
    }
    have = sum(number > 0 for number in between.values())
    total = sum(tokens != ends.get(node) for node, found in there.items() for tokens in found)
    text = f"{count(total, 'earlier state')} in the store, of {have} of {count(len(scope.runs), 'run')}"
    yield _share("model", "Intermediate checkpoints", have, len(scope.runs), text)
    sizes = some([f"{one.parameters / 1e6:.3g}M parameters" for one in architecture])
    yield _row("model", "Architecture", "yes", f"resolved in this card: {sizes}")
    if others := {one.begins_with.name: one.begins_with for one in architecture if one.begins_with}:
        licensed = sum(one.licence is not None for one in others.values())
        text = f"{'; '.join(one.text for one in others.values())}; on what they were trained no record says"
        yield _row("model", "Weights it begins with", "partial" if licensed == len(others) else "no", text)


def _data(data: Data) -> Iterable[Openness]:
    sources, of = data.sources, len(data.sources)
    licensed = sum(one.licence is not None for one in sources)
    yield _share("data", "Sources and licences", licensed, of, f"{licensed} of {count(of, 'source')} name a licence")
    named = sum(bool(one.archives or one.processing) for one in sources)
    pinned = sum(bool(one.archives) and all(part.sha256 for part in one.archives) for one in sources)
    text = f"{pinned} of {count(of, 'source')} are taken from archives pinned by SHA-256"
    if made := named - pinned:
        text += f"; {made} made by a program named in its processing"
    yield _share("data", "Provenance", named, of, text)
    held = sum(one.matches_pool is True for one in sources)
    text = f"the store's pool holds {held} of {count(of, 'source')} with the content that was trained on, by digest"
    yield _share("data", "Training data", held, of, text)
    told = sum(bool(one.processing) for one in sources)
    text = f"{told} of {count(of, 'source')} say by which operations they reached their Darwin Level"
    yield _share("data", "Processing", told, of, text)
    known = sum(one.digest is not None for one in sources)
    text = "integer weights, seeds and content digests fix which sequence is read when"
    yield _share("data", "Mixture and data order", known, of, text)


def _process(scope: Scope, environment: Environment) -> Iterable[Openness]:
    sweep, of = scope.found.sweep, len(scope.nodes)
    coded = [one for one in environment.runs if one.code is not None]
    kept = sorted({one.code for one in coded if one.code and code_folder(scope.store, one.code).is_dir()})
    known = sum(one.stretches for one in coded)
    text = f"{known} of {count(of, 'stretch')} record the digest of the program".replace("stretchs", "stretches")
    text += f"; the store keeps it ({', '.join(kept)})" if kept else "; a copy of it is not kept in the store"
    state: Word = "no" if not known else "yes" if known == of and len(kept) == len(coded) else "partial"
    yield _row("process", "Training code", state, text)
    yield _row("process", "Hyperparameters", "yes", "every key of every arm is resolved in the plan")
    rows = sum(len(sweep.train.get(name, ())) > 0 for name in scope.nodes)
    text = f"{rows} of {of} stretches left losses, learning rates and gradient norms step by step"
    yield _share("process", "Training records", rows, of, text)
    timed = sum(name in sweep.spent and sweep.spent[name].seconds > 0 for name in scope.nodes)
    yield _share(
        "process", "Compute and energy", timed, of, f"{timed} of {of} stretches are timed; energy is estimated"
    )
    placed = sum(one.stretches for one in environment.runs)
    text = f"{placed} of {of} stretches record device, torch, threads and ranks"
    yield _share("process", "Environment", placed, of, text)
    wanted = {run.id for run in scope.runs}
    scored = [row for row in scope.found.grid.all_rows if row.run in wanted and not row.missing]
    items = sum((row.node, row.key, row.benchmark) in sweep.items for row in scored)
    text = f"task, protocol, shots and metric of every benchmark; {items:,} of {len(scored):,} scores item by item"
    yield _row("process", "Evaluation protocols", "yes" if scored and items == len(scored) else "partial", text)


def _exploration(scope: Scope, negatives: Negatives) -> Iterable[Openness]:
    plan, question = scope.plan, scope.plan.question
    state: Word = "yes" if question.hypothesis else "partial"
    text = "question, metric, arm and direction are in the sweep file" if question.hypothesis else "a question alone"
    yield _row("exploration", "Hypothesis beforehand", state, text)
    controlled, arms = plan.audit.verdict == "controlled", len(plan.arms)
    text = f"{count(arms, 'arm')}, control audit: {plan.audit.verdict}"
    yield _row("exploration", "Ablations", "no" if arms == 1 else "yes" if controlled else "partial", text)
    seeds = len(plan.seeds)
    text = f"{count(seeds, 'seed')} an arm; intervals are over seeds and items" if seeds > 1 else "one seed: items only"
    yield _row("exploration", "Repeats and intervals", "yes" if seeds > 1 else "partial", text)
    lacking = len(scope.incomplete)
    text = (
        f"{len(negatives.not_told_apart)} of {count(negatives.tested, 'difference')} not told from noise, "
        f"{count(len(negatives.troubles), 'trouble')} listed; {len(scope.runs) - lacking} of "
        f"{count(len(scope.runs), 'run')} reported in full"
    )
    yield _share("exploration", "Negative results", len(scope.runs) - lacking, len(scope.runs), text)
