"""A folder that transformers saved, as a decoder's shape and weights: the layouts of `export`, used backwards.

What ``config.json`` says is turned into a shape, the shape into what ``config.json`` and the tensors of such a model
are, and both are compared with what is there: whatever this program would not compute is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from davinci.config import Model, parse
from davinci.errors import UserError, nearest
from davinci.model.decoder import Decoder
from davinci.model.export import hf_config
from davinci.model.layouts import LAYOUTS, Layout, Weights
from davinci.store import read_json

CONFIG = "config.json"
_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
# What config.json may say otherwise: it changes nothing that is computed from the weights.
_FREE = frozenset({
    "architectures", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "torch_dtype", "attention_dropout",
    "hidden_dropout", "residual_dropout", "router_aux_loss_coef", "router_jitter_noise", "output_router_logits",
    "rope_theta", "rope_parameters", "partial_rotary_factor", "head_dim", "max_window_layers", "first_k_dense_replace",
    "intermediate_size", "rms_norm_eps", "sliding_window",
})  # fmt: skip
# What has to be as it is where nothing of the kind is done.
_NEUTRAL = ("rope_scaling", "quantization_config", "attention_bias", "mlp_bias", "clip_qkv")

# Where a class's config.json has the eps of its norms, and what holds where it does not say.
_EPS = {
    "stablelm": ("layer_norm_eps", 1e-5),
    "nemotron": ("norm_eps", 1e-5),
    "olmo": ("eps", 1e-5),
    "mixtral": ("rms_norm_eps", 1e-5),
    "arcee": ("rms_norm_eps", 1e-5),
}


@dataclass(frozen=True)
class Folder:
    """What is in a folder: its model, the class of transformers it is of, and each tensor's dtype by its own name."""

    path: Path
    model: Model
    layout: Layout
    dtypes: Mapping[str, str]
    files: Mapping[str, Path]

    def weights(self) -> Weights:
        """The weights by a decoder's names, float32. Raises UserError for one that is not finite or not to be read."""
        found: Weights = {}
        for file in sorted(set(self.files.values())):
            with _opened(file) as opened:
                for name in opened.keys():  # noqa: SIM118  not a mapping
                    if name in self.dtypes:
                        found[name] = opened.get_tensor(name).float()
                        if not bool(found[name].isfinite().all()):
                            raise UserError(f"{file}: {name} holds numbers that are not finite")
        return self.layout.decoders(found, self.model)

    def require_unchanged(self, weights: Mapping[str, Tensor]) -> None:
        """Raise UserError where `originals` of the weights are not the folder's tensors, bit for bit."""
        back = originals(weights, self.model, self.layout.architecture, self.dtypes)
        for file in sorted(set(self.files.values())):
            with _opened(file) as opened:
                for name in opened.keys():  # noqa: SIM118  not a mapping
                    if name in back and not torch.equal(back[name], opened.get_tensor(name)):
                        raise UserError(
                            f"{file}: {name} would not come out again as it is: its numbers are lost in float32"
                        )
                    if (
                        name == _HEAD
                        and name not in back
                        and not torch.equal(back[_EMBEDDING], opened.get_tensor(name))
                    ):
                        raise UserError(f"{file}: {name} is not {_EMBEDDING}, but {CONFIG} says that they are tied")


def originals(weights: Mapping[str, Tensor], model: Model, architecture: str, dtypes: Mapping[str, str]) -> Weights:
    """A decoder's weights by the names of a class of transformers, in `dtypes` by those names."""
    layout = next(one for one in LAYOUTS if one.architecture == architecture)
    theirs = layout.weights(weights, model)
    return {name: one.to(_DTYPES[dtypes[name]]).contiguous() for name, one in theirs.items()}


def read_folder(path: Path, name: str) -> Folder:
    """Look into a folder; its tensors are not read yet.

    Raises:
        UserError: it is none that transformers saved, of a class or with settings that are not computed here, its
            weights are pickled or damaged, or a tensor is missing, superfluous or of another shape.
    """
    if not path.is_dir():
        siblings = [one.name for one in path.parent.iterdir() if one.is_dir()] if path.parent.is_dir() else []
        raise UserError(f"{path}: no such folder{nearest(path.name, siblings) if siblings else ''}")
    if not (path / CONFIG).is_file():
        raise UserError(f"{path}: not a folder that transformers saved: it has no {CONFIG}")
    config = read_json(path / CONFIG)
    layout = _layout(config, path / CONFIG)
    model = _model(config, layout, name, path / CONFIG)
    files = _files(path)
    headers = {name: (file, *header) for file in sorted(set(files.values())) for name, header in _header(file).items()}
    wrong = [tensor for tensor, file in files.items() if headers.get(tensor, (None,))[0] != file]
    if wrong:
        raise UserError(f"{path / _INDEX}: {wrong[0]} is not in {files[wrong[0]].name}")
    with torch.device("meta"):
        expected = layout.weights(dict(Decoder(model, model.vocab_size).named_parameters()), model)
    superfluous = {one for one in headers if one.endswith("rotary_emb.inv_freq")}
    if model.tie_embeddings and _HEAD in headers:
        superfluous.add(_HEAD)  # the embedding once more
    for tensor in sorted(expected.keys() - headers.keys()):
        raise UserError(f"{path}: tensor {tensor} of {layout.architecture} is missing")
    for tensor in sorted(headers.keys() - expected.keys() - superfluous):
        raise UserError(f"{path}: tensor {tensor} has no place in {layout.architecture} as {CONFIG} describes it")
    for tensor, one in expected.items():
        _, dtype, shape = headers[tensor]
        if shape != tuple(one.shape):
            raise UserError(f"{path}: tensor {tensor} is {list(shape)}, {CONFIG} says {list(one.shape)}")
        if dtype not in _DTYPES:
            raise UserError(f"{path}: tensor {tensor} is of {dtype}; {', '.join(_DTYPES)} are accepted")
    dtypes = {tensor: headers[tensor][1] for tensor in expected}
    return Folder(path, model, layout, dtypes, {tensor: headers[tensor][0] for tensor in expected})


def _layout(config: Any, where: Path) -> Layout:
    said = config.get("architectures") if isinstance(config, dict) else None
    by_name = {one.architecture: one for one in reversed(LAYOUTS)}  # of two forms the plain one
    if not isinstance(said, list) or len(said) != 1 or said[0] not in by_name:
        name = str(said[0]) if isinstance(said, list) and said else "none"
        raise UserError(f"{where}: architectures: {name} is not read here{nearest(name, by_name)}")
    return by_name[said[0]]


def _model(config: dict[str, Any], layout: Layout, name: str, where: Path) -> Model:
    rope = config.get("rope_parameters") or {}
    kind, layers, heads = layout.model_type, config.get("num_hidden_layers"), config.get("num_attention_heads")
    lacking = [key for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                               "vocab_size") if type(config.get(key)) is not int]  # fmt: skip
    if lacking or not layers or not heads:
        raise UserError(f"{where}: {(lacking or ['num_attention_heads'])[0]}: a whole number is needed")
    gated = kind not in ("arcee", "nemotron")
    acts = (
        {"silu": "swiglu", "gelu_pytorch_tanh": "geglu"} if gated else {"relu2": "relu2", "gelu_pytorch_tanh": "gelu"}
    )
    act = config.get("hidden_act", "silu" if gated else "relu2")
    if act not in acts:
        raise UserError(f"{where}: hidden_act: {act} is not computed here in {layout.architecture}{nearest(act, acts)}")
    eps_key, eps = _EPS.get(kind, ("rms_norm_eps", 1e-6))
    values: dict[str, Any] = {
        "name": name, "layers": layers, "hidden_size": config["hidden_size"], "attention_heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "mlp_intermediate_size": config["intermediate_size"], "vocab_size": config["vocab_size"],
        "max_position_embeddings": config.get("max_position_embeddings", 2048),
        "rope_theta": float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        "norm_eps": config.get(eps_key, eps), "tie_embeddings": bool(config.get("tie_word_embeddings", False)),
        "qkv_bias": kind in ("qwen2", "seed_oss") or bool(kind == "stablelm" and config.get("use_qkv_bias")),
        "initializer_range": config.get("initializer_range", 0.02), "precision": "float32", "mlp": {"kind": acts[act]},
    }  # fmt: skip
    if kind == "qwen3":
        values["qk_norm"] = {"kind": "rms"}
    if kind in ("mistral", "mixtral") or config.get("use_sliding_window"):
        values["window"] = {"tokens": config.get("sliding_window")}
    if kind in ("nemotron", "stablelm"):
        default = 0.5 if kind == "nemotron" else 0.25
        share = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", default))
        values |= {"norm": {"kind": "layernorm"}, "positions": {"rotary": float(share)}}
    if kind == "smollm3":
        values["positions"] = {"rotary": 0.0}
    if kind == "olmo":
        values["norm"] = {"kind": "nonparametric"}
    if kind == "deepseek_v3":
        values["head_dim"] = config.get("v_head_dim")
        ranks = {"kv_rank": config.get("kv_lora_rank"), "query_rank": config.get("q_lora_rank")}
        values["attention"] = {"kind": "latent", "rope_dim": config.get("qk_rope_head_dim"), **ranks}
    if kind == "mixtral":
        width, chosen = config["intermediate_size"], config.get("num_experts_per_tok", 2)
        experts = {"count": config.get("num_local_experts", 8), "chosen": chosen, "width": width}
        values |= {"mlp_intermediate_size": width * chosen, "experts": experts}
    model = parse(Model, values, lambda key: str(where))
    _require_computed(config, hf_config(model, model.vocab_size, layout, 0), layout, model, where)
    return model


def _require_computed(config: dict[str, Any], ours: dict[str, Any], layout: Layout, model: Model, where: Path) -> None:
    """Raise UserError where config.json says what a decoder of `model` does not do."""
    rope = config.get("rope_parameters") or {}
    turned = rope.get("rope_type", "default")
    if turned != "default":
        raise UserError(f"{where}: rope_parameters.rope_type: {turned} is not computed here; default is accepted")
    for key in ours.keys() - _FREE:
        if key in config and not _same(config[key], ours[key]):
            raise UserError(f"{where}: {key}: {config[key]} is not computed here in {layout.architecture}; "
                            f"{ours[key]} is accepted")  # fmt: skip
    for key in _NEUTRAL:
        if key not in ours and config.get(key):
            raise UserError(f"{where}: {key}: is not computed here; null is accepted")
    kinds = set(config.get("layer_types") or ())
    wanted = "full_attention" if model.window.tokens is None else "sliding_attention"
    if kinds - {wanted} or (config.get("use_sliding_window") and config.get("max_window_layers", 0)):
        raise UserError(f"{where}: layer_types: {wanted} in every layer is accepted, not windows in some")
    if layout.model_type == "deepseek_v3" and config.get("first_k_dense_replace", 0) < model.layers:
        raise UserError(f"{where}: first_k_dense_replace: DeepSeek-V3's experts are not read here")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other)
    return bool(one == other)


def _files(path: Path) -> dict[str, Path]:
    """The file of each tensor."""
    if (path / _ONE).is_file():
        return dict.fromkeys(_header(path / _ONE), path / _ONE)
    if not (path / _INDEX).is_file():
        pickled = [one.name for ending in ("*.bin", "*.pt", "*.pth") for one in path.glob(ending)]
        also = f"; {pickled[0]} is pickled, and not loaded: save it as safetensors" if pickled else ""
        raise UserError(f"{path}: no weights in {_ONE} or {_INDEX}{also}")
    places = read_json(path / _INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(one, str) and Path(one).name == one for one in places.values()
    ):
        raise UserError(f"{path / _INDEX}: weight_map: tensors to names of files beside it are accepted")
    return {tensor: path / file for tensor, file in places.items()}


def _header(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """dtype and shape of each tensor of a file."""
    with _opened(file) as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  not a mapping
        return {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: missing or damaged ({str(error).splitlines()[0]})") from None
