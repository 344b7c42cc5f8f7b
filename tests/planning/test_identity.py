"""An id names a state of training, not how it was written down."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davinci.config import Model, Node, Optimizer
from davinci.errors import UserError
from davinci.planning import identity
from davinci.planning.histories import history_of
from davinci.planning.identity import (
    canonical,
    canonical_text,
    check,
    encode,
    history_of_nodes,
    human_tokens,
    state_id,
)

GOLDEN = Path(__file__).with_name("golden_ids.json")


def ids(run, card):
    history = history_of(run, card)
    return [state_id(history, span.end) for span in history.spans]


def test_ids_of_the_first_scheme_stay(make_run, card):
    """A change here orphans every finished run: bump SCHEME or NUMERICS on purpose, then these."""
    assert ids(make_run(), card) == ["640-v1-e80491470c7e", "960-v1-296c9cd0551f"]


@pytest.mark.parametrize(
    "change",
    [
        {"store": "elsewhere"},
        {"sweep": "other"},
        {"arm": "other"},
        {"cluster.workers": 8},
        {"tracking.mode": "online"},
        {"evaluation.limit": 5},
        {"evaluation.at": []},
        {"model.name": "other"},
        {"curriculum.name": "other"},
        {"checkpoint_every_tokens": 32},
    ],
)
def test_placement_and_labels_do_not_enter(make_run, card, change):
    assert ids(make_run(change), card) == ids(make_run(), card)


@pytest.mark.parametrize(
    ("change", "first_changes"),
    [
        ({"seed": 1}, True),
        ({"model.layers": 2}, True),
        ({"optimizer.beta2": 0.99}, True),
        ({"pool.sources.programs.tokens": 2500}, False),  # the card counts, not the config
        ({"curriculum.stages.first.depth": {"code": "L1"}}, True),
        ({"curriculum.stages.first.lr.start": 0.02}, True),
        ({"curriculum.stages.first.batch_size.0.sequences": 4}, True),
        ({"curriculum.stages.first.mask_questions": True}, True),
        ({"curriculum.stages.second.mixture.domains": {"general": 0.5, "qa": 0.5}}, False),
        ({"curriculum.stages.second.lr.stop": 0.002}, False),
        ({"curriculum.stages.second.optimizer_state": "reset"}, False),
        ({"curriculum.stages.second.sequence_length": 8}, False),
        ({"curriculum.stages.second.rope_theta": 500.0}, False),
        ({"curriculum.stages.second.attention": "documents"}, False),
        ({"curriculum.stages.first.attention": "documents"}, True),
        ({"curriculum.stages.first.rope_theta": 500.0}, True),
        ({"curriculum.stages.second.data_cursors": "reset"}, False),
        ({"curriculum.stages.second.averages": {"kind": "polyak"}}, False),
        ({"curriculum.stages.first.averages": {"kind": "ema", "half_life_tokens": 64}}, True),
    ],
)
def test_what_changes_training_changes_the_ids_from_there_on(make_run, card, change, first_changes):
    before, after = ids(make_run(), card), ids(make_run(change), card)
    assert (before[0] != after[0]) == first_changes
    if "pool.sources.programs.tokens" not in change:
        assert before[1] != after[1]


def test_a_stage_cut_in_two_keeps_the_ids(make_run, card, run_data):
    stage = run_data["curriculum"]["stages"]["first"]
    cut = {
        "a": {**stage, "tokens": 320},
        "b": {**stage, "tokens": 320},
        "second": run_data["curriculum"]["stages"]["second"],
    }
    whole, parts = ids(make_run(), card), ids(make_run({"curriculum.stages": cut}), card)
    assert parts[1:] == whole


def test_a_longer_constant_stage_shares_its_beginning(make_run, card):
    short = history_of(make_run(), card)
    long = history_of(make_run({"curriculum.stages.first.tokens": 960}), card)
    assert state_id(short, 640) == state_id(long, 640)


def test_seeds_from_shares_the_trunk(make_run, card):
    runs = [make_run(seed=seed, trunk_seed=0, seeds_from="second") for seed in (0, 1)]
    (trunk, leaf), (other_trunk, other_leaf) = (ids(run, card) for run in runs)
    assert trunk == other_trunk
    assert leaf != other_leaf


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (len, "is a callable"),
        (lambda: 1, "is a callable"),
        (dict, "is a callable"),
        (object(), "is of type object"),
        ({1, 2}, "is of type set"),
        (b"x", "is of type bytes"),
        (float("nan"), "nan is not a finite number"),
        (float("inf"), "inf is not a finite number"),
        (repr(object()), "is the default repr of an object"),
        (repr(lambda: 1), "is the default repr of an object"),
        (repr(dict), "is the default repr of an object"),
        ("/data/pool", "is an absolute path"),
        ("~/pool", "is an absolute path"),
        ("C:\\pool", "is an absolute path"),
        ("c:/pool", "is an absolute path"),
        ("\\\\server\\pool", "is an absolute path"),
        ({3: 1}, "3 as a key is no string"),
    ],
    ids=lambda one: re.sub(r" at 0x\w+", "", str(one)),
)
def test_the_encoder_refuses_what_has_no_lasting_value(value, said):
    with pytest.raises(UserError) as told:
        encode({"optimizer": {"betas": [0.9, value]}})
    assert str(told.value).startswith("optimizer.betas.1: ") and said in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("value", ["a/b", "L5", "c: not a path", "<|endoftext|>", 1e-8, None, True, [], {}])
def test_the_encoder_takes_plain_data(value):
    assert json.loads(encode({"key": value})) == {"key": value}


@given(st.integers(1, 10**13))
def test_human_tokens_is_within_half_a_percent(tokens):
    text = human_tokens(tokens)
    unit = {"T": 1e12, "B": 1e9, "M": 1e6, "k": 1e3}.get(text[-1])
    value = float(text[:-1]) * unit if unit else float(text)
    assert value == pytest.approx(tokens, rel=6e-3)


def test_the_hashed_text_is_the_canonical_history(make_run, card):
    seeds = {"seeds_from": "second", "seed": 3, "trunk_seed": 1}
    for run in (make_run(), make_run(seeds), make_run({"curriculum.stages.second.optimizer_state": "reset"})):
        history = history_of(run, card)
        for tokens in (32, 640, 641, 960):
            assert canonical_text(history, tokens) == encode(canonical(history, tokens))


def test_a_slope_that_stays_is_a_constant(make_run, card):
    flat = [
        make_run({"curriculum.stages.second.lr": {"shape": shape, "start": 0.01, **more}})
        for shape, more in (
            ("constant", {}),
            ("linear", {"stop": 0.01}),
            ("cosine", {"stop": 0.01}),
            ("wsd", {"stop": 0.01, "decay_tokens": 64}),
        )
    ]
    assert len({ids(run, card)[1] for run in flat}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"curriculum.stages.second.rope_theta": 10000.0},
        {"curriculum.stages.first.rope_theta": 10000.0},
        {"curriculum.stages.first.attention": "packed"},
        {"curriculum.stages.second.lr.start": "carry"},
        {"curriculum.stages.first.data_cursors": "reset", "curriculum.stages.first.optimizer_state": "reset"},
    ],
)
def test_what_says_the_same_in_other_words_is_the_same_state(make_run, card, change):
    assert ids(make_run(change), card) == ids(make_run(), card)


def test_cooldowns_share_the_way_to_where_they_begin(make_run, card):
    """WSD branches, and those of an inverse square root: the trunk's curve is open-ended."""
    for shape in ({"shape": "wsd"}, {"shape": "inverse_sqrt", "timescale_tokens": 64}):
        short, long = (
            history_of(
                make_run(
                    {
                        "curriculum.stages.first.lr": {"start": 0.01, "stop": 0.001, "decay_tokens": 96} | shape,
                        "curriculum.stages.first.tokens": tokens,
                        "curriculum.stages.second.lr": {"shape": "constant", "start": 0.001},
                    }
                ),
                card,
            )
            for tokens in (640, 960)
        )
        assert state_id(short, 544) == state_id(long, 544)
        assert state_id(short, 576) != state_id(long, 576)


def histories(make_run, card):
    """Histories of every kind, by what they show."""
    stages = "curriculum.stages"
    return {
        "two stages": history_of(make_run(), card),
        "no pool built": history_of(make_run(), None),
        "own seed from a stage on": history_of(make_run(seeds_from="second", seed=7, trunk_seed=3), card),
        "a replicate": history_of(make_run(replicate=1), card),
        "a reset": history_of(make_run({f"{stages}.second.optimizer_state": "reset"}), card),
        "a mask": history_of(make_run({f"{stages}.second.mask_questions": True}), card),
        "another length": history_of(make_run({f"{stages}.second.sequence_length": 8}), card),
        "a ramp": history_of(
            make_run(
                {
                    f"{stages}.first.batch_size": [
                        {"from_tokens": 0, "sequences": 2},
                        {"from_tokens": 100, "sequences": 4},
                    ]
                }
            ),
            card,
        ),
        "a decay": history_of(
            make_run({f"{stages}.first.lr": {"shape": "wsd", "start": 0.01, "stop": 0.001, "decay_tokens": 100}}), card
        ),
        "a warmup": history_of(
            make_run({f"{stages}.first.lr": {"shape": "warmup_constant", "start": 0.01, "warmup_tokens": 100}}), card
        ),
        "a shallow domain": history_of(make_run({f"{stages}.first.depth": {"code": "L1"}}), card),
        "an inverse square root": history_of(
            make_run(
                {
                    f"{stages}.first.lr": {"shape": "inverse_sqrt", "start": 0.01, "stop": 0.001, "decay_tokens": 100}
                    | {"timescale_tokens": 64, "decay": "sqrt"}
                }
            ),
            card,
        ),
        "documents apart": history_of(make_run({f"{stages}.second.attention": "documents"}), card),
        "another RoPE base": history_of(make_run({f"{stages}.second.rope_theta": 500.0}), card),
        "cursors reset": history_of(make_run({f"{stages}.second.data_cursors": "reset"}), card),
        "an average": history_of(make_run({f"{stages}.second.averages": {"kind": "polyak"}}), card),
        "an average carried": history_of(
            make_run(
                {f"{stages}.{name}.averages": {"kind": "ema", "half_life_tokens": 64} for name in ("first", "second")}
            ),
            card,
        ),
        "an average dropped": history_of(
            make_run({f"{stages}.first.averages": {"kind": "ema", "half_life_tokens": 64}}), card
        ),
        "experts balanced by a loss": history_of(make_run({"model.experts": {"count": 4}}), card),
        "experts balanced by a bias": history_of(
            make_run({"model.experts": {"count": 4, "balance": 0.0, "bias_rate": 0.001}}), card
        ),
        "a named source": history_of(make_run({f"{stages}.first.mixture.sources": {"web": 1.0}}), card),
    }


def golden(make_run, card):
    return {
        name: [state_id(history, span.end) for span in history.spans]
        for name, history in histories(make_run, card).items()
    }


def test_ids_stay_what_they_were(make_run, card):
    """golden_ids.json is what earlier versions called these states. An id that moves orphans every finished run: bump
    SCHEME or NUMERICS on purpose, then write the file anew."""
    assert golden(make_run, card) == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("version", ["SCHEME", "NUMERICS"])
def test_another_version_is_another_id(make_run, card, monkeypatch, version):
    monkeypatch.setattr(identity, version, getattr(identity, version) + 1)
    before, now = json.loads(GOLDEN.read_text()), golden(make_run, card)
    assert not {one for names in before.values() for one in names} & {one for names in now.values() for one in names}
    assert ("-v2-" in now["two stages"][0]) == (version == "SCHEME")


def test_what_changed_for_some_models_moves_their_ids_alone(make_run, card, monkeypatch):
    monkeypatch.setattr(identity, "NUMERICS_OF", {"experts.balance": 3})
    before, now = json.loads(GOLDEN.read_text()), golden(make_run, card)
    assert {name for name in before if before[name] != now[name]} == {"experts balanced by a loss"}
    assert not {*before["experts balanced by a loss"]} & {*now["experts balanced by a loss"]}


def test_a_new_field_with_a_neutral_default_leaves_ids_alone(make_run, card):
    """Migration: what is trained is the same as long as nobody turns the new option."""

    class NewOptimizer(Optimizer):
        nesterov: bool = False

    class NewModel(Model):
        dropout: float = 0.0

    history = history_of(make_run(), card)

    def with_fields(**fields):
        optimizer = NewOptimizer(**history.course.optimizer.model_dump(), **fields)
        model = NewModel(**history.course.model.model_dump())
        return replace(history, course=replace(history.course, optimizer=optimizer, model=model))

    assert state_id(with_fields(), 960) == state_id(history, 960)
    assert state_id(with_fields(nesterov=True), 960) != state_id(history, 960)


def test_histories_read_back_from_nodes(make_run, card):
    for history in histories(make_run, card).values():
        sweep_nodes = nodes_of(history)
        assert canonical(history_of_nodes(sweep_nodes), history.end) == canonical(history, history.end)
        check(sweep_nodes, sweep_nodes, "node.json")


def nodes_of(history):
    """The chain of a history that nothing cuts."""
    nodes = []
    for span in history.spans:
        node = Node(
            id=state_id(history, span.end),
            parent=nodes[-1].id if nodes else None,
            stage_name=span.name,
            stage_begin=span.begin,
            begin=span.begin,
            end=span.end,
            stage=span.stage,
            sources=span.sources,
            mixture_position=0,
            initialisation_seed=history.initialisation_seed,
            data_seed=history.data_seed_at(span.begin),
            model=span.model,
            optimizer=history.course.optimizer,
            pool="small",
            tokenizer_digest=history.course.tokenizer_digest,
            vocab_size=history.course.vocab_size,
            checkpoint_every_tokens=10000,
        )
        nodes.append(node)
    return nodes


def test_a_chain_that_does_not_give_its_id_is_refused_with_the_difference(make_run, card):
    nodes = nodes_of(history_of(make_run(), card))
    steeper = nodes[1].optimizer.model_copy(update={"beta2": 0.99})
    edited = [nodes[0], nodes[1].model_copy(update={"optimizer": steeper})]
    with pytest.raises(UserError) as told:
        check(edited, nodes, "nodes/x/node.json")
    text = str(told.value)
    assert text.startswith(f"nodes/x/node.json: the config there does not give the id {nodes[1].id}: ")
    assert "optimizer.beta2: 0.99 -> 0.95" in text and "\n" not in text
    other = nodes_of(history_of(make_run({"optimizer.beta1": 0.8, "model.layers": 2}, seed=5), card))
    stored = [one.model_copy(update={"id": node.id}) for one, node in zip(other, nodes, strict=True)]
    with pytest.raises(UserError, match=r"data_seed.0.1: 5 -> 0; initialisation_seed: 5 -> 0; model.layers: 2 -> 1"):
        check(stored, nodes, "node.json")
