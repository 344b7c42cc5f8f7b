"""A decoder as a folder that transformers, vLLM and lm-eval's HFLM load.

Weights keep their names, which are Qwen2's, and their bits. Without biases on query, key and value the layout is
Llama's. With them it is Qwen2's where the tokenizer splits text as Qwen2's does, and else Seed-OSS's, which is the same
network: transformers 5 gives whatever calls itself qwen2 the splitting of Qwen2, and tokens would not be training's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from davinci.config import Model
from davinci.store import write_json

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def export(
    folder: Path,
    weights: Mapping[str, Tensor],
    model: Model,
    vocab_size: int,
    tokenizer: Tokenizer,
    end_of_text: int = 0,
) -> None:
    """Write ``config.json``, ``model.safetensors`` and the tokenizer's files into `folder`.

    Args:
        folder: made where it is missing.
        weights: parameters by the names of `Decoder` (Qwen2's), float32.
        model: their shape.
        vocab_size: rows of the embedding.
        tokenizer: what the weights were trained with.
        end_of_text: its token that ends a text, and stands before one that has no other beginning.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: one.detach().contiguous() for name, one in weights.items()}
    save_file(plain, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", hf_config(model, vocab_size, layout_of(model, tokenizer), end_of_text))
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "pad_token_id": end_of_text, "do_sample": False},
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokenizer.id_to_token(end_of_text)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end,
            "eos_token": end,
            "pad_token": end,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model.max_position_embeddings,
        },
    )


@dataclass(frozen=True)
class Layout:
    """A class of transformers, and what its configuration says beside the shape."""

    architecture: str
    model_type: str
    settings: Mapping[str, Any]


QWEN2 = Layout("Qwen2ForCausalLM", "qwen2", {})
LLAMA = Layout("LlamaForCausalLM", "llama", {"attention_bias": False, "mlp_bias": False})
SEED_OSS = Layout(
    "SeedOssForCausalLM",
    "seed_oss",
    {"attention_bias": True, "attention_out_bias": False, "mlp_bias": False, "residual_dropout": 0.0},
)


def layout_of(model: Model, tokenizer: Tokenizer) -> Layout:
    """The layout in which transformers computes the same from the same text."""
    if not model.qkv_bias:
        return LLAMA
    return QWEN2 if _splits_as_qwen2(tokenizer) else SEED_OSS


def _splits_as_qwen2(tokenizer: Tokenizer) -> bool:
    """Whether text is normalised and split as transformers' Qwen2Tokenizer does (its `PRETOKENIZE_REGEX`)."""
    written = json.loads(tokenizer.to_str())
    steps = (written["pre_tokenizer"] or {}).get("pretokenizers", [])
    patterns = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    return (written["normalizer"] or {}).get("type") == "NFC" and patterns == [QWEN2_SPLIT]


def hf_config(model: Model, vocab_size: int, layout: Layout, end_of_text: int) -> dict[str, Any]:
    """What ``config.json`` says, in transformers' words."""
    return {
        "architectures": [layout.architecture],
        "model_type": layout.model_type,
        "vocab_size": vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.mlp_intermediate_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.attention_heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": model.max_position_embeddings,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "initializer_range": model.initializer_range,
        "tie_word_embeddings": model.tie_embeddings,
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "use_cache": True,
        "torch_dtype": "float32",
        **layout.settings,
    }
