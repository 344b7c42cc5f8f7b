"""One arm with one seed, checked across its parts."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from davinci.config.base import Frozen, NotNegative, Positive, PositiveFloat, Rate, Tokens
from davinci.config.curriculum import Curriculum
from davinci.config.evaluation import Evaluation
from davinci.config.model import Model, Optimizer
from davinci.config.placement import Cluster, Tracking
from davinci.config.pool import Depth, Mixture, Pool
from davinci.errors import nearest

# How often a run may be looked at: each time is an item of a list.
MOST_MOMENTS = 100_000


class Scale(Frozen):
    """A named size of everything: the dial the other groups interpolate from.

    `tokens_per_trillion` is how many tokens stand for the paper's 1T, `sequences_per_1024` for its batch of 1,024. Of a
    scale that follows from a number of `parameters` (`accounting.ladder`), the dial, and the `tokens_per_parameter` or,
    where they are given, the training `flops` that say its tokens.
    """

    name: str
    tokens_per_trillion: Tokens
    sequences_per_1024: Tokens
    sequence_length: Tokens
    peak_lr: Rate
    final_lr: Rate
    parameters: PositiveFloat | None = None
    tokens_per_parameter: PositiveFloat | None = None
    flops: PositiveFloat | None = None


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
            self._require_known("mixture", where, stage.mixture)
            for index, step in enumerate(stage.mixtures):
                self._require_known(f"mixtures.{index}.mixture", where, step.mixture)
            domain = stage.until.domain if stage.until else None
            if domain is not None and domain not in self.pool.domains:
                raise ValueError(
                    f"{where}.until.domain: pool {self.pool.name} has no domain {domain!r}"
                    + nearest(domain, self.pool.domains)
                )
            benchmark = stage.until.benchmark if stage.until else None
            if benchmark is not None and benchmark not in self.evaluation.benchmarks:
                raise ValueError(
                    f"{where}.until.benchmark: suite {self.evaluation.suite} has no benchmark {benchmark!r}"
                    + nearest(benchmark, self.evaluation.benchmarks)
                )
        stages = list(self.curriculum.stages)
        for index, point in enumerate(self.evaluation.at):
            if point.stage is not None and point.stage not in stages:
                raise ValueError(
                    f"evaluation.at.{index}.stage: the curriculum has no stage {point.stage!r}"
                    + nearest(point.stage, stages)
                )
            for name in stages if point.stage is None else [point.stage]:
                if point.weights == "average" and self.curriculum.stages[name].averages is None:
                    raise ValueError(
                        f"evaluation.at.{index}.weights: average, but stage {name} keeps none; give it averages, such "
                        "as {kind: polyak}"
                    )
            if point.stage is None:
                continue
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

    def _require_known(self, key: str, where: str, mixture: Mixture) -> None:
        for what, names, known in (
            ("domain", mixture.domains, self.pool.domains),
            ("source", mixture.sources, list(self.pool.sources)),
        ):
            for name in names:
                if name not in known:
                    raise ValueError(
                        f"{where}.{key}.{what}s: pool {self.pool.name} has no {what} {name!r}" + nearest(name, known)
                    )

    @model_validator(mode="after")
    def _moments_can_be_listed(self) -> Self:
        tokens = sum(stage.tokens for stage in self.curriculum.stages.values())
        every = {f"at.{index}": point.every_tokens for index, point in enumerate(self.evaluation.at)}
        every["probes"] = self.evaluation.probes.every_tokens if self.evaluation.probes else None
        for name, interval in every.items():
            if interval is not None and tokens > MOST_MOMENTS * interval:
                raise ValueError(
                    f"evaluation.{name}.every_tokens: {interval} is {tokens // interval:,} times in the curriculum's "
                    f"{tokens:,} tokens; {-(-tokens // MOST_MOMENTS)} or more is accepted"
                )
        return self

    @model_validator(mode="after")
    def _local_runs_take_one_gpu(self) -> Self:
        if self.cluster.kind == "local" and self.cluster.gpus_per_node > 1:
            raise ValueError(
                "cluster.gpus_per_node: cluster=local trains a run in one process, on one accelerator; accepted are 0 "
                "and 1 (cluster.runs_per_gpu shares one among several runs; cluster=slurm gives a run several)"
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
