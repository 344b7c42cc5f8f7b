"""The variants of the decoder that are measured: what each changes in the plain one, which is GQA."""

from __future__ import annotations

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "as Qwen2": {"qkv_bias": True},
    "GQA": {},
    "MHA": {"attention": {"kind": "multi_head"}},
    "MQA": {"attention": {"kind": "multi_query"}},
    "MLA": {"attention": {"kind": "latent"}, "norm_eps": 1e-6},  # transformers' latent norms have no other
    "QK-norm": {"qk_norm": {"kind": "rms"}},
    "window of 64": {"window": {"tokens": 64}},
    "NoPE": {"positions": {"rotary": 0.0}},
    "LayerNorm, half RoPE": {"norm": {"kind": "layernorm"}, "positions": {"rotary": 0.5}},
    "nonparametric": {"norm": {"kind": "nonparametric"}},
    "post-norm": {"placement": {"kind": "post"}},
    "sandwich": {"placement": {"kind": "sandwich"}},
    "GeGLU": {"mlp": {"kind": "geglu"}},
    "ReLU squared": {"mlp": {"kind": "relu2"}},
    "two of eight experts": {"experts": {"count": 8}},
    "three of 15 experts, one shared": {"experts": {"count": 15, "chosen": 3, "shared": 1}},
    "KAN": {"mlp": {"kind": "kan"}},
    "linear attention": {"mixers": {"pattern": ["linear"]}},
    "state-space": {"mixers": {"pattern": ["ssm"]}},
    "state-space, attention": {"mixers": {"pattern": ["ssm", "attention"]}},
    "CRATE": {"attention": {"kind": "subspace"}, "mlp": {"kind": "ista"}},
}
