"""The typed, frozen, validated run: the one object everything below Hydra takes.

Every class forbids unknown keys. `parse` turns plain data into objects and any mistake into one `UserError` that names
the key, the file it was set in and what is accepted. Units: tokens are counted from initialisation unless a field says
otherwise; proportions are fractions of 1; learning rates are absolute.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from davinci.errors import UserError, nearest
from davinci.schedules import Piece, StepGrid

Level = Literal["L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8", "L9"]
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]

PROPORTION_TOLERANCE = 1e-9


class Frozen(BaseModel):
    """Immutable, strict, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Scale(Frozen):
    """A named size of everything: the dial the other groups interpolate from.

    `tokens_per_trillion` is how many tokens stand for the paper's 1T, `sequences_per_1024` for its batch of 1,024.
    """

    name: str
    tokens_per_trillion: Positive
    sequences_per_1024: Positive
    sequence_length: Positive
    peak_lr: PositiveFloat
    final_lr: PositiveFloat


class Model(Frozen):
    """A decoder's shape."""

    name: str
    layers: Positive
    hidden_size: Positive
    attention_heads: Positive
    kv_heads: Positive
    head_dim: Positive
    mlp_intermediate_size: Positive
    vocab_size: Positive
    max_position_embeddings: Positive
    rope_theta: PositiveFloat
    norm_eps: PositiveFloat
    qkv_bias: bool
    tie_embeddings: bool
    initializer_range: PositiveFloat
    precision: Literal["float32", "bfloat16"]

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.attention_heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide attention_heads {self.attention_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even for RoPE")
        return self


class Source(Frozen):
    """One dataset of a pool.

    `depths` are the Darwin Levels it exists at, shallow to deep. `tokens` is its size where the pool is not on this
    machine (a built pool's card knows better). `substages` are the substages whose mixtures draw on it (see
    `Mixture.substage`); null allows all.
    """

    domain: str
    depths: Annotated[tuple[Level, ...], Field(min_length=1)]
    tokens: Positive | None = None
    substages: tuple[str, ...] | None = None


class Pool(Frozen):
    """The sources a run may draw on. `name` is also its folder in the store; `vocab_size` is its tokenizer's."""

    name: str
    tokenizer: str
    vocab_size: Positive
    sources: Annotated[dict[str, Source], Field(min_length=1)]

    @property
    def domains(self) -> list[str]:
        return sorted({source.domain for source in self.sources.values()})


class Depth(Frozen):
    """The Darwin Level of each domain's sources; null takes each source at its deepest."""

    general: Level | None = None
    code: Level | None = None
    science: Level | None = None
    qa: Level | None = None


class Mixture(Frozen):
    """Domain proportions, and optional relative weights of the sources inside their domain (default: their tokens).

    `substage` names the column of the pool's `substages` whose sources are drawn on; null means the stage's own name. A
    source named in `sources` is drawn on whatever its substages.
    """

    domains: Annotated[dict[str, NotNegativeFloat], Field(min_length=1)]
    sources: dict[str, NotNegativeFloat] = {}
    substage: str | None = None

    @field_validator("domains")
    @classmethod
    def _sums_to_one(cls, domains: dict[str, float]) -> dict[str, float]:
        total = math.fsum(domains.values())
        if abs(total - 1.0) > PROPORTION_TOLERANCE:
            parts = " + ".join(f"{name} {value:g}" for name, value in domains.items())
            raise ValueError(f"proportions must sum to 1, but {parts} = {total:.6g} ({total:.2%})")
        return domains


class BatchStep(Frozen):
    """From `from_tokens` (stage-relative) on, a step takes `sequences` sequences."""

    from_tokens: NotNegative
    sequences: Positive


class LearningRate(Frozen):
    """A stage's learning rate over its own tokens.

    ``constant``: `start` throughout. ``warmup_constant``: linear from 0 to `start` over `warmup_tokens`, then constant.
    ``cosine`` and ``linear``: after the warmup, from `start` to `stop` at the end of the stage. ``wsd`` (warmup,
    stable, decay; MiniCPM, arXiv 2404.06395, section 4.2): constant after the warmup, then linear to `stop` over the
    last `decay_tokens`.
    """

    shape: Literal["constant", "warmup_constant", "cosine", "linear", "wsd"]
    start: PositiveFloat
    stop: PositiveFloat | None = None
    warmup_tokens: NotNegative = 0
    decay_tokens: NotNegative = 0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        decays = self.shape in ("cosine", "linear", "wsd")
        if decays and self.stop is None:
            raise ValueError(f"shape {self.shape} needs stop, the learning rate at the end of the stage")
        if not decays and self.stop not in (None, self.start):
            raise ValueError(f"shape {self.shape} takes no stop; it stays at start")
        if self.shape == "constant" and self.warmup_tokens:
            raise ValueError("shape constant takes no warmup_tokens; use warmup_constant")
        if (self.shape == "wsd") != bool(self.decay_tokens):
            raise ValueError("decay_tokens, the length of the decay, belongs to shape wsd, and wsd needs it")
        return self


class Stage(Frozen):
    """One stretch of training. Budgets and `from_tokens` count tokens seen, from the start of the stage."""

    tokens: Positive
    depth: Depth = Depth()
    sequence_length: Positive
    batch_size: Annotated[tuple[BatchStep, ...], Field(min_length=1)]
    lr: LearningRate
    mixture: Mixture
    mask_questions: bool
    optimizer_state: Literal["carry", "reset"]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        starts = [step.from_tokens for step in self.batch_size]
        if starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"batch_size must start at from_tokens 0 and rise, got {starts}")
        if self.lr.warmup_tokens + self.lr.decay_tokens > self.tokens:
            spent = "lr.warmup_tokens" + (" + lr.decay_tokens" if self.lr.decay_tokens else "")
            raise ValueError(
                f"{spent} {self.lr.warmup_tokens + self.lr.decay_tokens} exceeds the stage's {self.tokens} tokens"
            )
        if self.grid.steps == 0:
            raise ValueError(f"tokens {self.tokens} do not hold one step of {self.batch_size[0].sequences} sequences")
        return self

    @property
    def grid(self) -> StepGrid:
        """The stage's optimiser steps."""
        steps = tuple((step.from_tokens, step.sequences) for step in self.batch_size)
        return StepGrid(self.tokens, self.sequence_length, steps)

    @property
    def smallest_batch(self) -> int:
        """Sequences of the smallest step: as many ranks can share the stage."""
        used = self.grid.tokens_used
        return min(step.sequences for step in self.batch_size if step.from_tokens < used)

    def lr_pieces(self, begin: int = 0) -> tuple[Piece, ...]:
        """The learning rate as pieces over tokens, shifted to start at `begin`."""
        lr = self.lr
        warm, end = begin + lr.warmup_tokens, begin + self.tokens
        decay = end - lr.decay_tokens if lr.shape == "wsd" else warm if lr.shape in ("cosine", "linear") else end
        pieces = []
        if begin < warm:
            pieces.append(Piece("linear", begin, warm, 0.0, lr.start))
        if warm < decay:
            pieces.append(Piece("constant", warm, decay, lr.start, lr.start))
        if decay < end:
            stop = lr.start if lr.stop is None else lr.stop
            kind = "constant" if stop == lr.start else "cosine" if lr.shape == "cosine" else "linear"
            pieces.append(Piece(kind, decay, end, lr.start, stop))
        return tuple(pieces)


class Curriculum(Frozen):
    """The ordered stages of a run."""

    name: str
    stages: Annotated[dict[str, Stage], Field(min_length=1)]


class Optimizer(Frozen):
    """AdamW (arXiv 1711.05101); `weight_decay` applies to matrices, not to norms and biases."""

    name: Literal["adamw"]
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    eps: PositiveFloat
    weight_decay: NotNegativeFloat
    gradient_clip: PositiveFloat


class Benchmark(Frozen):
    """One task of the suite. `chance` is the score of a uniform guess (0 for generation).

    `items` and `tokens_per_item` (prompt, examples, all choices or the answer, in tokens) only price the evaluation.
    """

    domain: Literal["general", "code", "science"]
    task: str
    protocol: Literal["ppl", "generative"]
    num_fewshot: NotNegative
    metric: str
    chance: Annotated[float, Field(ge=0, le=1)] = 0.0
    items: Positive | None = None
    tokens_per_item: Positive | None = None


class EvaluationPoint(Frozen):
    """A moment to evaluate at: `tokens` into `stage`, rounded down to a whole step; null means the stage's end."""

    stage: str
    tokens: Positive | None = None


class Evaluation(Frozen):
    """What is evaluated, and when. `harness` says whose task files the task names are."""

    suite: str
    harness: Literal["embedded", "lm_eval"]
    benchmarks: Annotated[dict[str, Benchmark], Field(min_length=1)]
    at: tuple[EvaluationPoint, ...]
    limit: Positive | None
    heldout_sequences: Positive

    @property
    def key(self) -> str:
        """Eight hex digits that tell suites apart by what they measure: records carry it beside each score."""
        measured = {
            name: [one.task, one.protocol, one.num_fewshot, one.metric] for name, one in self.benchmarks.items()
        }
        plain = json.dumps([self.harness, self.limit, measured], sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:8]


class Tracking(Frozen):
    """Where runs are mirrored. The store's records are the truth; W&B is a copy."""

    mode: Literal["offline", "online", "disabled"]
    project: str
    entity: str | None


class Cluster(Frozen):
    """Where jobs run. Never part of a run's identity.

    `workers` null means one a core. `gpus` accelerators of kind `gpu` train one run; `mfu` is their assumed model FLOPs
    utilisation, and `price` what an hour of one costs, for the cost estimate. At most `max_parallel` jobs run at once:
    each takes one of Slurm's licences `license`, whose number the cluster sets, or else a lease in the store. A chain
    whose process or node dies is tried `max_retries` times more; time limits and preemptions do not count. Each of its
    `nodes` nodes, with `memory_gb` of memory and `gpus_per_node` accelerators, runs `tasks_per_node` ranks of
    `cpus_per_task` cores and `threads` threads, which train the run together.
    """

    kind: Literal["local", "slurm"]
    workers: Positive | None
    threads: Positive
    gpu: str
    gpus: Positive
    mfu: Annotated[float, Field(gt=0, le=1)]
    price: NotNegativeFloat | None
    partition: str | None
    account: str | None
    qos: str | None
    time_minutes: Positive
    cpus_per_task: Positive
    memory_gb: Positive
    nodes: Positive = 1
    tasks_per_node: Positive = 1
    gpus_per_node: NotNegative
    max_parallel: Positive
    max_retries: NotNegative = 2
    license: str | None = None

    @property
    def ranks(self) -> int:
        """Processes that train one run together."""
        return self.nodes * self.tasks_per_node


class Run(Frozen):
    """One arm with one seed: a whole curriculum from initialisation to the last stage.

    `seed` is the run's own; stages before `seeds_from` use `trunk_seed`, so that runs may share a trunk. With
    `seeds_from` null the run's seed holds from initialisation on. `replicate` tells runs of equal seed and config apart
    (the arms of an A/A comparison). `depth` is what the stages' own depths interpolate.
    """

    sweep: str
    arm: str
    seed: NotNegative
    trunk_seed: NotNegative
    seeds_from: str | None
    replicate: NotNegative = 0
    store: Annotated[str, Field(min_length=1)]
    scale: Scale
    model: Model
    pool: Pool
    depth: Depth
    curriculum: Curriculum
    optimizer: Optimizer
    evaluation: Evaluation
    tracking: Tracking
    cluster: Cluster
    checkpoint_every_tokens: Positive

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for name, stage in self.curriculum.stages.items():
            where = f"curriculum.stages.{name}"
            if stage.sequence_length > self.model.max_position_embeddings:
                raise ValueError(
                    f"{where}.sequence_length: {stage.sequence_length} exceeds model.max_position_embeddings "
                    f"{self.model.max_position_embeddings}"
                )
            for domain in stage.mixture.domains:
                if domain not in self.pool.domains:
                    raise ValueError(
                        f"{where}.mixture.domains: pool {self.pool.name} has no domain {domain!r}"
                        + nearest(domain, self.pool.domains)
                    )
            for source in stage.mixture.sources:
                if source not in self.pool.sources:
                    raise ValueError(
                        f"{where}.mixture.sources: pool {self.pool.name} has no source {source!r}"
                        + nearest(source, self.pool.sources)
                    )
        stages = list(self.curriculum.stages)
        for index, point in enumerate(self.evaluation.at):
            if point.stage not in stages:
                raise ValueError(
                    f"evaluation.at.{index}.stage: the curriculum has no stage {point.stage!r}"
                    + nearest(point.stage, stages)
                )
            budget = self.curriculum.stages[point.stage].tokens
            if point.tokens is not None and point.tokens > budget:
                raise ValueError(
                    f"evaluation.at.{index}.tokens: {point.tokens} is past the end of {point.stage} ({budget} tokens)"
                )
        if self.seeds_from is not None and self.seeds_from not in stages:
            raise ValueError(
                f"seeds_from: the curriculum has no stage {self.seeds_from!r}" + nearest(self.seeds_from, stages)
            )
        return self

    @model_validator(mode="after")
    def _ranks_have_work(self) -> Self:
        ranks = self.cluster.ranks
        if ranks == 1:
            return self
        key = "cluster.tasks_per_node" if self.cluster.tasks_per_node > 1 else "cluster.nodes"
        if self.cluster.kind == "local":
            raise ValueError(
                f"{key}: cluster=local trains a run in one process; use cluster=slurm, or torchrun as "
                "docs/distributed.md shows"
            )
        for name, stage in self.curriculum.stages.items():
            if stage.smallest_batch < ranks:
                raise ValueError(
                    f"{key}: {self.cluster.nodes} nodes x {self.cluster.tasks_per_node} tasks are {ranks} ranks, but "
                    f"curriculum.stages.{name} has steps of {stage.smallest_batch} sequences; accepted are as many "
                    "ranks at most"
                )
        return self

    @property
    def name(self) -> str:
        """Human name, unique in its sweep."""
        return f"{self.arm} seed {self.seed}"


class SourceUse(Frozen):
    """A source as a node reads it: its depth, its content digest (null where it is not on this machine), its weight."""

    domain: str
    depth: Level
    digest: str | None
    weight: Positive


class Node(Frozen):
    """A stage (or part of one) reached by a particular history: everything its training is a function of.

    `begin` and `end` are tokens since initialisation, `end` after the last whole step; `stage_begin` is where the stage
    itself starts. `sources` holds only sources with a positive integer weight. `mixture_position` is how many sequences
    of this mixture's order were consumed before the stage began: not 0 only where the stage before had the same
    mixture, so that cutting a stage in two changes nothing. A node is frozen as JSON in the store.
    """

    id: str
    parent: str | None
    stage_name: str
    stage_begin: NotNegative
    begin: NotNegative
    end: Positive
    stage: Stage
    sources: Annotated[dict[str, SourceUse], Field(min_length=1)]
    mixture_position: NotNegative
    initialisation_seed: NotNegative
    data_seed: NotNegative
    model: Model
    optimizer: Optimizer
    pool: str
    tokenizer_digest: str | None
    vocab_size: Positive
    checkpoint_every_tokens: Positive

    @property
    def steps(self) -> range:
        """The stage's steps that this node trains."""
        grid = self.stage.grid
        return range(grid.step_at(self.begin - self.stage_begin), grid.step_at(self.end - self.stage_begin))


Object = TypeVar("Object", bound=BaseModel)


def parse(kind: type[Object], data: Mapping[str, Any], where: Callable[[str], str] = lambda key: "") -> Object:
    """Validate plain data into `kind`.

    Args:
        kind: the class to build.
        data: plain JSON-like data (dicts, lists, strings, numbers, booleans, None).
        where: maps a dotted key to the place it was set (a file, the command line), for the message.

    Raises:
        UserError: naming the first wrong key, its place, what is accepted and the nearest known key.
    """
    try:
        return kind.model_validate_json(json.dumps(data))
    except ValidationError as error:
        # An unknown key is usually the misspelling that makes another one missing: report it first.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        path = [str(part) for part in first["loc"]]
        key = ".".join(path) or kind.__name__
        message = first["msg"].removeprefix("Value error, ")
        if not path and first["type"] == "value_error":  # a check across keys names its key itself
            key, _, message = message.partition(": ")
        if first["type"] == "extra_forbidden":
            message = "unknown key" + nearest(path[-1], _known_keys(kind, path[:-1]))
        elif first["type"] == "missing":
            message = "missing, and it has no default"
        elif first["type"] == "too_short":
            message = f"at least {first['ctx']['min_length']} is needed (got {json.dumps(first['input'])})"
        elif first["type"] != "value_error":
            message += f" (got {json.dumps(first['input'])})"
        place = where(key)
        prefix = f"{place}: " if place else ""
        raise UserError(f"{prefix}{key}: {message}") from None


def _known_keys(kind: type[BaseModel], path: list[str]) -> list[str]:
    """Field names of the model found by following `path` from `kind`."""
    current: Any = kind
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[part].annotation
        current = _model_inside(current)
    current = _model_inside(current)
    return list(current.model_fields) if current is not None else []


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    """The first model class in a type such as ``dict[str, Stage]`` or ``tuple[BatchStep, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_inside(argument)
        if found is not None:
            return found
    return None
