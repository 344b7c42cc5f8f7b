"""A card as Markdown: the transparency table first, then what stands behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.ledger.card import Card, Compute, Difference, Openness
from analysis.tables import Table, Tone, Value, percent, points, render_markdown
from analysis.units import unit
from davinci.planning.wording import some, tokens

_TONE: dict[str, Tone] = {"yes": "strong", "partial": "plain", "no": "missing"}


def openness_table(card: Card) -> Table:
    """The transparency table, a group a part."""
    parts = dict.fromkeys(row.part for row in card.openness)
    return Table(
        title=f"Transparency: {card.title}",
        headers=("Part", "Row", "Open", "Evidence"),
        stubs=4,
        groups=tuple(tuple(_row(row) for row in card.openness if row.part == part) for part in parts),
        notes=("Open: what the store holds and can be handed over; whether it is published, records do not say.",),
    )


def _row(row: Openness) -> tuple[Value, ...]:
    return Value(row.part), Value(row.name), Value(row.state, _TONE[row.state]), Value(row.evidence)


def render(card: Card) -> str:
    """The whole card."""
    return "\n".join(
        [
            f"# {_plain(card.sweep)}: {_plain(card.title)}",
            "",
            render_markdown(openness_table(card)),
            *_sources(card),
            *_mixture(card),
            *_compute(card.compute),
            *_training(card),
            *_environment(card),
            *_evaluation(card),
            *_audit(card),
            *_negatives(card),
            *_run(card),
        ]
    )


def _table(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]], stubs: int, *notes: str) -> str:
    lines = tuple(tuple(Value(text) for text in row) for row in rows)
    return render_markdown(Table(title, tuple(headers), stubs, (lines,) if lines else (), notes))


def _sources(card: Card) -> list[str]:
    rows = [
        (
            one.name,
            one.domain,
            one.level,
            (one.licence or "not known") + (f" ({one.licence_note})" if one.licence_note else ""),
            "; ".join(f"{part.name} {part.version} ({part.kind})" for part in one.archives) or "–",
            "–" if one.tokens is None else tokens(one.tokens),
            tokens(one.tokens_read),
            f"{max(one.epochs.values(), default=0.0):.3g}",
            "–" if one.digest is None else one.digest[:16],
        )
        for one in card.data.sources
    ]
    headers = ("Source", "Domain", "Level", "Licence", "From", "Tokens", "Read", "Epochs", "SHA-256")
    notes = [
        f"Pool {card.data.pool}, tokenizer {(card.data.tokenizer_digest or 'not known')[:16]} of "
        f"{card.data.vocab_size:,} tokens. Read and epochs: of one run, the most of any arm."
    ]
    found = [_table("Data", headers, rows, 5, *notes)]
    steps = [
        f"- {_plain(one.name)} {one.level}: {_plain('; '.join(step.text for step in one.processing))}"
        for one in card.data.sources
    ]
    return [*found, "Processing:", "", *steps, ""]


def _mixture(card: Card) -> list[str]:
    mixture = card.mixture
    names = list(dict.fromkeys(name for row in mixture.mixtures for name in row.domains))
    rows = [
        (row.stage, some(row.arms), tokens(row.tokens), *(percent(row.domains.get(name, 0.0)) for name in names))
        for row in mixture.mixtures
    ]
    words = [mixture.question, *([mixture.hypothesis] if mixture.hypothesis else []), *mixture.assumptions]
    found = [_table("Mixture, percent", ("Stage", "Arms", "Tokens", *names), rows, 2, *words)]
    arms = [
        f"- {_plain(arm)}: {' '.join(f'`{one.replace(chr(96), chr(39))}`' for one in overrides) or 'nothing'}"
        for arm, overrides in mixture.overrides.items()
    ]
    return [*found, "What each arm sets:", "", *arms, ""]


def _compute(compute: Compute) -> list[str]:
    rows = [
        ("planned", tokens(compute.tokens_planned), f"{compute.flops_planned:.3g}", f"{compute.hours_planned:.3g}"),
        ("recorded", tokens(compute.tokens_recorded), f"{compute.flops_recorded:.3g}", f"{compute.hours_recorded:.3g}"),
        ("evaluation, recorded", "", "", evaluation_hours(compute)),
    ]
    if compute.evaluation_hours_planned is not None:
        rows.insert(1, ("evaluation, planned", "", "", f"{compute.evaluation_hours_planned:.3g}"))
    headers = ("", "Tokens", "FLOPs", f"{compute.accelerator}-hours")
    return [_table("Compute", headers, rows, 1, *untimed_notes(compute), *energy_notes(compute))]


def evaluation_hours(compute: Compute) -> str:
    """The hours of benchmarks as recorded; a dash where no record says how long any of them took."""
    return f"{compute.evaluation_hours_recorded:.3g}" if compute.evaluations > compute.evaluations_untimed else "–"


def untimed_notes(compute: Compute) -> list[str]:
    """What of the evaluation is not counted, in a sentence; none where all of it is."""
    if not compute.evaluations_untimed:
        return []
    return [
        f"Records of {compute.evaluations_untimed:,} of {compute.evaluations:,} benchmark scores do not say how long "
        "they took: their time and energy are not counted."
    ]


def energy_notes(compute: Compute) -> list[str]:
    """The energy estimate with its formula, sources and assumptions, a sentence each."""
    energy = compute.energy
    if energy is None:
        return [f"No energy is estimated: the power of {compute.accelerator} is not known; --watts tells it."]
    emitted = "" if energy.kg_co2e is None else f", {energy.kg_co2e:.3g} kg CO2e at {energy.kg_co2e_per_kwh:g} kg/kWh"
    return [
        f"Energy, estimated: {energy.kwh:.3g} kWh{emitted}. {energy.formula} ({energy.source}).",
        f"Power: {energy.watts_source}. PUE: {energy.pue_source}.",
        *energy.assumptions,
    ]


def _training(card: Card) -> list[str]:
    rows: list[tuple[str, str, str]] = []
    for shape in card.architecture:
        rows += [(some(shape.arms), "parameters", f"{shape.parameters:,}")]
        if shape.begins_with is not None:
            rows += [(some(shape.arms), "begins with", shape.begins_with.text)]
        rows += [(some(shape.arms), f"model.{key}", str(value)) for key, value in shape.model.items()]
    for one in card.hyperparameters:
        rows += [(some(one.arms), "seeds", ", ".join(map(str, one.seeds)))]
        rows += [(some(one.arms), f"optimizer.{key}", str(value)) for key, value in one.optimizer.items()]
        for name, stage in one.stages.items():
            wanted = ("tokens", "sequence_length", "batch_size", "lr", "mask_questions", "optimizer_state")
            rows += [(some(one.arms), f"stages.{name}.{key}", _brief(stage[key])) for key in wanted]
    return [_table("Architecture and hyperparameters", ("Arms", "Key", "Value"), rows, 3)]


def _brief(value: object) -> str:
    """A value without its nulls and empty parts."""
    if isinstance(value, dict):
        kept = {key: _brief(part) for key, part in value.items() if part not in (None, [], {}, 0)}
        return ", ".join(f"{key} {part}" for key, part in kept.items())
    if isinstance(value, list):
        return "; ".join(_brief(part) for part in value)
    return str(value)


def _environment(card: Card) -> list[str]:
    rows = [
        (
            str(one.stretches),
            one.code or "not recorded",
            ", ".join(f"{key} {value}" for key, value in one.values.items()),
        )
        for one in card.environment.runs
    ]
    notes = [f"{card.environment.unrecorded} finished stretches do not say."] if card.environment.unrecorded else []
    made = ", ".join(f"{name} {value}" for name, value in card.environment.card.items())
    return [_table("Environment", ("Stretches", "Program", "Values"), rows, 3, *notes, f"This card: {made}.")]


def _evaluation(card: Card) -> list[str]:
    rows = [
        (
            *(one.name, one.domain, one.task, one.protocol, one.prompt, one.metric),
            *(str(one.num_fewshot), percent(one.chance), str(one.items)),
        )
        for one in card.evaluation.benchmarks
    ]
    headers = ("Benchmark", "Domain", "Task", "Protocol", "Prompt", "Metric", "Shots", "Chance", "Items")
    at = some([tokens(one) for one in card.evaluation.points], 12)
    note = f"Harness {', '.join(card.evaluation.harness)}; suite {', '.join(card.evaluation.keys)}; at {at} tokens."
    return [_table("Evaluation protocols", headers, rows, 6, note)]


def _audit(card: Card) -> list[str]:
    audit = card.audit
    rows = [
        ("verdict", audit.verdict),
        ("declared factor", ", ".join(audit.factor) or "none"),
        ("keys that differ", some(audit.differing, 20) or "none"),
        ("derived from them", some(audit.derived, 20) or "none"),
        ("held fixed", ", ".join(audit.held_fixed) or "nothing"),
        *([("claims", audit.claim)] if audit.claim else []),
    ]
    return [_table("Control audit", ("", ""), rows, 2, *audit.findings)]


def _negatives(card: Card) -> list[str]:
    found = card.negatives
    lines = [
        *([f"Hypothesis: {found.hypothesis} Verdict: {found.verdict}."] if found.hypothesis else []),
        f"Not told from noise: {len(found.not_told_apart)} of {found.tested} differences to the baseline.",
        *(f"{one.arm}, {one.column} at {one.at}: {difference(one)}" for one in found.not_told_apart),
        *(
            f"Worse than the baseline: {one.arm}, {one.column} at {one.at}: {difference(one)}"
            for one in found.below_baseline
        ),
        *(f"Not above chance: {name}" for name in found.not_above_chance),
        *(f"Not emerged: {name}" for name in found.not_emerged),
        *(f"{one.kind}: {one.text} ({some(one.runs)})" for one in found.troubles),
    ]
    return ["### Negative results", "", *(f"- {_plain(line)}" for line in lines), ""]


def difference(one: Difference) -> str:
    """``+1.2 ± 2.0 (detectable: 2.9)``, in its column's unit, which is named where it is not points."""
    decimals = 1 + unit(one.column).finer
    text = points(one.mean, signed=True, decimals=decimals)
    if one.half_width is not None:
        text += f" ± {points(one.half_width, decimals=decimals)}"
    text += "" if one.unit == "points" else f" {one.unit}"
    return text + ("" if one.detectable is None else f" (detectable: {points(one.detectable, decimals=decimals)})")


def _run(card: Card) -> list[str]:
    if card.run is None:
        return []
    stretches = [
        (one.node, one.stage, tokens(one.begin), tokens(one.end), (one.weights_digest or "not done")[:16])
        for one in card.run.stretches
    ]
    scores = [
        (one.benchmark, one.at, "missing" if one.score is None else percent(one.score), str(one.items), one.key)
        for one in card.run.scores
    ]
    return [
        _table(f"Run {card.run.id}", ("Node", "Stage", "From", "To", "Weights"), stretches, 5),
        _table("Scores, percent", ("Benchmark", "At", "Score", "Items", "Evaluation"), scores, 2),
    ]


def _plain(text: str) -> str:
    """Text that Markdown does not read as markup."""
    for mark, safe in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("\n", " ")):
        text = text.replace(mark, safe)
    for mark in "*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return text
