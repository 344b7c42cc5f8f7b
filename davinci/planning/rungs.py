"""What followed from the ladder's dial, a size a line: the shape, and how it is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from davinci.accounting.shapes import parameters
from davinci.config import Run
from davinci.planning.sweep import Arm
from davinci.planning.wording import tokens

LINES = 12
_COLUMNS = ("asked", "has", "layers x hidden", "heads (KV)", "MLP", "length", "batch", "peak LR")


def rungs(arms: Sequence[Arm]) -> Iterator[Table]:
    """The table, where some arm's size follows from ``scale.parameters``."""
    runs = [arm.config for arm in arms if arm.config.scale.parameters is not None]
    sizes = list(dict.fromkeys(map(_size, runs)))
    if not sizes:
        return
    table = Table(*_COLUMNS, box=None, pad_edge=False, header_style="dim")
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    for size in sizes[:LINES]:
        table.add_row(*size)
    if len(sizes) > LINES:
        table.add_row(Text(f"+{len(sizes) - LINES:,}", "dim"))
    yield table


def _size(run: Run) -> tuple[str, ...]:
    model, stages = run.model, run.curriculum.stages.values()
    batch = max(step.sequences * stage.sequence_length for stage in stages for step in stage.batch_size)
    return (
        tokens(run.scale.parameters or 0),
        tokens(parameters(model, model.vocab_size)),
        f"{model.layers} x {model.hidden_size:,}",
        f"{model.attention_heads} ({model.key_value_heads})",
        f"{model.mlp_intermediate_size:,}",
        f"{max(stage.sequence_length for stage in stages):,}",
        tokens(batch),
        f"{run.scale.peak_lr:.1e}",
    )
