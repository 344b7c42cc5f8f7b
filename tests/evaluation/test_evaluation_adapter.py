"""The adapter against direct computation, one text at a time, on a tiny random decoder."""

from __future__ import annotations

import pytest
import torch
from lm_eval.api.instance import Instance
from tokenizers import Tokenizer

from davinci.config import Model
from davinci.config.model import Mixers
from davinci.errors import UserError
from davinci.evaluation.adapter import DecoderLM
from davinci.model.decoder import Decoder
from davinci.store import Store


@pytest.fixture(scope="module", params=[("attention",), ("ssm", "linear", "attention")], ids="-".join)
def lm(request: pytest.FixtureRequest, built_pool: Store, tiny_model: Model) -> DecoderLM:
    """Of each mixer a layer, at least two."""
    torch.set_num_threads(1)
    layers, mixers = max(2, len(request.param)), Mixers(pattern=request.param, state=12)
    model = Decoder(tiny_model.model_copy(update={"layers": layers, "mixers": mixers}), 512)
    model.initialise(3)
    return DecoderLM(model, Tokenizer.from_file(str(built_pool.pool("embedded") / "tokenizer.json")))


def request(kind: str, *arguments: object) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, metadata=("test", 0, 1))


def direct(lm: DecoderLM, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    tokens = (context + continuation)[-lm.max_length - 1 :]
    with torch.inference_mode():
        logits = torch.log_softmax(lm.model(torch.tensor([tokens[:-1]]))[0], dim=-1)[-len(continuation) :]
    targets = torch.tensor(continuation)
    return logits.gather(1, targets[:, None]).sum().item(), bool((logits.argmax(-1) == targets).all())


CONTEXTS = [
    "",
    "Question: What is 12 plus 30?\nAnswer:",
    "def name(argument):\n    return",
    "a short one",
    "spaces belong to what follows   ",
    "long " * 60,
]


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_loglikelihood_equals_direct(lm: DecoderLM, monkeypatch: pytest.MonkeyPatch, batch_tokens: int) -> None:
    monkeypatch.setattr(lm, "_batch_tokens", batch_tokens)
    pairs = [(context, end) for context in CONTEXTS for end in (" 42", " x", " several words, and more.", "\nline")]
    found = lm.loglikelihood([request("loglikelihood", *pair) for pair in pairs], disable_tqdm=True)
    for (context, end), (likelihood, greedy) in zip(pairs, found, strict=True):
        stripped = context.rstrip()
        whole = lm.tokenizer.encode(context + end).ids
        start = lm.tokenizer.encode(stripped).ids if stripped else [0]
        continuation = whole[len(start) :] if stripped else whole
        expected, expected_greedy = direct(lm, start, continuation)
        assert likelihood == pytest.approx(expected, abs=1e-4)
        assert greedy == expected_greedy


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_what_few_shot_prompts_begin_with_is_read_once(
    lm: DecoderLM, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    monkeypatch.setattr(lm, "_batch_tokens", batch_tokens)
    read = []
    hidden = lm._reader.hidden
    monkeypatch.setattr(
        lm._reader, "hidden", lambda tokens, *rest, **more: read.append(tokens.numel()) or hidden(tokens, *rest, **more)
    )
    shots = [index % 400 + 7 for index in range(40)]
    requests = [
        (("", ""), [*shots, item, *range(3, 3 + item % 5)], [9 + choice] * (1 + choice))
        for item in range(60, 68)
        for choice in range(3)
    ]
    found = lm._loglikelihood_tokens(requests)
    assert sum(read) < sum(len(one[1]) + len(one[2]) for one in requests) / 2
    for (_, context, continuation), (likelihood, greedy) in zip(requests, found, strict=True):
        expected, expected_greedy = direct(lm, context, continuation)
        assert likelihood == pytest.approx(expected, abs=1e-4)
        assert greedy == expected_greedy


def test_greedy_continuations_are_recognised(lm: DecoderLM) -> None:
    context = lm.tokenizer.encode("Question: What is 12 plus 30?").ids
    with torch.inference_mode():
        best = int(lm.model(torch.tensor([context]))[0, -1].argmax())
    other = (best + 1) % 512
    requests = [(("", ""), context, [best]), (("", ""), context, [other])]
    assert [greedy for _, greedy in lm._loglikelihood_tokens(requests)] == [True, False]


def test_truncation_keeps_the_end_and_is_counted(lm: DecoderLM) -> None:
    before = lm.truncated
    context, continuation = list(range(1, 101)), [5, 6, 7]
    ((likelihood, _),) = lm._loglikelihood_tokens([(("", ""), context, continuation)])
    assert likelihood == pytest.approx(direct(lm, context, continuation)[0], abs=1e-4)
    assert lm.truncated == before + 1


def test_continuation_longer_than_the_model(lm: DecoderLM) -> None:
    continuation = [index % 500 + 1 for index in range(100)]
    ((likelihood, _),) = lm._loglikelihood_tokens([(("", ""), [0], continuation)])
    assert likelihood == pytest.approx(direct(lm, [continuation[35]], continuation[36:])[0], abs=1e-4)


def test_rolling_predicts_each_token_once(lm: DecoderLM) -> None:
    texts = ["short text", "a longer text that needs several windows " * 8]
    found = lm.loglikelihood_rolling([request("loglikelihood_rolling", text) for text in texts])
    for text, total in zip(texts, found, strict=True):
        tokens = lm.tokenizer.encode(text).ids
        expected, done = 0.0, 0
        while done < len(tokens):
            if done == 0:
                part = tokens[: lm.max_length]
                expected += direct(lm, [0], part)[0]
            else:
                part = tokens[done : done + lm.max_length]
                end = done + len(part)
                expected += direct(lm, tokens[max(0, end - lm.max_length - 1) : done], part)[0]
            done += len(part)
        assert total == pytest.approx(expected, abs=1e-3)


def test_generation_equals_naive_greedy(lm: DecoderLM) -> None:
    prompts = ["Question: What is 12 plus 30?\nAnswer:", "def name(", "x", "long " * 60]
    settings = {"until": [], "do_sample": False, "max_gen_toks": 12}
    found = lm.generate_until([request("generate_until", prompt, settings) for prompt in prompts])
    for prompt, text in zip(prompts, found, strict=True):
        tokens = lm.tokenizer.encode(prompt).ids[-(lm.max_length - 12) :]
        written: list[int] = []
        with torch.inference_mode():
            while len(written) < 12:
                token = int(lm.model(torch.tensor([tokens + written]))[0, -1].argmax())
                if token == lm.eot_token_id:
                    break
                written.append(token)
        assert text == lm.tokenizer.decode(written)


def test_generation_stops_before_the_string(lm: DecoderLM) -> None:
    settings = {"until": [], "do_sample": False, "max_gen_toks": 12}
    (free,) = lm.generate_until([request("generate_until", "def name(", settings)])
    middle = free[len(free) // 2 :][:2]
    (cut,) = lm.generate_until([request("generate_until", "def name(", {**settings, "until": [middle]})])
    assert cut == free[: free.index(middle)]


def test_sampling_is_refused(lm: DecoderLM) -> None:
    with pytest.raises(UserError, match="do_sample: false"):
        lm.generate_until([request("generate_until", "x", {"until": ["\n"], "do_sample": True})])


def test_the_end_of_text_is_the_tokenizer_s(lm: DecoderLM) -> None:
    other = DecoderLM(lm.model, lm.tokenizer, end_of_text=7)
    assert (other.eot_token_id, other.prefix_token_id) == (7, 7) and lm.eot_token_id == 0
