"""Architectures compared at equal size: the width of each arm's perceptron that gives it the baseline's parameters, or
its FLOPs.

A variant rarely costs what it replaces: attention with fewer keys and values is smaller, a perceptron without a gate a
third. ``match: parameters`` or ``match: flops`` in a sweep file gives every other arm the width that makes up for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from davinci.accounting.flops import train_flops_per_token
from davinci.accounting.shapes import parameters
from davinci.config import Model, Run
from davinci.errors import UserError
from davinci.planning.sweep import Arm, Match, Sweep

KEY = "model.mlp_intermediate_size"
# Widths are multiples of the first of these that comes near enough (of each expert, where there are some): kernels of
# accelerators like multiples, small models have no room for them.
STEPS = (64, 8, 1)
NEAR = 5e-4
# How near an arm that has no width to choose (CRATE's step, or experts whose width it states) must come by its own
# shape; and how near whole steps and whole widths leave what is matched.
STATED = 0.01


def with_matched_models(sweep: Sweep) -> Sweep:
    """The sweep with the widths that its `match` asks for; itself where it asks for none.

    Raises:
        UserError: an arm that has more parameters, or takes more FLOPs, than the baseline with hardly a perceptron; or
            one that has no width to match by, further than `STATED` from the baseline.
    """
    if sweep.match is None:
        return sweep
    base = sweep.baseline.config
    arms = [arm if arm.is_baseline else _matched(arm, base, sweep.match) for arm in sweep.arms]
    widened = [arm.label for arm in arms if not arm.is_baseline and _fixed_by(arm.config.model) is None]
    derived = {label: sweep.derived.get(label, frozenset()) | {KEY} for label in widened}
    return replace(sweep, arms=tuple(arms), derived={**sweep.derived, **derived})


def notes(sweep: Sweep) -> list[str]:
    """For the audit: what is matched, how closely, and by which widths."""
    if sweep.match is None:
        return []
    base = sweep.baseline
    wanted = _measure(sweep.match, base.config)(base.config.model)
    lines = []
    for arm in sweep.arms:
        model = arm.config.model
        if not arm.is_baseline and model != base.config.model:
            has = _measure(sweep.match, arm.config)(model)
            by = "by its own shape" if _fixed_by(model) else f"perceptron {model.mlp_intermediate_size:,} wide"
            lines.append(f"{arm.label} {has / wanted - 1:+.2%} ({by})")
    unit = "parameters" if sweep.match == "parameters" else "training FLOPs"
    baseline = f"{base.label}'s {wanted:.5g}" if sweep.match == "flops" else f"{base.label}'s {wanted:,.0f}"
    return [f"models are matched to {baseline} {unit}: {'; '.join(lines)}"] if lines else []


def _matched(arm: Arm, base: Run, match: Match) -> Arm:
    if arm.config.model == base.model:
        return arm
    wanted = _measure(match, base)(base.model)
    measure = _measure(match, arm.config)
    model = arm.config.model
    if fixed := _fixed_by(model):
        off = measure(model) / wanted - 1
        if abs(off) > STATED:
            raise UserError(
                f"match: {match}: arm {arm.label!r} has no width to match by ({fixed}) and is {off:+.1%} off; give it "
                f"layers, attention_heads or head_dim that come within {STATED:.0%}"
            )
        return arm
    experts = model.experts.chosen + model.experts.shared if model.experts.count else 1
    least = measure(_as_wide(model, experts))
    slope = (measure(_as_wide(model, 2 * experts)) - least) / experts  # what is measured is linear in the width
    exact = experts + (wanted - least) / slope
    if exact < experts:
        raise UserError(
            f"match: {match}: arm {arm.label!r} cannot be matched to {wanted:.5g}; with a perceptron {experts} wide it "
            f"has {least:.5g} already"
        )
    widths = [max(1, round(exact / (step * experts))) * step * experts for step in STEPS]
    width = next((one for one in widths if abs(one - exact) * slope <= NEAR * wanted), widths[-1])
    return arm.model_copy(update={"config": arm.config.model_copy(update={"model": _as_wide(model, width)})})


def _fixed_by(model: Model) -> str | None:
    """What leaves ``mlp_intermediate_size`` without a meaning; None where it is the width of something."""
    if not model.mlp.has_width:
        return f"mlp.kind {model.mlp.kind}"
    stated = model.experts.width if model.experts.count else None
    return f"model.experts.width {stated} is stated" if stated else None


def _as_wide(model: Model, width: int) -> Model:
    return model.model_copy(update={"mlp_intermediate_size": width})


def _measure(match: Match, config: Run) -> Callable[[Model], float]:
    """Parameters of a model, or the FLOPs of training it as `config` says."""
    if match == "parameters":
        return lambda model: parameters(model, model.vocab_size)
    stages = list(config.curriculum.stages.values())
    return lambda model: sum(
        stage.tokens * train_flops_per_token(model, model.vocab_size, stage.sequence_length) for stage in stages
    )
