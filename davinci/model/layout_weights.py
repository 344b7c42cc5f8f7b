"""A decoder's weights by the names, and in the order, of classes of transformers where they are not the decoder's own,
and back again (`of_…`). Neither way a number is changed, but for Nemotron's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from davinci.config import Model
from davinci.model.rotary import side_by_side

Weights = dict[str, Tensor]
# What a decoder calls something in a layer, and what the class does.
_GLM4_NAMES = (
    (".post_attention_layernorm.", ".post_self_attn_layernorm."),
    (".pre_feedforward_layernorm.", ".post_attention_layernorm."),
    (".post_feedforward_layernorm.", ".post_mlp_layernorm."),
)
_NORMS = ("input_layernorm", "post_attention_layernorm")
_MIXTRAL_NAMES = ((".mlp.", ".block_sparse_moe."),)
_GRANITE_NAMES = (
    (".mixer.", ".mamba."),
    (".mlp.gate_up_proj.", ".shared_mlp.input_linear."),
    (".mlp.down_proj.", ".shared_mlp.output_linear."),
)
_GRANITE_EXPERTS = (
    (".mixer.", ".mamba."),
    (".mlp.gate.weight", ".block_sparse_moe.router.layer.weight"),
    (".mlp.gate_up_proj", ".block_sparse_moe.input_linear.weight"),
    (".mlp.down_proj", ".block_sparse_moe.output_linear.weight"),
    (".mlp.shared_experts.gate_up_proj.", ".shared_mlp.input_linear."),
    (".mlp.shared_experts.down_proj.", ".shared_mlp.output_linear."),
)
_BIAS, _ERNIE_BIAS = ".mlp.gate.e_score_correction_bias", ".mlp.moe_statics.e_score_correction_bias"


def as_they_are(weights: Mapping[str, Tensor], model: Model) -> Weights:
    return dict(weights)


def latent(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """DeepSeek-V3 without experts: of queries and keys what RoPE turns comes last, neighbours together."""
    return _latent_in_order(weights, model, side_by_side(model.latent_rope_dim, model.latent_rope_dim))


def of_latent(weights: Mapping[str, Tensor], model: Model) -> Weights:
    return _latent_in_order(weights, model, side_by_side(model.latent_rope_dim, model.latent_rope_dim).argsort())


def deepseek(weights: Mapping[str, Tensor], model: Model) -> Weights:
    return biased_experts(latent(weights, model), model)


def of_deepseek(weights: Mapping[str, Tensor], model: Model) -> Weights:
    return of_latent(of_experts(weights, model), model)


def biased_experts(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """As DeepSeek-V3's and GLM-4.5's; a bias of the router is there too where none was kept, and is 0."""
    found = experts(weights, model)
    for name, one in weights.items():
        if name.endswith(".mlp.gate.weight"):
            found.setdefault(name.removesuffix(".mlp.gate.weight") + _BIAS, one.new_zeros(len(one)))
    return found


def experts(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """As Qwen3-MoE's, whose router has no bias."""
    return _one_by_one(weights, "mlp", "gate_proj", "up_proj", "down_proj")


def of_experts(weights: Mapping[str, Tensor], model: Model) -> Weights:
    return _stacked(weights, model, "mlp", "gate_proj", "up_proj", "down_proj")


def ernie(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """The router's bias is a row of its own, and 0 where none was kept."""
    found = {}
    for name, one in biased_experts(_neighbours(weights, model), model).items():
        found[name.replace(_BIAS, _ERNIE_BIAS)] = one[None] if name.endswith(_BIAS) else one
    return found


def of_ernie(weights: Mapping[str, Tensor], model: Model) -> Weights:
    found = {}
    for name, one in of_experts(_halves(weights, model), model).items():
        found[name.replace(_ERNIE_BIAS, _BIAS)] = one[0] if name.endswith(_ERNIE_BIAS) else one
    return found


def nemotron(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """Norms keep their gain less 1."""
    is_gain = ("norm.weight", "layernorm.weight")
    return {name: one - 1 if name.endswith(is_gain) else one for name, one in weights.items()}


def of_nemotron(weights: Mapping[str, Tensor], model: Model) -> Weights:
    is_gain = ("norm.weight", "layernorm.weight")
    return {name: one + 1 if name.endswith(is_gain) else one for name, one in weights.items()}


def mixtral(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """In these files w1 is the gate, w3 what it is multiplied with, w2 the output."""
    return _named(_one_by_one(weights, "block_sparse_moe", "w1", "w3", "w2"), _MIXTRAL_NAMES)


def of_mixtral(weights: Mapping[str, Tensor], model: Model) -> Weights:
    return _called(_stacked(weights, model, "block_sparse_moe", "w1", "w3", "w2"), _MIXTRAL_NAMES)


def subspace(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """Queries, keys and values each a copy of the one projection that they are; on the way back they are three."""
    found: Weights = {}
    for name, one in weights.items():
        parts = ("q_proj", "k_proj", "v_proj") if ".qkv_proj." in name else ("qkv_proj",)
        found |= {name.replace("qkv_proj", part): one if part == "q_proj" else one.clone() for part in parts}
    return found


def unit_gains(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """Norms without a gain as such whose gains are 1 and biases 0."""
    norms = [f"model.layers.{layer}.{name}" for layer in range(model.layers) for name in _NORMS] + ["model.norm"]
    like = weights["model.embed_tokens.weight"][0]
    gains = {f"{norm}.weight": like.new_ones(len(like)) for norm in norms}
    return {**weights, **gains, **{f"{norm}.bias": like.new_zeros(len(like)) for norm in norms}}


def glm(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """The gate and what it is multiplied with are one matrix."""
    return _gates_joined(_neighbours(weights, model))


def of_glm(weights: Mapping[str, Tensor], model: Model) -> Weights:
    return _gates_parted(_halves(weights, model))


def glm4(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """As `glm`; its norms, four a block, have other names."""
    return _named(glm(weights, model), _GLM4_NAMES)


def of_glm4(weights: Mapping[str, Tensor], model: Model) -> Weights:
    return of_glm(_called(weights, _GLM4_NAMES), model)


def granite(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """The gate and what it is multiplied with are one matrix; a dense perceptron is a shared expert without others."""
    return _named(_gates_joined(weights), _GRANITE_EXPERTS if model.experts.count else _GRANITE_NAMES)


def of_granite(weights: Mapping[str, Tensor], model: Model) -> Weights:
    return _gates_parted(_called(weights, _GRANITE_EXPERTS if model.experts.count else _GRANITE_NAMES))


def _named(weights: Mapping[str, Tensor], pairs: tuple[tuple[str, str], ...]) -> Weights:
    """By the class's names; of the `pairs` one applies to a name, the first whose own name is in it."""
    found = {}
    for name, one in weights.items():
        pair = next((pair for pair in pairs if pair[0] in name), ("", ""))
        found[name.replace(*pair) if pair[0] else name] = one
    return found


def _called(weights: Mapping[str, Tensor], pairs: tuple[tuple[str, str], ...]) -> Weights:
    """The way back from `_named`."""
    return _named(weights, tuple((theirs, ours) for ours, theirs in pairs))


def _gates_joined(weights: Mapping[str, Tensor]) -> Weights:
    """A perceptron's gate and the matrix that it is multiplied with as one."""
    found = {}
    for name, one in weights.items():
        if ".gate_proj." in name:
            up = weights[name.replace(".gate_proj.", ".up_proj.")]
            found[name.replace(".gate_proj.", ".gate_up_proj.")] = torch.cat((one, up))
        elif ".up_proj." not in name:
            found[name] = one
    return found


def _gates_parted(weights: Mapping[str, Tensor]) -> Weights:
    """The way back from `_gates_joined`; experts', which are of three dimensions, stay as they are."""
    found = {}
    for name, one in weights.items():
        if ".gate_up_proj." in name:
            for part, half in zip((".gate_proj.", ".up_proj."), one.chunk(2), strict=True):
                found[name.replace(".gate_up_proj.", part)] = half.contiguous()
        else:
            found[name] = one
    return found


def _neighbours(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """Queries and keys in the order in which features that RoPE turns together are neighbours."""
    return _in_order(weights, side_by_side(model.head_dim, model.rotary_dim))


def _halves(weights: Mapping[str, Tensor], model: Model) -> Weights:
    """The way back from `_neighbours`."""
    return _in_order(weights, side_by_side(model.head_dim, model.rotary_dim).argsort())


def _in_order(weights: Mapping[str, Tensor], order: Tensor) -> Weights:
    found = {}
    for name, one in weights.items():
        is_turned = ".self_attn.q_proj." in name or ".self_attn.k_proj." in name
        found[name] = one.unflatten(0, (-1, len(order)))[:, order].flatten(0, 1) if is_turned else one
    return found


def _latent_in_order(weights: Mapping[str, Tensor], model: Model, order: Tensor) -> Weights:
    found = dict(weights)
    for name, one in weights.items():
        if name.endswith((".q_proj.weight", ".q_b_proj.weight")):
            heads = one.unflatten(0, (-1, model.key_dim))
            found[name] = torch.cat((heads[:, : model.head_dim], heads[:, model.head_dim :][:, order]), 1).flatten(0, 1)
        elif name.endswith(".kv_a_proj_with_mqa.weight"):
            found[name] = torch.cat((one[: -len(order)], one[-len(order) :][order]))
    return found


def _one_by_one(weights: Mapping[str, Tensor], place: str, gate: str, up: str, down: str) -> Weights:
    """Experts each under a name of their own, as their files have them, in the block's `place`; all else unchanged."""
    found: Weights = {}
    for name, one in weights.items():
        block, _, part = name.partition(".mlp.")
        if part == "gate_up_proj":
            for number, both in enumerate(one):
                for matrix, half in zip((gate, up), both.chunk(2), strict=True):
                    found[f"{block}.{place}.experts.{number}.{matrix}.weight"] = half.contiguous()
        elif part == "down_proj":
            for number, matrix_down in enumerate(one):
                found[f"{block}.{place}.experts.{number}.{down}.weight"] = matrix_down.contiguous()
        else:
            found[name] = one
    return found


def _stacked(weights: Mapping[str, Tensor], model: Model, place: str, gate: str, up: str, down: str) -> Weights:
    """The way back from `_one_by_one`."""
    found = {name: one for name, one in weights.items() if f".{place}.experts." not in name}
    for layer in range(model.layers):
        block = f"model.layers.{layer}"

        def each(part: str, block: str = block) -> list[Tensor]:
            names = (f"{block}.{place}.experts.{one}.{part}.weight" for one in range(model.experts.count))
            return [weights[name] for name in names]

        both = [torch.cat(pair) for pair in zip(each(gate), each(up), strict=True)]
        found[f"{block}.mlp.gate_up_proj"], found[f"{block}.mlp.down_proj"] = torch.stack(both), torch.stack(each(down))
    return found
