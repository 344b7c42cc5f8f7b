"""Sweep files and command lines, composed with the real conf/ and Hydra's own loader."""

from pathlib import Path

import pytest
from composed import GRID, SWEEP, run_of

from davinci.composition.compose import origin_of
from davinci.composition.expand import expand
from davinci.errors import UserError


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
