"""Sweep files and command lines, composed with the real conf/ and Hydra's own loader."""

import re
from pathlib import Path

import pytest

from davinci.composition.compose import Composer, Line, origin_of, template_of, to_run
from davinci.composition.conf import Conf
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
common: ['curriculum.stages.s2_2.tokens=${tokens:0.5}']
"""
GRID = """
question: What matters?
factor: [depth, optimizer.beta2, model.layers, optimizer.eps]
seeds: 'range(2)'
grid: {depth: [l1, l2], optimizer.beta2: [0.9, 0.95]}
zip: {model.layers: [1, 2], optimizer.eps: [1.0e-8, 1.0e-7]}
"""


def run_of(conf, *overrides):
    return Composer(conf).run([Line(text, "here") for text in overrides], sweep="test")


def sweep_of(conf, folder, *arguments):
    (sweep,) = expand(arguments, conf, folder).sweeps
    return sweep


def labels(sweep):
    return [arm.label for arm in sweep.arms]


def test_scale_is_one_dial(conf):
    tiny, paper = run_of(conf), run_of(conf, "scale=paper")
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


def test_a_stages_mixture_is_overridable_alone(conf):
    run = run_of(conf, "mixture@curriculum.stages.s2_2.mixture=qa30")
    assert run.curriculum.stages["s2_2"].mixture.domains["qa"] == 0.3
    assert run.curriculum.stages["s2_1"].mixture == run_of(conf).curriculum.stages["s2_1"].mixture


@pytest.mark.parametrize("choice", ["qa30", "qa40", "qa50"])
def test_other_qa_shares_keep_the_other_domains_in_proportion(conf, choice):
    paper = run_of(conf).curriculum.stages["s2_2"].mixture.domains
    other = run_of(conf, f"mixture@curriculum.stages.s2_2.mixture={choice}").curriculum.stages["s2_2"].mixture.domains
    for domain in ("general", "code", "science"):
        assert other[domain] / (1 - other["qa"]) == pytest.approx(paper[domain] / (1 - paper["qa"]))


def test_a_sweep_file_expands_to_arms_and_seeds(conf, folder):
    sweep = sweep_of(conf, folder(SWEEP), "sweep=depths", "optimizer.beta2=0.9")
    assert (sweep.name, labels(sweep), sweep.seeds) == ("depths", ["raw", "filtered"], (3, 5))
    assert sweep.factor == ("depth",) and sweep.held_fixed == ("tokens", "flops")
    assert [arm.config.depth.code for arm in sweep.arms] == ["L1", "L2"]
    assert [arm.config.arm for arm in sweep.arms] == ["raw", "filtered"]
    assert all(arm.config.optimizer.beta2 == 0.9 for arm in sweep.arms)
    config = sweep.baseline.config
    assert config.curriculum.stages["s2_2"].tokens == round(0.5 * config.scale.tokens_per_trillion)
    assert [(run.seed, run.trunk_seed) for run in (sweep.arms[1].run(seed) for seed in sweep.seeds)] == [(3, 3), (5, 5)]


def test_what_a_factor_brings_about_is_derived(conf, folder):
    sweep = sweep_of(conf, folder(SWEEP), "sweep=depths")
    assert sweep.derived["filtered"] == {
        f"curriculum.stages.{stage}.depth.{domain}"
        for stage in ("s1_1", "s1_2", "s2_1", "s2_2")
        for domain in ("general", "code", "science")
    }


def test_what_another_override_of_an_arm_brings_about_is_not_derived(conf, folder):
    text = SWEEP.replace("[depth=l2]", "[depth=l2, scale.final_lr=0.002, model.layers=1]")
    derived = sweep_of(conf, folder(text), "sweep=depths").derived["filtered"]
    assert "curriculum.stages.s2_2.depth.code" in derived
    assert not [key for key in derived if "lr" in key or key.startswith(("scale", "model"))]
    baseline = SWEEP.replace("[depth=l1]", "[depth=l1, model.layers=1]")
    assert "model.layers" not in sweep_of(conf, folder(baseline), "sweep=depths").derived["filtered"]


def test_seeds_from_holds_where_the_file_says(conf, folder):
    always = sweep_of(conf, folder(SWEEP + "seeds_from: s2_2\n"), "sweep=depths")
    assert {(arm.run(5).seeds_from, arm.run(5).seed, arm.run(5).trunk_seed) for arm in always.arms} == {("s2_2", 5, 3)}
    by_scale = folder(SWEEP + "seeds_from: {smoke: s2_2}\n")
    assert sweep_of(conf, by_scale, "sweep=depths").arms[0].config.seeds_from is None
    smoke = sweep_of(conf, by_scale, "sweep=depths", "scale=smoke").arms[0].run(5)
    assert (smoke.seeds_from, smoke.trunk_seed) == ("s2_2", 3)


def test_the_command_line_replaces_seeds_and_where_they_part(conf, folder):
    files = folder(SWEEP + "seeds_from: s2_2\n")
    sweep = sweep_of(conf, files, "sweep=depths", "seed=range(4,6)", "seeds_from=s2_1")
    assert sweep.seeds == (4, 5)
    assert (sweep.arms[0].run(5).seeds_from, sweep.arms[0].run(5).trunk_seed) == ("s2_1", 4)
    assert sweep_of(conf, files, "sweep=depths", "seeds_from=null").arms[0].config.seeds_from is None
    assert sweep_of(conf, files, "sweep=depths", "seed=7").seeds == (7,)
    assert sweep_of(conf, files, "sweep=depths", "trunk_seed=9").arms[0].run(5).trunk_seed == 9


def test_axes_multiply_the_arms(conf, folder):
    sweep = sweep_of(conf, folder(GRID), "sweep=depths")
    assert len(sweep.arms) == 2 * 2 * 2
    assert labels(sweep)[:3] == [
        "depth=l1 beta2=0.9 layers=1 eps=1e-08",
        "depth=l1 beta2=0.9 layers=2 eps=1e-07",
        "depth=l1 beta2=0.95 layers=1 eps=1e-08",
    ]
    assert sweep.arms[0].is_baseline and sweep.seeds == (0, 1)
    last = sweep.arms[-1].config
    assert (last.depth.code, last.optimizer.beta2, last.model.layers, last.optimizer.eps) == ("L2", 0.95, 2, 1e-7)


def test_labelled_arms_are_combined_with_axes(conf, folder):
    text = SWEEP + "grid: {mixture@curriculum.stages.s2_1.mixture: [s2_1, qa40], model.layers: [1, 2]}\n"
    text += "exclude: [{arm: filtered, model.layers: 1}, {mixture: qa40, layers: 2}]\n"
    text = text.replace("factor: [depth]", "factor: [depth, curriculum.stages.s2_1.mixture, model.layers]")
    sweep = sweep_of(conf, folder(text), "sweep=depths")
    assert labels(sweep) == [
        "raw mixture=s2_1 layers=1",
        "raw mixture=s2_1 layers=2",
        "raw mixture=qa40 layers=1",
        "filtered mixture=s2_1 layers=2",
    ]
    assert sweep.baseline.label == "raw mixture=s2_1 layers=1"
    one = sweep_of(conf, folder(text.replace("baseline: raw", "baseline: filtered")), "sweep=depths")
    assert one.baseline.label == "filtered mixture=s2_1 layers=2"


def test_keys_that_end_alike_are_written_out(conf, folder):
    text = GRID.replace("optimizer.eps: [1.0e-8, 1.0e-7]", "curriculum.stages.s2_2.mixture.domains.depth: [1, 2]")
    with pytest.raises(UserError):  # no such domain, but the label is made first
        sweep_of(conf, folder(text), "sweep=depths")
    sweep = sweep_of(
        conf, Path("unused"), *(f"mixture@curriculum.stages.{stage}.mixture=qa30,qa50" for stage in ("s2_1", "s2_2"))
    )
    assert labels(sweep)[0] == "curriculum.stages.s2_1.mixture=qa30 curriculum.stages.s2_2.mixture=qa30"


def test_swept_keys_on_top_of_a_file_join_its_factor(conf, folder):
    sweep = sweep_of(conf, folder(SWEEP), "sweep=depths", "model.layers=1,2")
    assert labels(sweep) == ["raw layers=1", "raw layers=2", "filtered layers=1", "filtered layers=2"]
    assert sweep.factor == ("depth", "model.layers") and sweep.held_fixed == ()
    assert sweep.baseline.label == "raw layers=1"


def test_the_command_line_takes_the_place_of_an_axis(conf, folder):
    one = sweep_of(conf, folder(GRID), "sweep=depths", "depth=native")
    assert len(one.arms) == 4 and one.factor == ("optimizer.beta2", "model.layers", "optimizer.eps")
    two = sweep_of(conf, folder(GRID), "sweep=depths", "depth=native,l1")
    assert {arm.config.depth.code for arm in two.arms} == {None, "L1"} and len(two.arms) == 8
    with pytest.raises(UserError, match="command line: model.layers is an axis of sweeps/depths.yaml"):
        sweep_of(conf, folder(GRID), "sweep=depths", "model.layers=3")


def test_equal_arms_become_replicates_where_that_is_meant(conf, folder):
    text = SWEEP.replace("filtered: [depth=l2]", "again: [depth=l1]\n  more: [depth=l2]")
    text = text.replace("factor: [depth]", "aa: true")
    sweep = sweep_of(conf, folder(text), "sweep=depths")
    assert [arm.config.replicate for arm in sweep.arms] == [0, 1, 0] and sweep.factor == ()


def test_resources_are_placed_and_nothing_else(conf, folder):
    text = GRID + "resources: {depth=l2: [cluster.gpus=8], 'depth=l1 beta2=0.9 layers=1 eps=1e-08': [cluster.gpus=2]}\n"
    sweep = sweep_of(conf, folder(text), "sweep=depths")
    assert [arm.config.cluster.gpus for arm in sweep.arms] == [2, 1, 1, 1, 8, 8, 8, 8]
    assert sweep.placed == {"cluster.gpus"}
    assert not any("cluster" in key for keys in sweep.derived.values() for key in keys)


def test_metrics_and_the_layout_of_the_table_are_handed_on(conf, folder):
    text = (
        SWEEP
        + "metrics: {embedded: [Overall, science_cloze, heldout_loss/qa]}\n"
        + "table: {rows: point, points: last}\nnoise: 1.5\n"
    )
    sweep = sweep_of(conf, folder(text), "sweep=depths")
    assert sweep.question.metrics == ("Overall", "science_cloze", "heldout_loss/qa")
    assert (sweep.question.table.rows, sweep.question.table.points) == ("point", "last")
    assert (sweep.noise, sweep.difference) == (1.5, None)


def test_a_suite_is_several_sweeps(conf, folder):
    files = folder(SWEEP)
    folder(GRID, "other")
    folder("question: All of it?\nsuite: [depths, other]\n", "all")
    found = expand(["sweep=all", "scale=smoke"], conf, files)
    assert (found.suite, found.question.text) == ("all", "All of it?")
    assert [sweep.name for sweep in found.sweeps] == ["depths", "other"]
    assert {arm.config.scale.name for sweep in found.sweeps for arm in sweep.arms} == {"smoke"}
    folder("question: Q\nsuite: [all]\n", "outer")
    with pytest.raises(UserError, match=r"sweeps/outer.yaml: suite: all is a suite itself"):
        expand(["sweep=outer"], conf, files)
    folder("question: Q\nsuite: [depth]\n", "outer")
    with pytest.raises(
        UserError, match=r"sweeps/outer.yaml: suite: sweep=depth: no sweeps/depth.yaml; nearest: depths"
    ):
        expand(["sweep=outer"], conf, files)


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("depth=l2,l1", ["l2", "l1"]),
        ("depth=choice(l1,l2)", ["l1", "l2"]),
        ("depth=sort(l2,l1)", ["l1", "l2"]),
        ("depth=sort(l1,l2,reverse=true)", ["l2", "l1"]),
        ("depth=tag(mine,choice(l1,l2))", ["l1", "l2"]),
        ("depth=shuffle(l2,l1,native)", ["l2", "l1", "native"]),
        ("depth=glob(l*)", ["l0", "l1", "l2", "l3", "l4", "l5"]),
        ("depth=glob([l*,n*],exclude=l1)", ["l0", "l2", "l3", "l4", "l5", "native"]),
        ("model.layers=range(1,7,2)", ["1", "3", "5"]),
        ("optimizer.beta2=range(0.5,0.9,0.25)", ["0.5", "0.75"]),
        ("+cluster.partition=a,b", None),
        ("cluster.partition='a b','c'", None),
        ("++optimizer.eps=1e-8,1e-7", ["1e-08", "1e-07"]),
        ("evaluation.at=[{stage:s2_1}],[{stage:s2_2}]", ["[{stage:s2_1}]", "[{stage:s2_2}]"]),
    ],
)
def test_hydras_grammar_of_sweeps(conf, argument, values):
    if values is None:
        with pytest.raises(UserError, match="are equal|Could not append"):  # placement makes no arm
            sweep_of(conf, Path("unused"), argument)
        return
    sweep = sweep_of(conf, Path("unused"), argument)
    key = argument.partition("=")[0].lstrip("+").rpartition(".")[2]
    assert labels(sweep) == [f"{key}={value}" for value in values]
    assert sweep.factor == (argument.partition("=")[0].lstrip("+"),)


def test_the_command_line_alone_is_a_sweep(conf):
    arguments = [
        "depth=l1,l2",
        "model.layers=1,2",
        "seed=range(3)",
        "optimizer.beta1=0.8",
        "~evaluation.heldout_sequences",
    ]
    sweep = sweep_of(conf, Path("unused"), *arguments[:-1])
    assert sweep.factor == ("depth", "model.layers") and sweep.seeds == (0, 1, 2)
    assert labels(sweep)[:2] == ["depth=l1 layers=1", "depth=l1 layers=2"]
    assert sweep.arms[0].is_baseline and sweep.held_fixed == ()
    with pytest.raises(UserError, match="evaluation.heldout_sequences: missing"):
        sweep_of(conf, Path("unused"), *arguments)


def test_an_adhoc_sweep_is_named_by_what_it_asks(conf):
    names = {
        sweep_of(conf, Path("unused"), "depth=l1,l2", *more).name
        for more in ([], ["plan_only=true"], ["audit=warn"], ["store=other"], ["cluster.gpus=2"], ["tracking=disabled"])
    }
    assert len(names) == 1
    assert sweep_of(conf, Path("unused"), "depth=l1,l2", "model.layers=1").name not in names


@pytest.mark.parametrize("override", ["model.layers=x", "model=tinny", "store=''", "modle.layers=2"])
def test_a_mistake_on_the_command_line_is_not_blamed_on_the_sweep_file(conf, folder, override):
    with pytest.raises(UserError, match="^command line: "):
        expand(["sweep=depths", override], conf, folder(SWEEP))


def test_a_key_of_a_chosen_file_is_blamed_on_that_file():
    place = origin_of({"model": "conf/model/wide.yaml"}, [("model", "here"), ("model.layers", "here")])
    assert place("model.layrs") == "conf/model/wide.yaml"
    assert place("model.layers") == "here"


def test_every_shipped_sweep_expands(conf, repository):
    for file in (repository / "sweeps").glob("[a-z]*.yaml"):
        assert expand([f"sweep={file.stem}", "scale=paper"], conf, file.parent).sweeps


HYPOTHESIS = "hypothesis: {text: t, metric: METRIC, arm: filtered, direction: increase}\n"
BAD_FILES = {
    SWEEP + HYPOTHESIS.replace("METRIC", "arithmetic_gen"): "has no 'arithmetic_gen'; nearest: arithmetic_generative",
    SWEEP + HYPOTHESIS.replace("METRIC", "{paper: MMLU}"): "hypothesis.metric: names none for suite embedded",
    SWEEP + HYPOTHESIS.replace("METRIC", "Code").replace("filtered", "filter"): "hypothesis.arm: no arm 'filter'",
    SWEEP + HYPOTHESIS.replace("METRIC", "Code").replace("filtered", "raw"): "hypothesis.arm: raw is the baseline",
    SWEEP + HYPOTHESIS.replace("METRIC", "Code").replace("increase", "up"): "hypothesis.direction: ",
    "question: what": "seeds: missing",
    "question: what\nseeds: [0]": "arms: none; arms, grid or zip must name some",
    SWEEP.replace("factor: [depth]", ""): "factor: missing",
    SWEEP.replace("factor: [depth]", "factor: [dept]"): "factor: no config key 'dept'; nearest: depth",
    SWEEP + "colour: red": "colour: unknown key",
    SWEEP + "fixed: []": "fixed: unknown key",
    SWEEP.replace("baseline: raw", "baseline: row"): "baseline: no arm 'row'; nearest: raw",
    SWEEP.replace("[3, 5]", "[]"): "seeds: ",
    SWEEP.replace("[3, 5]", "[3, 3]"): "repeat",
    SWEEP.replace("[3, 5]", "range(0)"): "seeds: 'range(0)' is no range",
    SWEEP.replace("[3, 5]", "many"): "seeds: 'many' is no range",
    SWEEP.replace("[3, 5]", "[-1]"): "seeds.0: ",
    SWEEP.replace("[depth=l2]", "[depth=l1]"): "arms: 'raw' and 'filtered' are equal; a comparison of equal arms",
    SWEEP.replace(
        "[depth=l2]", "[depth.general=L1, depth.code=L1, depth.science=L1]"
    ): "'raw' and 'filtered' are equal",
    SWEEP + "aa: true": "aa: true, but no two arms are equal",
    SWEEP.replace("filtered:", "raw:"): "'raw' stands twice",
    SWEEP.replace("[depth=l2]", "[depth=l22]"): "arms.filtered: conf/depth has no 'l22'; nearest: l2",
    SWEEP.replace("[depth=l2]", "[dept=l2]"): "arms.filtered: dept: unknown key; nearest: depth",
    SWEEP.replace("[depth=l2]", "['depth=[']"): "depths.yaml: arms.filtered: depth=[",
    SWEEP.replace("[depth=l2]", "['depth=l1,l2']"): "arms.filtered: depth=l1,l2 is swept; write its values as an axis",
    SWEEP.replace("[depth=l2]", "depth=l2"): "arms.filtered: Input should be a valid array",
    SWEEP.replace("filtered:", "[filtered]:"): "is no text; quote it",
    SWEEP.replace("filtered:", "2:"): "key 2 is no text; quote it",
    SWEEP + "seeds_from: s2_9": "seeds_from: the curriculum has no stage 's2_9'; nearest: s2_",
    SWEEP + "seeds_from: {tiny: s2_9}": "seeds_from: the curriculum has no stage 's2_9'; nearest: s2_",
    SWEEP + "seeds_from: {papr: s2_2}": "seeds_from: no scale 'papr'; nearest: paper",
    SWEEP.replace(
        "[depth=l2]", "[depth=l2, seed=5]"
    ): "arms.filtered: seed cannot be overridden in a sweep file; see s",
    SWEEP.replace("[depth=l2]", "[depth=l2, store=x]"): "arms.filtered: store belongs on the command line",
    SWEEP.replace("[depth=l2]", "[depth=l2, plan_only=true]"): "arms.filtered: plan_only belongs on the command line",
    SWEEP.replace("[depth=l2]", "[depth=l2, cluster.gpus=2]"): "under resources",
    SWEEP.replace("[depth=l2]", "[depth=l2, 'store=???']"): "store belongs on the command line",
    SWEEP.replace("[depth=l2]", "[depth=l2, 'model.layers=???']"): "model.layers: left unset (???)",
    SWEEP.replace("[depth=l2]", "['optimizer.beta1=${optimizer.beta2}', 'optimizer.beta2=${optimizer.beta1}']"): (
        "a cyclic interpolation"
    ),
    SWEEP + "grid: {seed: [1, 2]}": "grid: seed cannot be overridden in a sweep file",
    SWEEP + "grid: {model.layers: [2, 2]}": "two arms are labelled 'raw layers=2'",
    SWEEP + "grid: {model.layers: []}": "grid.model.layers: ",
    SWEEP + "grid: {model.layrs: [1, 2]}": "grid: model.layrs: unknown key; nearest: layers",
    SWEEP + "grid: {'model layers': [1, 2]}": "depths.yaml: grid",
    SWEEP + "grid: {optimizer.eps: ['1,2']}": "is swept",
    SWEEP + "zip: {model.layers: [1, 2], optimizer.eps: [1.0e-8]}": "model.layers has 2, optimizer.eps has 1",
    SWEEP + "grid: {model.layers: [1]}\nzip: {model.layers: [1, 2]}": "zip: model.layers is in grid too",
    SWEEP + "exclude: [{arm: filtred}]": "exclude.0: no arm 'filtred'; nearest: filtered",
    SWEEP + "grid: {model.layers: [1, 2]}\nexclude: [{model.layers: 3}]": "exclude.0: no arm 'model.layers=3'",
    SWEEP + "exclude: [{arm: raw}, {arm: filtered}]": "exclude: leaves no arm",
    SWEEP + "exclude: [{arm: raw}]": "baseline: no arm 'raw'",
    SWEEP + "exclude: [{}]": "exclude.0: empty",
    GRID
    + "exclude: [{model.layers: 1, optimizer.eps: 1.0e-7}]": "exclude.0: no combination has model.layers=1 and opt",
    SWEEP + "held_fixed: [token]": "held_fixed.0: Input should be 'tokens', 'flops' or 'documents'",
    SWEEP + "metrics: [Overal]": "metrics: suite embedded has no 'Overal'; nearest: Overall",
    SWEEP + "metrics: {embedded: [MMLU]}": "metrics: suite embedded has no 'MMLU'",
    SWEEP + "metrics: [heldout_loss/cod]": "has no 'heldout_loss/cod'; nearest: heldout_loss/code",
    SWEEP + "table: {rows: arms}": "table.rows: Input should be 'arm' or 'point'",
    SWEEP + "table: {row: arm}": "table.row: unknown key; nearest: rows",
    SWEEP + "resources: {filtred: [cluster.gpus=2]}": "resources: no arm 'filtred'; nearest: filtered",
    SWEEP + "resources: {filtered: [model.layers=2]}": "resources.filtered: model.layers is no key of the cluster",
    SWEEP + "resources: {filtered: [cluster.gpu_count=2]}": "cluster.gpu_count: unknown key; nearest: ",
    SWEEP + "noise: -1": "noise: Input should be greater than 0",
    SWEEP + "difference: .nan": "difference: ",
    "question: q\nsuite: []": "suite: ",
    "question: q\nsuite: [a, a]": "suite: ['a', 'a'] repeats one",
    "question: q\nsuite: [a]\nseeds: [1]": "seeds: unknown key",
    "question: 2024-01-01\nsuite: 3": "suite: ",
    "a: [": "not YAML",
    "- a": "a mapping is expected",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_wrong_sweep_file_is_one_clear_line(conf, folder, text):
    with pytest.raises(UserError) as error:
        expand(["sweep=depths"], conf, folder(text))
    assert BAD_FILES[text] in str(error.value)
    assert "sweeps/depths.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_one_clear_line(conf, folder):
    files = folder(SWEEP)
    (files / "folder.yaml").mkdir()
    (files / "binary.yaml").write_bytes(b"question: \xff")
    with pytest.raises(UserError, match="^sweeps/folder.yaml: cannot be read"):
        expand(["sweep=folder"], conf, files)
    with pytest.raises(UserError, match="^sweeps/binary.yaml: not YAML"):
        expand(["sweep=binary"], conf, files)


BAD_ARGUMENTS = {
    "sweep=a/b": "sweep 'a/b' cannot name a folder",
    "sweep=..": "sweep '..' cannot name a folder",
    "sweep=depth": "sweep=depth: no sweeps/depth.yaml; nearest: depths",
    "sweep=depths,depths": "command line: sweep=depths,depths: one sweep at a time",
    "arm=x": "command line: arm=x: arm is a label",
    "seed=a,b": "command line: seed=a,b: seeds are whole numbers",
    "seed=-1,2": "command line: seed=-1,2: seeds are distinct whole numbers from 0 on",
    "seed=1,1": "seeds are distinct",
    "trunk_seed=1": "command line: trunk_seed: the seed of the stages before seeds_from",
    "depth=interval(1,2)": "a sweep needs values to take, INTERVAL_SWEEP has none",
    "depth=glob(x*)": "command line: depth=glob(x*): matches no value",
    "model.layers=range(3,3)": "matches no value",
    "model.layers=1,1": "command line: two arms are labelled 'layers=1'",
    "store=a,b": "command line: store=a,b: store takes one value, for the whole launch",
    "audit=warn,strict": "audit takes one value",
    "cluster.gpus=1,2": "arms: 'gpus=1' and 'gpus=2' are equal",
    "depth=l1,l9": "command line: conf/depth has no 'l9'; nearest: l5, l4, l3",
    "depht=l1,l2": "command line: depht: unknown key; nearest: depth",
    "depth=[": "command line: depth=[",
    "seeds_from=s3": "command line: seeds_from: the curriculum has no stage 's3'",
}


@pytest.mark.parametrize("argument", BAD_ARGUMENTS)
def test_a_wrong_argument_is_one_clear_line(conf, folder, argument):
    with pytest.raises(UserError) as error:
        expand([argument], conf, folder(SWEEP))
    assert BAD_ARGUMENTS[argument] in str(error.value)
    assert "\n" not in str(error.value)


BAD_OVERRIDES = {
    "+curriculum.stages.s2_2.toknes=3": "curriculum.stages.s2_2.toknes: unknown key; nearest: tokens",
    "curriculum.stages.s2_2.attention=documents": "nothing that is composed here sets it; add it with a plus: "
    "+curriculum.stages.s2_2.attention=",
    "curriculum.stages.s2_2.lr.start=nan": "curriculum.stages.s2_2.lr.start: Input should be a finite number",
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
    "seed=???": "seed: left unset (???); give it a value",
    "seed='${trunk_seed}'": "cyclic interpolation",
    "~model.nosuch": "does not exist",
    "~nosuch=3": "nosuch",
}


@pytest.mark.parametrize("override", BAD_OVERRIDES)
def test_a_wrong_override_is_one_clear_line(conf, override):
    with pytest.raises(UserError) as error:
        run_of(conf, "depth=l1", override, "optimizer.beta2=0.9")
    assert BAD_OVERRIDES[override] in str(error.value)
    assert str(error.value).startswith("here: ")
    assert "\n" not in str(error.value)


def test_a_mistake_is_blamed_on_the_line_that_makes_it(conf):
    lines = [Line("depth=l1", "common"), Line("modle.layers=3", "arms.a"), Line("model.layers=3", "command line")]
    with pytest.raises(UserError, match="^arms.a: modle: unknown key"):
        Composer(conf).run(lines, sweep="test")


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        (["model/experts=shared", "model/mlp=kan"], "conf/model/experts/shared.yaml and conf/model/mlp/kan.yaml"),
        (
            ["model/parametrisation=mup", "model/mixers=ssm"],
            "conf/model/parametrisation/mup.yaml and conf/model/mixers/ssm.yaml",
        ),
        (["model/experts=shared", "model.mlp.kind=kan"], "here"),
        (["model.attention_heads=6"], "here"),
    ],
)
def test_choices_that_do_not_go_together_are_both_named(conf, lines, place):
    with pytest.raises(UserError, match=f"^{re.escape(place)}: model: "):
        Composer(conf).run([Line(text, "here") for text in lines], sweep="test")


STATED = "defaults: [tiny, _self_]\nname: stated\nqk_norm: {kind: rms}\nmixers: {pattern: [linear, attention]}\n"


def test_a_choice_that_the_model_file_states_itself_is_refused(conf, tmp_path):
    """As an imported model's file does: it is read later, and would count without a word."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "stated.yaml").write_text(STATED)
    composer = Composer(Conf(conf._loader, [f"hydra.searchpath=[file://{tmp_path}]"]))

    def model(*lines):
        return composer.run([Line(text, "arms.a") for text in ("model=stated", *lines)], sweep="test").model

    found = "^arms.a: model/qk_norm=none: conf/model/stated.yaml comes after it and states model.qk_norm.kind: rms; "
    with pytest.raises(UserError, match=found + "set the key itself: model.qk_norm.kind=none$"):
        model("model/qk_norm=none")
    with pytest.raises(UserError, match=r"states model.mixers.pattern: \[linear,attention\]; .*pattern=\[ssm\]$"):
        model("model/mixers=ssm")
    assert model("model/qk_norm=rms", "model/norm=layernorm").norm.kind == "layernorm"
    assert model("model/qk_norm=none", "model.qk_norm.kind=none").qk_norm.kind == "none"


def test_an_error_in_a_group_file_names_the_file(conf):
    composed = conf.compose([])
    composed.config.model.kv_heads = 3
    data = template_of(composed).with_values({"sweep": "test"})
    with pytest.raises(UserError, match="conf/model/tiny.yaml: model: kv_heads 3 must divide attention_heads"):
        to_run(data, origin_of(composed.files, []))
