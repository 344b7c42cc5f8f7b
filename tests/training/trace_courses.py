"""Tiny trainings of `STEPS` steps, one for each thing a stage can say, whose every loss the golden traces hold."""

from __future__ import annotations

from typing import Any

from training_nodes import LENGTH, tiny_model, tiny_node, tiny_stage

from davinci.config import Curriculum, Node, parse

STEPS = 50
STEP = 2 * LENGTH
EMA = {"kind": "ema", "half_life_tokens": 8 * STEP}


def stage(steps: int, lr: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """`steps` steps of two sequences, at a constant rate unless `lr` says otherwise, questions in the loss."""
    plain = {"tokens": steps * STEP, "batch_size": [{"from_tokens": 0, "sequences": 2}], "mask_questions": False}
    return tiny_stage(**(plain | {"lr": {"shape": "constant", "start": 3e-3}} | ({"lr": lr} if lr else {}) | changes))


def rate(shape: str, **more: Any) -> dict[str, Any]:
    return {"shape": shape, "start": 3e-3, **more}


def courses() -> dict[str, list[dict[str, Any]]]:
    """Stages by what they show; the sum of their steps is `STEPS`."""
    whole, part, rest = STEPS, 30, STEPS - 30
    falls = {"stop": 3e-4}
    decays = falls | {"warmup_tokens": 5 * STEP, "decay_tokens": 15 * STEP}
    pieces = [
        {"from_tokens": 0, "to_tokens": 10 * STEP, "kind": "linear", "start": 0.0, "stop": 3e-3},
        {"from_tokens": 10 * STEP, "to_tokens": 30 * STEP, "kind": "constant", "start": 3e-3},
        {"from_tokens": 30 * STEP, "kind": "sqrt", "start": 2e-3, "stop": 0.0},
    ]
    wsd_s = rate("wsd", **falls, decay_tokens=10 * STEP, decay="inverse")
    longer = {"sequence_length": 2 * LENGTH, "batch_size": [{"from_tokens": 0, "sequences": 1}], "rope_theta": 5e4}
    return {
        "constant": [stage(whole)],
        "warmup_constant": [stage(whole, rate("warmup_constant", warmup_tokens=10 * STEP))],
        "cosine": [stage(whole, rate("cosine", **falls))],
        "linear": [stage(whole, rate("linear", **falls))],
        "inverse_sqrt": [stage(whole, rate("inverse_sqrt", **decays))],
        "wsd": [stage(whole, rate("wsd", **decays))],
        "wsd_exponential": [stage(whole, rate("wsd", **decays, decay="exponential"))],
        "wsd_s": [stage(part, wsd_s), stage(rest, wsd_s)],
        "pieces": [stage(whole, {"shape": "pieces", "pieces": pieces})],
        "rate_carried": [stage(part, rate("linear", **falls)), stage(rest, {"shape": "constant", "start": "carry"})],
        "batch_steps": [
            stage(
                whole,
                tokens=(20 * 2 + 20 * 4 + 10 * 8) * LENGTH,
                batch_size=[
                    {"from_tokens": 0, "sequences": 2},
                    {"from_tokens": 20 * 2 * LENGTH, "sequences": 4},
                    {"from_tokens": (20 * 2 + 20 * 4) * LENGTH, "sequences": 8},
                ],
            )
        ],
        "longer_sequences_other_rope_base": [stage(part), stage(rest, **longer)],
        "masked_questions": [stage(whole, mask_questions=True)],
        "documents_apart": [stage(part), stage(rest, attention="documents")],
        "another_mixture": [stage(part), stage(rest)],
        "ema": [stage(part, averages=EMA), stage(rest, averages=EMA)],
        "polyak": [stage(part), stage(rest, averages={"kind": "polyak"})],
        "resets": [stage(part), stage(rest, optimizer_state="reset", data_cursors="reset")],
    }


def nodes(name: str) -> list[Node]:
    """The course `name` as a chain of nodes, a stage each."""
    named = {f"s{place}": one for place, one in enumerate(courses()[name])}
    found: list[Node] = []
    for stage_name, one in parse(Curriculum, {"name": name, "stages": named}).resolved.items():
        begin = found[-1].end if found else 0
        changes: dict[str, Any] = {"model": tiny_model(rope_theta=one.rope_theta or 1e4).model_dump(mode="json")}
        if name == "another_mixture" and found:
            changes["sources"] = {
                source: use.model_dump(mode="json") | {"weight": weight}
                for (source, use), weight in zip(found[0].sources.items(), (5, 1, 3, 1), strict=True)
            }
        elif found and one.data_cursors == "carry":
            changes["mixture_position"] = (begin - found[-1].begin) // found[-1].stage.sequence_length
        found.append(
            tiny_node(
                id=f"{name}-{stage_name}",
                parent=found[-1].id if found else None,
                stage_name=stage_name,
                stage_begin=begin,
                begin=begin,
                stage=one.model_dump(mode="json"),
                **changes,
            )
        )
    assert sum(len(node.steps) for node in found) == STEPS
    return found
