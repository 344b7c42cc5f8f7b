"""What is wrong in sweep files, overrides and arguments: one line each, blamed on the place that it stands in."""

import re

import pytest
from composed import GRID, SWEEP, run_of

from davinci.composition.compose import Composer, Line, origin_of, template_of, to_run
from davinci.composition.conf import Conf
from davinci.composition.expand import expand
from davinci.errors import UserError

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
    SWEEP.replace("[3, 5]", "range(1000000000)"): "seeds: 'range(1000000000)' is no range of up to 10,000 seeds",
    SWEEP.replace("[depth=l2]", "[model/norm=null]"): "arms.filtered: model/norm=null: model/norm takes one of its",
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
    "model=null,tiny": "command line: model=null: model takes one of its choices: 20m, 3b, 60m, 6m, ladder, tiny",
    "model/nrm=rmsnorm,layernorm": "command line: model/nrm=rmsnorm: no group model/nrm; nearest: model/norm",
    "seed=range(1000000000)": "command line: seed=range(1000000000): at most 10,000 values are accepted",
    "model.layers=range(1,9,0)": "command line: model.layers=range(1,9,0): range() arg 3 must not be zero",
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
    "model=null": "model=null: model takes one of its choices: 20m, 3b, 60m, 6m, ladder, tiny",
    "model=3": "model=3: model takes one of its choices: ",
    "+model=[1]": "+model=[1]: model takes one of its choices: ",
    "model/attention=null": "model/attention=null: model/attention takes one of its choices: gqa, mha, mla, mqa, subsp",
    "mixture@curriculum.stages.s2_2.mixture=null": "mixture takes one of its choices: qa30, qa40, ",
    "model/norm=[rmsnorm,layernorm]": "model/norm takes one of its choices: layernorm, nonparametric, rmsnorm",
    "model/atention=mha": "model/atention=mha: no group model/atention; nearest: model/attention",
    "model/nonsense=x": "no group model/nonsense; below model/ there are: attention, experts, mixers, mlp, norm, ",
    "modle/norm=x": "no group modle/norm; nearest: model",
    "model.mixers.pattern={a:1}": "model.mixers.pattern: a list, not a mapping, is accepted",
    "model.mixers=[1]": "model.mixers: a mapping, not a list, is accepted",
    "model.mixers.pattern.x=1": "model.mixers.pattern.x: unknown key; what is above it has no keys",
    "model.mixers.pattern.5=ssm": "model.mixers.pattern[5]: no such item; the list has 1, counted from 0",
    "model.layers.x=1": "model.layers.x: unknown key; what is above it has no keys",
    "model.layers=100000000000": "model.layers: Input should be less than or equal to 1000 (got 100000000000)",
    "model.hidden_size=1000000000000": "model.hidden_size: Input should be less than or equal to 1000000 ",
    "model.experts.count=1000000000000": "model.experts.count: Input should be less than or equal to 1000000 ",
    "+model.mixers.state=1000000000000": "model.mixers.state: Input should be less than or equal to 1000000 ",
    "model.vocab_size=1000000000000": "model.vocab_size: Input should be less than or equal to 10000000 ",
    "curriculum.stages.s2_2.tokens=100000000000000000": "Input should be less than or equal to 1000000000000000",
    "evaluation.probes.every_tokens=1": "evaluation.probes.every_tokens: 1 is 2,441,408 times in the curriculum's ",
    "evaluation.at=[{every_tokens:2}]": "evaluation.at.0.every_tokens: 2 is 1,220,704 times in the curriculum's ",
    "evaluation.at=[{stage:s2_2,average_of:100000000000,spacing_tokens:128}]": "evaluation.at.0.average_of: Input sho",
    "scale.tokens_per_trillion=nan": "scale.tokens_per_trillion: a number from 1 to 1,000,000,000,000,000 is accepted",
    "scale.tokens_per_trillion=abc": "scale.tokens_per_trillion: a number from 1 to 1,000,000,000,000,000 is accepted",
    "scale.sequences_per_1024=inf": "scale.sequences_per_1024: a number from 1 to 1,000,000,000,000,000 is accepted",
    "scale.sequence_length=0": "scale.sequence_length: Input should be greater than 0",
    "scale.peak_lr=1e40": "scale.peak_lr: Input should be less than or equal to 100",
    "checkpoint_every_tokens='${tokens:abc}'": "${tokens:abc}: a number is accepted",
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


FLOPS = "20,064,256 parameters get {} tokens each; 1 to 1,000,000 are accepted, which are 2.75e+15 to 2.75e+21 FLOPs"
BAD_DIALS = {
    "parameters": {
        "inf": "scale.parameters: inf is off the ladder; 500,000 to 10,000,000,000 are accepted, and the nearest sh",
        "1e300": "scale.parameters: 1e+300 is off the ladder; ",
        "0": "scale.parameters: 0 is off the ladder; ",
        **dict.fromkeys(("nan", "true", "abc", "[1]"), "a number from 500,000 to 10,000,000,000 is accepted (got "),
    },
    "tokens_per_parameter": dict.fromkeys(
        ("1e30", "nan", "inf", "abc", "0", "-1", "true", "null"),
        "scale.tokens_per_parameter: a number from 1 to 1,000,000 is accepted (got ",
    ),
    "flops": {
        "1e40": "scale.flops: " + FLOPS.format("3.64e+24"),
        "inf": "scale.flops: " + FLOPS.format("inf"),
        "1": "scale.flops: " + FLOPS.format("3.64e-16"),
        "1" + "0" * 400: "scale.flops: a number of FLOPs above 0, or null, is accepted",
        **dict.fromkeys(
            ("nan", "abc", "0", "-1", "true", "[1]"),
            "scale.flops: a number of FLOPs above 0, or null, is accepted (got ",
        ),
    },
}


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in BAD_DIALS.items() for text in texts])
def test_a_wrong_dial_of_the_ladder_is_one_clear_line(conf, key, text):
    with pytest.raises(UserError) as error:
        run_of(conf, "scale=ladder", f"scale.{key}={text}")
    assert BAD_DIALS[key][text] in str(error.value)
    assert str(error.value).startswith("here: ") and "\n" not in str(error.value)


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
