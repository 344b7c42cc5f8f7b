"""An id names a state of training, not how it was written down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davinci.planning.histories import history_of
from davinci.planning.identity import canonical, encode, human_tokens, state_id


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


def test_the_encoder_refuses_what_has_no_value():
    for value in (len, object(), {1, 2}, b"x", float("nan")):
        with pytest.raises((TypeError, ValueError)):
            encode({"key": value})


@given(st.integers(1, 10**13))
def test_human_tokens_is_within_half_a_percent(tokens):
    text = human_tokens(tokens)
    unit = {"T": 1e12, "B": 1e9, "M": 1e6, "k": 1e3}.get(text[-1])
    value = float(text[:-1]) * unit if unit else float(text)
    assert value == pytest.approx(tokens, rel=6e-3)


def test_canonical_is_plain_data(make_run, card):
    encode(canonical(history_of(make_run(), card), 960))
