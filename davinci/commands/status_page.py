"""A sweep's state as people read it: a table of arms x seeds, what went wrong, one line of numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from davinci.launching.board import duration
from davinci.launching.status import RunState, Standing, SweepState
from davinci.planning.plan import Plan
from davinci.planning.wording import count, some, tokens

# More seeds than this are counted instead of shown one by one.
SEEDS_SHOWN = 10
CELL_COLUMNS = 20
# Stretches at work, failures and blockages told one by one before the rest are counted.
LISTED = 10

# From what is looked at first to what is looked at last.
STYLE: dict[Standing, str] = {
    "running": "cyan",
    "failed": "red",
    "blocked": "yellow",
    "cancelled": "yellow",
    "waiting": "dim",
    "done": "green",
}
ORDER = tuple(STYLE)


class StatusPage:
    """The parts of the page, for a console of `width` columns; `go_on` is the command that launches what is left."""

    def __init__(self, plan: Plan, state: SweepState, width: int, go_on: str) -> None:
        self.state = state
        self._go_on = go_on
        self._plan = plan
        self._labels = [arm.label for arm in plan.arms]
        self._by_arm: dict[str, list[RunState]] = {label: [] for label in self._labels}
        for run in state.runs:
            self._by_arm[run.arm].append(run)
        columns = max(map(len, self._labels)) + CELL_COLUMNS * len(plan.seeds)
        self._is_counted = len(plan.seeds) > SEEDS_SHOWN or (len(plan.seeds) > 1 and columns > width)

    def table(self, height: int | None = None) -> Table:
        """Arms x seeds, or how many seeds stand how where they are too many; at most `height` lines, the arms in which
        something happens first."""
        arms = self._labels
        hidden: list[str] = []
        if height is not None and len(arms) + 1 > height:
            arms = sorted(arms, key=self._urgency)
            arms, hidden = arms[: height - 2], arms[height - 2 :]
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        if self._is_counted:
            table.add_column(no_wrap=True)
            for arm in arms:
                table.add_row(arm, _counts(self._by_arm[arm]))
        else:
            for seed in self._plan.seeds:
                is_last = seed == self._plan.seeds[-1]
                table.add_column(no_wrap=True, min_width=None if is_last else CELL_COLUMNS - 2)
            table.add_row("", *(Text(f"seed {seed}", style="bold") for seed in self._plan.seeds))
            for arm in arms:
                cells = {run.seed: run for run in self._by_arm[arm]}
                table.add_row(arm, *(_cell(cells.get(seed)) for seed in self._plan.seeds))
        if hidden:
            rest = _counts([run for arm in hidden for run in self._by_arm[arm]])
            table.add_row(Text(f"and {count(len(hidden), 'arm')} more", style="dim"), rest)
        return table

    def notes(self) -> list[Text]:
        """Who works on what, what failed, who is blocked by it, and whether anyone works on what is left."""
        found = []
        for work in self.state.working[:LISTED]:
            speed = f", {tokens(work.tokens_per_second)} tokens/s" if work.tokens_per_second else ""
            share = f" {100 * work.trained:.0f}%" if work.phase == "training" else ""
            found.append(Text(f"{work.phase}{share}: {work.name}{speed} ({work.by})", style=STYLE["running"]))
        if len(self.state.working) > LISTED:
            found.append(Text(f"and {len(self.state.working) - LISTED:,} more at work", style=STYLE["running"]))
        for said, jobs in sorted((self.state.queued or {}).items()):
            found.append(Text(f"in Slurm: {count(jobs, 'job')} {said}", style=STYLE["waiting"]))
        if self.state.queued is None:
            found.append(Text("Slurm does not answer; what is said here is from the store", style="yellow"))
        if self.state.mirror_error:
            found.append(Text(f"W&B: {self.state.mirror_error}; later: sync {self.state.sweep}", style="yellow"))
        failures = [one for one in self.state.failures if not one.cancelled]
        for failure in failures[:LISTED]:
            found.append(Text(f"failed: {failure.name}: {failure.error}; log: {failure.log}", style=STYLE["failed"]))
        if len(failures) > LISTED:
            found.append(Text(f"and {count(len(failures) - LISTED, 'failure')} more", style=STYLE["failed"]))
        cancelled: dict[str, list[str]] = {}
        for failure in self.state.failures:
            if failure.cancelled:
                cancelled.setdefault(failure.error, []).append(failure.name)
        for by, stretches in cancelled.items():
            found.append(Text(f"{by}: {some(stretches)}", style=STYLE["cancelled"]))
        blocked: dict[str, list[str]] = {}
        for run in self.state.runs:
            if run.state == "blocked":
                blocked.setdefault(run.blocked_by or "", []).append(f"{run.arm} seed {run.seed}")
        for by, runs in list(blocked.items())[:LISTED]:
            found.append(Text(f"blocked: {some(runs)}: by {by}, which failed", style="yellow"))
        spikes = [f"{run.arm} seed {run.seed} ({run.spikes})" for run in self.state.runs if run.spikes]
        if spikes:
            found.append(Text(f"loss spikes: {some(spikes)}", style="yellow"))
        left = sum(number for name, number in self.state.counts.items() if name != "done")
        if left and not self.state.is_worked_on:
            found.append(Text(f"nobody works on it now; to go on: {self._go_on}", style="yellow"))
        return found

    def summary(self) -> Text:
        """One line: how many runs stand how, tokens, speed, time to go."""
        state = self.state
        parts = [", ".join(f"{state.counts[name]:,} {name}" for name in (*ORDER[::-1],) if state.counts.get(name))]
        share = 100 * state.tokens // max(1, state.total_tokens)
        parts.append(f"{tokens(state.tokens)} of {tokens(state.total_tokens)} tokens ({share}%)")
        if state.tokens_per_second:
            parts.append(f"{tokens(state.tokens_per_second)} tokens/s")
        if state.eta_seconds is not None and not state.is_settled:
            parts.append(f"ETA {duration(state.eta_seconds)}")
        return Text(f"{state.sweep}: {count(len(state.runs), 'run')}: " + " · ".join(parts))

    def _urgency(self, arm: str) -> int:
        return min((ORDER.index(run.state) for run in self._by_arm[arm]), default=len(ORDER))


def _cell(run: RunState | None) -> Text:
    if run is None:
        return Text("")
    text: str = run.state
    if run.state in ("running", "waiting") and run.tokens:
        text += f" {_percent([run])}%"
    if run.state in ("running", "waiting") and run.eta_seconds is not None:
        text += f" {duration(run.eta_seconds)}"
    return Text(text, style=STYLE[run.state])


def _counts(runs: Sequence[RunState]) -> Text:
    """``3 running 43%, 2 done``."""
    counts = Counter(run.state for run in runs)
    parts = []
    for name in ORDER[::-1]:
        if counts[name]:
            share = f" {_percent([run for run in runs if run.state == name])}%" if name == "running" else ""
            parts.append(Text(f"{counts[name]:,} {name}{share}", style=STYLE[name]))
    return Text(", ").join(parts)


def _percent(runs: Sequence[RunState]) -> int:
    return 100 * sum(run.tokens for run in runs) // sum(run.total_tokens for run in runs)
