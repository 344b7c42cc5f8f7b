"""Composing from files read once and setting values on a template equals Hydra, on randomly drawn sweeps."""

import json
from pathlib import Path

import hydra
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict

from davinci.composition.compose import Composer, Line, template_of
from davinci.composition.conf import CONFIG_NAME, STEERING
from davinci.composition.errors import composition_errors
from davinci.composition.expand import expand
from davinci.composition.grammar import parse_overrides
from davinci.config import Run
from davinci.errors import UserError

GROUPS = {
    "depth": ["native", "l1", "l2"],
    "scale": ["tiny", "smoke", "paper"],
    "model": ["tiny", "3b"],
    "tracking": ["offline", "disabled"],
    "cluster": ["local", "slurm"],
    "curriculum": ["paper", "stage2_1"],
    "mixture@curriculum.stages.s2_2.mixture": ["qa30", "qa50", "qa70"],
    "mixture@curriculum.stages.s2_1.mixture": ["s2_1", "qa40"],
}
VALUES = {
    "store": ["a", "b/c"],
    "optimizer.beta2": [0.5, 0.9, 0.99],
    "optimizer.weight_decay": [0, 0.1, 1],
    "model.layers": [1, 2, 8],
    "scale.tokens_per_trillion": [200_000, 900_000],
    "scale.sequences_per_1024": [1, 4],
    "scale.peak_lr": [1e-5, 1e-3],
    "scale.final_lr": ["1e-4", 2e-4],
    "scale.sequence_length": [32, 64],
    "pool.vocab_size": [2048, 4096],
    "seeds_from": ["null", "s2_1"],
    "checkpoint_every_tokens": [65536, "${tokens:0.5}"],
    "curriculum.stages.s2_1.mask_questions": ["true", "false"],
    "curriculum.stages.s2_1.tokens": [131072, "${tokens:0.7}", "${curriculum.stages.s1_1.tokens}"],
    "curriculum.stages.s2_1.lr.start": [1e-4, "${scale.peak_lr}"],
    "curriculum.stages.s2_1.batch_size": ["[{from_tokens:0,sequences:2}]"],
    "+curriculum.stages.s2_1.mixture.sources.arithmetic": [1, 2],
    "++optimizer.eps": ["1e-7"],
    "+optimizer": ["{eps:1e-6}"],
    "~evaluation.benchmarks.science_cloze": [None],
    "evaluation.at": ["[{stage:s2_1}]", "[{stage:s2_1,tokens:65536}]"],
    "evaluation.at.0.tokens": ["65536"],
    "depth.code": ["L1", "L2", "null"],
    "cluster.partition": ["main", "'a b'", "null"],
}


def lines(size):
    """Overrides of distinct keys."""

    def write(keys, draw):
        return [
            key if (value := draw(st.sampled_from({**GROUPS, **VALUES}[key]))) is None else f"{key}={value}"
            for key in keys
        ]

    @st.composite
    def drawn(draw):
        keys = draw(st.lists(st.sampled_from([*GROUPS, *VALUES]), max_size=size, unique=True))
        return write(keys, draw)

    return drawn()


def by_hydra(overrides, **values):
    """The resolved keys of a run, from `hydra.compose` alone; OmegaConf's or Hydra's error where there is one."""
    config = hydra.compose(CONFIG_NAME, overrides)
    with open_dict(config):
        for key in STEERING:
            config.pop(key, None)
        for key, value in values.items():
            config[key] = value
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def outcome(call, *arguments, **values):
    """What `call` returns as JSON, in order; "error" where it raises."""
    try:
        return json.dumps(call(*arguments, **values))
    except composition_errors:
        return "error"


@settings(max_examples=10, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(st.lists(lines(5), min_size=1, max_size=3))
def test_drawn_overrides_compose_as_hydra_composes_them(conf, drawn):
    composer = Composer(conf)

    def ours(overrides, **values):
        return composer._data([Line(text, "here") for text in overrides], values)[0]

    mixture = "mixture@curriculum.stages.s2_1.mixture"
    kin = [[*overrides, f"{mixture}=qa40"] for overrides in drawn if not any(mixture in line for line in overrides)]
    for index, overrides in enumerate(drawn + kin + drawn[:1]):  # again: a template must not remember what was set
        values = {"sweep": "test", "arm": f"arm {index}", "seed": index}
        assert outcome(ours, overrides, **values) == outcome(by_hydra, overrides, **values)


@st.composite
def sweeps(draw):
    """A sweep file and arguments on top of it, and what each run's overrides must be, by arm label and seed."""
    not_an_arms = ("+", "~", "store", "cluster", "tracking", "seeds_from")
    axis = draw(st.sampled_from([key for key in (*GROUPS, *VALUES) if not key.startswith(not_an_arms)]))
    choices = {**GROUPS, **VALUES}[axis]
    arms = {f"arm {index}": [f"{axis}={value}"] for index, value in enumerate(choices)}
    used = {axis}

    def others(size):
        found = []
        for line in draw(lines(size)):
            key = line.partition("=")[0]
            if not any(_related(key.lstrip("+~"), other.lstrip("+~")) for other in used):
                used.add(key)
                found.append(line)
        return found

    placement = ("store", "cluster", "tracking", "seeds_from")
    common = [line for line in others(2) if not line.startswith(placement)]
    fixed = others(2)
    swept = [
        key for key in draw(st.lists(st.sampled_from(["optimizer.beta1", "depth"]), max_size=1)) if key not in used
    ]
    seeds = draw(st.lists(st.integers(0, 9), min_size=1, max_size=2, unique=True))
    return axis, arms, common, fixed, swept, seeds


def _related(one, other):
    one, other = one.rpartition("@")[2], other.rpartition("@")[2]
    return one == other or one.startswith(other + ".") or other.startswith(one + ".")


@settings(max_examples=10, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(sweeps())
def test_every_config_of_a_drawn_sweep_equals_hydra(conf, tmp_path_factory, drawn):
    axis, arms, common, fixed, swept, seeds = drawn
    file = {"question": "?", "factor": [axis.rpartition("@")[2]], "arms": arms, "seeds": seeds, "common": common}
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "drawn.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
    top = {"optimizer.beta1": ["0.8", "0.9"], "depth": ["l1", "l2"]}
    expected = {}
    for label, own in arms.items():
        for extra in [[f"{key}={value}"] for key in swept for value in top[key]] or [[]]:
            name = " ".join([label, *(line.removeprefix("optimizer.") for line in extra)])
            lines = [*common, *own, *fixed, *extra]
            for seed in seeds:
                values = {"sweep": "drawn", "arm": name, "seed": seed}
                try:
                    data = by_hydra(lines, **values)
                    trunk = {} if data["seeds_from"] is None else {"trunk_seed": seeds[0]}
                    expected[name, seed] = Run.model_validate_json(json.dumps({**data, **trunk}))
                except (*composition_errors, ValueError):
                    expected[name, seed] = None
    arguments = ["sweep=drawn", *fixed, *(f"{key}={','.join(top[key])}" for key in swept)]
    if None in expected.values():
        with pytest.raises(UserError):
            expand(arguments, conf, folder)
        return
    try:
        (sweep,) = expand(arguments, conf, folder).sweeps
    except UserError as error:
        assert "are equal" in str(error) or "factor: no config key" in str(error)
        return
    found = {(arm.label, seed): arm.run(seed) for arm in sweep.arms for seed in sweep.seeds}
    assert found == expected
    assert [list(run.curriculum.stages) for run in found.values()] == [
        list(run.curriculum.stages) for run in expected.values()
    ]


def test_values_that_interpolate_are_composed_in_full(conf):
    texts = ["optimizer.beta1='${optimizer.beta2}'", "optimizer.beta2=0.5"]
    run = Composer(conf).run([Line(text, "here") for text in texts], sweep="test")
    assert run.optimizer.beta1 == 0.5


def test_a_thousand_values_share_one_composition(conf, monkeypatch):
    composer = Composer(conf)
    composer.run([Line("depth=l1", "here")], sweep="test")
    monkeypatch.setattr(conf, "compose", None)  # composing again would fail
    found = {
        composer.run([Line("depth=l1", "here"), Line(f"model.layers={layers}", "here")], sweep="test").model.layers
        for layers in range(1, 100)
    }
    assert found == set(range(1, 100))


def test_equal_parts_of_runs_are_the_same_objects(conf):
    composer = Composer(conf)
    one = composer.run([Line("optimizer.beta2=0.9", "here")], sweep="test")
    other = composer.run([Line("depth=l1", "here")], sweep="test")
    assert one.model is other.model and one.pool is other.pool
    assert one.optimizer is not other.optimizer
    again = composer.run([Line("optimizer.beta2=0.9", "here")], sweep="test")
    assert again.curriculum is one.curriculum


@pytest.mark.parametrize("value", ["${seed}", "${trunk_seed}", "${oc.env:NOSUCH,${seed}}", "${oc.select:seed}"])
def test_a_key_that_reads_the_seed_is_refused(conf, value):
    line = Line(f"checkpoint_every_tokens='{value}'", "here")
    with pytest.raises(UserError, match=r"^conf/config.yaml: checkpoint_every_tokens: reads \$\{seed\}"):
        Composer(conf).run([line], sweep="test")


def test_a_reference_to_a_group_of_keys_follows_each_of_them(conf):
    texts = ["curriculum.stages.s2_1.depth='${depth}'", "depth.code=L1"]
    run = Composer(conf).run([Line(text, "here") for text in texts], sweep="test")
    assert run.curriculum.stages["s2_1"].depth.code == "L1"
    template = template_of(conf.compose(parse_overrides(texts[:1], "here")))
    data = template.with_values({"depth.science": "L2", "sweep": "${odd", "arm": "a"})
    assert data["curriculum"]["stages"]["s2_1"]["depth"]["science"] == "L2"
    assert data["curriculum"]["stages"]["s1_1"]["depth"]["science"] == "L2"


def test_what_is_more_than_merging_is_left_to_hydra(conf, tmp_path):
    """A group file with something unset, with Hydra's own values, or a mapping over an interpolation."""
    (tmp_path / "odd").mkdir()
    for name, text in {
        "unset": "a: ???",
        "own": "a: ${hydra:job.name}",
        "none": "a: null",
    }.items():
        (tmp_path / "odd" / f"{name}.yaml").write_text(text)
    path = Path(tmp_path).as_uri()
    from davinci.composition.conf import Conf

    other = Conf(conf._loader, [f"hydra.searchpath=[{path}]"])
    for name, merged in {"unset": False, "own": False, "none": True}.items():
        found = other._merged(parse_overrides([f"+odd={name}"], "here"))
        assert (found is not None) is merged
        full = other.compose(parse_overrides([f"+odd={name}"], "here")).config
        assert OmegaConf.to_container(full)["odd"] == yaml.safe_load((tmp_path / "odd" / f"{name}.yaml").read_text())


def test_other_files_of_a_group_share_a_template_where_only_values_differ(conf, monkeypatch):
    composer = Composer(conf)
    mixture = "mixture@curriculum.stages.s2_2.mixture"
    general = Line("++curriculum.stages.s2_2.mixture.domains.general=0.2", "here")
    run = composer.run([Line("depth=l1", "here"), Line(f"{mixture}=qa30", "here")], sweep="test")
    calls = []
    compose = conf.compose
    monkeypatch.setattr(conf, "compose", lambda overrides: calls.append(overrides) or compose(overrides))
    other = composer.run([Line("depth=l2", "here"), Line(f"{mixture}=qa50", "here")], sweep="test")
    assert not calls
    assert (other.depth.code, other.curriculum.stages["s1_1"].depth.code) == ("L2", "L2")
    assert other.curriculum.stages["s2_2"].mixture.domains["qa"] == 0.5
    assert run.curriculum.stages["s2_2"].mixture.domains["qa"] == 0.3
    with pytest.raises(UserError, match="proportions must sum to 1"):  # a value that is set stays set
        composer.run([Line(f"{mixture}=qa40", "here"), general], sweep="test")
