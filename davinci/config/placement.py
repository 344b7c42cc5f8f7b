"""Where a run is trained and mirrored: never part of its identity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from davinci.config.base import Frozen, NotNegative, NotNegativeFloat, Positive


class Tracking(Frozen):
    """Where runs are mirrored. The store's records are the truth; W&B is a copy."""

    mode: Literal["offline", "online", "disabled"]
    project: str
    entity: str | None


class Execution(Frozen):
    """How one training is laid out on its machines: what it computes is the same to rounding.

    `parallel` says what several ranks hold: a copy of everything each (``ddp``), or a part of weights, gradients and
    moments each (``fsdp``). `micro_tokens` tokens of a rank go through the model at once; the gradients of a step's
    parts are added up. `compile` compiles each block with torch.compile. With `activation_checkpointing`, the backward
    pass computes all that happened inside a block again (``full``), or all but matrix products and attention
    (``selective``).
    """

    parallel: Literal["ddp", "fsdp"] = "ddp"
    micro_tokens: Positive = 2048
    compile: bool = False
    activation_checkpointing: Literal["none", "full", "selective"] = "none"


class EvaluationJobs(Frozen):
    """What a job that only evaluates takes; null is what a job that trains takes."""

    partition: str | None = None
    time_minutes: Positive | None = None
    cpus_per_task: Positive | None = None
    threads: Positive | None = None
    memory_gb: Positive | None = None
    gpus_per_node: NotNegative | None = None


class Cluster(Execution):
    """Where jobs run. Never part of a run's identity.

    On this machine `workers` null means one a core, or where there are accelerators `runs_per_gpu` on each, which is
    also the most there can be. `gpus` accelerators of kind `gpu` train one run; `mfu` is their assumed model FLOPs
    utilisation, and `price` what an hour of one costs, for the cost estimate. At most `max_parallel` jobs run at
    once: each takes one of Slurm's licences `license`, whose number the cluster sets, or else a lease in the store. A
    chain whose process or node dies is tried `max_retries` times more; time limits and preemptions do not count. Each
    of its `nodes` nodes, with `memory_gb` of memory and `gpus_per_node` accelerators, runs `tasks_per_node` ranks of
    `cpus_per_task` cores and `threads` threads, which train the run together. States are evaluated by the job that
    trains them (``in_job``), or by one of its own that starts when that is done (``separate``), on one node, as
    `evaluation_jobs` says.
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
    runs_per_gpu: Positive = 1
    max_parallel: Positive
    max_retries: NotNegative = 2
    license: str | None = None
    evaluation: Literal["in_job", "separate"] = "in_job"
    evaluation_jobs: EvaluationJobs = EvaluationJobs()

    @property
    def for_evaluation(self) -> Cluster:
        """The cluster as a job sees it that only evaluates."""
        own = {key: value for key, value in self.evaluation_jobs.model_dump().items() if value is not None}
        return self.model_copy(update={"nodes": 1, "tasks_per_node": 1, "parallel": "ddp", **own})

    @property
    def ranks(self) -> int:
        """Processes that train one run together."""
        return self.nodes * self.tasks_per_node
