"""Setting values on a template equals composing again, on randomly drawn sweeps."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from davinci.composition.compose import Composer, compose, files_of, origin_of, template_of, to_run
from davinci.errors import UserError

GROUPS = {
    "depth": ["native", "l1", "l2"],
    "scale": ["tiny", "smoke", "paper"],
    "tracking": ["offline", "disabled"],
    "mixture@curriculum.stages.s2_2.mixture": ["qa30", "qa50", "qa70"],
}
VALUES = {
    "seed": st.integers(0, 9),
    "trunk_seed": st.integers(0, 9),
    "store": st.sampled_from(["a", "b/c"]),
    "optimizer.beta2": st.floats(0.5, 0.99),
    "optimizer.weight_decay": st.sampled_from([0, 0.1, 1]),
    "model.layers": st.integers(1, 8),
    "scale.tokens_per_trillion": st.integers(200_000, 900_000),
    "scale.sequences_per_1024": st.integers(1, 8),
    "scale.peak_lr": st.floats(1e-5, 1e-2),
    "scale.final_lr": st.sampled_from([1e-4, 2e-4]),
    "scale.sequence_length": st.sampled_from([32, 64]),
    "pool.vocab_size": st.integers(2048, 4096),
    "curriculum.stages.s1_1.mask_questions": st.booleans(),
    "curriculum.stages.s2_2.lr.start": st.floats(1e-5, 1e-2),
    "+curriculum.stages.s2_1.mixture.sources.arithmetic": st.just(1),
    "depth.code": st.sampled_from(["L1", "L2", "null"]),
    "cluster.partition": st.sampled_from(["main", "null"]),
}


@pytest.fixture(scope="module")
def loader(repository):
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@st.composite
def lines(draw):
    groups = {
        name: draw(st.sampled_from(GROUPS[name])) for name in draw(st.sets(st.sampled_from(list(GROUPS)), max_size=2))
    }
    values = {name: draw(VALUES[name]) for name in draw(st.sets(st.sampled_from(list(VALUES)), max_size=4))}
    if groups.get("scale") == "paper":  # the paper's pool has no source of that name
        values.pop("+curriculum.stages.s2_1.mixture.sources.arithmetic", None)
    return [f"{name}={value}" for name, value in {**groups, **values}.items()]


def full(loader, overrides):
    config = compose(loader, overrides, "here")
    data = template_of(config, "here").with_values({"sweep": "test"})
    return to_run(data, origin_of(files_of(config), [], "here"))


def outcome(compose_run, *arguments, **values):
    """The run, or what is said against it."""
    try:
        return compose_run(*arguments, **values)
    except UserError as error:
        return str(error).partition(": ")[2]


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(lines(), min_size=1, max_size=3))
def test_a_drawn_sweep_equals_full_composition(loader, drawn):
    composer = Composer(loader)
    for overrides in drawn + drawn[:1]:  # again: a template must not remember what was set on it
        assert outcome(composer.run, overrides, "here", sweep="test") == outcome(full, loader, overrides)


def test_values_that_interpolate_are_composed_in_full(loader):
    run = Composer(loader).run(["optimizer.beta1='${optimizer.beta2}'", "optimizer.beta2=0.5"], "here", sweep="test")
    assert run.optimizer.beta1 == 0.5


def test_a_thousand_values_share_one_composition(loader, monkeypatch):
    composer = Composer(loader)
    composer.run(["depth=l1"], "here", sweep="test")
    monkeypatch.setattr("davinci.composition.compose.compose", None)  # composing again would fail
    seeds = {composer.run(["depth=l1", f"seed={seed}"], "here", sweep="test").trunk_seed for seed in range(100)}
    assert seeds == set(range(100))
