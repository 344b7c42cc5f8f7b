"""The control audit: every leaf counts, what the factor covers is allowed, findings name keys, values and arms."""

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planned import FACTOR, audited, make_runs, make_sweep

from davinci.accounting.shapes import active_parameters, parameters
from davinci.config import Frozen
from davinci.planning.audit import LABELS, audit
from davinci.planning.differences import ABSENT, children, differences, leaves
from davinci.planning.wording import tokens

# Leaves of every kind a run can hold: an unset one, an empty group, a list of objects.
CHANGES = {
    "pool.sources.web": {"domain": "general", "depths": ["L2"], "tokens": 1000, "substages": ["first"]},
    "curriculum.stages.first.depth": {"general": "L1"},
    "curriculum.stages.first.lr": {"shape": "wsd", "start": 0.01, "stop": 0.001, "decay_tokens": 64},
    "evaluation.benchmarks.cloze": {
        "domain": "general",
        "task": "cloze",
        "protocol": "ppl",
        "num_fewshot": 0,
        "metric": "acc",
        "items": 10,
    },
}


def with_leaf(value, path, leaf):
    """`value` (frozen objects and all) with the leaf at `path` replaced, without validation."""
    if not path:
        return leaf
    name, *below = path
    if isinstance(value, Frozen):
        return value.model_copy(update={name: with_leaf(getattr(value, name), below, leaf)})
    if isinstance(value, dict):
        return value | {name: with_leaf(value[name], below, leaf)}
    index = int(name)
    return (*value[:index], with_leaf(value[index], below, leaf), *value[index + 1 :])


def another(leaf):
    """Another value of the leaf's kind."""
    if isinstance(leaf, bool):
        return not leaf
    if isinstance(leaf, int | float):
        return leaf + 1
    if isinstance(leaf, str):
        return leaf + "x"
    return {"now": "something"} if leaf == {} else "something" if leaf is None else ("something",)


def texts(result, level="refused"):
    return [finding.text for finding in result.findings if finding.level == level]


def qa(share):
    return {f"{FACTOR}.domains": {"general": 1 - share, "qa": share}}


@pytest.fixture
def cards(card):
    return {"small": card}


@pytest.fixture
def two(make_run):
    """Two arms that differ in the factor, the second with `changes`; what the sweep declares may follow."""

    def make(changes=None, base=None, **declared):
        arms = {"QA-75%": make_run(base or {}), "QA-50%": make_run({**(base or {}), **qa(0.5), **(changes or {})})}
        return make_sweep(arms, **declared)

    return make


def test_arms_that_differ_in_the_factor_are_controlled(two, cards):
    result = audited(two(held_fixed=("tokens", "flops")), cards)
    assert result.verdict == "controlled"
    assert result.differing == (f"{FACTOR}.domains.general", f"{FACTOR}.domains.qa")
    assert texts(result, "noted") == [
        "every arm reads the same 4 sources, of the same content and depth",
        "every arm has 960 training tokens and 7.7414e+06 training FLOPs",
    ]


def test_every_single_leaf_is_caught(two, make_run, cards):
    """100%: each leaf in turn gets another value in one arm; those below the factor are allowed, labels are labels."""
    base = make_run(CHANGES)
    keys = dict(leaves(base))
    caught, allowed = set(), set()
    for key, leaf in keys.items():
        mutant = with_leaf(base, key.split("."), another(leaf))
        found = differences(base, mutant, LABELS)
        below = key.startswith((FACTOR + ".",))
        sweep = make_sweep({"base": base, "mutant": mutant})
        undeclared = undeclared_of(sweep)
        if key in LABELS:
            assert not found, key
        elif below:
            allowed.add(key)
            assert found and not undeclared, key
        else:
            caught.add(key)
            assert any(text.startswith(key) and "base" in text and "mutant" in text for text in undeclared), key
    assert allowed and caught | allowed | LABELS == set(keys)
    assert {"trunk_seed", "seeds_from", "store", "checkpoint_every_tokens", "cluster.threads", "tracking.mode"} < caught


def undeclared_of(sweep):
    """The keys refused, straight from the configs: many a mutant (a pool without its domain) could not be planned."""
    return [text for text in texts(audit(sweep, [], {}, {}, {})) if "differs between arms" in text]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_arm_among_many_is_named(make_run, data):
    """Random arms (each with its own value of the factor), one leaf of one arm mutated: the key and arm are named."""
    base = make_run()
    count = data.draw(st.integers(2, 6))
    arms = {}
    for index in range(count):
        domains = {"general": 1 - index / 10, "qa": index / 10}
        arms[string.ascii_uppercase[index]] = with_leaf(base, f"{FACTOR}.domains".split("."), domains)
    assert undeclared_of(make_sweep(arms)) == []
    label = data.draw(st.sampled_from(sorted(arms)))
    keys = sorted(key for key, _ in leaves(base) if key not in LABELS and not key.startswith(FACTOR))
    key = data.draw(st.sampled_from(keys))
    arms[label] = with_leaf(arms[label], key.split("."), another(dict(leaves(base))[key]))
    (text,) = undeclared_of(make_sweep(arms))
    assert text.startswith(key)
    assert "differs between arms A (" in text
    assert label in text


def test_an_undeclared_difference_is_refused_with_key_values_and_arms(two, cards):
    sweep = two({"optimizer.beta2": 0.99})
    result = audited(sweep, cards)
    assert texts(result) == [
        "optimizer.beta2 differs between arms QA-75% (0.95) and QA-50% (0.99); "
        "it is neither in the declared factor nor derived from it"
    ]
    warned = audited(sweep, cards, warn_only=True)
    assert warned.verdict == "warned"
    assert texts(warned, "warned") == texts(result)


def test_arms_of_one_value_are_named_together(make_run, cards):
    arms = {
        f"QA-{share}": make_run({**qa(share / 100), "optimizer.beta1": 0.9 + (share < 60) / 50})
        for share in (75, 50, 40)
    }
    (text,) = texts(audited(make_sweep(arms), cards))
    assert "arms QA-75 (0.9) and QA-50, QA-40 (0.92);" in text


def test_a_key_one_side_lacks_is_absent_there(two, cards):
    found = texts(audited(two({"evaluation.at": [{"stage": "second", "tokens": 100}]}), cards))
    said = "evaluation.at.1.stage differs between arms QA-75% (second) and QA-50% (absent)"
    assert any(text.startswith(said) for text in found)


def test_the_order_of_stages_counts(make_run):
    run = make_run()
    turned = run.curriculum.model_copy(update={"stages": dict(reversed(run.curriculum.stages.items()))})
    found = differences(run, run.model_copy(update={"curriculum": turned}))
    assert found == {"curriculum.stages": ("first, second", "second, first")}


def test_differences_tell_types_apart_and_cover_groups_against_leaves(make_run):
    run = make_run()
    assert differences(run, run) == {}
    changed = with_leaf(run, ["optimizer", "beta1"], "0.9")
    assert differences(run, changed) == {"optimizer.beta1": (0.9, "0.9")}
    grown = with_leaf(run, ["evaluation", "limit"], {"a": 1})
    assert differences(run, grown) == {"evaluation.limit": (None, ABSENT), "evaluation.limit.a": (ABSENT, 1)}
    assert children(3) is None


@pytest.mark.parametrize("key", ["depth.general", "curriculum.stages.first.depth.general"])
def test_what_derives_from_the_factor_is_allowed(make_run, cards, key):
    depths = {"depth": {"general": "L1"}, "curriculum.stages.first.depth": {"general": "L1"}}
    arms = {"base": make_run({"pool.sources.web.depths": ["L1", "L2"]})}
    arms["shallow"] = make_run({"pool.sources.web.depths": ["L1", "L2"], **depths})
    cards["small"].sources["web"].variants["L1"] = cards["small"].sources["web"].variants["L2"]
    derived = {"shallow": frozenset({"curriculum.stages.first.depth.general"})}
    result = audited(make_sweep(arms, factor=("depth",), derived=derived), cards)
    assert result.verdict == "controlled"
    assert result.derived == ("curriculum.stages.first.depth.general",)
    assert "through the factor, arms do not read alike (content or depth, or not at all): books, web" in texts(
        result, "noted"
    )
    # Derived in another arm is not derived in this one.
    elsewhere = audited(make_sweep(arms, factor=("depth",), derived={"base": derived["shallow"]}), cards)
    assert texts(elsewhere)[0].startswith("curriculum.stages.first.depth.general differs")


def test_list_indices_are_understood_as_hydra_writes_them(two, cards):
    later = {"evaluation.at": [{"stage": "second", "tokens": 200}, {"stage": "second"}]}
    assert audited(two(later, factor=(FACTOR, "evaluation.at[0].tokens")), cards).verdict == "controlled"
    derived = {"QA-50%": frozenset({"evaluation.at[0].tokens"})}
    assert audited(two(later, derived=derived), cards).verdict == "controlled"


def test_a_factor_no_arm_changes_is_refused(two, cards):
    assert texts(audited(two(factor=(FACTOR, "optimizer.beta1")), cards)) == [
        f"factor key optimizer.beta1 is changed by no arm; arms differ in {FACTOR}.domains.general, {FACTOR}.domains.qa"
    ]
    found = texts(audited(two({"optimizer.beta2": 0.99}, factor=(FACTOR, "optimizer.beta1")), cards))
    assert "factor key optimizer.beta1 is changed by no arm; arms differ in optimizer.beta2" in found


def test_a_factor_key_the_config_lacks_names_the_nearest(two, cards):
    (text,) = texts(audited(two(factor=(FACTOR, "optimizer.beta3")), cards))
    assert text.startswith(
        "factor key optimizer.beta3 is not a key of the config; nearest: optimizer.beta2, optimizer.b"
    )


def test_budgets_held_fixed_are_refused_and_others_noted(two, cards):
    longer = {"curriculum.stages.second.tokens": 640}
    factor = (FACTOR, "curriculum.stages.second.tokens")
    held = audited(two(longer, factor=factor, held_fixed=("tokens",)), cards)
    said = "training tokens are held fixed but differ: QA-75% 960; QA-50% 1,280 (held_fixed: [] lets them)"
    assert texts(held) == [said]
    assert "training FLOPs differ, and are not held fixed: QA-75% 7.7414e+06; QA-50% 1.0322e+07" in texts(held, "noted")
    free = audited(two(longer, factor=factor), cards)
    assert free.verdict == "controlled"
    assert "training tokens differ, and are not held fixed: QA-75% 960; QA-50% 1,280" in texts(free, "noted")


def test_whole_steps_may_end_a_stage_a_little_apart(two, cards):
    base = {"curriculum.stages.first.tokens": 64000}
    batch = {"curriculum.stages.first.batch_size": [{"from_tokens": 0, "sequences": 3}]}
    factor = (FACTOR, "curriculum.stages.first.batch_size")
    result = audited(two(batch, base, factor=factor, held_fixed=("tokens", "flops")), cards)
    assert result.verdict == "controlled"
    assert "training tokens agree to 0.02% (whole steps): QA-75% 64,320; QA-50% 64,304" in texts(result, "noted")


def test_arms_of_one_flops_budget_may_end_a_whole_step_apart(two, cards):
    base = {"curriculum.stages.first.tokens": 3200}
    batch = {"curriculum.stages.first.batch_size": [{"from_tokens": 0, "sequences": 3}]}
    factor = (FACTOR, "curriculum.stages.first.batch_size")
    dial = {"scale.parameters": 1e6, "scale.tokens_per_parameter": 20, "scale.flops": 2.8e7}
    held = {"factor": factor, "held_fixed": ("flops",)}
    assert "training FLOPs are held fixed but differ" in texts(audited(two(batch, base, **held), cards))[0]
    result = audited(two(batch, {**base, **dial}, **held), cards)
    assert result.verdict == "controlled"
    assert any("training FLOPs agree to 0.91% (whole steps)" in text for text in texts(result, "noted"))


def test_a_budget_that_the_dial_does_not_give_is_noted(two, cards):
    dial = {"scale.parameters": 96.0, "scale.tokens_per_parameter": 20}
    (text,) = [text for text in texts(audited(two(base=dial), cards), "noted") if "dial" in text]
    assert text.startswith(
        "QA-75%, QA-50%: 50% of scale.tokens_per_parameter 20 are trained; the dial is of the ladder"
    )
    (text,) = [t for t in texts(audited(two(base={**dial, "scale.flops": 1e8}), cards), "noted") if "dial" in t]
    assert text.startswith("QA-75%, QA-50%: 8% of scale.flops 1e+08 are trained")
    assert not [t for t in texts(audited(two(base={**dial, "scale.parameters": 48.0}), cards), "noted") if "dial" in t]


SSM, EXPERTS = {"model.mixers": {"pattern": ["ssm"]}}, {"model.experts": {"count": 4, "width": 8}}
IDLE = {
    "states alone": (SSM, {"model.qk_norm": {"kind": "rms"}}, "model.qk_norm.kind"),
    "linear attention": (
        {"model.mixers": {"pattern": ["linear"]}, "model.qkv_bias": False},
        {"model.qkv_bias": True},
        "model.qkv_bias",
    ),
    "no RoPE": ({"model.positions": {"rotary": 0.0}}, {"model.rope_theta": 7.0}, "model.rope_theta"),
    "heads of their own": ({"model.attention": {"kind": "multi_head"}}, {"model.kv_heads": 2}, "model.kv_heads"),
    "no experts": ({"model.experts": {"count": 0}}, {"model.experts": {"chosen": 3}}, "model.experts.chosen"),
    "a long window": ({"model.window": {"tokens": None}}, {"model.window": {"tokens": 10**6}}, "model.window.tokens"),
    "wide experts": (EXPERTS, {"model.mlp_intermediate_size": 64}, "model.mlp_intermediate_size"),
}


@pytest.mark.parametrize(("base", "idle", "key"), IDLE.values(), ids=list(IDLE))
def test_arms_that_are_one_model_are_no_comparison(make_run, cards, base, idle, key):
    arms = {"one": make_run(base), "other": make_run({**base, **idle})}
    found = audited(make_sweep(arms, factor=(key,)), cards)
    assert texts(found) == [f"arms one, other are one model, trained 2 times: nothing in it reads {key}"]
    arms["third"] = make_run({**base, "model.layers": 5})
    found = audited(make_sweep(arms, factor=("model",)), cards)
    assert (found.verdict, len(texts(found, "warned"))) == ("warned", 1)


@pytest.mark.parametrize("key", ["qk_norm", "rope_theta", "window", "mlp_intermediate_size"])
def test_what_a_model_reads_is_compared(make_run, cards, key):
    value = {"qk_norm": {"kind": "rms"}, "window": {"tokens": 3}}.get(key, 64)
    arms = {"one": make_run(), "other": make_run({f"model.{key}": value})}
    assert audited(make_sweep(arms, factor=(f"model.{key}",)), cards).verdict == "controlled"


def test_an_arm_without_all_seeds_is_refused(two, cards):
    sweep = two(seeds=(0, 1, 2))
    runs, nodes, flops = make_runs(sweep, cards)
    result = audit(sweep, runs[:4], nodes, flops, cards)
    assert texts(result) == ["arm QA-50% lacks seeds 1, 2"]


def test_placement_set_by_resources_is_noted_and_any_other_refused(two, cards):
    change = {"cluster.threads": 2, "cluster.memory_gb": 8}
    placed = audited(two(change, placed=frozenset({"cluster.threads", "cluster.memory_gb"})), cards)
    assert placed.verdict == "controlled"
    assert texts(placed, "noted")[-2:] == [
        "cluster.memory_gb: QA-75% 1, QA-50% (8), by the sweep's resources",
        "mixed devices, so equal training agrees to rounding only: cluster.threads of QA-75% 1; QA-50% 2",
    ]
    # cluster.gpus may follow cluster.threads by interpolation.
    followed = audited(two({"cluster.threads": 2, "cluster.gpus": 2}, placed=frozenset({"cluster.threads"})), cards)
    assert followed.verdict == "controlled"
    assert any("cluster.gpus of QA-75% 1; QA-50% 2" in text for text in texts(followed, "noted"))
    bare = audited(two(change), cards)
    assert [text.split(" ")[0] for text in texts(bare)] == ["cluster.memory_gb", "cluster.threads"]


def test_other_tokenizers_are_noted(make_run, run_data, cards, card):
    other = run_data["pool"] | {"name": "other", "tokenizer": "bytes"}
    tokenizer = card.tokenizer.model_copy(update={"digest": "t1"})
    cards["other"] = card.model_copy(update={"name": "other", "tokenizer": tokenizer})
    arms = {"small": make_run(), "other": make_run({"pool": other})}
    result = audited(make_sweep(arms, factor=("pool",)), cards)
    assert result.verdict == "controlled"
    assert texts(result, "noted")[-1] == (
        "tokenizers differ, so losses per token are not comparable between arms (bits per byte are): "
        "small t0 (small); bytes t1 (other)"
    )


def test_content_that_no_factor_explains_is_refused(two, cards):
    sweep = make_sweep({"a": two().arms[0].config, "b": two({"optimizer.beta1": 0.8}).arms[0].config}, factor=())
    runs, nodes, flops = make_runs(sweep, cards)
    runs = [run.model_copy(update={"nodes": tuple(f"{run.arm}{node}" for node in run.nodes)}) for run in runs]
    copies = {}
    for run in runs:
        for node in run.nodes:
            copies[node] = nodes[node[1:]].model_copy(update={"id": node})
    tampered = copies[runs[1].nodes[0]]
    use = tampered.sources["books"].model_copy(update={"digest": "changed"})
    copies[tampered.id] = tampered.model_copy(update={"sources": tampered.sources | {"books": use}})
    result = audit(sweep, runs, copies, flops, cards)
    assert texts(result) == ["source books is not read alike by arms a and b, and no factor key explains it"]


def test_masks_report_tokens_seen_and_in_the_loss(two, cards):
    mask = "curriculum.stages.second.mask_questions"
    result = audited(two({mask: True}, factor=(FACTOR, mask)), cards)
    assert texts(result, "noted")[-2:] == [
        "QA-75%: all of the 960 tokens seen are in the loss",
        "QA-50%: of 960 tokens seen between 640 and 960 are in the loss: second leaves questions out, counted only as "
        "data is read",
    ]
    both = audited(two({}, {mask: True}), cards)
    assert texts(both, "noted")[-1].startswith("every arm: of 960 tokens seen between 640 and 960 are in the loss")


def test_what_a_token_passes_of_a_model_with_experts_is_noted(make_run, cards):
    run = make_run({"model.experts": {"count": 8, "chosen": 2}})
    model = run.model
    sweep = make_sweep({"dense": make_run(), "experts": run}, factor=("model.experts",))
    (found,) = [one.text for one in audited(sweep, cards).findings if "experts a token" in one.text]
    active, whole = active_parameters(model, model.vocab_size), parameters(model, model.vocab_size)
    assert active < whole and found.endswith(f"a token passes {tokens(active)} of {tokens(whole)} in experts")


def test_seeds_on_one_trunk_are_noted(two, cards):
    shared = {"seeds_from": "second"}
    note = "the seeds share one trunk (seed 0) up to second: intervals are conditional on it"
    assert note in texts(audited(two({}, shared, seeds=(0, 1)), cards), "noted")
    assert note not in texts(audited(two({}, shared), cards), "noted")
    assert note not in texts(audited(two({}, {"seeds_from": "first"}, seeds=(0, 1)), cards), "noted")
    assert note not in texts(audited(two(seeds=(0, 1)), cards), "noted")


def test_an_a_a_comparison_needs_no_factor(make_run, cards):
    sweep = make_sweep({"a": make_run(), "again": make_run(replicate=1)}, factor=())
    result = audited(sweep, cards)
    assert result.verdict == "controlled"
    assert texts(result, "noted")[-1] == "A/A: again repeat an arm of equal config with other random streams"


def test_two_thousand_arms_are_one_finding_a_key(make_run, cards):
    base = make_run()
    arms = {f"lr-{index}": with_leaf(base, ["optimizer", "beta1"], index / 4096) for index in range(2000)}
    sweep = make_sweep(arms, factor=())
    (text,) = texts(audited(sweep, cards))
    assert text.endswith("and 1,993 more values; it is neither in the declared factor nor derived from it")
    assert audited(make_sweep(arms, factor=("optimizer",)), cards).verdict == "controlled"
