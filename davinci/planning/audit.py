"""The control audit: arms may differ only in the declared factor, and in what descends from it.

Every leaf of the resolved config is compared but four labels; placement too, since it decides rounding. Two arms that
differ from each other differ from the baseline in that key (one or both), so comparing each arm with the baseline
covers every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from davinci.accounting.shapes import active_parameters, parameters
from davinci.config import Node
from davinci.config.idle import without_idle
from davinci.data.cards import PoolCard
from davinci.errors import nearest
from davinci.planning import adaptive, matching, pretrained
from davinci.planning.differences import ABSENT, differences, leaves
from davinci.planning.documents import Documents
from davinci.planning.plan import Audit, Epochs, Finding, PlannedRun
from davinci.planning.sweep import Arm, Budget, Sweep
from davinci.planning.wording import some, tokens

Level = Literal["refused", "warned", "noted"]

# What names a run without being part of it. `replicate` is one since only an A/A comparison sets it.
LABELS = frozenset({"sweep", "arm", "seed", "replicate"})
# Placement that changes the order of sums, and with it the last bits of the weights.
DEVICES = (
    "cluster.gpu",
    "cluster.gpus",
    "cluster.threads",
    "cluster.parallel",
    "cluster.micro_tokens",
    "cluster.compile",
)
# Where a difference of the sources read can come from.
_OF_SOURCES = ("pool", "depth", "curriculum")
# Whole steps of other sizes end a stage at slightly other tokens.
TOLERANCE = 1e-3
# A shape within 1% of its target, and whole steps.
_OFF_THE_DIAL = 0.03


def audit(
    sweep: Sweep,
    planned_runs: Sequence[PlannedRun],
    nodes: Mapping[str, Node],
    flops_by_arm: Mapping[str, float],
    cards: Mapping[str, PoolCard | None],
    epochs: Sequence[Epochs] = (),
    warn_only: bool = False,
) -> Audit:
    """Compare every arm with the baseline arm.

    Args:
        sweep: the arms, and what the sweep declares.
        planned_runs: the runs as planned, with their nodes.
        nodes: node id -> node.
        flops_by_arm: training FLOPs of one run of each arm.
        cards: pool name -> card, None where the pool is not on this machine.
        epochs: the sweep's epoch ledger.
        warn_only: turn refusals into warnings (`audit=warn`).
    """
    compared = _compare(sweep)
    problem: Level = "warned" if warn_only else "refused"
    findings = [Finding(level=problem, text=text) for text in _undeclared(compared)]
    findings += [Finding(level=problem, text=text) for text in _idle_factors(compared)]
    findings += [Finding(level=problem, text=text) for text in _lacking_seeds(sweep, planned_runs)]
    findings += _equal_models(sweep, problem)
    findings += _sources(compared, planned_runs, nodes, problem)
    seen = {run.arm: float(nodes[run.nodes[-1]].end) for run in planned_runs}
    findings += _budgets(sweep, seen, flops_by_arm, problem)
    documents = Documents(sweep, epochs, cards, seen)
    findings += [Finding(level=problem, text=text) for text in documents.problems()]
    noted = [
        *_dial(sweep, seen, flops_by_arm),
        *matching.notes(sweep),
        *pretrained.notes(sweep),
        *_tokenizers(sweep, cards),
        *_whole_steps(sweep),
        *_masks(sweep),
        *_experts(sweep),
        *_trunk(sweep),
        *_placement(compared),
        *_replicates(sweep),
        *adaptive.notes(sweep),
    ]
    findings += [Finding(level="noted", text=text) for text in noted]
    rank = ("refused", "warned", "noted")
    return Audit(
        factor=sweep.factor,
        differing=tuple(sorted(compared.of_factor)),
        derived=tuple(sorted(compared.derived)),
        held_fixed=sweep.held_fixed,
        findings=tuple(sorted(findings, key=lambda finding: rank.index(finding.level))),
        claim=documents.claim(),
    )


@dataclass(frozen=True)
class _Compared:
    """Keys in which some arm differs from the baseline, by what allows them; `undeclared` and `placed` with the values:
    key -> arm -> value."""

    sweep: Sweep
    of_factor: set[str]
    derived: set[str]
    placed: dict[str, dict[str, Any]]
    undeclared: dict[str, dict[str, Any]]
    base: dict[str, Any]
    reads_otherwise: set[str]


def _compare(sweep: Sweep) -> _Compared:
    factor = tuple(map(_dotted, sweep.factor))
    placed = tuple(map(_dotted, sweep.placed))
    found = _Compared(sweep, set(), set(), {}, {}, {}, set())
    for arm in sweep.arms:
        derived = frozenset(map(_dotted, sweep.derived.get(arm.label, ())))
        unlike = differences(sweep.baseline.config, arm.config, LABELS)
        # Only resources set an arm's cluster keys, and others follow them (cluster.gpus reads cluster.threads).
        moved = placed and any(_covered(key, placed) for key in unlike)
        for key, (base, value) in unlike.items():
            if key in found.of_factor or _covered(key, factor):
                found.of_factor.add(key)
            elif key in derived:
                found.derived.add(key)
            else:
                kind = found.placed if moved and key.startswith("cluster.") else found.undeclared
                kind.setdefault(key, {})[arm.label] = value
                found.base[key] = base
                continue
            found.base[key] = base
            if key.startswith(_OF_SOURCES):
                found.reads_otherwise.add(arm.label)
    return found


def _dotted(key: str) -> str:
    """A key with list indices as Hydra writes them (``at[0].tokens``), as `differences` does (``at.0.tokens``)."""
    return key.replace("[", ".").replace("]", "")


def _covered(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(name + ".") for name in names)


def _undeclared(compared: _Compared) -> list[str]:
    base = compared.sweep.baseline.label
    return [
        f"{key} differs between arms {base} ({_shown(compared.base[key])}) and {_valued(arms)}; "
        "it is neither in the declared factor nor derived from it"
        for key, arms in sorted(compared.undeclared.items())
    ]


def _idle_factors(compared: _Compared) -> list[str]:
    texts = []
    for name in compared.sweep.factor:
        if any(_covered(key, (_dotted(name),)) for key in compared.of_factor):
            continue
        known = _keys(compared.sweep.arms)
        if _dotted(name) not in known:
            texts.append(f"factor key {name} is not a key of the config{nearest(_dotted(name), known)}")
        else:
            changed = sorted(compared.undeclared or compared.of_factor)
            instead = f"; arms differ in {some(changed, 3)}" if changed else ""
            texts.append(f"factor key {name} is changed by no arm{instead}")
    return texts


def _keys(arms: Sequence[Arm]) -> set[str]:
    """Every key of the configs, and every group of keys."""
    known: set[str] = set()
    for arm in arms:
        for key, _ in leaves(arm.config):
            while key and key not in known:
                known.add(key)
                key = key.rpartition(".")[0]
    return known


def _lacking_seeds(sweep: Sweep, planned_runs: Sequence[PlannedRun]) -> list[str]:
    cells = {(run.arm, run.seed) for run in planned_runs}
    lacking = {arm.label: [seed for seed in sweep.seeds if (arm.label, seed) not in cells] for arm in sweep.arms}
    return [f"arm {arm} lacks seeds {', '.join(map(str, seeds))}" for arm, seeds in lacking.items() if seeds]


def _equal_models(sweep: Sweep, problem: Level) -> list[Finding]:
    """Arms that differ only in what nothing in their model reads: a problem where no arm differs in anything else."""
    models = {id(arm.config.model): without_idle(arm.config.model) for arm in sweep.arms}
    if all(models[id(arm.config.model)] == arm.config.model for arm in sweep.arms):
        return []

    def read(arm: Arm) -> str:
        config = arm.config.model_copy(update={"model": models[id(arm.config.model)]})
        return config.model_dump_json(exclude=set(LABELS))

    groups = list(_by(sweep.arms, read).values())
    level: Level = problem if len(groups) == 1 else "warned"
    configs = {arm.label: arm.config for arm in sweep.arms}
    return [
        Finding(
            level=level,
            text=f"arms {some(group)} are one model, trained {len(group)} times: nothing in it reads "
            + ", ".join(differences(configs[group[0]], configs[group[1]], LABELS)),
        )
        for group in groups
        if len(group) > 1 and configs[group[0]].model != configs[group[1]].model
    ]


# (source, depth, digest) of everything an arm reads.
Reads = frozenset[tuple[str, str, str | None]]


def _sources(
    compared: _Compared, planned_runs: Sequence[PlannedRun], nodes: Mapping[str, Node], problem: Level
) -> list[Finding]:
    """What each arm reads, by content: the same everywhere, or otherwise through the factor."""
    # Nodes of one mixture share their sources, so each mixture is looked into once.
    mixtures = {id(node.sources): node.sources for node in nodes.values()}
    reads = {key: frozenset((n, use.depth, use.digest) for n, use in own.items()) for key, own in mixtures.items()}
    united: dict[frozenset[int], Reads] = {}
    by_arm: dict[str, Reads] = {}
    for run in planned_runs:
        if run.arm not in by_arm:
            keys = frozenset(id(nodes[node].sources) for node in run.nodes)
            if keys not in united:
                united[keys] = Reads().union(*(reads[key] for key in keys))
            by_arm[run.arm] = united[keys]
    base = compared.sweep.baseline.label
    if base not in by_arm:
        return []
    of_base = by_arm[base]
    otherwise: dict[str, list[str]] = {}
    findings = []
    for arm, of_arm in by_arm.items():
        if of_arm == of_base:
            continue
        unlike = sorted({name for name, _, _ in of_arm ^ of_base})
        if unlike and arm not in compared.reads_otherwise:
            text = f"source {unlike[0]} is not read alike by arms {base} and {arm}, and no factor key explains it"
            findings.append(Finding(level=problem, text=text))
        for name in unlike:
            otherwise.setdefault(name, []).append(arm)
    if otherwise and not findings:
        text = f"through the factor, arms do not read alike (content or depth, or not at all): {some(list(otherwise))}"
        return [Finding(level="noted", text=text)]
    if not otherwise and len(by_arm) > 1:
        count = len({name for name, _, _ in of_base})
        unknown = any(digest is None for _, _, digest in of_base)
        alike = (
            "at the same depth (their content is not on this machine)" if unknown else "of the same content and depth"
        )
        return [Finding(level="noted", text=f"every arm reads the same {count} sources, {alike}")]
    return findings


def _budgets(
    sweep: Sweep, seen: Mapping[str, float], flops_by_arm: Mapping[str, float], problem: Level
) -> list[Finding]:
    findings = []
    agreed = []
    budgets: tuple[tuple[Budget, Mapping[str, float], str], ...] = (
        ("tokens", seen, ",.0f"),
        ("flops", flops_by_arm, ".5g"),
    )
    for what, values, form in budgets:
        unit = "training tokens" if what == "tokens" else "training FLOPs"
        base = values.get(sweep.baseline.label)
        if base is None:
            continue
        apart = max(abs(value / base - 1) for value in values.values())
        if apart <= 1e-9:
            agreed.append(f"{base:{form}} {unit}")
            continue
        numbers = _grouped({arm: format(value, form) for arm, value in values.items()})
        near = matching.STATED if what == "flops" and _aims_at_equal_flops(sweep) else TOLERANCE
        if what not in sweep.held_fixed:
            findings.append(Finding(level="noted", text=f"{unit} differ, and are not held fixed: {numbers}"))
        elif apart > near:
            others = [one for one in sweep.held_fixed if one != what]
            text = f"{unit} are held fixed but differ: {numbers} (held_fixed: [{', '.join(others)}] lets them)"
            findings.append(Finding(level=problem, text=text))
        else:
            why = "whole steps and widths" if what == "flops" and sweep.match == "flops" else "whole steps"
            text = f"{unit} agree to {apart:.2%} ({why}): {numbers}"
            findings.append(Finding(level="noted", text=text))
    if agreed:
        who = "every arm has" if len(sweep.arms) > 1 else "a run has"
        findings.append(Finding(level="noted", text=f"{who} {' and '.join(agreed)}"))
    return findings


def _aims_at_equal_flops(sweep: Sweep) -> bool:
    """Whether whole steps and whole widths are all that keeps training FLOPs apart: arms that are matched by them, or
    stand on one isoFLOP line."""
    budgets = {arm.config.scale.flops for arm in sweep.arms}
    return sweep.match == "flops" or (len(budgets) == 1 and budgets != {None})


def _dial(sweep: Sweep, seen: Mapping[str, float], flops_by_arm: Mapping[str, float]) -> list[str]:
    """Where an arm is trained with more or less than the ladder's dial says, which is of its own shape and the paper's
    whole curriculum."""

    def off(arm: Arm) -> str | None:
        scale = arm.config.scale
        if arm.label not in seen or scale.parameters is None or scale.tokens_per_parameter is None:
            return None
        if scale.flops is not None:
            share, key = flops_by_arm[arm.label] / scale.flops, f"scale.flops {scale.flops:.4g}"
        else:
            share = seen[arm.label] / scale.tokens_per_parameter / scale.parameters
            key = f"scale.tokens_per_parameter {scale.tokens_per_parameter:g}"
        return f"{share:.0%} of {key}" if abs(share - 1) > _OFF_THE_DIAL else None

    return [
        f"{some(arms)}: {text} are trained; the dial is of the ladder's own shape and of the paper's whole curriculum"
        for text, arms in _by(sweep.arms, off).items()
        if text
    ]


def _tokenizers(sweep: Sweep, cards: Mapping[str, PoolCard | None]) -> list[str]:
    def tokenizer(arm: Arm) -> str:
        card = cards.get(arm.config.pool.name)
        return arm.config.pool.tokenizer + (f" {card.tokenizer.digest[:8]}" if card else "")

    groups = _by(sweep.arms, tokenizer)
    if len(groups) == 1:
        return []
    named = "; ".join(f"{name} ({some(arms)})" for name, arms in groups.items())
    return [f"tokenizers differ, so losses per token are not comparable between arms (bits per byte are): {named}"]


def _whole_steps(sweep: Sweep) -> list[str]:
    """Budgets that are no whole number of steps: the stage ends with the last one inside."""

    def ends(arm: Arm) -> tuple[tuple[str, int, int], ...]:
        stages = arm.config.curriculum.stages.items()
        return tuple((name, stage.grid.tokens_used, stage.tokens) for name, stage in stages)

    texts = []
    groups = _by(sweep.arms, ends)
    for stages, arms in groups.items():
        who = "" if len(groups) == 1 else f"{some(arms)}: "
        short = [f"{name} after {used:,} of {budget:,} tokens" for name, used, budget in stages if used < budget]
        if short:
            texts.append(f"{who}stages end with their last whole step: {some(short, 4, 400)}")
    return texts[:4]


def _experts(sweep: Sweep) -> list[str]:
    """How many of a model's parameters a token passes through, where that is not all."""

    def size(arm: Arm) -> tuple[int, int]:
        shape = arm.config.model, arm.config.model.vocab_size
        return active_parameters(*shape), parameters(*shape)

    groups = _by([arm for arm in sweep.arms if arm.config.model.experts.count], size)
    parts = [f"{tokens(active)} of {tokens(whole)} in {some(arms)}" for (active, whole), arms in groups.items()]
    return [f"of the parameters of a model with experts a token passes {'; '.join(parts)}"] if parts else []


def _masks(sweep: Sweep) -> list[str]:
    """Tokens seen against tokens in the loss. How many tokens are questions is counted only as the data is read."""

    def masked(arm: Arm) -> tuple[str, ...]:
        return tuple(name for name, stage in arm.config.curriculum.stages.items() if stage.mask_questions)

    texts = []
    groups = _by(sweep.arms, masked)
    for stages, arms in groups.items():
        who = "every arm" if len(groups) == 1 else some(arms)
        config = next(arm.config for arm in sweep.arms if arm.label == arms[0])
        seen = sum(stage.grid.tokens_used for stage in config.curriculum.stages.values())
        if stages:
            unmasked = seen - sum(config.curriculum.stages[name].grid.tokens_used for name in stages)
            texts.append(
                f"{who}: of {tokens(seen)} tokens seen between {tokens(unmasked)} and {tokens(seen)} "
                f"are in the loss: {some(list(stages))} leaves questions out, counted only as data is read"
            )
        elif len(groups) > 1:
            texts.append(f"{who}: all of the {tokens(seen)} tokens seen are in the loss")
    return texts


def _trunk(sweep: Sweep) -> list[str]:
    """Seeds that share the training before `seeds_from` say nothing about another trunk."""
    if len(sweep.seeds) < 2:
        return []
    texts = []
    for stage, arms in _by(sweep.arms, lambda arm: arm.config.seeds_from).items():
        if stage is None:
            continue
        config = next(arm.config for arm in sweep.arms if arm.label == arms[0])
        if stage != next(iter(config.curriculum.stages)):
            who = "" if len(arms) == len(sweep.arms) else f" of {some(arms)}"
            trunk = f"the seeds{who} share one trunk (seed {config.trunk_seed}) up to {stage}"
            texts.append(f"{trunk}: intervals are conditional on it")
    return texts


def _placement(compared: _Compared) -> list[str]:
    """Placement that the sweep's resources set, and devices mixed for any reason."""
    texts = []
    base = compared.sweep.baseline.label
    for key, arms in sorted(compared.placed.items()):
        if key not in DEVICES:
            texts.append(f"{key}: {base} {_shown(compared.base[key])}, {_valued(arms)}, by the sweep's resources")
    for key in DEVICES:
        if key in compared.base:
            field = key.removeprefix("cluster.")
            values = _grouped({arm.label: str(getattr(arm.config.cluster, field)) for arm in compared.sweep.arms})
            texts.append(f"mixed devices, so equal training agrees to rounding only: {key} of {values}")
    return texts


def _replicates(sweep: Sweep) -> list[str]:
    copies = [arm.label for arm in sweep.arms if arm.config.replicate]
    return [f"A/A: {some(copies)} repeat an arm of equal config with other random streams"] if copies else []


def _by(arms: Sequence[Arm], value: Callable[[Arm], Any]) -> dict[Any, list[str]]:
    """Labels of the arms by `value`, in order."""
    groups: dict[Any, list[str]] = {}
    for arm in arms:
        groups.setdefault(value(arm), []).append(arm.label)
    return groups


def _grouped(values: Mapping[str, str]) -> str:
    """``QA-30% 960; QA-50%, QA-70% 1,280`` from arm -> value, at most four values."""
    groups: dict[str, list[str]] = {}
    for arm, value in values.items():
        groups.setdefault(value, []).append(arm)
    texts = [f"{some(arms, 3, 50)} {value}" for value, arms in groups.items()]
    return "; ".join(texts[:4]) + (f"; and {len(texts) - 4:,} more values" if len(texts) > 4 else "")


def _valued(arms: Mapping[str, Any]) -> str:
    """``QA-50%, QA-70% (0.98), QA-90% (0.9)`` from arm -> value."""
    groups: dict[str, list[str]] = {}
    for arm, value in arms.items():
        groups.setdefault(_shown(value), []).append(arm)
    texts = [f"{some(labels, 6, 80)} ({value})" for value, labels in groups.items()]
    return ", ".join(texts[:6]) + (f" and {len(texts) - 6:,} more values" if len(texts) > 6 else "")


def _shown(value: Any) -> str:
    """A leaf as YAML writes it."""
    if value is None:
        return "null"
    if value is ABSENT:
        return "absent"
    return str(value).lower() if isinstance(value, bool) else str(value)
