"""The control audit: arms may differ only in the declared factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from davinci.config import Run
from davinci.errors import nearest
from davinci.planning.plan import Audit, Finding

Level = Literal["refused", "warned"]

# Labels and placement: they never change what is trained or how it is scored.
FREE = ("sweep", "arm", "seed", "trunk_seed", "store", "cluster", "tracking")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain data as ``{dotted key: leaf}``; list items are keyed by their index."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, item in items:
        leaves.update(flatten(item, f"{prefix}.{key}" if prefix else key))
    return leaves


def audit(
    runs: Sequence[Run], factor: Sequence[str], baseline: str, training_flops: Mapping[str, float], warn_only: bool
) -> Audit:
    """Compare every arm with the baseline arm, seed by seed.

    Args:
        runs: the sweep's runs.
        factor: config keys allowed to differ; a key covers everything below it.
        baseline: label of the baseline arm.
        training_flops: training FLOPs of each arm.
        warn_only: turn refusals into warnings (`audit=warn`).
    """
    problem: Level = "warned" if warn_only else "refused"
    findings: list[Finding] = []
    by_cell = {(run.arm, run.seed): flatten(_audited(run)) for run in runs}
    arms = list(dict.fromkeys(run.arm for run in runs))
    seeds = list(dict.fromkeys(run.seed for run in runs))
    differing: set[str] = set()
    for arm in arms:
        missing = [seed for seed in seeds if (arm, seed) not in by_cell]
        if missing:
            findings.append(Finding(level=problem, text=f"arm {arm} lacks seeds {missing}"))
    undeclared: dict[tuple[str, str], tuple[Any, Any]] = {}
    for arm, seed in by_cell:
        if arm == baseline or (baseline, seed) not in by_cell:
            continue
        left, right = by_cell[baseline, seed], by_cell[arm, seed]
        for key in sorted(left.keys() | right.keys()):
            if left.get(key, _ABSENT) == right.get(key, _ABSENT):
                continue
            if any(key == name or key.startswith(name + ".") for name in factor):
                differing.add(key)
            else:
                undeclared[key, arm] = (left.get(key, _ABSENT), right.get(key, _ABSENT))
    for (key, arm), (base, other) in undeclared.items():
        text = f"{key} differs between arms {baseline} ({base}) and {arm} ({other}) but is not in the declared factor"
        findings.append(Finding(level=problem, text=text))
    for name in factor:
        if len(arms) > 1 and not any(key == name or key.startswith(name + ".") for key in differing):
            text = f"factor key {name} is changed by no arm"
            known = {prefix for leaves in by_cell.values() for key in leaves for prefix in _prefixes(key)}
            findings.insert(0, Finding(level=problem, text=text if name in known else text + nearest(name, known)))
    findings.extend(_budgets(runs, baseline, training_flops, problem))
    return Audit(factor=tuple(factor), differing_keys=tuple(sorted(differing)), findings=tuple(findings))


def _prefixes(key: str) -> list[str]:
    """The key and every group of keys it is in."""
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


class _Absent:
    def __str__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def _audited(run: Run) -> dict[str, Any]:
    return run.model_dump(mode="json", exclude=set(FREE))


def _budgets(runs: Sequence[Run], baseline: str, flops: Mapping[str, float], problem: Level) -> list[Finding]:
    tokens = {run.arm: sum(stage.grid.tokens_used for stage in run.curriculum.stages.values()) for run in runs}
    findings = []
    for what, values in (("training tokens", tokens), ("training FLOPs", flops)):
        for arm, value in values.items():
            if abs(value / values[baseline] - 1) > 1e-3:
                text = f"{what} differ: {baseline} {values[baseline]:.4g}, {arm} {value:.4g}"
                findings.append(Finding(level=problem, text=text))
    if not findings:
        spent = tokens[baseline]
        findings.append(Finding(level="noted", text=f"every arm sees {spent:,} tokens and spends the same FLOPs"))
    return findings
