"""What a card says. `docs/ledger.schema.json` is its JSON Schema.

The rows of `openness` are those by which tables of open models compare one another (arXiv 2603.27164, Table 1): model,
data, process, exploration. They say what the store holds and can be handed over; whether it was published, no record
knows.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from davinci.config import Frozen, Level, NotNegative, NotNegativeFloat, Positive, PositiveFloat
from davinci.data.data_cards import Step

Word = Literal["yes", "partial", "no"]


class Openness(Frozen):
    """One row of the transparency table, and the evidence in the records for what it says."""

    part: Literal["model", "data", "process", "exploration"]
    name: str
    state: Word
    evidence: str


class Archive(Frozen):
    """What a source was taken from, at a pinned version; `sha256` is of the archive."""

    name: str
    kind: str
    version: str
    sha256: str


class DataSource(Frozen):
    """One source at one Darwin Level, as the training read it.

    Sizes are of the training split and null where the pool is not at hand. `digest` is of the content that was trained
    on, `matches_pool` whether the pool here holds it still. `processing` are the operations that led to the level, in
    order, and `same_documents` the other levels of the pool that hold the same documents. `tokens_read` counts one
    run's, the most of any arm, and `epochs` how often the source was seen, by arm.
    """

    name: str
    domain: str
    level: Level
    licence: str | None
    licence_note: str
    archives: tuple[Archive, ...]
    tokens: NotNegative | None
    documents: NotNegative | None
    bytes: NotNegative | None
    heldout_tokens: NotNegative | None
    digest: str | None
    matches_pool: bool | None
    processing: tuple[Step, ...]
    same_documents: tuple[Level, ...]
    tokens_read: NotNegativeFloat
    epochs: dict[str, NotNegativeFloat]


class Data(Frozen):
    """The pool, its tokenizer's digest, and every source that was read."""

    pool: str
    tokenizer_digest: str | None
    vocab_size: Positive
    sources: tuple[DataSource, ...]


class StageMixture(Frozen):
    """The domain proportions of one stage, and the arms that train it so."""

    stage: str
    arms: tuple[str, ...]
    tokens: Positive
    domains: dict[str, NotNegativeFloat]


class Mixture(Frozen):
    """Why the mixtures are what they are, in the words of the sweep file, and what they are.

    `overrides` are by arm; `mixtures` that move as the stage trains are given by what they begin with.
    """

    question: str
    hypothesis: str | None
    assumptions: tuple[str, ...]
    factor: tuple[str, ...]
    overrides: dict[str, tuple[str, ...]]
    mixtures: tuple[StageMixture, ...]


class Energy(Frozen):
    """Electricity as an estimate, not a measurement: `formula` with the numbers that were put in, and their sources."""

    kwh: NotNegativeFloat
    kg_co2e: NotNegativeFloat | None
    formula: str
    source: str
    accelerator_hours: NotNegativeFloat
    watts: PositiveFloat
    watts_source: str
    pue: Annotated[float, Field(ge=1)]
    pue_source: str
    kg_co2e_per_kwh: NotNegativeFloat | None
    assumptions: tuple[str, ...]


class Compute(Frozen):
    """Planned against recorded. Tokens and FLOPs count training; `hours_recorded` are those from a node's first to its
    last training record, attempt by attempt, probes and held-out losses between them included. Benchmarks are counted
    apart, in `evaluation_hours_recorded`; `evaluations_untimed` of `evaluations` are not in it, since their records do
    not say how long they took. `mfu` is recorded FLOPs over the hours of training at the accelerator's peak."""

    accelerator: str
    accelerators: Positive
    tokens_planned: NotNegative
    tokens_recorded: NotNegative
    flops_planned: NotNegativeFloat
    flops_recorded: NotNegativeFloat
    hours_planned: NotNegativeFloat
    evaluation_hours_planned: NotNegativeFloat | None
    hours_recorded: NotNegativeFloat
    evaluation_hours_recorded: NotNegativeFloat
    evaluations: NotNegative
    evaluations_untimed: NotNegative
    mfu: NotNegativeFloat | None
    stretches: NotNegative
    stretches_done: NotNegative
    attempts: NotNegative
    energy: Energy | None


class Weights(Frozen):
    """Weights of others that training begins with, as they were imported: the name of the folder, the class of
    transformers, the licence it states. What is null no record says, or the store has the import no longer."""

    name: str
    digest: str
    source: str | None
    architecture: str | None
    licence: str | None

    @property
    def text(self) -> str:
        """It in a few words."""
        source = f"{self.architecture} from {self.source or 'a folder that no record names'}"
        what = source if self.architecture else "weights that the store has no longer"
        return f"{self.name}, {what}, licence {self.licence or 'not stated'} ({self.digest[:12]})"


class Architecture(Frozen):
    """A decoder's shape, how many parameters it has, and the arms that train it; `begins_with` is null where weights
    are random at first."""

    arms: tuple[str, ...]
    parameters: Positive
    model: dict[str, Any]
    begins_with: Weights | None = None


class Hyperparameters(Frozen):
    """What training was told beside model and data: the optimizer and every stage of the curriculum, by config key.
    What a stage reads at its start is in `Mixture`."""

    arms: tuple[str, ...]
    seeds: tuple[NotNegative, ...]
    seeds_from: str | None
    optimizer: dict[str, Any]
    stages: dict[str, dict[str, Any]]


class RunEnvironment(Frozen):
    """Where `stretches` of training were computed: device, torch and what else their rounding depends on; `code` is the
    digest of the program, null where no record says."""

    stretches: Positive
    code: str | None
    values: dict[str, str]


class Environment(Frozen):
    """Of the runs, from their records, and of this card."""

    runs: tuple[RunEnvironment, ...]
    unrecorded: NotNegative
    card: dict[str, str]


class EvaluationTask(Frozen):
    """One benchmark as it was asked; `chance` is a uniform guess, `items` how many were answered (0: none yet)."""

    name: str
    arms: tuple[str, ...]
    domain: str
    task: str
    protocol: Literal["ppl", "generative"]
    num_fewshot: NotNegative
    metric: str
    prompt: str
    chance: NotNegativeFloat
    items: NotNegative


class EvaluationProtocols(Frozen):
    """What is evaluated, how, and at which token counts (since initialisation). `keys` are those of the suites."""

    harness: tuple[str, ...]
    keys: tuple[str, ...]
    benchmarks: tuple[EvaluationTask, ...]
    points: tuple[NotNegative, ...]
    heldout_sequences: tuple[Positive, ...]


class Difference(Frozen):
    """An arm against the baseline at its last point, in `unit` (points of score, or nats a token, of which less is
    better): the 95% interval is `mean` ± `half_width`."""

    arm: str
    column: str
    at: str
    unit: str
    mean: float
    half_width: NotNegativeFloat | None
    detectable: NotNegativeFloat | None


class Trouble(Frozen):
    """Something that went wrong or not as planned, with the runs it touches."""

    kind: Literal["failed", "incomplete", "retried", "spikes", "replay differs", "orphaned"]
    text: str
    runs: tuple[str, ...]


class Negatives(Frozen):
    """What did not come out: told as fully as what did."""

    hypothesis: str | None
    verdict: str | None
    supported: bool | None
    not_told_apart: tuple[Difference, ...]
    below_baseline: tuple[Difference, ...]
    tested: NotNegative
    not_above_chance: tuple[str, ...]
    not_emerged: tuple[str, ...]
    troubles: tuple[Trouble, ...]


class Audit(Frozen):
    """The control audit: whether arms differ in the declared factor alone, and what a comparison of depths claims."""

    verdict: str
    factor: tuple[str, ...]
    differing: tuple[str, ...]
    derived: tuple[str, ...]
    held_fixed: tuple[str, ...]
    claim: str | None
    findings: tuple[str, ...]


class Stretch(Frozen):
    """One node of a run: tokens since initialisation, the digest of the weights at its end (null: not done)."""

    node: str
    stage: str
    begin: NotNegative
    end: Positive
    weights_digest: str | None
    attempts: NotNegative
    spikes: NotNegative
    shared_with: NotNegative


class RunScore(Frozen):
    """A benchmark's score, 0 to 1, and the key of the evaluation behind it; null where it is missing."""

    benchmark: str
    at: str
    tokens: NotNegative
    score: NotNegativeFloat | None
    items: NotNegative
    key: str


class RunPart(Frozen):
    """The run that a card is of: its stretches from initialisation, and its scores at every point."""

    id: str
    arm: str
    seed: NotNegative
    stretches: tuple[Stretch, ...]
    scores: tuple[RunScore, ...]


class Card(Frozen):
    """A transparency card: of a sweep, or (`run` not null) of one model that it trained."""

    version: Literal[1] = 1
    kind: Literal["sweep", "run"]
    sweep: str
    title: str
    paper: str | None
    arms: tuple[str, ...]
    seeds: tuple[NotNegative, ...]
    runs: Positive
    run: RunPart | None
    openness: tuple[Openness, ...]
    data: Data
    mixture: Mixture
    compute: Compute
    architecture: tuple[Architecture, ...]
    hyperparameters: tuple[Hyperparameters, ...]
    environment: Environment
    evaluation: EvaluationProtocols
    audit: Audit
    negatives: Negatives
    notes: tuple[str, ...]
