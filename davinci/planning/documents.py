"""The same documents at another depth: the budgets that take it, and what a comparison of depths claims.

Levels of a source are versions of the same documents, longer or shorter. A sweep that holds documents fixed gives its
baseline arm a budget; every other arm that reads a source at another level gets, for each stage and source, the tokens
that this level has for the documents which the baseline reads: epochs are equal, tokens are not. What a stage counts in
its tokens (batch sizes, learning rate, evaluated points) moves with its length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from davinci.config import Curriculum, Evaluation, Mixture, Run, Stage, parse
from davinci.data.cards import PoolCard, VariantCard
from davinci.planning.differences import differences
from davinci.planning.mixtures import PoolView
from davinci.planning.plan import Claim, Epochs
from davinci.planning.sweep import Arm, Sweep
from davinci.planning.wording import count, some, tokens

# How far the epochs of a source may differ between arms that hold documents fixed; a stage is whole steps, so that half
# a step of it is always allowed.
TOLERANCE = 0.01

Cards = Mapping[str, PoolCard | None]


def with_equal_documents(sweep: Sweep, cards: Cards) -> Sweep:
    """The sweep with the budgets derived that hold its documents fixed; itself where it does not ask for that.

    An arm keeps its own budget in a stage whose mixture or tokens it sets itself, and where a pool is not built: the
    audit then says so (`findings`).

    Raises:
        UserError: a stage that is no longer valid at the length it takes.
    """
    if "documents" not in sweep.held_fixed:
        return sweep
    base = sweep.baseline.config
    arms, derived = [], dict(sweep.derived)
    for arm in sweep.arms:
        config = arm.config if arm.is_baseline else _matched(base, arm, cards)
        if config is not arm.config:
            moved = differences(arm.config, config).keys() & differences(base, config).keys()
            derived[arm.label] = derived.get(arm.label, frozenset()) | moved
            arm = arm.model_copy(update={"config": config})
        arms.append(arm)
    return replace(sweep, arms=tuple(arms), derived=derived)


def _matched(base: Run, arm: Arm, cards: Cards) -> Run:
    """The arm's config with the tokens of each stage that hold the baseline's documents."""
    config = arm.config
    stages = dict(config.curriculum.stages)
    lengths: dict[str, float] = {}
    for name, stage in config.curriculum.stages.items():
        reference = base.curriculum.stages.get(name)
        if reference is None or reference.is_adaptive or stage.is_adaptive:
            continue
        if (stage.tokens, stage.mixture_spans) != (reference.tokens, reference.mixture_spans):
            continue
        views = (_view(base, reference, cards), _view(config, stage, cards))
        if views[0].card is None or views[1].card is None:
            continue
        matched = _stage(name, stage, views, f"arm {arm.label}")
        if matched is not None:
            stages[name] = matched
            lengths[name] = matched.grid.tokens_used / reference.grid.tokens_used
    if not lengths:
        return config
    curriculum = Curriculum.model_construct(name=config.curriculum.name, stages=stages)
    data = config.model_copy(update={"curriculum": curriculum}).model_dump(mode="json")
    data["evaluation"] = _moved(config.evaluation, lengths).model_dump(mode="json")
    return parse(Run, data, where=lambda key: f"arm {arm.label}, documents held fixed")


def _view(config: Run, stage: Stage, cards: Cards) -> PoolView:
    return PoolView(config.pool, stage.depth, cards.get(config.pool.name))


def _stage(name: str, stage: Stage, views: tuple[PoolView, PoolView], who: str) -> Stage | None:
    """The stage as long as it takes; None where every source is as many tokens as in the baseline's."""
    spans: list[tuple[float, Mixture]] = []
    for begin, end, mixture in stage.mixture_spans:
        uses = views[0].weigh(mixture, name)
        parts = sum(use.weight for use in uses.values())
        read = {
            source: (end - begin) * use.weight / parts * views[1].tokens(source) / views[0].tokens(source)
            for source, use in uses.items()
        }
        total = sum(read.values())
        domains = {
            domain: sum(read[source] for source, use in uses.items() if use.domain == domain) / total
            for domain in mixture.domains
        }
        spans.append((total, mixture.model_copy(update={"domains": domains, "sources": read})))
    length = sum(total for total, _ in spans)
    used = stage.grid.tokens_used
    if abs(length / used - 1) < 1e-9 and all(
        views[0].tokens(source) == views[1].tokens(source) for _, mixture in spans for source in mixture.sources
    ):
        return None
    return _stretched(stage, length, spans, f"{who}: curriculum.stages.{name}, documents held fixed")


def _stretched(stage: Stage, length: float, spans: Sequence[tuple[float, Mixture]], where: str) -> Stage:
    """The stage over `length` tokens, to the nearest whole step, with its schedules over the same share of it."""
    ratio = length / stage.grid.tokens_used
    data = stage.model_dump(mode="json")
    for step in data["batch_size"]:
        step["from_tokens"] = round(step["from_tokens"] * ratio)
    rate = data["lr"]
    for key in ("warmup_tokens", "decay_tokens", "timescale_tokens"):
        rate[key] = rate[key] and max(1, round(rate[key] * ratio))
    for piece in rate["pieces"]:
        for key in ("from_tokens", "to_tokens"):
            piece[key] = piece[key] and max(1, round(piece[key] * ratio))
    data["mixture"] = spans[0][1].model_dump(mode="json")
    begins = [sum(total for total, _ in spans[:index]) for index in range(len(spans))]
    data["mixtures"] = [
        {"from_tokens": round(begin), "mixture": mixture.model_dump(mode="json")}
        for begin, (_, mixture) in zip(begins[1:], spans[1:], strict=True)
    ]
    half = step["sequences"] * stage.sequence_length // 2
    longer = parse(Stage, data | {"tokens": max(round(length) + half, 2 * half)}, where=lambda key: where)
    return parse(Stage, data | {"tokens": longer.grid.tokens_used}, where=lambda key: where)


def _moved(evaluation: Evaluation, lengths: Mapping[str, float]) -> Evaluation:
    """The evaluated points after the same share of each stage."""

    def at(value: int | None, ratio: float) -> int | None:
        return value and max(1, round(value * ratio))

    points = []
    for point in evaluation.at:
        ratio = lengths.get(point.stage) if point.stage else None
        counted = ("tokens", "every_tokens", "spacing_tokens") if ratio else ()
        points.append(point.model_copy(update={key: at(getattr(point, key), ratio or 1) for key in counted}))
    return evaluation.model_copy(update={"at": tuple(points)})


@dataclass(frozen=True)
class Documents:
    """What arms read of the documents of their sources.

    Args:
        sweep: the arms, their budgets derived.
        rows: the sweep's epoch ledger.
        cards: pool name -> card, None where the pool is not on this machine.
        seen: training tokens by arm.
    """

    sweep: Sweep
    rows: Sequence[Epochs]
    cards: Cards
    seen: Mapping[str, float]

    @cached_property
    def deeper(self) -> dict[str, dict[str, tuple[str, str]]]:
        """Arm -> source -> (its level in the baseline, its level in the arm), where these differ in some stage."""
        base = self.sweep.baseline
        found: dict[str, dict[str, tuple[str, str]]] = {}
        for arm in self.sweep.arms:
            for name, stage in arm.config.curriculum.stages.items():
                reference = base.config.curriculum.stages.get(name)
                if reference is None or (reference.depth == stage.depth and base.config.pool == arm.config.pool):
                    continue
                views = (_view(base.config, reference, self.cards), _view(arm.config, stage, self.cards))
                for source in sorted({row.source for row in self._read.get((arm.label, name), ()) if row.source}):
                    levels = self._level(views[0], source), self._level(views[1], source)
                    if levels[0] is not None and levels[1] is not None and levels[0] != levels[1]:
                        found.setdefault(arm.label, {})[source] = levels[0], levels[1]
        return found

    @staticmethod
    def _level(view: PoolView, source: str) -> str | None:
        return view.level(view.pool.sources[source]) if source in view.pool.sources else None

    @cached_property
    def _read(self) -> dict[tuple[str, str], list[Epochs]]:
        """The rows of sources by (arm, stage)."""
        found: dict[tuple[str, str], list[Epochs]] = {}
        for row in self.rows:
            if row.source is not None:
                for arm in row.arms:
                    found.setdefault((arm, row.stage), []).append(row)
        return found

    def _variant(self, arm: str, source: str, level: str) -> VariantCard | None:
        config = next(one.config for one in self.sweep.arms if one.label == arm)
        card = self.cards.get(config.pool.name)
        return card.sources[source].variants.get(level) if card and source in card.sources else None

    def _apart(self, arm: str, source: str) -> str | None:
        """How the documents of a source differ from the baseline arm's; None where they are the same."""
        levels = self.deeper[arm][source]
        base = self._variant(self.sweep.baseline.label, source, levels[0])
        own = self._variant(arm, source, levels[1])
        if base is None or own is None:
            return f"{source} (not built in this store)"
        if base.documents_digest is None or own.documents_digest is None:
            return f"{source} (built before its documents were recorded; build the pool again)"
        if base.documents_digest == own.documents_digest:
            return None
        apart = abs(base.documents - own.documents)
        least = f"at least {count(apart, 'document')} differ" if apart else "as many, but not the same"
        return f"{source} ({base.documents:,} documents at {levels[0]}, {own.documents:,} at {levels[1]}: {least})"

    def problems(self) -> list[str]:
        """Where documents that are held fixed are not."""
        if "documents" not in self.sweep.held_fixed:
            return []
        pools = dict.fromkeys(arm.config.pool.name for arm in self.sweep.arms)
        unbuilt = [name for name in pools if self.cards.get(name) is None]
        if unbuilt:
            return [
                f"documents are held fixed, but pool {unbuilt[0]} is not built in this store, so which documents its "
                f"levels hold is not known; build it (python -m davinci data build {unbuilt[0]} --store PATH)"
            ]
        base = self.sweep.baseline.label
        texts = []
        for arm, sources in self.deeper.items():
            apart = [text for source in sources if (text := self._apart(arm, source))]
            if apart:
                texts.append(
                    f"documents are held fixed, but arms {base} and {arm} do not read the same ones of "
                    f"{count(len(apart), 'source')}: {some(apart, 3)}"
                )
        return texts + self._uneven()

    def _uneven(self) -> list[str]:
        """Sources that arms see more or less often than the baseline arm does."""
        base = self.sweep.baseline
        texts = []
        for arm in self.sweep.arms:
            apart = []
            for name, reference in base.config.curriculum.stages.items():
                stage = arm.config.curriculum.stages.get(name)
                used = (stage or reference).grid.tokens_used
                step = max(one.sequences for one in reference.batch_size) * reference.sequence_length
                allowed = max(TOLERANCE, step / min(used, reference.grid.tokens_used) / 2)
                wanted = {row.source: row.epochs for row in self._read.get((base.label, name), ())}
                had = {row.source: row.epochs for row in self._read.get((arm.label, name), ())}
                for source in sorted({*wanted, *had} - {None}, key=str):
                    times = wanted.get(source, 0.0), had.get(source, 0.0)
                    if abs(times[1] - times[0]) > allowed * times[0]:
                        apart.append(f"{source} {times[0]:.3g} against {times[1]:.3g} times in {name}")
            if apart:
                texts.append(
                    f"documents are held fixed, but arms {base.label} and {arm.label} do not see them equally often: "
                    f"{some(apart, 3)}"
                )
        return texts

    def claim(self) -> Claim | None:
        """What the sweep's comparison of depths claims; None where no arm reads a source at another level."""
        if not self.deeper:
            return None
        named = {f"{source} {one} -> {other}" for own in self.deeper.values() for source, (one, other) in own.items()}
        depths = f"{count(len({text.split()[0] for text in named}), 'source')} at another level ({some(sorted(named))})"
        apart = {text for arm, own in self.deeper.items() for source in own if (text := self._apart(arm, source))}
        amounts = ", ".join(dict.fromkeys(tokens(value) for value in self.seen.values()))
        if "documents" in self.sweep.held_fixed and not self.problems():
            return Claim(
                held="documents",
                text=f"same documents, deeper processing: {depths}, the same documents equally often in every arm, in "
                f"{amounts} training tokens{self._parts()}",
            )
        base = self.seen.get(self.sweep.baseline.label, 0.0)
        equal = all(abs(value / base - 1) <= TOLERANCE for value in self.seen.values()) if base else False
        which = f"; not the same documents: {some(sorted(apart))}" if apart else "; of the same documents"
        if equal:
            text = f"same tokens, deeper processing: {tokens(base)} training tokens in every arm, {depths}{which}"
            return Claim(held="tokens", text=text)
        text = f"deeper processing, neither tokens nor documents held: {amounts} training tokens, {depths}{which}"
        return Claim(held="neither", text=text)

    def _parts(self) -> str:
        """What holds of sources that are not read a whole number of times."""
        last: dict[str, float] = {}
        for (arm, _), rows in self._read.items():
            for row in rows:
                if arm in self.deeper and row.source in self.deeper[arm]:
                    last[str(row.source)] = row.cumulative
        partly = sorted(source for source, times in last.items() if abs(times - round(times)) > TOLERANCE * times)
        if not partly:
            return ""
        ends = dict.fromkeys(f"{number(last[name] for name in partly):.3g}" for number in (min, max))
        which = f"{some(partly, 3)} seen {' to '.join(ends)} times"
        return f"; a part of an epoch holds other draws of these documents at each level: {which}"
