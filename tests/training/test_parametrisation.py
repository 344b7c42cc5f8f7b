"""muP: what training does to activations, and the learning rate it takes, do not change with width."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from training_nodes import tiny_model, tiny_node

from davinci.config import Model, Optimizer, parse
from davinci.data.batches import Batch
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.training.optimizer import build
from davinci.training.step import Objective, gradients, move

VOCAB, ROWS, LENGTH = 64, 8, 32
WIDTHS = (64, 128, 256, 512)
OPTIMIZER = tiny_node().optimizer


def shape(width: int, kind: str, base: int, **changes: Any) -> Model:
    """Two layers, with heads of 16 at every width."""
    mup = {"kind": "mup", "base_width": base, "base_head_dim": 16}
    heads = width // 16
    return tiny_model(
        hidden_size=width, attention_heads=heads, kv_heads=heads // 2, head_dim=16, mlp_intermediate_size=2 * width,
        initializer_range=0.1, parametrisation=mup if kind == "mup" else {"kind": kind}, **changes,
    )  # fmt: skip


def made(model: Model, optimizer: Optimizer = OPTIMIZER) -> tuple[Decoder, Objective, torch.optim.AdamW]:
    decoder = Decoder(model, VOCAB)
    decoder.initialise(0)
    return decoder, Objective(decoder), build(decoder, optimizer)


def batch_of(tokens: np.ndarray) -> Batch:
    return Batch(tokens, np.ones((len(tokens), LENGTH), dtype=np.bool_), np.zeros(len(tokens), dtype=np.int64))


def moved(model: Model, rate: float, steps: int) -> dict[str, float]:
    """How far (RMS) activations of a batch moved in `steps` steps on it: queries, what attention and the perceptron
    add, the residual stream, and the scores."""
    decoder, objective, adamw = made(model)
    tokens = np.random.default_rng(0).integers(0, VOCAB, (ROWS, LENGTH + 1))
    seen: dict[str, torch.Tensor] = {}
    for number, block in enumerate(decoder.model.layers):
        parts = {"q": block.self_attn.q_proj, "attention": block.self_attn, "mlp": block.mlp, "stream": block}
        for name, part in parts.items():
            part.register_forward_hook(lambda module, given, out, key=f"{name}{number}": seen.update({key: out}))

    @torch.no_grad()
    def looked() -> dict[str, torch.Tensor]:
        scores = decoder(torch.from_numpy(tokens[:, :-1]))
        return seen | {"scores": scores}

    before = looked()
    for _ in range(steps):
        gradients(objective, batch_of(tokens), 1.0)
        move(adamw, rate)
    return {name: (after - before[name]).square().mean().sqrt().item() for name, after in looked().items()}


def slopes(kind: str) -> dict[str, float]:
    """Exponents with which the moves grow with width."""
    found = [moved(shape(width, kind, base=WIDTHS[0]), 3e-3, 3) for width in WIDTHS]
    logs = {name: np.log([one[name] for one in found]) for name in found[0]}
    return {name: float(np.polyfit(np.log(WIDTHS), values, 1)[0]) for name, values in logs.items()}


def test_activations_move_alike_at_every_width_under_mup() -> None:
    """The coordinate check of arXiv 2203.03466, appendix D.1. Scores begin smaller in wide models (as their limit has
    it), and so their first moves do."""
    found = slopes("mup")
    scores = found.pop("scores")
    assert -0.45 < scores < 0.1
    assert all(abs(slope) < 0.12 for slope in found.values()), found


def test_activations_move_further_the_wider_a_standard_model() -> None:
    found = slopes("standard")
    assert all(slope > 0.4 for slope in found.values()), found


@cache
def language() -> np.ndarray:
    """int64[60, 4, length + 1]: the next symbol depends on the last and on the topic, which the first names."""
    count = 60 * 4
    generator = np.random.default_rng(0)
    sums = generator.dirichlet(np.full(VOCAB, 0.05), size=(VOCAB, 4)).cumsum(axis=-1)
    topics = generator.integers(0, 4, count)
    columns = [topics]
    for _ in range(LENGTH):
        drawn = generator.random(count)[:, None]
        columns.append(np.minimum((sums[columns[-1], topics] < drawn).sum(axis=1), VOCAB - 1))
    return np.stack(columns, axis=1).reshape(60, 4, LENGTH + 1)


def learnt(model: Model, peak: float) -> float:
    """Mean loss of the last ten steps; the learning rate falls to 0."""
    _, objective, adamw = made(model)
    steps = len(language())
    losses = []
    for step, tokens in enumerate(language()):
        losses.append(gradients(objective, batch_of(tokens), 1.0).loss)
        move(adamw, peak * min((step + 1) / 6, (steps - step) / (steps - 6)))
    return float(np.mean(losses[-10:]))


@pytest.mark.slow
def test_the_best_learning_rate_transfers_under_mup_and_not_without() -> None:
    """Between widths of 32 and 256, of rates a factor of 4 apart."""
    rates = (0.004, 0.016, 0.064)
    base, standard, mup = (
        min(rates, key=lambda rate: learnt(model, rate))
        for model in (shape(32, "mup", 32), shape(256, "standard", 32), shape(256, "mup", 32))
    )
    assert base == mup == 0.016
    assert standard == 0.004


def test_at_the_base_width_it_is_the_standard_one() -> None:
    tokens = np.random.default_rng(1).integers(0, VOCAB, (ROWS, LENGTH + 1))
    weights = []
    for kind in ("standard", "mup"):
        decoder, objective, adamw = made(shape(64, kind, base=64))
        for _ in range(2):
            gradients(objective, batch_of(tokens), 1.0)
            move(adamw, 1e-2)
        weights.append(decoder.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("tied", [True, False])
def test_matrices_of_blocks_begin_narrower_and_move_less(tied: bool) -> None:
    """At four times the base: Table 8 of arXiv 2203.03466; of learning rate and decay the product stays."""
    model = shape(128, "mup", 32, tie_embeddings=tied, experts={"count": 4})
    decoder, objective, adamw = made(model)
    parameters = dict(decoder.named_parameters())
    deviations = {
        "model.embed_tokens.weight": 0.1,
        "model.layers.0.self_attn.q_proj.weight": 0.1 / 2,
        "model.layers.0.self_attn.o_proj.weight": 0.1 / 2 / 2,  # and over sqrt(2 layers)
        "model.layers.1.mlp.gate_up_proj": 0.1 / 2,
        "model.layers.1.mlp.gate.weight": 0.1 / 4,
    }
    for name, wanted in (deviations | ({} if tied else {"lm_head.weight": 0.1})).items():
        assert parameters[name].std().item() == pytest.approx(wanted, rel=0.1), name
    gradients(objective, batch_of(np.random.default_rng(1).integers(0, VOCAB, (ROWS, LENGTH + 1))), 1.0)
    before = {name: one.detach().clone() for name, one in parameters.items()}
    move(adamw, 1e-3)
    rates = {id(one): group["lr"] for group in adamw.param_groups for one in group["params"]}
    assert len(rates) == len(parameters)
    for name, one in parameters.items():
        is_hidden = one.ndim > 1 and name.startswith("model.layers.")
        assert rates[id(one)] == pytest.approx(1e-3 / 4 if is_hidden else 1e-3), name
        # Adam's first step is its learning rate, but for decay and eps.
        decay = 1e-3 * OPTIMIZER.weight_decay * before[name].abs().max().item() if one.ndim > 1 else 0.0
        assert (one - before[name]).abs().max().item() <= rates[id(one)] + decay + 1e-7, name
    decays = {group["lr"] * group["weight_decay"] for group in adamw.param_groups if group["weight_decay"]}
    assert all(one == pytest.approx(1e-3 * OPTIMIZER.weight_decay) for one in decays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parametrisation": {"kind": "standard", "base_width": 64}}, "belong to kind mup, not to standard"),
        ({"parametrisation": {"kind": "mup"}, "attention": {"kind": "latent"}}, "derived for attention.kind latent"),
        ({"parametrisation": {"kind": "mup", "base_width": 0}}, "base_width: Input should be greater than 0"),
        ({"parametrisation": {"kind": "mupp"}}, "parametrisation.kind: Input should be 'standard' or 'mup'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        tiny_model(**changes)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_full_config_is_read_back() -> None:
    model = shape(64, "standard", base=64)
    assert parse(Model, model.model_dump(mode="json")) == model
