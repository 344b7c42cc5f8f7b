"""Which class of transformers computes what a decoder computes, and how that class names things.

Where several could, the plainest is taken, and of those one that vLLM computes too. A combination of variants that no
class has is refused, naming what stands in the way.
"""

from __future__ import annotations

import json

from tokenizers import Tokenizer

from davinci.config import Model
from davinci.errors import UserError
from davinci.model.layout import Layout, variants_of
from davinci.model.layout_table import LAYOUTS

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu_pytorch_tanh", "relu2": "relu2", "gelu": "gelu_pytorch_tanh"}


def layout_of(model: Model, tokenizer: Tokenizer) -> Layout:
    """The layout in which transformers computes the same from the same text.

    Raises:
        UserError: there is none for this combination of variants.
    """
    wanted = variants_of(model)
    is_qwen2s = splits_as_qwen2(tokenizer)
    fitting = [one for one in LAYOUTS if one.needs <= wanted <= one.has]
    possible = [one for one in LAYOUTS if is_qwen2s or not one.splits_as_qwen2]
    if found := [one for one in fitting if one in possible]:
        return next((one for one in found if not wanted & one.not_in_vllm), found[0])
    if fitting:
        raise UserError(
            f"model {model.name}: {fitting[0].architecture} computes the same, but transformers gives it Qwen2's "
            "splitting of text, and this tokenizer splits otherwise"
        )
    # The last of those that lack as little: the more special ones come later.
    nearest = min((one for one in reversed(possible) if one.needs <= wanted), key=lambda one: len(wanted - one.has))
    raise UserError(
        f"model {model.name}: no class of transformers has {', '.join(sorted(wanted))} together; "
        f"{nearest.architecture} comes nearest and lacks {', '.join(sorted(wanted - nearest.has))}"
    )


def splits_as_qwen2(tokenizer: Tokenizer) -> bool:
    """Whether text is normalised and split as transformers' Qwen2Tokenizer does (its `PRETOKENIZE_REGEX`)."""
    written = json.loads(tokenizer.to_str())
    steps = (written["pre_tokenizer"] or {}).get("pretokenizers", [])
    patterns = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    return (written["normalizer"] or {}).get("type") == "NFC" and patterns == [QWEN2_SPLIT]


def of_class(architecture: str, has_experts: bool) -> Layout:
    """The layout of a class; of two forms the one with experts where there are some."""
    forms = [one for one in LAYOUTS if one.architecture == architecture]
    return next((one for one in forms if ("experts" in one.has) == has_experts), forms[0])


def hf_activation(model: Model) -> str:
    """The perceptron's activation by transformers' name."""
    return _ACTIVATIONS[model.mlp.kind]
