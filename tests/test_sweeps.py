"""The sweep files of the repository: the paper's studies plan at its scale, controlled, with its budgets."""

import math
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from analysis import published
from davinci.accounting.flops import train_flops_per_token
from davinci.composition.conf import Conf
from davinci.composition.expand import expand
from davinci.composition.sweep_file import SuiteFile, read_sweep_file
from davinci.errors import UserError
from davinci.planning.build import build_plans
from davinci.planning.suite import join_plans

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
STUDIES = {row["study"]: row for row in published.rows("studies")}
PAPER_STEP = 4096 * 4096
STARTS = {
    "random init": [],
    "stage 1": ["s1_1", "s1_2"],
    "stage 1-2": ["s1_1", "s1_2"],
    "stage 2-1": ["s1_1", "s1_2", "s2_1"],
    "final": ["s1_1", "s1_2", "s2_1", "s2_2"],
}
# Their arms name sources, or a level, that the embedded pool does not have.
PAPER_ONLY = {"math_refinement", "l5_synthetic_qa"}
UNITS = {"T": 10**12, "B": 10**9}


@pytest.fixture(scope="module")
def conf(repository):
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        yield Conf(GlobalHydra.instance().config_loader())


@pytest.fixture(scope="module")
def expanded(conf):
    """The suite at the paper's scale, before planning."""
    return expand(["sweep=paper", "scale=paper"], conf, SWEEPS)


@pytest.fixture(scope="module")
def plans(expanded):
    """Study -> its plan, all planned on one tree; no store, so nothing is written."""
    made = build_plans(expanded.sweeps, cards={"davinci": None})
    return {plan.sweep: plan for plan in made}


def own_tokens(study):
    """Tokens of the study's own stages, from the paper's table; None where it states none."""
    said = STUDIES[study]["tokens_each"]
    if said.endswith("k steps"):
        return [int(said.removesuffix("k steps")) * 1000 * PAPER_STEP]
    return [int(part[:-1]) * UNITS[part[-1]] for part in said.split("+")] if said else None


def test_the_suite_is_the_papers_studies(expanded):
    assert [sweep.name for sweep in expanded.sweeps] == list(STUDIES)
    suites = {path.stem for path in SWEEPS.glob("*.yaml") if isinstance(read_sweep_file(SWEEPS, path.stem), SuiteFile)}
    assert {path.stem for path in SWEEPS.glob("*.yaml")} - suites - {"template"} >= STUDIES.keys()


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_is_controlled_at_the_papers_scale(plans, study):
    plan = plans[study]
    assert plan.audit.verdict == "controlled", plan.audit.findings
    assert plan.audit.held_fixed == ("tokens", "flops")
    assert len(plan.runs) == len(plan.arms) * len(plan.seeds)
    assert plan.tokens_shared < plan.tokens_unshared


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_starts_and_ends_where_the_paper_says(expanded, study):
    sweep = next(sweep for sweep in expanded.sweeps if sweep.name == study)
    for arm in sweep.arms:
        stages = arm.config.curriculum.stages
        before = STARTS[STUDIES[study]["starts_from"]]
        assert list(stages)[: len(before)] == before
        tokens = [stage.tokens for name, stage in stages.items() if name not in before]
        if study == "evaluation_protocol":
            assert tokens == []  # it trains nothing of its own
        elif (expected := own_tokens(study)) is None:
            assert any("does not state the tokens" in one for one in sweep.question.assumptions)
        elif study == "qa_ratio_stage2_2":  # 419B is 25,000 steps
            assert tokens == [25_000 * PAPER_STEP] and math.isclose(tokens[0], expected[0], rel_tol=2e-3)
        else:
            assert tokens == expected


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_says_what_the_paper_reports(expanded, study):
    sweep, row = next(sweep for sweep in expanded.sweeps if sweep.name == study), STUDIES[study]
    question = sweep.question
    assert question.hypothesis and question.paper and question.assumptions
    assert question.paper.section == row["section"]
    kind, _, number = row["reported_in"].partition(" ")
    assert {"Table": question.paper.table, "Figure": question.paper.figure}[kind] == number
    if question.paper.published:
        rows = published.rows(question.paper.published)
        if "configuration" in rows[0]:
            assert {arm.label for arm in sweep.arms} == {one["configuration"] for one in rows}


def test_the_evaluation_protocols_score_the_same_weights(plans):
    ppl, generative = plans["evaluation_protocol"].runs
    assert ppl.nodes == generative.nodes and ppl.id != generative.id
    assert plans["evaluation_protocol"].tokens_shared * 2 == plans["evaluation_protocol"].tokens_unshared


def test_the_suite_costs_less_than_its_studies(expanded, plans):
    suite = join_plans(expanded.suite, expanded.question, list(plans.values()))
    assert suite.audit.verdict == "controlled"
    assert [study.sweep for study in suite.studies] == list(STUDIES)
    assert suite.tokens_unshared == sum(plan.tokens_unshared for plan in plans.values())
    assert suite.tokens_shared < sum(plan.tokens_shared for plan in plans.values()) < suite.tokens_unshared
    # The trunk up to the end of 1-2 is 6T, trained once for all eleven.
    assert suite.tokens_shared < suite.tokens_unshared / 10


def test_question_answer_epochs_are_the_papers(plans):
    """1T at 30%, then 1T at 70%, of 242.4B tokens."""
    rows = [row for row in plans["evaluation_protocol"].epochs if row.domain == "qa" and row.source is None]
    assert [(row.stage, round(row.epochs, 2)) for row in rows] == [("s2_1", 1.24), ("s2_2", 2.89)]
    assert round(rows[-1].cumulative, 2) == 4.13
    assert {row.pool_tokens for row in rows} == {242_400_000_000}


@pytest.mark.parametrize(
    "study", [study for study in STUDIES if study not in PAPER_ONLY] + ["template", "two_stage_curriculum"]
)
def test_a_study_is_controlled_on_the_embedded_pool(conf, study):
    sweeps = expand([f"sweep={study}", "scale=tiny"], conf, SWEEPS).sweeps
    (plan,) = build_plans(sweeps, cards={"embedded": None})
    assert plan.audit.verdict == "controlled", plan.audit.findings


@pytest.mark.parametrize("study", sorted(PAPER_ONLY))
def test_a_study_that_the_embedded_pool_cannot_hold_says_so(conf, study):
    with pytest.raises(UserError, match="embedded"):
        expand([f"sweep={study}", "scale=tiny"], conf, SWEEPS)
    assert "Plans at scale=paper alone" in (SWEEPS / f"{study}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_decay_branches_share_the_stable_trunk(conf, scale):
    sweeps = expand(["sweep=wsd_branches", f"scale={scale}"], conf, SWEEPS).sweeps
    (plan,) = build_plans(sweeps, cards={"embedded": None, "davinci": None})
    assert plan.audit.verdict == "controlled", plan.audit.findings
    stable = [node for node in plan.nodes.values() if node.stage_name == "stable"]
    longest = max(arm.config.curriculum.stages["stable"].grid.tokens_used for arm in plan.arms)
    assert sum(node.end - node.begin for node in stable) == longest * len(plan.seeds)
    assert len([node for node in plan.nodes.values() if node.stage_name == "decay"]) == 3 * len(plan.seeds)


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_annealing_is_one_training_asked_three_ways(conf, scale):
    sweeps = expand(["sweep=annealing", f"scale={scale}"], conf, SWEEPS).sweeps
    (plan,) = build_plans(sweeps, cards={"embedded": None, "davinci": None})
    assert plan.audit.verdict == "controlled", plan.audit.findings
    assert len({run.nodes for run in plan.runs}) == len(plan.seeds)
    short, long = (next(n for n in plan.nodes.values() if n.stage_name == name) for name in ("short", "long"))
    assert long.stage.sequence_length == 2 * short.stage.sequence_length
    assert (short.model.rope_theta, long.model.rope_theta) == (10_000.0, 500_000.0)


def test_the_paper_ends_each_stage_with_its_last_whole_step_and_says_so(conf):
    sweeps = expand(["sweep=qa_masking", "scale=paper"], conf, SWEEPS).sweeps
    (plan,) = build_plans(sweeps, cards={"davinci": None})
    (text,) = [one.text for one in plan.audit.findings if "whole step" in one.text]
    # 1T / 2^24 is 59,604.6 steps.
    assert f"s2_1 after {59_604 * PAPER_STEP:,} of 1,000,000,000,000 tokens" in text


def test_wsd_s_returns_to_the_stable_rate(conf):
    line = ["curriculum=wsd_s", "scale=tiny", "evaluation.at=[{stage:to_2t},{stage:to_4t},{stage:to_6t}]"]
    (sweep,) = expand(line, conf, SWEEPS).sweeps
    stages = list(sweep.arms[0].config.curriculum.resolved.values())
    for stage in stages:
        pieces = stage.lr_pieces()
        assert (pieces[-1].kind, pieces[-1].start, pieces[-1].stop) == ("inverse", 4e-3, 1e-3)


def test_the_zoo_holds_every_variant_at_the_baselines_flops(conf, repository):
    (sweep,) = expand(["sweep=arch_zoo", "scale=tiny"], conf, SWEEPS).sweeps
    (plan,) = build_plans([sweep], cards={"embedded": None})
    assert plan.audit.verdict == "controlled", plan.audit.findings
    models = [arm.config.model for arm in plan.arms]
    wanted = train_flops_per_token(sweep.baseline.config.model, 2048, 128)
    off = [abs(train_flops_per_token(model, 2048, 128) / wanted - 1) for model in models]
    assert max(off) < 0.003
    # Every choice of every group below conf/model is in it, but those that are the baseline's own, muP, and the same
    # experts balanced otherwise.
    left_out = {"parametrisation": 2, "experts": 2}
    said = {text for arm in plan.arms for text in arm.overrides}
    for group in (path for path in (repository / "conf" / "model").iterdir() if path.is_dir()):
        choices = {f"model/{group.name}={path.stem}" for path in group.glob("*.yaml")}
        assert len(choices - said) == left_out.get(group.name, 1), choices - said
    # Tuned fairly: as many rates for each.
    rates = {}
    for arm in plan.arms:
        rest = tuple(text for text in arm.overrides if not text.startswith("scale.peak_lr="))
        rates.setdefault(rest, set()).add(arm.config.scale.peak_lr)
    assert len(rates) == 26 and set(map(frozenset, rates.values())) == {frozenset({5e-4, 1e-3, 2e-3, 4e-3, 8e-3})}
