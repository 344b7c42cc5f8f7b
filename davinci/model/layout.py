"""What a class of transformers computes and how it names things, and which variants a decoder has of what it could."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from davinci.config import Model
from davinci.model import layout_weights
from davinci.model.layout_weights import Weights

FREE_HEADS, GEGLU = "heads other than hidden_size / attention_heads wide", "GeGLU"


@dataclass(frozen=True)
class Layout:
    """A class of transformers.

    Attributes:
        model_type, architecture: as ``config.json`` has them.
        needs: variants without which this form of the class is not meant, beside Qwen2's plain block without biases, by
            the names of `variants_of`.
        may: others that it can express.
        settings: what its configuration says beside the shape.
        weights: a decoder's weights by this class's names, but for `zeros`.
        decoders: the way back.
        zeros: linear maps that have biases where those of queries, keys and values have, and here never: theirs are 0.
        splits_as_qwen2: transformers gives it Qwen2's own splitting of text, whatever tokenizer.json says.
        not_in_vllm: what vLLM's own class of that name does not compute in this form, though transformers' does. Its
            classes know SiLU only, Qwen2's heads of one width, GLM-4.5's needs experts; of some names it runs
            transformers' (vLLM 0.33).
        ties: vLLM's class takes the embedding for the unembedding where they are tied; others have one of their own,
            and leave it as it was made where the file has none (vLLM 0.33).
    """

    model_type: str
    architecture: str
    needs: AbstractSet[str]
    may: AbstractSet[str]
    settings: Callable[[Model], dict[str, Any]] = lambda model: {}
    weights: Callable[[Mapping[str, Tensor], Model], Weights] = field(default=layout_weights.as_they_are)
    decoders: Callable[[Mapping[str, Tensor], Model], Weights] = field(default=layout_weights.as_they_are)
    zeros: tuple[str, ...] = ()
    splits_as_qwen2: bool = False
    not_in_vllm: AbstractSet[str] = frozenset({GEGLU})
    ties: bool = True

    def theirs(self, weights: Mapping[str, Tensor], model: Model) -> Weights:
        """A decoder's weights as the class's files have them."""
        found = self.weights(weights, model)
        if "biases" in variants_of(model):
            for name, one in list(found.items()):
                if name.endswith(tuple(f"{part}.weight" for part in self.zeros)):
                    found[name.removesuffix("weight") + "bias"] = one.new_zeros(len(one))
            if "lm_head" in self.zeros:  # where it is the embedding it has no weight of its own
                embedding = found["model.embed_tokens.weight"]
                found["lm_head.bias"] = embedding.new_zeros(len(embedding))
        return found

    def ours(self, weights: Mapping[str, Tensor], model: Model) -> Weights:
        """The way back."""
        return self.decoders({name: one for name, one in weights.items() if not self.is_zero(name)}, model)

    def is_zero(self, name: str) -> bool:
        """Whether a tensor of the class has to be 0 everywhere."""
        return name.endswith(tuple(f"{part}.bias" for part in self.zeros))

    @property
    def has(self) -> AbstractSet[str]:
        """Every variant that it can express; any gated perceptron's activation is one of them."""
        return self.needs | self.may | {GEGLU}


def variants_of(model: Model) -> frozenset[str]:
    """What of a model is not Qwen2's plain block without biases."""
    experts, mixers = model.experts, set(model.layer_mixers)
    attends, is_latent = mixers != {"ssm"}, mixers != {"ssm"} and model.is_latent
    found = {
        "linear attention": "linear" in mixers,
        "state-space mixers": "ssm" in mixers,
        "latent attention": is_latent,
        # transformers' norms of the narrow vectors have 1e-6, whatever the model's eps.
        "latent attention with an eps other than 1e-6": is_latent and model.norm_eps != 1e-6,
        "biases": attends and model.has_biases,
        "QK-norm": attends and model.qk_norm.kind == "rms",
        "a window": attends and model.window.tokens is not None,
        # transformers' cache keeps the last window - 1 tokens, and takes the last 0 for all.
        "a window of one token": attends and model.window.tokens == 1,
        "no positions": attends and model.rotary_dim == 0,
        "RoPE scaling": attends and model.positions.scaling is not None,
        "partial RoPE": attends and 0 < model.positions.rotary < 1,
        "subspace attention": attends and model.attention.kind == "subspace",
        model.norm.kind: model.norm.kind != "rmsnorm",
        "nonparametric with an eps other than 1e-5": model.norm.kind == "nonparametric" and model.norm_eps != 1e-5,
        f"{model.placement.kind}-norm": model.placement.kind != "pre",
        "CRATE's sparsifying step": model.mlp.kind == "ista",
        "a KAN perceptron": model.mlp.kind == "kan",
        GEGLU: model.mlp.kind == "geglu",
        "a perceptron without gate": model.mlp.kind in ("relu2", "gelu"),
        # transformers' mixers have the perceptron's activation, ours SiLU.
        "GeGLU beside state-space mixers": "ssm" in mixers and model.mlp.kind == "geglu",
        # transformers tabulates angles of half a head even where none is turned.
        "heads of an odd width without positions": model.head_dim % 2 == 1 and not (attends and model.rotary_dim),
        FREE_HEADS: model.head_dim * model.attention_heads != model.hidden_size,
    }
    if experts.count:
        found |= {
            "experts": True,
            "shared experts": experts.shared > 0,
            "weights of experts that do not sum to 1": not experts.renormalise,
            "sigmoid scores of experts": experts.scores == "sigmoid",
            # transformers looks at the best two of a group.
            "sigmoid scores of one expert": experts.scores == "sigmoid" and experts.count == 1,
            "a bias of experts": experts.bias_rate > 0,
        }
    return frozenset(name for name, is_there in found.items() if is_there)
