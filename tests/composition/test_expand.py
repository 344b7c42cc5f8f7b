"""Sweep files and command lines, composed with the real conf/ and Hydra's own loader."""

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from davinci.composition.compose import Composer, compose, files_of, origin_of, template_of, to_run
from davinci.composition.expand import expand
from davinci.errors import UserError

SWEEP = """
question: Does depth matter?
factor: [depth]
baseline: raw
arms:
  raw: [depth=l1]
  filtered: [depth=l2]
seeds: [3, 5]
fixed: ['curriculum.stages.s2_2.tokens=${tokens:0.5}']
"""


@pytest.fixture
def loader(repository):
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture
def folder(tmp_path):
    def write(text, name="depths"):
        folder = tmp_path / "sweeps"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
        return folder

    return write


def run_of(loader, *overrides):
    return Composer(loader).run(overrides, "here", sweep="test")


def test_scale_is_one_dial(loader):
    tiny, paper = run_of(loader), run_of(loader, "scale=paper")
    assert paper.model.name == "3b" and paper.pool.name == "davinci" and paper.evaluation.suite == "paper"
    assert [stage.tokens for stage in paper.curriculum.stages.values()] == [4 * 10**12, 2 * 10**12, 10**12, 10**12]
    first = paper.curriculum.stages["s1_1"]
    assert [step.sequences for step in first.batch_size] == [1024, 2048, 4096]
    assert first.batch_size[1].from_tokens == 70_000 * 1024 * 4096
    assert first.batch_size[2].from_tokens == first.batch_size[1].from_tokens + 40_000 * 2048 * 4096
    assert first.lr.warmup_tokens == 2000 * 1024 * 4096
    assert paper.curriculum.stages["s2_1"].lr.warmup_tokens == 2000 * 4096 * 4096
    ratio = tiny.scale.tokens_per_trillion / 1e12
    for name, stage in paper.curriculum.stages.items():
        small = tiny.curriculum.stages[name]
        assert small.tokens == pytest.approx(stage.tokens * ratio, rel=1e-5)
        assert small.mixture == stage.mixture
        assert small.lr.shape == stage.lr.shape


def test_a_stages_mixture_is_overridable_alone(loader):
    run = run_of(loader, "mixture@curriculum.stages.s2_2.mixture=qa30")
    assert run.curriculum.stages["s2_2"].mixture.domains["qa"] == 0.3
    assert run.curriculum.stages["s2_1"].mixture == run_of(loader).curriculum.stages["s2_1"].mixture


@pytest.mark.parametrize("choice", ["qa30", "qa40", "qa50"])
def test_other_qa_shares_keep_the_other_domains_in_proportion(loader, choice):
    paper = run_of(loader).curriculum.stages["s2_2"].mixture.domains
    other = run_of(loader, f"mixture@curriculum.stages.s2_2.mixture={choice}").curriculum.stages["s2_2"].mixture.domains
    for domain in ("general", "code", "science"):
        assert other[domain] / (1 - other["qa"]) == pytest.approx(paper[domain] / (1 - paper["qa"]))


def test_a_sweep_file_expands_to_arms_times_seeds(loader, folder):
    sweep = expand(["sweep=depths", "optimizer.beta2=0.9"], loader, folder(SWEEP))
    assert [(run.arm, run.seed, run.trunk_seed) for run in sweep.runs] == [
        ("raw", 3, 3),
        ("raw", 5, 5),
        ("filtered", 3, 3),
        ("filtered", 5, 5),
    ]
    assert {run.depth.code for run in sweep.runs} == {"L1", "L2"}
    assert all(run.optimizer.beta2 == 0.9 for run in sweep.runs)
    assert sweep.runs[0].curriculum.stages["s2_2"].tokens == round(0.5 * sweep.runs[0].scale.tokens_per_trillion)


def test_seeds_share_a_trunk_where_the_scale_says_so(loader, folder):
    files = folder(SWEEP + "seeds_from: s2_2\n")
    alone = expand(["sweep=depths"], loader, files).runs
    shared = expand(["sweep=depths", "scale.shared_trunk=true"], loader, files).runs
    assert {run.seeds_from for run in alone} == {None}
    assert {(run.seeds_from, run.trunk_seed) for run in shared} == {("s2_2", 3)}


def test_the_command_line_alone_is_a_sweep(loader, folder):
    arguments = ["depth=l1,l2", "model.layers=1,2", "seed=range(3)", "optimizer.beta1=0.8"]
    sweep = expand(arguments, loader, Path("unused"))
    assert len(sweep.runs) == 12
    assert sweep.factor == ("depth", "model.layers")
    assert [arm.label for arm in sweep.arms][:2] == ["depth=l1 model.layers=1", "depth=l1 model.layers=2"]
    assert sweep.arms[0].is_baseline
    assert {run.seed for run in sweep.runs} == {0, 1, 2}


def test_a_glob_sweeps_a_group(loader):
    sweep = expand(["mixture@curriculum.stages.s2_2.mixture=glob(qa*)"], loader, Path("unused"))
    assert [run.curriculum.stages["s2_2"].mixture.domains["qa"] for run in sweep.runs] == [0.3, 0.4, 0.5, 0.7]


@pytest.mark.parametrize("override", ["model.layers=x", "model=tinny", "store=''"])
def test_a_mistake_on_the_command_line_is_not_blamed_on_the_sweep_file(loader, folder, override):
    with pytest.raises(UserError, match="^command line: "):
        expand(["sweep=depths", override], loader, folder(SWEEP))


@pytest.mark.parametrize("override", ["seed=7", "arm=x", "trunk_seed=1"])
def test_a_label_of_the_sweep_file_cannot_be_set_beside_it(loader, folder, override):
    with pytest.raises(UserError, match="is set by sweeps/depths.yaml"):
        expand(["sweep=depths", override], loader, folder(SWEEP))


def test_a_key_of_a_chosen_file_is_blamed_on_that_file():
    place = origin_of({"model": "conf/model/wide.yaml"}, ["model", "model.layers"], "here")
    assert place("model.layrs") == "conf/model/wide.yaml"
    assert place("model.layers") == "here"


def test_every_shipped_sweep_expands(loader, repository):
    for file in (repository / "sweeps").glob("[a-z]*.yaml"):
        assert expand([f"sweep={file.stem}"], loader, file.parent).runs


HYPOTHESIS = "hypothesis: {text: t, metric: METRIC, arm: filtered, direction: increase}\n"
BAD_FILES = {
    SWEEP + HYPOTHESIS.replace("METRIC", "arithmetic_gen"): "has no 'arithmetic_gen'; nearest: arithmetic_generative",
    SWEEP + HYPOTHESIS.replace("METRIC", "{paper: MMLU}"): "hypothesis.metric: names none for suite embedded",
    SWEEP + HYPOTHESIS.replace("METRIC", "Code").replace("filtered", "filter"): "hypothesis.arm: no arm 'filter'",
    "question: what": "factor: missing",
    SWEEP + "colour: red": "colour: unknown key",
    SWEEP.replace("baseline: raw", "baseline: row"): "baseline: no arm 'row'; nearest: raw",
    SWEEP.replace("[3, 5]", "[]"): "seeds: ",
    SWEEP.replace("[3, 5]", "[3, 3]"): "repeat",
    SWEEP.replace("[depth=l2]", "[depth=l1]"): "arms: 'raw' and 'filtered' are equal",
    SWEEP.replace("filtered:", "raw:"): "'raw' stands twice",
    SWEEP.replace("[depth=l2]", "[depth=l22]"): "conf/depth has no 'l22'; nearest: l2",
    SWEEP.replace("[depth=l2]", "[dept=l2]"): "dept: unknown key; nearest: depth",
    SWEEP.replace("[depth=l2]", "['depth=[']"): "depths.yaml",
    SWEEP.replace("filtered:", "[filtered]:"): "is no text; quote it",
    SWEEP.replace("filtered:", "2:"): "key 2 is no text; quote it",
    SWEEP + "seeds_from: s2_9": "seeds_from: the curriculum has no stage 's2_9'; nearest: s2_",
    SWEEP.replace("[depth=l2]", "[depth=l2, seed=5]"): "arms.filtered: seed cannot be overridden in a sweep file",
    SWEEP.replace("[depth=l2]", "[depth=l2, store=x]"): "arms.filtered: store belongs on the command line",
    "a: [": "not YAML",
    "- a": "a mapping is expected",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_wrong_sweep_file_is_one_clear_line(loader, folder, text):
    with pytest.raises(UserError) as error:
        expand(["sweep=depths"], loader, folder(text))
    assert BAD_FILES[text] in str(error.value)
    assert "sweeps/depths.yaml" in str(error.value)
    assert "\n" not in str(error.value)


BAD_OVERRIDES = {
    "+curriculum.stages.s2_2.toknes=3": "curriculum.stages.s2_2.toknes: unknown key; nearest: tokens",
    "curriculum.stages.s2_2.tokens=abc": "curriculum.stages.s2_2.tokens: Input should be a valid integer",
    "curriculum.stages.s2_2.tokens=0": "curriculum.stages.s2_2.tokens: Input should be greater than 0",
    "curriculum.stages.s1_1.mixture.domains.code=0.5": "proportions must sum to 1",
    "curriculum.stages.s1_1.mixture.domains.code=-0.1": "greater than or equal to 0",
    "+curriculum.stages.s1_1.mixture.sources.nosuch=1": "pool embedded has no source 'nosuch'",
    "evaluation.at=[{stage:s2_3}]": "evaluation.at.0.stage: the curriculum has no stage 's2_3'; nearest: s2_",
    "+evaluation.benchmarks.x={domain:code,task:nosuch,protocol:ppl,num_fewshot:0,metric:acc}": "no task 'nosuch'",
    "curriculum.stages.s1_1.lr.start=-1": "curriculum.stages.s1_1.lr.start",
    "model.kv_heads=3": "kv_heads 3 must divide",
    "curriculum.stages.s1_1.sequence_length=100000": "exceeds model.max_position_embeddings",
    "model=tinny": "conf/model has no 'tinny'; nearest: tiny",
    "mixture@curriculum.stages.s2_2.mixture=qa71": "conf/mixture has no 'qa71'; nearest: qa70",
    "modle=tiny": "modle: unknown key; nearest: model",
    "seed='${seeed}'": "seeed",
}


@pytest.mark.parametrize("override", BAD_OVERRIDES)
def test_a_wrong_override_is_one_clear_line(loader, override):
    with pytest.raises(UserError) as error:
        run_of(loader, override)
    assert BAD_OVERRIDES[override] in str(error.value)
    assert str(error.value).startswith("here: ")
    assert "\n" not in str(error.value)


def test_an_error_in_a_group_file_names_the_file(loader, repository):
    composed = compose(loader, [], "here")
    composed.model.kv_heads = 3
    data = template_of(composed, "here").with_values({"sweep": "test"})
    with pytest.raises(UserError, match="conf/model/tiny.yaml: model: kv_heads 3 must divide attention_heads"):
        to_run(data, origin_of(files_of(composed), [], "here"))
