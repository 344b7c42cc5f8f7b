"""What was spent, planned against recorded, and the electricity that this comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.ledger.card import Compute, Energy
from analysis.ledger.scope import Scope
from davinci.accounting.accelerators import WATTS, peak_flops
from davinci.accounting.flops import train_flops_per_token
from davinci.config import Node
from davinci.launching.tasks import node_clusters

PUE = 1.56
PUE_SOURCE = "mean of the Uptime Institute's Global Data Center Survey 2024, each operator's largest site"
SOURCE = "Patterson et al. 2021, arXiv 2104.10350: hours x processors x power a processor x PUE"


@dataclass(frozen=True)
class Supply:
    """What a reader knows better than the defaults: watts of one accelerator, the PUE of the building, and kg of CO2
    equivalent a kWh of its grid (None: no emissions are estimated)."""

    watts: float | None = None
    pue: float | None = None
    carbon: float | None = None


def compute(scope: Scope, supply: Supply) -> Compute:
    """Tokens, FLOPs and accelerator-hours of the runs, each stretch counted once, and their energy."""
    plan, spent = scope.plan, scope.found.sweep.spent
    cost, clusters = plan.cost, node_clusters(plan)
    known = [(spent[name], clusters[name].gpus / clusters[name].runs_per_gpu) for name in scope.nodes if name in spent]
    hours = sum(one.seconds / 3600 * share for one, share in known)
    evaluating = sum(one.evaluation / 3600 * share for one, share in known)
    peak = peak_flops(cost.gpu)
    planned = _flops((node, node.end - node.begin) for node in scope.nodes.values())
    recorded = _flops((node, spent[name].tokens) for name, node in scope.nodes.items() if name in spent)
    whole_hours = cost.gpu_hours.shared
    evaluation = cost.evaluation_gpu_hours
    return Compute(
        accelerator=cost.gpu,
        accelerators=cost.gpus,
        tokens_planned=sum(node.end - node.begin for node in scope.nodes.values()),
        tokens_recorded=sum(spent[name].tokens for name in scope.nodes if name in spent),
        flops_planned=planned,
        flops_recorded=recorded,
        hours_planned=whole_hours if scope.is_whole else whole_hours * planned / plan.flops,
        evaluation_hours_planned=evaluation if scope.is_whole else None,
        hours_recorded=hours,
        evaluation_hours_recorded=evaluating,
        evaluations=sum(one.evaluations for one, _ in known),
        evaluations_untimed=sum(one.untimed for one, _ in known),
        mfu=recorded / (3600 * hours * peak) if hours else None,
        stretches=len(scope.nodes),
        stretches_done=sum(name in scope.found.sweep.done for name in scope.nodes),
        attempts=sum(spent[name].attempts for name in scope.nodes if name in spent),
        energy=_energy(cost.gpu, hours + evaluating, supply),
    )


def _flops(parts: Iterable[tuple[Node, int]]) -> float:
    return sum(
        tokens * train_flops_per_token(node.model, node.vocab_size, node.stage.sequence_length)
        for node, tokens in parts
    )


def _energy(accelerator: str, hours: float, supply: Supply) -> Energy | None:
    """None where nobody says what the accelerator draws."""
    if supply.watts is None and accelerator not in WATTS:
        return None
    watts, drawn = WATTS[accelerator] if supply.watts is None else (supply.watts, "the one given")
    pue = supply.pue if supply.pue is not None else PUE
    kwh = hours * watts * pue / 1000
    return Energy(
        kwh=kwh,
        kg_co2e=None if supply.carbon is None else kwh * supply.carbon,
        formula=f"{hours:.4g} accelerator-hours x {watts:g} W x PUE {pue:g} / 1000 = {kwh:.3g} kWh",
        source=SOURCE,
        accelerator_hours=hours,
        watts=watts,
        watts_source=drawn,
        pue=pue,
        pue_source="the one given" if supply.pue is not None else PUE_SOURCE,
        kg_co2e_per_kwh=supply.carbon,
        assumptions=(
            "Accelerators draw this power for all of the recorded time: an estimate, not a measurement.",
            "Hosts, network and storage are not counted but for what the PUE adds.",
            "Hours are those of training and benchmarks: queueing, start-up and what left no records are not counted.",
        ),
    )
