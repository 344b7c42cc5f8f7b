"""When a run is evaluated: `evaluation.at` with every interval and every "each stage" written out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from davinci.config import EvaluationPoint, Run
from davinci.errors import UserError
from davinci.planning.identity import StageSpan


def moments(config: Run, spans: Sequence[StageSpan]) -> Iterator[tuple[EvaluationPoint, StageSpan]]:
    """Single moments, each with the (last) span of its stage; some may fall on the same step.

    Raises:
        UserError: an interval shorter than a step, or longer than what it is counted in.
    """
    by_name = {span.name: span for span in spans}
    for index, wanted in enumerate(config.evaluation.at):
        named = list(by_name.values()) if wanted.stage is None else [by_name[wanted.stage]]
        if wanted.every_tokens is None:
            yield from ((wanted.model_copy(update={"stage": span.name}), span) for span in named)
            continue
        where, every, none = f"evaluation.at.{index}.every_tokens", wanted.every_tokens, True
        for span in named:
            step = span.stage.smallest_batch * span.stage.sequence_length
            if every < step:
                raise UserError(f"{where}: {every} is less than a step of {span.name} ({step} tokens)")
            before = span.stage_begin if wanted.stage is None else 0
            for multiple in range(before // every + 1, (before + span.end - span.stage_begin) // every + 1):
                tokens = multiple * every - before
                if span.stage.grid.step_at(tokens) > 0:
                    none = False
                    yield wanted.model_copy(update={"stage": span.name, "tokens": tokens, "every_tokens": None}), span
        if none:
            last = named[-1]
            whole = f"stage {last.name} has" if wanted.stage else "the run has"
            there = last.end - (last.stage_begin if wanted.stage else 0)
            raise UserError(f"{where}: {every} is more than {whole} ({there} tokens)")
