"""Several studies as one plan."""

import pytest
from planned import FACTOR, make_sweep

from davinci.planning.build import build_plans
from davinci.planning.plan import Plan
from davinci.planning.suite import join_plans
from davinci.planning.sweep import Question
from davinci.store import Store, write_json


@pytest.fixture
def plans(make_run, card):
    """Two studies that share an arm: one over QA's share, one over beta2 (which nobody declared)."""

    def qa(share):
        return {f"{FACTOR}.domains": {"general": 1 - share, "qa": share}}

    first = make_sweep({"high": make_run(qa(0.75)), "low": make_run(qa(0.5))}, name="share", seeds=(0, 1))
    second = make_sweep(
        {"usual": make_run(qa(0.75)), "other": make_run(qa(0.75) | {"optimizer.beta2": 0.9})},
        name="beta",
        seeds=(1, 2),
        factor=(),
    )
    return build_plans([first, second], cards={"small": card})


def test_a_suite_trains_what_studies_share_once(plans):
    suite = join_plans("both", Question(text="All?"), plans)
    assert (suite.sweep, suite.seeds) == ("both", (0, 1, 2))
    assert [arm.label for arm in suite.arms] == ["share: high", "share: low", "beta: usual", "beta: other"]
    assert suite.baseline == "share: high"
    assert len(suite.runs) == len({run.id for run in suite.runs}) == 8
    assert set(suite.nodes) == set(plans[0].nodes) | set(plans[1].nodes)
    # Seed 1 of the usual setting belongs to both studies.
    assert suite.tokens_shared == plans[0].tokens_shared + plans[1].tokens_shared - 960
    assert suite.tokens_unshared == 8 * 960
    assert [study.tokens_own for study in suite.studies] == [one.tokens_shared - 960 for one in plans]
    assert [study.verdict for study in suite.studies] == ["controlled", "refused"]
    assert suite.flops < suite.flops_unshared == pytest.approx(sum(one.flops_unshared for one in plans))


def test_what_is_said_of_a_study_names_it(plans):
    suite = join_plans("both", Question(text="All?"), plans)
    assert suite.audit.verdict == "refused"
    assert all(finding.text.startswith(("share: ", "beta: ")) for finding in suite.audit.findings)
    labels = {arm.label for arm in suite.arms}
    assert {run.arm for run in suite.runs} == labels
    assert {arm for row in suite.epochs for arm in row.arms} == labels
    assert [suite.config(run).seed for run in suite.runs] == [run.seed for run in suite.runs]


def test_a_warning_is_said_once(plans):
    warned = [plan.model_copy(update={"warnings": ("web is read often", f"only {plan.sweep}")}) for plan in plans]
    assert join_plans("both", Question(text="All?"), warned).warnings == (
        "web is read often",
        "share: only share",
        "beta: only beta",
    )


def test_what_is_finished_costs_nothing(plans, tmp_path):
    store = Store(tmp_path)
    for node in plans[0].nodes:
        write_json(store.node(node) / "done.json", {})
    suite = join_plans("both", Question(text="All?"), plans, store=store)
    assert suite.tokens_left == suite.studies[1].tokens_own


def test_a_suite_survives_json(plans):
    suite = join_plans("both", Question(text="All?"), plans)
    assert Plan.model_validate_json(suite.model_dump_json()) == suite
