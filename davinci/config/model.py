"""The decoder and its optimizer."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from davinci.config.base import Frozen, NotNegativeFloat, Positive, PositiveFloat, Tokens, Words

# Far above the largest public models: some 130 layers, 18,432 wide.
MOST_LAYERS, WIDEST = 1_000, 1_000_000

Layers = Annotated[int, Field(gt=0, le=MOST_LAYERS)]
Width = Annotated[int, Field(gt=0, le=WIDEST)]


class Attention(Frozen):
    """Who has keys and values: `grouped` as many heads as ``kv_heads`` says (GQA, arXiv 2305.13245), `multi_head` every
    query head its own (MHA, arXiv 1706.03762), `multi_query` one for all (MQA, arXiv 1911.02150), `latent` every head
    its own, made from one narrow vector (MLA, arXiv 2405.04434, section 2.1), `subspace` every head one projection for
    queries, keys and values (CRATE's multi-head subspace self-attention, arXiv 2306.01129, section 2.3).

    Of `latent` attention alone: `kv_rank` is the width of that vector (null: 4 ``head_dim``), `rope_dim` the features
    of a head that carry positions, beside its ``head_dim`` (null: half of it), `query_rank` the width of a vector that
    queries are made from (null: none). The nulls are DeepSeek-V2's proportions.
    """

    kind: Literal["grouped", "multi_head", "multi_query", "latent", "subspace"] = "grouped"
    kv_rank: Width | None = None
    rope_dim: Width | None = None
    query_rank: Width | None = None


Mixer = Literal["attention", "linear", "ssm"]


class Mixers(Frozen):
    """What mixes the tokens of each layer: `pattern`, over and over from the first layer on (as in Jamba, arXiv
    2403.19887). `attention` is what the other objects say; `linear` is linear attention (arXiv 2006.16236) whose state
    decays (RetNet, arXiv 2307.08621, section 2), `ssm` the state-space mixer of Mamba-2 (arXiv 2405.21060).

    Of `ssm` alone: `state` are the features of a state for each one of a head, `expand` how many times as many heads it
    has as attention, `convolution` how many tokens its short convolution sees.
    """

    pattern: Annotated[tuple[Mixer, ...], Field(min_length=1)] = ("attention",)
    state: Width = 128
    expand: Width = 2
    convolution: Width = 4


class QKNorm(Frozen):
    """`rms`: RMSNorm over each head's queries and keys before they are turned (arXiv 2302.05442; Qwen3)."""

    kind: Literal["none", "rms"] = "none"


class Window(Frozen):
    """A token attends to the last `tokens`, itself included (arXiv 2004.05150, 2310.06825); null: to all before it."""

    tokens: Positive | None = None


class RopeScaling(Frozen):
    """Slower angles for longer sequences, as Llama 3.1 has them (formula: `rotary.slowed`): `factor` times slower where
    a turn takes more than `original_max_position_embeddings` / `low_freq_factor` tokens, unchanged where it takes less
    than that over `high_freq_factor`, in between in between."""

    factor: Annotated[float, Field(ge=1)]
    low_freq_factor: PositiveFloat = 1.0
    high_freq_factor: PositiveFloat = 4.0
    original_max_position_embeddings: Positive

    @model_validator(mode="after")
    def _low_is_below_high(self) -> Self:
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(f"low_freq_factor {self.low_freq_factor:g} must be below high_freq_factor")
        return self


class Positions(Frozen):
    """`rotary` is the share of a head's features that RoPE turns (arXiv 2104.09864; in part: arXiv 2204.06745); 0 turns
    none (NoPE, arXiv 2305.19466). `scaling` slows the angles; null: none."""

    rotary: Annotated[float, Field(ge=0, le=1)] = 1.0
    scaling: RopeScaling | None = None


class Norm(Frozen):
    """`rmsnorm` (arXiv 1910.07467), `layernorm` with gain and bias (arXiv 1607.06450), `nonparametric` LayerNorm with
    neither (OLMo, arXiv 2402.00838)."""

    kind: Literal["rmsnorm", "layernorm", "nonparametric"] = "rmsnorm"


class Placement(Frozen):
    """Where norms stand: `pre` x + f(norm(x)) (arXiv 2002.04745), `post` norm(x + f(x)) (arXiv 1706.03762), `sandwich`
    x + norm(f(norm(x))) (arXiv 2105.13290)."""

    kind: Literal["pre", "post", "sandwich"] = "pre"


class Mlp(Frozen):
    """`swiglu` and `geglu` have a gate (arXiv 2002.05202); `relu2` (squared ReLU, arXiv 2109.08668) and `gelu` (arXiv
    1606.08415) have none, and so a third fewer parameters at equal width. `kan` learns a function for each pair of
    features (KAN, arXiv 2404.19756) as a sum of `centres` Gaussian bumps (FastKAN, arXiv 2405.06721), and so has
    2 (``centres`` + 1) matrices. `ista` is CRATE's sparsifying step (arXiv 2306.01129, section 2.4): its result
    stands in the place of the residual stream, and its one matrix, of hidden size by itself, knows no width."""

    kind: Literal["swiglu", "geglu", "relu2", "gelu", "kan", "ista"] = "swiglu"
    centres: Annotated[int, Field(ge=2, le=WIDEST)] = 8

    @property
    def is_gated(self) -> bool:
        return self.kind in ("swiglu", "geglu")

    @property
    def has_width(self) -> bool:
        """Whether ``mlp_intermediate_size`` is its width; CRATE's step is as wide as the stream."""
        return self.kind != "ista"

    @property
    def has_experts(self) -> bool:
        """Whether there are experts of this kind."""
        return self.kind not in ("kan", "ista")

    @property
    def matrices(self) -> int:
        """Of hidden size by width, how many it has."""
        return 2 * (self.centres + 1) if self.kind == "kan" else 2 + self.is_gated


class Experts(Frozen):
    """A mixture of experts in the place of each perceptron; none where `count` is 0.

    Attributes:
        count: experts of a layer, of which each token goes through the `chosen` likeliest (arXiv 2401.04088).
        shared: experts that every token goes through beside them (arXiv 2401.06066).
        width: of one expert; null: ``mlp_intermediate_size`` over chosen and shared, so that as many parameters are
            active as without experts.
        renormalise: whether the weights of the chosen sum to 1.
        balance: weight of the load-balancing loss of each sequence in what is trained on (arXiv 2412.19437, equations
            17 to 20; 0.01: arXiv 2101.03961, section 2.2); 0: none.
        scores: what the router's outputs become: shares of all experts, or of each alone
            (arXiv 2412.19437, equation 15).
        bias_rate: what after each step an expert's bias gains if fewer than the mean chose it, and loses if more did.
            It decides who is chosen, and has no part in the weights (arXiv 2408.15664, algorithm 1, with 0.001). 0: no
            bias.
    """

    count: Annotated[int, Field(ge=0, le=WIDEST)] = 0
    chosen: Width = 2
    shared: Annotated[int, Field(ge=0, le=WIDEST)] = 0
    width: Width | None = None
    renormalise: bool = True
    balance: NotNegativeFloat = 0.01
    scores: Literal["softmax", "sigmoid"] = "softmax"
    bias_rate: NotNegativeFloat = 0.0


class Parametrisation(Frozen):
    """How initialisation, learning rates and multipliers go with width: `standard` not at all; `mup` so that the best
    learning rate of a model `base_width` wide, with heads of `base_head_dim`, is the best of every width (maximal
    update parametrisation, arXiv 2203.03466)."""

    kind: Literal["standard", "mup"] = "standard"
    base_width: Positive = 128
    base_head_dim: Positive = 32

    @model_validator(mode="after")
    def _base_is_of_mup(self) -> Self:
        if self.kind == "standard" and (self.base_width, self.base_head_dim) != (128, 32):
            raise ValueError("base_width and base_head_dim belong to kind mup, not to standard")
        return self


class Pretrained(Frozen):
    """Weights that training begins with: those that ``python -m davinci import`` took into the store under `name`, and
    their SHA-256. The digest alone is part of what a run is a function of."""

    name: str
    digest: str


class Model(Frozen):
    """A decoder's shape, and its variants, one an object; at their defaults it is Qwen2's architecture. Weights are
    initialised at random where none are `pretrained`."""

    name: str
    layers: Layers
    hidden_size: Width
    attention_heads: Width
    kv_heads: Width
    head_dim: Width
    mlp_intermediate_size: Width
    vocab_size: Words
    max_position_embeddings: Tokens
    rope_theta: PositiveFloat
    norm_eps: PositiveFloat
    qkv_bias: bool
    tie_embeddings: bool
    initializer_range: PositiveFloat
    precision: Literal["float32", "bfloat16"]
    attention: Attention = Attention()
    mixers: Mixers = Mixers()
    qk_norm: QKNorm = QKNorm()
    window: Window = Window()
    positions: Positions = Positions()
    norm: Norm = Norm()
    placement: Placement = Placement()
    mlp: Mlp = Mlp()
    experts: Experts = Experts()
    parametrisation: Parametrisation = Parametrisation()
    pretrained: Pretrained | None = None

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.attention_heads % self.kv_heads:
            raise ValueError(_indivisible("kv_heads", self.kv_heads, "attention_heads", self.attention_heads))
        if self.hidden_size % self.attention_heads:  # transformers' classes refuse it too
            raise ValueError(_indivisible("attention_heads", self.attention_heads, "hidden_size", self.hidden_size))
        wide, of = (self.latent_rope_dim, "rope_dim") if self.is_latent else (self.head_dim, "head_dim")
        turned = wide * self.positions.rotary
        if turned % 2:
            if self.positions.rotary == 1:
                near = f"{wide - 1} or {wide + 1}" if wide > 1 else "2"
                raise ValueError(f"{of} {wide} must be even for RoPE; nearest: {near}")
            raise ValueError(
                f"positions.rotary {self.positions.rotary:g} of {of} {wide} is {turned:g} features; RoPE turns pairs, "
                "so an even number is needed"
            )
        if self.is_latent and self.qk_norm.kind != "none":
            raise ValueError("qk_norm.kind: attention.kind latent has norms of its own; none is accepted")
        if self.attention.kind == "subspace" and self.qk_norm.kind != "none":
            raise ValueError("qk_norm.kind: attention.kind subspace has one projection for all; none is accepted")
        if not self.is_latent and (self.attention.kv_rank or self.attention.rope_dim or self.attention.query_rank):
            raise ValueError(
                f"attention.kv_rank, rope_dim and query_rank: belong to kind latent, not to {self.attention.kind}"
            )
        if len(self.mixers.pattern) > self.layers:
            raise ValueError(
                f"mixers.pattern: {len(self.mixers.pattern)} mixers are more than the {self.layers} layers there are; "
                f"1 to {self.layers} are accepted"
            )
        if "ssm" not in self.mixers.pattern and self.mixers != Mixers(pattern=self.mixers.pattern):
            raise ValueError("mixers.state, expand and convolution: belong to ssm, which mixers.pattern has not")
        if self.mlp.kind != "kan" and self.mlp != Mlp(kind=self.mlp.kind):
            raise ValueError(f"mlp.centres: belongs to kind kan, not to {self.mlp.kind}")
        if "linear" in self.mixers.pattern and self.rotary_dim > self.head_dim:
            raise ValueError(
                f"attention.rope_dim {self.latent_rope_dim}: linear attention turns as many features of a head, of "
                f"which it has {self.head_dim}"
            )
        if self.experts.count and not self.mlp.has_experts:
            raise ValueError(
                f"experts.count: there are no experts of mlp.kind {self.mlp.kind}; 0 is accepted, or another kind"
            )
        if self.parametrisation.kind != "standard":
            self._require_mup_is_derived()
        if 0 < self.experts.count < self.experts.chosen:
            raise ValueError(
                f"experts.chosen {self.experts.chosen} is more than the {self.experts.count} experts there are; "
                f"1 to {self.experts.count} are accepted"
            )
        return self

    @property
    def layer_mixers(self) -> tuple[Mixer, ...]:
        """What mixes the tokens of each layer."""
        pattern = self.mixers.pattern
        return tuple(pattern[layer % len(pattern)] for layer in range(self.layers))

    @property
    def is_recurrent(self) -> bool:
        """Whether some layer passes on a state from token to token."""
        return any(mixer != "attention" for mixer in self.layer_mixers)

    @property
    def state_heads(self) -> int:
        """Heads of a state-space mixer, each of ``head_dim`` features."""
        return self.mixers.expand * self.attention_heads

    @property
    def convolved(self) -> int:
        """Features that a state-space mixer's convolution goes over: of its heads, and of two for its states."""
        return self.state_heads * self.head_dim + 2 * self.mixers.state

    def _require_mup_is_derived(self) -> None:
        found = {
            f"attention.kind {self.attention.kind}": self.attention.kind in ("latent", "subspace"),
            f"mixers.pattern {'-'.join(self.mixers.pattern)}": set(self.mixers.pattern) != {"attention"},
            f"mlp.kind {self.mlp.kind}": self.mlp.kind in ("kan", "ista"),
        }
        for what, is_there in found.items():
            if is_there:
                raise ValueError(f"parametrisation.kind: mup is not derived for {what}; standard is accepted")

    @property
    def expert_width(self) -> int:
        """Width of one expert."""
        active = self.experts.chosen + self.experts.shared
        return self.experts.width or max(1, self.mlp_intermediate_size // active)

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values there are."""
        return {"grouped": self.kv_heads, "multi_query": 1}.get(self.attention.kind, self.attention_heads)

    @property
    def has_biases(self) -> bool:
        """Whether queries, keys and values have biases: only where each has a projection of its own."""
        return self.qkv_bias and self.attention.kind not in ("latent", "subspace")

    @property
    def is_latent(self) -> bool:
        return self.attention.kind == "latent"

    @property
    def latent_rank(self) -> int:
        """Width of the vector that latent attention makes keys and values from."""
        return self.attention.kv_rank or 4 * self.head_dim

    @property
    def latent_rope_dim(self) -> int:
        """Features of a head of latent attention that carry positions."""
        return self.attention.rope_dim or self.head_dim // 2

    @property
    def key_dim(self) -> int:
        """Features of a head's queries and keys."""
        return self.head_dim + (self.latent_rope_dim if self.is_latent else 0)

    @property
    def rotary_dim(self) -> int:
        """Features of a head that RoPE turns."""
        return round((self.latent_rope_dim if self.is_latent else self.head_dim) * self.positions.rotary)


class Optimizer(Frozen):
    """AdamW (arXiv 1711.05101); `weight_decay` applies to matrices, not to norms and biases.

    `spikes` says what becomes of a step whose loss or gradient norm stands far above those before it
    (`training.spikes`): it is recorded, or recorded and left out of the training.
    """

    name: Literal["adamw"]
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    eps: PositiveFloat
    weight_decay: NotNegativeFloat
    gradient_clip: PositiveFloat
    spikes: Literal["report", "skip"] = "report"


def _indivisible(part: str, count: int, whole: str, size: int) -> str:
    """That `count` does not divide `size`, with the nearest on either side that do."""
    small = [one for one in range(1, math.isqrt(size) + 1) if size % one == 0]
    divisors = sorted({*small, *(size // one for one in small)})
    near = [*[one for one in divisors if one < count][-1:], *[one for one in divisors if one > count][:1]]
    return f"{part} {count} must divide {whole} {size}; nearest: {' or '.join(map(str, near))}"
