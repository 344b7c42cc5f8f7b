"""Run by a Python that has vLLM: `vllm_logits.py FOLDER TOKENS OUT` writes the logits of a text, float32[T, V], as
vLLM's engine gives them for the folder."""

import json
import sys

import numpy as np
from vllm import LLM, SamplingParams


def main(folder: str, tokens: str, out: str) -> None:
    engine = LLM(
        folder,
        dtype="float32",
        enforce_eager=True,
        max_model_len=200,
        enable_prefix_caching=False,
        logprobs_mode="raw_logits",
        max_logprobs=-1,
    )
    asked = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=-1, logprobs=-1)
    (found,) = engine.generate([{"prompt_token_ids": json.loads(tokens)}], asked, use_tqdm=False)
    rows = [*found.prompt_logprobs[1:], found.outputs[0].logprobs[0]]
    np.save(out, np.array([[row[token].logprob for token in range(len(row))] for row in rows], dtype=np.float32))


if __name__ == "__main__":
    main(*sys.argv[1:])
