"""Folders that transformers saved, read back: the same tensors, the same logits, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.model.importing import originals, read_folder

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZE: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "initializer_range": 0.3,
}  # fmt: skip
DEEPSEEK: dict[str, Any] = {
    "num_key_value_heads": 4, "kv_lora_rank": 20, "q_lora_rank": None, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 5, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1,
    "routed_scaling_factor": 1.0, "first_k_dense_replace": 0,
}  # fmt: skip
ERNIE: dict[str, Any] = {
    "moe_num_experts": 5, "moe_k": 2, "moe_num_shared_experts": 2, "moe_intermediate_size": 16,
    "moe_layer_start_index": 0, "pad_token_id": 0,
}  # fmt: skip
GLM: dict[str, Any] = {
    "n_routed_experts": 5, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 16,
    "first_k_dense_replace": 0, "num_mtp_layers": 0, "head_dim": 8,
}  # fmt: skip
SMOLLM: dict[str, Any] = {"no_rope_layers": [1, 1], "pad_token_id": 0, "tie_word_embeddings": False}
GRANITE: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "num_local_experts": 0, "shared_intermediate_size": 40, "mamba_n_heads": 8, "mamba_d_state": 6,
    "attention_multiplier": 8**-0.5, "position_embedding_type": "rope",
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any], torch.dtype]] = {
    "Llama": ("LlamaConfig", {"tie_word_embeddings": True}, torch.float32),
    "Llama, untied, bf16": ("LlamaConfig", {"tie_word_embeddings": False}, torch.bfloat16),
    "Qwen2": ("Qwen2Config", {"tie_word_embeddings": True}, torch.float32),
    "Qwen3": ("Qwen3Config", {"head_dim": 8}, torch.bfloat16),
    "Mistral": ("MistralConfig", {"sliding_window": 9}, torch.float32),
    "Mixtral": ("MixtralConfig", {"num_local_experts": 4, "sliding_window": None}, torch.float32),
    "Llama 3.1's RoPE": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e3,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
        torch.bfloat16,
    ),
    "DeepSeek-V3, dense": (
        "DeepseekV3Config",
        DEEPSEEK | {"first_k_dense_replace": 3, "q_lora_rank": 10},
        torch.float32,
    ),
    "DeepSeek-V3": ("DeepseekV3Config", DEEPSEEK, torch.bfloat16),
    "DeepSeek-V3, weights as they are": ("DeepseekV3Config", DEEPSEEK | {"norm_topk_prob": False}, torch.float32),
    "Qwen3-MoE": (
        "Qwen3MoeConfig",
        {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
        torch.bfloat16,
    ),
    "Ernie 4.5": ("Ernie4_5_MoeConfig", ERNIE, torch.bfloat16),
    "Ernie 4.5, none shared": (
        "Ernie4_5_MoeConfig",
        ERNIE | {"moe_num_shared_experts": 0, "tie_word_embeddings": False},
        torch.float32,
    ),
    "Ernie 4.5, biases": ("Ernie4_5_MoeConfig", ERNIE | {"use_bias": True}, torch.float32),
    "GLM-4.5": ("Glm4MoeConfig", GLM | {"use_qk_norm": True, "attention_bias": True}, torch.bfloat16),
    "GLM-4": ("Glm4Config", {"head_dim": 12, "pad_token_id": 0}, torch.bfloat16),
    "GLM-4, all turned": (
        "Glm4Config",
        {
            "head_dim": 8,
            "pad_token_id": 0,
            "attention_bias": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e3, "partial_rotary_factor": 1.0},
        },
        torch.float32,
    ),
    "Granite 4": ("GraniteMoeHybridConfig", GRANITE, torch.bfloat16),
    "Granite 4, experts": (
        "GraniteMoeHybridConfig",
        GRANITE | {"num_local_experts": 5, "intermediate_size": 16, "shared_intermediate_size": 32},
        torch.float32,
    ),
    "GLM": ("GlmConfig", {"head_dim": 12, "pad_token_id": 0}, torch.bfloat16),
    "GLM-4.5, dense": ("Glm4MoeConfig", GLM | {"use_qk_norm": True, "first_k_dense_replace": 2}, torch.float32),
    "SmolLM3, turned": (
        "SmolLM3Config",
        {**SMOLLM, "attention_bias": True},
        torch.float32,
    ),
    "Arcee, biases": ("ArceeConfig", {"attention_bias": True}, torch.bfloat16),
    "StableLM": ("StableLmConfig", {"hidden_size": 32, "use_qkv_bias": True}, torch.float32),
}


def saved(folder: Path, name: str, changes: dict[str, Any], dtype: torch.dtype, **how: Any) -> Any:
    """A small random model of transformers, written by it."""
    torch.manual_seed(3)
    config = getattr(transformers, name)(**(SIZE | changes))
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    for name, bias in (*model.named_buffers(), *model.named_parameters()):
        if name.endswith("e_score_correction_bias"):
            bias.data.copy_(torch.linspace(-0.3, 0.3, bias.shape[-1]))
    model.save_pretrained(folder, **how)
    # Read back in float32: a cast of the model would round its rotary frequencies too.
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: one for file in folder.glob("*.safetensors") for name, one in load_file(file).items()}


@pytest.mark.parametrize(("name", "changes", "dtype"), CASES.values(), ids=list(CASES))
def test_in_and_out_again_unchanged(name: str, changes: dict[str, Any], dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = saved(tmp_path, name, changes, dtype)
    found = read_folder(tmp_path, "mine")
    decoder = Decoder(found.model, found.model.vocab_size).eval()
    decoder.load_state_dict(found.weights())
    weights = decoder.state_dict()
    back = originals(weights, found.model, found.layout.architecture, found.dtypes)
    before = tensors(tmp_path)
    found.require_unchanged(weights)
    assert back.keys() == before.keys()
    assert all(one.dtype == before[key].dtype and torch.equal(one, before[key]) for key, one in back.items())
    tokens = torch.arange(20)[None] * 7 % 60
    with torch.no_grad():
        torch.testing.assert_close(decoder(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)


def test_a_gain_that_is_kept_less_1_comes_out_as_what_is_computed_with(tmp_path: Path) -> None:
    """Nemotron's: what float32 makes of the file's number and 1 stays, the number's last digits do not."""
    theirs = saved(tmp_path, "NemotronConfig", {"head_dim": 8, "pad_token_id": 0}, torch.float32)
    name = "model.layers.1.input_layernorm.weight"
    theirs.get_parameter(name).data.copy_(1e-3 * torch.randn(24, generator=torch.Generator().manual_seed(1)))
    theirs.save_pretrained(tmp_path)
    found = read_folder(tmp_path, "mine")
    weights = found.weights()
    found.require_unchanged(weights)
    decoder = Decoder(found.model, 60).eval()
    decoder.load_state_dict(weights)
    back = originals(weights, found.model, found.layout.architecture, found.dtypes)
    before = tensors(tmp_path)
    assert {key for key, one in back.items() if not torch.equal(one, before[key])} == {name}
    assert torch.equal(back[name] + 1, before[name] + 1) and (back[name] - before[name]).abs().max() <= 2**-24
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        expected = theirs(tokens).logits
        torch.testing.assert_close(decoder(tokens), expected, atol=1e-4, rtol=0)
        theirs.load_state_dict(back)
        assert torch.equal(theirs(tokens).logits, expected)
    weights[name][0] += 2**-23  # the next number of float32
    with pytest.raises(UserError, match="input_layernorm.weight would not come out again as it is"):
        found.require_unchanged(weights)


def test_a_class_knows_a_setting_by_several_names(tmp_path: Path) -> None:
    saved(tmp_path, "Ernie4_5_MoeConfig", ERNIE | {"moe_k": 3, "router_aux_loss_coef": 0.02}, torch.float32)
    file = tmp_path / "config.json"
    said = json.loads(file.read_text())
    said["num_experts_per_tok"] = said.pop("moe_k")
    file.write_text(json.dumps(said | {"num_key_value_heads": None, "use_bias": None}))
    with pytest.raises(UserError, match=r"k_proj.weight is \[12, 24\], config.json says \[24, 24\]"):
        read_folder(tmp_path, "mine")
    file.write_text(json.dumps(said))
    experts = read_folder(tmp_path, "mine").model.experts
    assert (experts.chosen, experts.balance) == (3, 0.02)


def test_a_base_that_is_not_said_is_the_class_s(tmp_path: Path) -> None:
    theirs = saved(tmp_path, "SmolLM3Config", SMOLLM, torch.float32)
    said = json.loads((tmp_path / "config.json").read_text())
    assert said.pop("rope_parameters")["rope_theta"] == 2e6
    (tmp_path / "config.json").write_text(
        json.dumps(said | {"no_rope_layers": None})
    )  # each fourth, of two layers none
    found = read_folder(tmp_path, "mine")
    decoder = Decoder(found.model, 60).eval()
    decoder.load_state_dict(found.weights())
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(decoder(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaConfig", {}, torch.float32, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    decoder = Decoder(read_folder(tmp_path, "mine").model, 60)
    decoder.load_state_dict(read_folder(tmp_path, "mine").weights())


def _config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _tensors(folder: Path, name: str, one: torch.Tensor | None) -> None:
    held = load_file(folder / "model.safetensors") | ({} if one is None else {name: one})
    save_file(
        {key: value for key, value in held.items() if one is not None or key != name}, folder / "model.safetensors"
    )


def _truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


MISTAKES: dict[str, tuple[Any, str]] = {
    "no config": (lambda one: (one / "config.json").unlink(), "it has no config.json"),
    "class": (lambda one: _config(one, architectures=["LlamaForCausalML"]), "nearest: LlamaForCausalLM"),
    "rope": (lambda one: _config(one, rope_parameters={"rope_type": "yarn"}), "rope_type: yarn is not computed"),
    "softcapping": (
        lambda one: _config(one, attn_logit_softcapping=50.0),
        "attn_logit_softcapping: 50.0 is nothing that",
    ),
    "scales": (lambda one: _config(one, logits_scaling=8.0), "logits_scaling: 8.0 is nothing that is computed here"),
    "own code": (lambda one: _config(one, auto_map={"AutoModel": "m.M"}), "auto_map: {'AutoModel': 'm.M'} is nothing"),
    "quantised": (lambda one: _config(one, quantization_config={"bits": 4}), "quantization_config: {'bits': 4} is"),
    "windows in turns": (
        lambda one: _config(one, layer_types=["sliding_attention", "full_attention"]),
        "layer_types: full_attention in every layer is accepted",
    ),
    "old scaling": (
        lambda one: _config(one, rope_parameters=None, rope_scaling={"type": "linear", "factor": 2.0}),
        "rope_type: linear is not computed here in LlamaForCausalLM; default or llama3 is accepted",
    ),
    "a scaling beside": (
        lambda one: _config(one, rope_scaling={"type": "yarn", "factor": 4.0}),
        "rope_type: yarn is not computed here in LlamaForCausalLM",
    ),
    "nested": (
        lambda one: _config(one, rope_parameters={"full_attention": {"rope_theta": 1e6}}),
        "rope_parameters.full_attention: {'rope_theta': 1000000.0} is nothing that is computed here",
    ),
    "part as text": (
        lambda one: _config(one, partial_rotary_factor="half"),
        "partial_rotary_factor: a number is needed, not 'half'",
    ),
    "base as text": (lambda one: _config(one, rope_theta=["1e4"]), "rope_theta: a number is needed, not ['1e4']"),
    "no activation": (lambda one: _config(one, hidden_act=None), "hidden_act: None is not computed here"),
    "names of one layer": (
        lambda one: _config(one, layer_types=["full_attention"]),
        "layer_types: a name for each of 2 layers is needed, not ['full_attention']",
    ),
    "classes": (lambda one: _config(one, architectures=[["x"]]), "architectures: ['x'] is not read here; known: "),
    "no mapping": (lambda one: _config(one, rope_scaling=[8]), "rope_scaling: [8] is no mapping; null is accepted"),
    "no layers": (
        lambda one: _config(one, num_hidden_layers=None),
        "num_hidden_layers: a whole number above 0 is needed, not None",
    ),
    "more layers": (
        lambda one: _config(one, num_hidden_layers=10**9),
        "num_hidden_layers: 1000000000, but there are tensors of 2 layers",
    ),
    "more words": (
        lambda one: _config(one, vocab_size=10**19),
        f"vocab_size: Input should be less than or equal to {10**7} (got {10**19})",
    ),
    "half a scaling": (
        lambda one: _config(one, rope_scaling={"rope_type": "llama3", "factor": 2.0}, rope_parameters=None),
        "positions.scaling.original_max_position_embeddings: missing",
    ),
    "partial RoPE": (lambda one: _config(one, partial_rotary_factor=0.5), "partial_rotary_factor: 0.5 is not computed"),
    "biases": (lambda one: _config(one, mlp_bias=True), "mlp_bias: True is not computed here"),
    "truncated": (_truncate, "missing or damaged"),
    "pickled": (_pickle, "pytorch_model.bin is pickled, and not loaded"),
    "missing": (
        lambda one: _tensors(one, "model.norm.weight", None),
        "tensor model.norm.weight of LlamaForCausalLM is",
    ),
    "extra": (lambda one: _tensors(one, "model.more", torch.ones(2)), "tensor model.more has no place"),
    "shape": (lambda one: _tensors(one, "model.norm.weight", torch.ones(2)), "is [2], config.json says [24]"),
    "integers": (lambda one: _tensors(one, "model.norm.weight", torch.ones(24, dtype=torch.int8)), "is of I8"),
}


@pytest.mark.parametrize(("spoil", "message"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_one_line(spoil: Any, message: str, tmp_path: Path) -> None:
    saved(tmp_path, "LlamaConfig", {}, torch.float32)
    spoil(tmp_path)
    with pytest.raises(UserError) as error:
        read_folder(tmp_path, "mine")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_interleave": False}, "rope_interleave: False is not computed here in DeepseekV3ForCausalLM; True is"),
        ({"routed_scaling_factor": 2.5}, "routed_scaling_factor: 2.5 is not computed here"),
        ({"n_group": 4}, "n_group: 4 is not computed here in DeepseekV3ForCausalLM; 1 is accepted"),
        ({"first_k_dense_replace": 1}, "first_k_dense_replace: 1 is not computed here; 0, or the number of layers"),
        ({"scoring_func": "softmax"}, "scoring_func: softmax is not computed here in DeepseekV3ForCausalLM; sigm"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps: 1e-05 is not computed here in DeepseekV3ForCausalLM, whose norms"),
        ({"n_routed_experts": 10**6}, "n_routed_experts: 1000000, but there are tensors of 5 experts"),
    ],
    ids=str,
)
def test_what_of_deepseek_is_not_computed_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path, "DeepseekV3Config", DEEPSEEK, torch.float32)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError) as error:
        read_folder(tmp_path, "mine")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "sizes", "changes", "message"),
    [
        ("GraniteMoeHybridConfig", GRANITE, {"residual_multiplier": 0.22}, "residual_multiplier: 0.22 is not computed"),
        ("GraniteMoeHybridConfig", GRANITE, {"time_step_limit": [0.0, 0.5]}, "time_step_limit: [0.0, 0.5] is not"),
        ("GraniteMoeHybridConfig", GRANITE, {"mamba_n_groups": 2}, "mamba_n_groups: 2 is not computed here"),
        ("GraniteMoeHybridConfig", GRANITE, {"mamba_n_heads": 4}, "mamba_n_heads: 4 is not computed here"),
        (
            "GraniteMoeHybridConfig",
            GRANITE,
            {"mamba_expand": "two"},
            "mamba_expand: a whole number is needed, not 'two'",
        ),
        ("GraniteMoeHybridConfig", GRANITE, {"layer_types": ["ssm"] * 3}, "layer_types: ssm is no kind of layer that"),
        ("GraniteMoeHybridConfig", GRANITE, {"layer_types": ["mamba"]}, "a name for each of 3 layers is needed"),
        (
            "GraniteMoeHybridConfig",
            GRANITE,
            {"hidden_act": "gelu_pytorch_tanh"},
            "GeGLU beside state-space mixers: not computed here as GraniteMoeHybridForCausalLM does",
        ),
        (
            "GraniteMoeHybridConfig",
            GRANITE,
            {"num_experts_per_tok": "2", "mamba_n_groups": 2},
            "mamba_n_groups: 2 is not computed here",
        ),
        ("SmolLM3Config", SMOLLM, {"no_rope_layers": 5}, "no_rope_layers: 0 or 1 for each layer is needed, not 5"),
        ("SmolLM3Config", SMOLLM, {"attention_bias": "no"}, "attention_bias: true or false is needed, not 'no'"),
        (
            "SmolLM3Config",
            SMOLLM,
            {"use_sliding_window": True, "sliding_window": 9, "layer_types": None},
            "sliding_attention in every layer is accepted, not windows in some",
        ),
        ("SmolLM3Config", SMOLLM, {"rope_parameters": {"rope_theta": 0}}, "rope_theta: Input should be greater than 0"),
        ("MixtralConfig", {}, {"num_experts_per_tok": None}, "num_experts_per_tok: a whole number is needed, not None"),
        (
            "Qwen2Config",
            {},
            {"use_sliding_window": True, "sliding_window": 9, "layer_types": None},
            "sliding_attention in every layer is accepted, not windows in some",
        ),
        ("Ernie4_5_MoeConfig", ERNIE, {"moe_layer_start_index": 1}, "moe_layer_start_index: 1 is not computed here"),
        ("Ernie4_5_MoeConfig", ERNIE, {"moe_layer_end_index": 0}, "moe_layer_end_index: 0 is not computed here"),
        ("Ernie4_5_MoeConfig", ERNIE, {"use_bias": True}, "tensor lm_head.bias of Ernie4_5_MoeForCausalLM is missing"),
        ("Glm4MoeConfig", GLM, {"first_k_dense_replace": 1}, "first_k_dense_replace: 1 is not computed here"),
        ("Glm4MoeConfig", GLM, {"n_group": 4}, "n_group: 4 is not computed here in Glm4MoeForCausalLM"),
        ("LlamaConfig", {}, {"num_key_value_heads": 3}, "config.json: num_key_value_heads: kv_heads 3 must divide"),
        ("LlamaConfig", {}, {"initializer_range": -1}, "config.json: initializer_range: Input should be greater than"),
        (
            "MixtralConfig",
            {},
            {"num_experts_per_tok": 9},
            ": num_experts_per_tok: experts.chosen 9 is more than the 8 experts there are; 1 to 8 are accepted$",
        ),
        ("MixtralConfig", {}, {"num_experts_per_tok": 0}, "num_experts_per_tok: a whole number above 0 is needed, not"),
        ("Glm4Config", {"head_dim": 8, "pad_token_id": 0}, {"hidden_act": "relu"}, "hidden_act: relu is not computed"),
    ],
    ids=str,
)
def test_what_of_others_is_not_computed_is_one_line(
    name: str, sizes: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    saved(tmp_path, name, sizes, torch.float32)
    _config(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        read_folder(tmp_path, "mine")
    assert message in f"{error.value}$" and "\n" not in str(error.value)


def test_a_bias_that_is_not_computed_is_0(tmp_path: Path) -> None:
    saved(tmp_path, "ArceeConfig", {"attention_bias": True}, torch.float32)
    name = "model.layers.1.self_attn.o_proj.bias"
    _tensors(tmp_path, name, torch.full((24,), 0.1))
    with pytest.raises(UserError, match=name + " is not 0, and no such bias is computed here"):
        read_folder(tmp_path, "mine").weights()


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaConfig", {}, torch.float32)
    _tensors(tmp_path, "model.norm.weight", torch.full((24,), float("nan")))
    with pytest.raises(UserError, match=r"model\.norm\.weight holds numbers that are not finite"):
        read_folder(tmp_path, "mine").weights()
