"""lm-eval's own Hugging Face model, on contexts of any length."""

from __future__ import annotations

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from davinci.evaluation.item_records import GENERATION_TOKENS


class ExternalLM(HFLM):
    """HFLM, but where a task would let it write more than its context holds: then one token of the prompt is read.

    HFLM ends all there; ours (`adapter.DecoderLM`) does the same, and both count the items as truncated.
    """

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy text after each context, cut before the first of its ``until`` strings."""
        for request in requests:
            context, settings = request.args
            limit = min(settings.get("max_gen_toks", GENERATION_TOKENS), self.max_length - 1)
            request.arguments = (context, {**settings, "max_gen_toks": limit})
        written: list[str] = super().generate_until(requests, disable_tqdm)
        return written

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both, as HFLM's; where the tokenizer merges all of the continuation into the context's end
        HFLM has nothing left to score and ends: the continuation is encoded apart instead."""
        before, after = super()._encode_pair(context, continuation)
        if continuation and not after:
            after = self.tok_encode(continuation, add_special_tokens=False)
        return before, after
