"""Every variant of the decoder beside the plain one and against the class of transformers that computes the same, on a
CPU.

All have the same weights, in float32 on one thread, in one process: reading a batch (forward), a step's gradients
(forward, loss, backward), and, at 20M, writing from a cache. Memory is the most that torch's allocator holds at once:
with the weights, and for training with gradients and AdamW's moments.

Both sides take short turns, who is first in turn too, and a ratio is the median of the turns' ratios of processor time,
so that what else the machine does meets both. A row below its target is run for twice as many turns more, of both sides
made anew (where they lie in memory is worth some percent), before it is believed, and all its turns count. Two that
take the same time differ by up to 3% even so (most of either is the same products): slower than transformers is a
median below 0.97. Beside the plain decoder variants have no target, and a third of the turns.

Texts are written whole, prompt and all: the prompt is read by the same products on either side, and after few tokens
a token costs little but those, so the longer the text the larger the ratio.

Usage: python benchmarks/model.py [--quick] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from _memory import peak
from _table import Row, finish
from _variants import VARIANTS
from rich.console import Console
from rich.table import Table
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoModelForCausalLM

from davinci.accounting.ladder import rung
from davinci.accounting.shapes import active_parameters, parameters
from davinci.config import Model
from davinci.config.parsing import parse
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.model.export import export
from davinci.model.generate import generate
from davinci.model.layout_choice import QWEN2_SPLIT
from davinci.model.reader import Reader
from davinci.training.numerics import configure
from davinci.training.step import Objective

VOCAB = 2048
LENGTH, ROWS = 256, 4
PROMPT, WRITTEN = 64, 256  # lm-eval's default of new tokens
AS_FAST = 0.97  # what cannot be told from 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one size, fewer turns; under two minutes")
    parser.add_argument("--rounds", type=int, help="turns of each side (15; --quick: 3), of writing a third")
    given = parser.parse_args()
    configure(1)
    rounds = given.rounds or (3 if given.quick else 15)
    sizes = {"1M": 1e6} if given.quick else {"1M": 1e6, "6M": 6e6}
    rows: list[Row] = []
    besides: list[Beside] = []
    with tempfile.TemporaryDirectory() as folder:
        for size, target in sizes.items():
            base = of_variant(target, {})
            for name, changes in VARIANTS.items():
                more, beside = raced(f"{size}, {name}", of_variant(target, changes), base, rounds, Path(folder))
                rows, besides = [*rows, *more], [*besides, beside]
        rows += written("20M", of_variant(2e7, {"initializer_range": 0.2}), max(1, rounds // 3), Path(folder))
    show(besides)
    finish("variants of the decoder, one thread, float32", rows, "transformers")


def of_variant(target: float, changes: dict[str, Any]) -> Model:
    """A rung of the ladder with a variant."""
    shape = rung(target, VOCAB)
    return parse(
        Model,
        {
            "name": "race",
            **{key: value for key, value in vars(shape).items() if key != "parameters"},
            "vocab_size": VOCAB,
            "max_position_embeddings": 512,
            "rope_theta": 10000.0,
            "norm_eps": 1e-5,
            "qkv_bias": False,
            "tie_embeddings": True,
            "initializer_range": 0.02,
            "precision": "float32",
            **changes,
        },
    )


def made(model: Model) -> Decoder:
    decoder = Decoder(model, VOCAB)
    decoder.initialise(1)
    return decoder


def theirs_of(decoder: Decoder, folder: Path) -> Any:
    """The class of transformers with the same weights; None where there is none."""
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        export(place, decoder.state_dict(), decoder.config, VOCAB, any_tokenizer())
    except UserError:
        return None
    return AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)


def any_tokenizer() -> Tokenizer:
    """One that splits as Qwen2's does, so that every layout is open."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["a b"], trainer)
    return tokenizer


@dataclass(frozen=True)
class Beside:
    """A variant beside the plain decoder: tokens a second of each and the median ratio, bytes of each, by what is
    done."""

    what: str
    speeds: dict[str, tuple[float, float, float]]
    bytes: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Work:
    """What a decoder is asked for, on the same tokens."""

    tokens: Tensor
    share: Tensor

    def calls(self, decoder: Decoder) -> dict[str, Callable[[], Any]]:
        objective = Objective(decoder)

        @torch.no_grad()
        def read() -> Tensor:
            return decoder(self.tokens[:, :-1])

        def train() -> None:
            decoder.zero_grad(set_to_none=True)
            objective(self.tokens, self.share)[0].backward()

        return {"forward": read, "gradients": train}

    def their_calls(self, theirs: Any) -> dict[str, Callable[[], Any]]:
        @torch.no_grad()
        def read() -> Tensor:
            found: Tensor = theirs(self.tokens[:, :-1], use_cache=False).logits
            return found

        def train() -> None:
            theirs.zero_grad(set_to_none=True)
            scores = theirs(self.tokens[:, :-1], use_cache=False).logits.flatten(0, 1)
            torch.nn.functional.cross_entropy(scores, self.tokens[:, 1:].flatten()).backward()

        return {"forward": read, "gradients": train}

    def memory(self, decoder: Decoder) -> dict[str, int]:
        """Bytes of a forward pass with the weights; of a training step with weights, gradients and AdamW's moments."""
        weights = sum(4 * one.numel() for one in decoder.parameters())
        found = {}
        for (name, call), held in zip(self.calls(decoder).items(), (weights, 3 * weights), strict=True):
            decoder.zero_grad(set_to_none=True)
            found[name] = held + peak(call)
        return found


def raced(what: str, model: Model, base: Model, rounds: int, folder: Path) -> tuple[list[Row], Beside]:
    """Forward and gradients of a variant in turns with transformers', where there is one, and with the plain
    decoder's."""
    ours, plain = made(model), made(base)
    theirs = theirs_of(ours, folder)
    tokens = torch.randint(0, VOCAB, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    work = Work(tokens, torch.full((ROWS, LENGTH), 1 / (ROWS * LENGTH)))
    mine, plainly = work.calls(ours), work.calls(plain)
    other = {} if theirs is None else work.their_calls(theirs)
    if other:
        torch.testing.assert_close(mine["forward"](), other["forward"](), atol=1e-4, rtol=0)
    active, stored = active_parameters(model, VOCAB), parameters(model, VOCAB)
    size = f"{what} ({stored / 1e6:.2f}M" + (f", {active / 1e6:.2f}M active)" if active != stored else ")")
    rows, speeds, count = [], {}, ROWS * LENGTH

    def anew(name: str) -> Calls:
        one = made(model)
        return work.calls(one)[name], work.their_calls(theirs_of(one, folder))[name]

    for name, call in mine.items():
        if other:
            turns = Turns(call, other[name])
            rows.append(row_of(f"{size}, {name}", turns, lambda name=name: anew(name), count, rounds, AS_FAST))
        beside = Turns(call, plainly[name])
        beside.take(max(1, rounds // 3))
        speeds[name] = count / min(beside.ours), count / min(beside.theirs), beside.ratio
    held, plainly_held = work.memory(ours), work.memory(plain)
    return rows, Beside(size, speeds, {name: (held[name], plainly_held[name]) for name in held})


def show(besides: list[Beside]) -> None:
    """Every variant's speed and memory, and both over the plain decoder's."""
    columns = ["forward, tokens/s", "to GQA's", "memory", "to GQA's"]
    columns += [name.replace("forward", "training") for name in columns]
    table = Table("variant", *columns, title="every variant beside the plain decoder (GQA)", title_justify="left")
    for one in besides:
        cells = []
        for name in one.speeds:
            (speed, _, ratio), (held, plain) = one.speeds[name], one.bytes[name]
            cells += [f"{speed:,.0f}", f"{ratio:.2f}x", f"{held / 2**20:.1f} MiB", f"{held / plain:.2f}x"]
        table.add_row(one.what, *cells)
    Console(width=150).print(table)


Calls = tuple[Callable[[], Any], Callable[[], Any]]


class Turns:
    """Processor seconds of two calls that take turns."""

    def __init__(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
        self._calls = ours, theirs
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def take(self, rounds: int, calls: Calls | None = None) -> None:
        """So many turns more of each, of other calls if there are some; the first of each does not count."""
        self._calls = calls or self._calls
        for call in self._calls:
            call()
        for _ in range(rounds):
            sides = list(zip(self._calls, (self.ours, self.theirs), strict=True))
            for call, times in sides if len(self.ours) % 2 else reversed(sides):
                begun = time.process_time()
                call()
                times.append(time.process_time() - begun)

    @property
    def ratio(self) -> float:
        """How many times as long theirs takes, the median of the turns'."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))


def row_of(what: str, turns: Turns, anew: Callable[[], Calls], tokens: int, rounds: int, target: float) -> Row:
    """A row of tokens a second, each side's fastest turn; one that seems to miss has its turns again twice, of calls
    made `anew`."""
    turns.take(rounds)
    if turns.ratio < target:
        turns.take(2 * rounds, anew())
    return Row(what, f"{tokens / min(turns.ours):,.0f}/s", f"{tokens / min(turns.theirs):,.0f}/s", turns.ratio, target)


def written(size: str, model: Model, rounds: int, folder: Path) -> list[Row]:
    """Writing from a cache, one prompt and 32 at once. Weights are wide, since a text of narrow ones repeats one
    token."""
    ours = made(model)
    theirs, reader = theirs_of(ours, folder).eval(), Reader(ours)
    rows = []
    for batch in (1, 32):
        prompts = torch.randint(1, VOCAB, (batch, PROMPT), generator=torch.Generator().manual_seed(batch))
        # No token ends a text, so that both write as many.
        options = {"max_new_tokens": WRITTEN, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        options["attention_mask"] = torch.ones_like(prompts)
        texts: dict[str, list[list[int]]] = {}

        def write() -> None:
            texts["ours"] = generate(reader, prompts.tolist(), WRITTEN)  # noqa: B023  called within the turn

        def their_writing() -> None:
            with torch.no_grad():
                texts["theirs"] = theirs.generate(prompts, **options)[:, PROMPT:].tolist()  # noqa: B023

        calls = write, their_writing
        what = f"{size}, written at batch {batch}"
        row = row_of(what, Turns(*calls), lambda calls=calls: calls, batch * WRITTEN, rounds, 1.5)
        same = sum(a == b for a, b in zip(texts["ours"], texts["theirs"], strict=True))
        rows.append(replace(row, what=f"{row.what} ({same} of {batch} texts the same)"))
    return rows


if __name__ == "__main__":
    main()
