"""A decoder as a folder that transformers, vLLM and lm-eval's HFLM load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from davinci.config import Model
from davinci.model.layout import Layout, variants_of
from davinci.model.layout_choice import hf_activation, layout_of
from davinci.model.parametrisation import folded
from davinci.store import write_json

EMBEDDING, UNEMBEDDING = "model.embed_tokens.weight", "lm_head.weight"


def export(
    folder: Path,
    weights: Mapping[str, Tensor],
    model: Model,
    vocab_size: int,
    tokenizer: Tokenizer,
    end_of_text: int = 0,
) -> frozenset[str]:
    """Write ``config.json``, ``model.safetensors`` and the tokenizer's files into `folder`.

    Args:
        folder: made where it is missing.
        weights: parameters by the names of `Decoder` (Qwen2's), float32.
        model: their shape.
        vocab_size: rows of the embedding.
        tokenizer: what the weights were trained with.
        end_of_text: its token that ends a text, and stands before one that has no other beginning.

    Returns:
        Which variants vLLM's own class of that name does not compute.

    Raises:
        UserError: no class of transformers has the model's variants together, or muP's factors have no place in the
            weights; nothing is written.
    """
    layout = layout_of(model, tokenizer)
    weights = folded(weights, model)
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: one.detach().contiguous() for name, one in layout.theirs(weights, model).items()}
    if model.tie_embeddings and not layout.ties:
        plain[UNEMBEDDING] = plain[EMBEDDING].clone()
    save_file(plain, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = hf_config(model, vocab_size, layout, end_of_text)
    write_json(folder / "config.json", config)
    kept = ("bos_token_id", "eos_token_id", "pad_token_id", "use_cache")
    write_json(folder / "generation_config.json", {**{key: config[key] for key in kept}, "do_sample": False})
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
    return variants_of(model) & layout.not_in_vllm


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
        "num_key_value_heads": model.key_value_heads,
        "head_dim": model.head_dim,
        "hidden_act": hf_activation(model),
        "max_position_embeddings": model.max_position_embeddings,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_parameters": _rope(model),
        "initializer_range": min(1.0, model.initializer_range),  # more is refused when it is loaded
        "tie_word_embeddings": model.tie_embeddings,
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "use_cache": True,
        "torch_dtype": "float32",
        **layout.settings(model),
    }


def _rope(model: Model) -> dict[str, Any]:
    if model.positions.scaling is None:
        return {"rope_type": "default", "rope_theta": model.rope_theta}
    return {"rope_type": "llama3", "rope_theta": model.rope_theta, **model.positions.scaling.model_dump()}
