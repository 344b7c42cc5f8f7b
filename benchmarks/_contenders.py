"""What `training.py` races: one contender a process, a few steps at a time, so that all of them can take turns.

Usage: python benchmarks/_contenders.py NAME FOLDER. The folder holds `race.json` (shape, steps, threads), the batches
``batches.npy`` uint16[steps, B, T + 1] and the initial weights. For every line "N" on its input the process takes N
steps and answers "wall-seconds cpu-seconds loss". Peers import nothing of daVinci, so that they can run in a
virtual environment of their own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

BETAS, EPS, DECAY, CLIP, LR = (0.9, 0.95), 1e-8, 0.1, 1.0, 1e-3
LOG_EVERY = 10


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries may print; only answers go to the reader
    race = json.loads((folder / "race.json").read_text())
    torch.set_num_threads(race["threads"])
    CONTENDERS[name](race, folder, Turns(answers))


class Turns:
    """The clock of a contender: `step` is called with the loss after every step, and waits while others have theirs.

    The first step is nobody's turn: with it everything is built, compiled and allocated.
    """

    def __init__(self, answers: Any) -> None:
        self._answers, self._left = answers, 1
        self._begun = (0.0, 0.0)
        self._is_ready = False

    def step(self, loss: Callable[[], float]) -> None:
        self._left -= 1
        if not self._is_ready:
            self._is_ready = True
            print("ready", file=self._answers)
            self._wait()
        elif self._left == 0:
            wall, cpu = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]
            print(wall, cpu, loss(), file=self._answers)
            self._wait()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line.strip():
            os._exit(0)
        self._left = int(line)
        self._begun = (time.perf_counter(), time.process_time())


def read(folder: Path) -> Iterator[Tensor]:
    """The batches over and over, int64[B, T + 1], as nanoGPT reads them: memory-mapped, a copy a step."""
    batches = np.load(folder / "batches.npy", mmap_mode="r")
    while True:
        for batch in batches:
            yield torch.from_numpy(batch.astype(np.int64))


def adamw(model: nn.Module) -> torch.optim.AdamW:
    parameters = list(model.parameters())
    groups = [
        {"params": [one for one in parameters if one.ndim >= 2], "weight_decay": DECAY},
        {"params": [one for one in parameters if one.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, fused=True)


def plain_loop(race: dict[str, Any], folder: Path, turns: Turns, model: nn.Module) -> None:
    """nanoGPT's loop: whole batch, backward, clip, fused AdamW, a look at the loss every ten steps."""
    optimizer = adamw(model)
    if race["compile"]:
        model = torch.compile(model)  # type: ignore[assignment]
    batches = read(folder)
    step, log = 0, sys.stderr
    while True:
        tokens = next(batches)
        scores = model(tokens[:, :-1])
        loss = functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        step += 1
        if step % LOG_EVERY == 0:
            print(f"iter {step}: loss {loss.item():.4f}", file=log)
        turns.step(loss.item)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class PlainLayer(nn.Module):
    """One layer of the same shape, with q, k and v in one product as nanoGPT has them."""

    def __init__(self, m: dict[str, Any]) -> None:
        super().__init__()
        self.heads, self.groups, self.width = m["attention_heads"], m["kv_heads"], m["head_dim"]
        every = (self.heads + 2 * self.groups) * self.width
        self.norm1, self.norm2 = (RMSNorm(m["hidden_size"], m["norm_eps"]) for _ in range(2))
        self.qkv = nn.Linear(m["hidden_size"], every, bias=m["qkv_bias"])
        self.out = nn.Linear(self.heads * self.width, m["hidden_size"], bias=False)
        self.gate = nn.Linear(m["hidden_size"], m["mlp_intermediate_size"], bias=False)
        self.up = nn.Linear(m["hidden_size"], m["mlp_intermediate_size"], bias=False)
        self.down = nn.Linear(m["mlp_intermediate_size"], m["hidden_size"], bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        rows, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(
            [self.heads * self.width, self.groups * self.width, self.groups * self.width], dim=-1
        )
        q = turn(q.view(rows, length, self.heads, self.width).transpose(1, 2), cosines, sines)
        k = turn(k.view(rows, length, self.groups, self.width).transpose(1, 2), cosines, sines)
        v = v.view(rows, length, self.groups, self.width).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.groups)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, -1))
        h = self.norm2(x)
        y: Tensor = x + self.down(functional.silu(self.gate(h)) * self.up(h))
        return y


def turn(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat((-second, first), dim=-1) * sines


class PlainModel(nn.Module):
    """Qwen2's shape in few lines of plain PyTorch."""

    def __init__(self, m: dict[str, Any], length: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(m["vocab_size"], m["hidden_size"])
        self.layers = nn.ModuleList(PlainLayer(m) for _ in range(m["layers"]))
        self.norm = RMSNorm(m["hidden_size"], m["norm_eps"])
        frequencies = m["rope_theta"] ** (-torch.arange(0, m["head_dim"], 2).float() / m["head_dim"])
        angles = torch.outer(torch.arange(length).float(), frequencies).repeat(1, 2)
        self.register_buffer("cosines", angles.cos())
        self.register_buffer("sines", angles.sin())

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, self.cosines, self.sines)
        return functional.linear(self.norm(x), self.embed.weight)


def plain(race: dict[str, Any], folder: Path, turns: Turns) -> None:
    from safetensors.torch import load_file

    model = PlainModel(race["model"], race["length"])
    given = load_file(folder / "model.safetensors")
    state = {"embed.weight": given["model.embed_tokens.weight"], "norm.weight": given["model.norm.weight"]}
    for index in range(race["model"]["layers"]):
        old, new = f"model.layers.{index}.", f"layers.{index}."
        for kind in ("weight", "bias"):
            merged = [given[f"{old}self_attn.{one}_proj.{kind}"] for one in "qkv"]
            state[f"{new}qkv.{kind}"] = torch.cat(merged)
        for name, other in (
            ("self_attn.o_proj", "out"),
            ("mlp.gate_proj", "gate"),
            ("mlp.up_proj", "up"),
            ("mlp.down_proj", "down"),
            ("input_layernorm", "norm1"),
            ("post_attention_layernorm", "norm2"),
        ):
            state[f"{new}{other}.weight"] = given[f"{old}{name}.weight"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) == {"cosines", "sines"}
    plain_loop(race, folder, turns, model)


def qwen2(race: dict[str, Any], folder: Path) -> Any:
    from safetensors.torch import load_file
    from transformers import Qwen2Config, Qwen2ForCausalLM

    m = race["model"]
    config = Qwen2Config(
        vocab_size=m["vocab_size"],
        hidden_size=m["hidden_size"],
        intermediate_size=m["mlp_intermediate_size"],
        num_hidden_layers=m["layers"],
        num_attention_heads=m["attention_heads"],
        num_key_value_heads=m["kv_heads"],
        max_position_embeddings=m["max_position_embeddings"],
        rms_norm_eps=m["norm_eps"],
        rope_theta=m["rope_theta"],
        tie_word_embeddings=True,
        use_cache=False,
        head_dim=m["head_dim"],
        attn_implementation="sdpa",
    )
    model = Qwen2ForCausalLM(config).float()
    missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    return model


def transformers(race: dict[str, Any], folder: Path, turns: Turns) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    batches = np.load(folder / "batches.npy", mmap_mode="r")
    rows = batches.reshape(-1, batches.shape[-1])

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            # The labels are the inputs, which Qwen2 shifts itself; its own pass would see T + 1 tokens.
            tokens = torch.from_numpy(rows[index].astype(np.int64))
            return {"input_ids": tokens[:-1], "shift_labels": tokens[1:], "labels": tokens[1:]}

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.step(lambda: float(trainer.last_loss))

    class Timed(Trainer):  # type: ignore[misc]
        last_loss = 0.0

        def training_step(self, *given: Any, **named: Any) -> Tensor:
            loss: Tensor = super().training_step(*given, **named)
            self.last_loss = loss
            return loss

        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        use_cpu=True,
        per_device_train_batch_size=batches.shape[1],
        max_steps=1 << 30,
        learning_rate=LR,
        lr_scheduler_type="constant",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        adam_epsilon=EPS,
        weight_decay=DECAY,
        max_grad_norm=CLIP,
        optim="adamw_torch_fused",
        save_strategy="no",
        logging_steps=LOG_EVERY,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        torch_compile=race["compile"],
    )
    trainer = Timed(qwen2(race, folder), arguments, train_dataset=Rows(), callbacks=[Clock()])
    trainer.train()


def litgpt(race: dict[str, Any], folder: Path, turns: Turns) -> None:
    from litgpt import GPT, Config

    m = race["model"]
    config = Config(
        name="race",
        block_size=race["length"],
        vocab_size=m["vocab_size"],
        padded_vocab_size=m["vocab_size"],
        n_layer=m["layers"],
        n_head=m["attention_heads"],
        n_query_groups=m["kv_heads"],
        head_size=m["head_dim"],
        n_embd=m["hidden_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        attn_bias=m["qkv_bias"],
        norm_class_name="RMSNorm",
        norm_eps=m["norm_eps"],
        mlp_class_name="LLaMAMLP",
        intermediate_size=m["mlp_intermediate_size"],
        rope_base=int(m["rope_theta"]),
    )
    model = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight
    nn.init.normal_(model.lm_head.weight, std=m["initializer_range"])
    plain_loop(race, folder, turns, model)


def davinci(race: dict[str, Any], folder: Path, turns: Turns) -> None:
    """The program itself, whole: data, schedules, loss by domain, records, progress."""
    from davinci.config import Execution, Node, parse
    from davinci.store import Store
    from davinci.training import loop, numerics

    numerics.configure(race["threads"])
    store, node = Store(folder / "store"), parse(Node, race["node"])
    loop.PROGRESS_EVERY = 0.0  # it tells its loss after every step
    seen = {"loss": 0.0}

    def progress(tokens: int, speed: float, loss: float) -> None:
        seen["loss"] = loss

    def after_step() -> bool:
        turns.step(lambda: seen["loss"])
        return False

    loop.train(
        node,
        store,
        checkpoints=(),
        attempt=1,
        progress=progress,
        should_stop=after_step,
        execution=Execution(compile=race["compile"]),
    )


def bare(race: dict[str, Any], folder: Path, turns: Turns) -> None:
    """Only what no training goes without: forward, backward, clip and step of the same model, on one batch."""
    from davinci.config import Execution, Node, parse
    from davinci.model.decoder import Decoder
    from davinci.training import numerics, optimizer
    from davinci.training.regions import prepare
    from davinci.training.step import Objective, micro_rows

    numerics.configure(race["threads"])
    node = parse(Node, race["node"])
    model = Decoder(node.model, node.vocab_size)
    model.initialise(node.initialisation_seed)
    prepare(model, Execution(compile=race["compile"]))
    objective, adamw = Objective(model), optimizer.build(model, node.optimizer)
    for group in adamw.param_groups:
        group["lr"] = LR
    tokens = next(read(folder))
    share = torch.full((len(tokens), race["length"]), 1.0 / (len(tokens) * race["length"]))
    rows = micro_rows(race["length"])
    parts = list(zip(tokens.split(rows), share.split(rows), strict=True))
    while True:
        objective.zero_grad(set_to_none=True)
        for part, weights in parts:
            total, _ = objective(part, weights)
            total.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), CLIP, foreach=True)
        adamw.step()
        turns.step(total.item)


CONTENDERS: dict[str, Callable[[dict[str, Any], Path, Turns], None]] = {
    "daVinci": davinci,
    "bare": bare,
    "plain": plain,
    "transformers": transformers,
    "litgpt": litgpt,
}

if __name__ == "__main__":
    main()
