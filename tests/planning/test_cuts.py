"""Training a run in the nodes of a shared tree gives the bits of training it alone."""

import pytest
from planned import make_sweep
from pools import DEPTH, POOL, SOURCES, VOCAB_SIZE, tiny_pool
from safetensors.torch import load_file
from torch import equal

from davinci.data.cards import read_card
from davinci.planning.build import build_plan
from davinci.store import Store
from davinci.training import checkpoints as saved
from davinci.training import numerics
from davinci.training.loop import train

LENGTH = 16
STEP = 2 * LENGTH
MIXTURE = {"general": 0.25, "code": 0.25, "science": 0.125, "qa": 0.375}
LR = {"shape": "warmup_constant", "start": 3e-3, "warmup_tokens": 3 * STEP}


def stage(steps, lr=LR, mixture=MIXTURE, batches=((0, 2),), **changes):
    return {
        "tokens": steps * STEP,
        "sequence_length": LENGTH,
        "batch_size": [{"from_tokens": begin, "sequences": sequences} for begin, sequences in batches],
        "lr": lr,
        "mixture": {"domains": mixture, "sources": {}},
        "mask_questions": True,
        "optimizer_state": "carry",
    } | changes


ON = {"shape": "constant", "start": 3e-3}
DECAY = {"shape": "linear", "start": 3e-3, "stop": 3e-4}
CURRICULA = {
    # The first part of all the others belongs to this one's stage, whose budget is smaller.
    "short": [stage(7), stage(4, ON, {"general": 0.5, "qa": 0.5})],
    "long": [stage(20)],
    "two": [stage(12), stage(8, ON)],
    "decays": [
        stage(20, {"shape": "wsd", "start": 3e-3, "stop": 3e-4, "warmup_tokens": 3 * STEP, "decay_tokens": 170})
    ],
    "ramp": [stage(20, batches=((0, 2), (9 * STEP + 1, 4)))],
    "reset": [stage(12), stage(8, ON, optimizer_state="reset")],
    "same mixture again": [stage(7), stage(5, DECAY), stage(8, DECAY, sequence_length=8)],
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    numerics.configure(1)


def train_nodes(plan, store):
    for node in plan.nodes.values():
        train(
            node,
            store,
            checkpoints=(),
            attempt=1,
            progress=lambda *_: None,
            should_stop=lambda: False,
            heldout_sequences=1,
        )


def end_of(plan, run, store):
    """Weights, moments and cursors at the end of a run."""
    node = plan.nodes[run.nodes[-1]]
    folder = store.checkpoint(node.id, node.end)
    tensors = load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors")
    return tensors, saved.read_state(folder).cursors


def test_shared_and_cut_equals_alone_and_whole(make_run, tmp_path):
    pool = {
        "name": POOL,
        "tokenizer": POOL,
        "vocab_size": VOCAB_SIZE,
        "sources": {name: {"domain": domain, "depths": [DEPTH]} for name, (domain, _) in SOURCES.items()},
    }
    configs = {}
    for label, stages in CURRICULA.items():
        named = {f"s{number}": one for number, one in enumerate(stages)}
        changes = {"pool": pool, "model.vocab_size": VOCAB_SIZE, "curriculum.stages": named, "evaluation.at": []}
        configs[label] = make_run(changes)
    together = Store(tmp_path / "together")
    tiny_pool(together, tokens=2_000)
    cards = {POOL: read_card(together, POOL)}
    plan = build_plan(make_sweep(configs, factor=("curriculum",)), cards=cards)
    train_nodes(plan, together)
    assert plan.tokens_shared < plan.tokens_unshared / 2
    cut = []
    for run in plan.runs:
        store = Store(tmp_path / run.id)
        tiny_pool(store, tokens=2_000)
        alone = build_plan(make_sweep({run.arm: configs[run.arm]}, factor=()), cards=cards)
        train_nodes(alone, store)
        assert alone.runs[0].nodes[-1] == run.nodes[-1]
        cut += [run.arm] * (len(run.nodes) > len(alone.runs[0].nodes))
        tensors, cursors = end_of(plan, run, together)
        expected, expected_cursors = end_of(alone, alone.runs[0], store)
        assert tensors.keys() == expected.keys()
        assert all(equal(tensors[name], expected[name]) for name in tensors), run.arm
        assert cursors == expected_cursors
    assert cut == ["long", "two", "decays", "ramp", "reset"]
