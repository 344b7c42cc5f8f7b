"""Noise of earlier sweeps, from launched plans and the scores recorded for them."""

import json

import numpy as np
import pytest
from planned import FACTOR, make_sweep

from davinci.accounting.power import detectable, seeds_needed
from davinci.planning.build import build_plan
from davinci.planning.noise import power
from davinci.planning.sweep import Hypothesis, Question
from davinci.store import Store, write_json
from davinci.tracking.records import Writer

BENCHMARKS = {
    name: {"domain": domain, "task": "cloze", "protocol": "ppl", "num_fewshot": 0, "metric": "acc"}
    for name, domain in (("cloze", "general"), ("order", "general"), ("names", "code"))
}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def sweep(make_run):
    def make(name="now", seeds=(0, 1, 2), changes=None, **declared):
        configs = {}
        for place, label in enumerate(("base", "more", "most")):
            share = 0.5 + place / 8
            mixture = {f"{FACTOR}.domains": {"general": 1 - share, "qa": share}}
            configs[label] = make_run({"evaluation.benchmarks": BENCHMARKS, **mixture, **(changes or {})})
        return make_sweep(configs, seeds=seeds, name=name, **declared)

    return make


@pytest.fixture
def launch(store, card):
    """``launch(sweep, score)``: what a launch leaves; `score(benchmark, arm, seed, tokens)`, None for no row."""

    def make(sweep, score):
        plan = build_plan(sweep, cards={"small": card})
        write_json(store.sweep(sweep.name) / "launched.json", plan.model_dump(mode="json"))
        for run in plan.runs:
            suite = plan.config(run).evaluation.key
            for point in run.points:
                with Writer(store.records(point.node), 1) as records:
                    records.write("train", point.tokens, 1, loss=1.0)
                    for name in BENCHMARKS:
                        found = score(name, run.arm, run.seed, point.stage_tokens)
                        if found is not None:
                            records.write(
                                "evaluation",
                                point.tokens,
                                1,
                                benchmark=name,
                                protocol="ppl",
                                score=found,
                                suite=suite,
                            )
        return plan

    return make


def drawn(spread):
    """Scores of independent noise, `spread` points for a difference of two."""
    noise = np.random.default_rng(0)
    scores = {}

    def score(benchmark, arm, seed, tokens):
        key = (benchmark, arm, seed, tokens)
        return scores.setdefault(key, 0.5 + noise.normal(0, spread / 100 / 2**0.5))

    return score


def test_stated_noise_is_taken(sweep, store):
    found = power(sweep(noise=2.0, difference=1.0), store)
    assert found.noise == 2.0 and "stated" in found.source
    assert found.detectable == detectable(2.0, 3)
    assert found.seeds_needed == seeds_needed(2.0, 1.0)


def test_one_seed_detects_nothing(sweep, store):
    assert power(sweep(seeds=(0,), noise=2.0), store).detectable is None


def test_nothing_to_go_by(sweep, store):
    assert power(sweep(), store) is None
    assert power(sweep(), None) is None


def test_noise_is_the_spread_of_paired_differences(sweep, store, launch):
    score = drawn(3.0)
    launch(sweep("before"), score)
    found = power(sweep(), store)
    squares = 0.0
    for arm in ("more", "most"):
        differences = [
            100 * np.mean([score(name, arm, seed, 320) - score(name, "base", seed, 320) for name in BENCHMARKS])
            for seed in (0, 1, 2)
        ]
        squares += np.var(differences, ddof=1) * 2
    assert found.noise == pytest.approx((squares / 4) ** 0.5)
    assert found.source == "Overall from 3 seeds x 2 arms of before"


@pytest.mark.parametrize(("metric", "members"), [("General", ["cloze", "order"]), ("names", ["names"])])
def test_noise_is_of_the_hypothesiss_metric(sweep, store, launch, metric, members):
    score = drawn(3.0)
    launch(
        sweep("before", seeds=(0, 1)),
        lambda name, arm, seed, tokens: None if arm == "most" else score(name, arm, seed, tokens),
    )
    hypothesis = Hypothesis(text="It moves.", metric=metric, arm="more", direction="any")
    found = power(sweep(question=Question(text="Moves?", hypothesis=hypothesis)), store)
    first, second = (
        100 * np.mean([score(name, "more", seed, 320) - score(name, "base", seed, 320) for name in members])
        for seed in (0, 1)
    )
    assert found.noise == pytest.approx(abs(first - second) / 2**0.5)


def test_noise_of_a_held_out_loss_is_in_its_unit(sweep, store, launch):
    pairs = [(arm, seed) for arm in ("base", "more", "most") for seed in range(3)]
    noise = {
        (arm, seed): float(x) for (arm, seed), x in zip(pairs, np.random.default_rng(3).normal(3, 0.1, 9), strict=True)
    }
    before = sweep("before")
    plan = launch(before, lambda name, arm, seed, tokens: 0.5)
    for run in plan.runs:
        for point in run.points:
            with Writer(store.records(point.node), 1) as records:
                for domain, more in (("general", 0.0), ("qa", 1.0)):
                    records.write("heldout", point.tokens, 1, domain=domain, loss=noise[run.arm, run.seed] + more)
    asked = Question(text="?", hypothesis=Hypothesis(text="t", metric="heldout_loss", arm="more", direction="decrease"))
    found = power(sweep(question=asked), store)
    gaps = [[noise[arm, seed] - noise["base", seed] for seed in range(3)] for arm in ("more", "most")]
    assert found.noise == pytest.approx(np.sqrt(np.mean([np.var(some, ddof=1) for some in gaps])))
    assert found.unit == "nats a token" and found.source.startswith("heldout_loss from 3 seeds x 2 arms of before")


def test_the_last_point_that_two_seeds_reached(sweep, store, launch):
    score = drawn(3.0)
    launch(
        sweep("before"),
        lambda name, arm, seed, tokens: score(name, arm, seed, tokens) if tokens < 320 or seed == 0 else None,
    )
    assert power(sweep(), store).source == "Overall from 3 seeds x 2 arms of before"


def test_arms_of_one_seed_are_not_read(sweep, store, launch, monkeypatch):
    """Hundreds of them took a second of every launch, to learn nothing."""
    launch(sweep("before", seeds=(0,)), drawn(2.0))
    monkeypatch.setattr("davinci.planning.noise.read", None)
    assert power(sweep(), store) is None


def test_sweeps_of_one_scale_and_suite_are_pooled(sweep, store, launch):
    launch(sweep("before"), drawn(3.0))
    launch(sweep("again", changes={"optimizer.beta2": 0.9}, seeds=(0, 1)), drawn(3.0))
    launch(sweep("larger", changes={"scale.name": "large", "optimizer.beta2": 0.8}), drawn(30.0))
    launch(sweep("limited", changes={"evaluation.limit": 3, "optimizer.beta2": 0.7}), drawn(30.0))
    found = power(sweep("again"), store)
    assert found.source == "Overall from 2 seeds x 2 arms of again, 3 seeds x 2 arms of before"
    assert found.noise < 10


UNLIKE = [
    {"model.attention": {"kind": "multi_head"}},
    {"model.mixers": {"pattern": ["linear"]}},
    {"model.placement": {"kind": "post"}},
    {"model.experts": {"count": 2, "width": 1}},
    {"model.layers": 16},
    {"curriculum.stages.first.tokens": 2400},
]


@pytest.mark.parametrize("changes", UNLIKE, ids=lambda changes: next(iter(changes)))
def test_noise_of_other_layers_sizes_or_lengths_is_not_borrowed(sweep, store, launch, changes):
    launch(sweep("other", changes=changes), drawn(3.0))
    assert power(sweep(), store) is None
    assert power(sweep(changes=changes), store) is not None


def test_noise_of_a_little_more_or_less_is_borrowed(sweep, store, launch):
    launch(sweep("other", changes={"model.layers": 2, "model.qk_norm": {"kind": "rms"}}), drawn(3.0))
    assert power(sweep(), store) is not None


def test_the_same_runs_count_once(sweep, store, launch):
    score = drawn(3.0)
    launch(sweep("before"), score)
    alone = power(sweep(), store)
    launch(sweep("again"), score)
    again = power(sweep(), store)
    assert again.noise == alone.noise and " of before" not in again.source.partition(" of again")[2]


def test_scores_that_never_differ_say_nothing(sweep, store, launch):
    launch(sweep("before"), lambda name, arm, seed, tokens: 0.25)
    assert power(sweep(), store) is None


def test_a_damaged_launch_is_passed_over(sweep, store, launch):
    launch(sweep("before"), drawn(3.0))
    (store.sweep("broken") / "x").parent.mkdir(parents=True)
    (store.sweep("broken") / "launched.json").write_text("{")
    assert power(sweep(), store) is not None


def test_a_launch_of_another_version_is_passed_over(sweep, store, launch):
    launch(sweep("before"), drawn(3.0))
    path = store.sweep("before") / "launched.json"
    was = json.loads(path.read_text())
    was["arms"][0]["config"]["model"]["of_later"] = 1
    path.write_text(json.dumps(was))
    assert power(sweep(), store) is None
