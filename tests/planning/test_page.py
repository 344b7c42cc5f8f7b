"""The page a plan is read by, and the document and schema of plan.json."""

import json
import re
from io import StringIO

import pytest
from planned import FACTOR, make_plan, make_sweep
from rich.console import Console

from davinci.planning.page import show
from davinci.planning.plan import Orphan, Plan, Power, Study
from davinci.planning.sweep import Hypothesis, PaperReference, Question
from davinci.planning.wording import tokens


@pytest.fixture
def cards(card):
    return {"small": card}


@pytest.fixture
def three(make_run):
    """Three shares of QA, by three seeds that share the first stage."""

    def make(count=3, seeds=(0, 1, 2), seeds_from="second", **declared):
        shares = [round(0.75 - index / 2000, 4) for index in range(count)]
        domains = [{"general": round(1 - share, 4), "qa": share} for share in shares]
        arms = {
            f"QA-{share:.2%}": make_run({f"{FACTOR}.domains": own}, seeds_from=seeds_from)
            for share, own in zip(shares, domains, strict=True)
        }
        return make_sweep(arms, seeds=seeds, **declared)

    return make


def page(plan, width=100):
    console = Console(width=width, record=True, file=StringIO())
    show(plan, console)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 120])
def test_the_page_says_what_is_asked_trained_spent_and_proved(three, cards, width):
    question = Question(
        text="How much QA?",
        hypothesis=Hypothesis(text="Practice helps.", metric="GSM8K", arm="QA-74.90%", direction="increase"),
        paper=PaperReference(section="4.3.2", table="9"),
        assumptions=("The paper prints 70% only.",),
    )
    said = page(make_plan(three(question=question, held_fixed=("tokens",)), cards), width)
    assert max(len(line) for line in said.splitlines()) <= width
    for words in (
        "test · controlled",
        "How much QA?",
        "GSM8K of QA-74.90% rises. Practice helps.",
        "section 4.3.2, Table 9",
        "The paper prints 70% only.",
        "9 runs: 3 arms x 3 seeds",
        "saves 5.12k of 8.64k tokens (59.3%): 2.45 times fewer",
        "1.50e+24",
        "123,456",
        "161 days",
        "14.4 min",
        "246,912.00",
        "checkpoints 12.4 TB, records 31 MB",
        "1.20e+20 FLOPs, 84.2 h100-hours",
        "curriculum.stages.second.mixture (2 keys changed)",
        "held fixed tokens",
        "no estimate of the noise",
    ):
        assert words in " ".join(said.split()), words


def test_chains_that_differ_in_seeds_only_are_one_line(three, cards):
    shared = page(make_plan(three(), cards))
    assert re.search(r"first +640 +1  all arms, all seeds", shared)
    assert shared.count("─ second") == 3
    alone = page(make_plan(three(seeds_from=None), cards))
    assert re.search(r"first +640 +3  all arms\n", re.sub(" +\n", "\n", alone))
    assert alone.count("─ second") == 3


def test_a_large_tree_fits_the_page(three, cards):
    plan = make_plan(three(count=300), cards)
    said = page(plan)
    assert len(said.splitlines()) < 120
    assert "… and 288 more arms" in said
    assert re.search(r"└─ … 288 more like these +864  276k tokens together", said)  # 320 tokens a branch and seed
    assert re.search(r"… and [0-9]+ more mixtures", said)


def test_deep_trees_are_cut_at_the_last_line(make_run, cards):
    stage = make_run().curriculum.stages["first"]
    arms = {}
    for index in range(60):
        own = {f"s{step}": stage for step in range(index + 1)}
        last = stage.model_copy(update={"mask_questions": True})
        run = make_run({"evaluation.at": []})
        stages = run.curriculum.model_copy(update={"stages": {**own, "last": last}})
        arms[f"to-{index}"] = run.model_copy(update={"curriculum": stages})
    said = page(make_plan(make_sweep(arms, factor=("curriculum",)), cards), 400)
    assert "… the rest of the tree is in plan.json" in said


def test_a_run_that_ends_on_the_way_is_named(make_run, cards):
    long = make_run({"evaluation.at": []})
    short = long.model_copy(
        update={"curriculum": long.curriculum.model_copy(update={"stages": {"first": long.curriculum.stages["first"]}})}
    )
    said = page(make_plan(make_sweep({"long": long, "short": short}, factor=("curriculum",)), cards))
    assert re.search(r"first → second +960 +1  all arms \(short ends at first\)", said)


def test_refusals_and_what_stands_in_the_way_are_said(three, cards, make_run):
    arms = {"a": make_run(), "b": make_run({"optimizer.beta2": 0.99})}
    plan = make_plan(
        make_sweep(arms, factor=()),
        cards,
        orphans=(Orphan(run="x", arm="QA-50%", seed=0, diff=("optimizer.beta2: 0.95 -> 0.98",)),),
        missing_sources=("books", "web"),
        warnings=("qa source answers is seen 4.80 times",),
    )
    said = " ".join(page(plan, 200).split())
    for words in (
        "test · refused",
        "refused optimizer.beta2 differs between arms a (0.95) and b (0.99)",
        "audit=warn launches it",
        "finished run QA-50% seed 0: optimizer.beta2: 0.95 -> 0.98",
        "2 sources (books, web): sizes are those of conf/pool and ids are provisional. This plan can be read but not",
        "qa source answers is seen 4.80 times",
    ):
        assert words in said, words


@pytest.mark.parametrize(
    ("power", "words"),
    [
        (
            Power(noise=0.2, source="stated", seeds=3, detectable=0.42, difference=0.25, seeds_needed=6),
            "smallest difference found with 80% power: 0.42 points with 3 seeds (noise 0.2 points, stated); "
            "0.25 points needs 6 seeds",
        ),
        (Power(noise=0.2, source="stated", seeds=1, detectable=None), "unknown: one seed cannot tell a difference"),
        (None, "state `noise:` in the sweep file"),
    ],
)
def test_power_is_said_or_why_it_is_not_known(three, cards, power, words):
    assert words in " ".join(page(make_plan(three(), cards, power=power)).split())


def test_a_suite_lists_its_studies(three, cards):
    study = Study(
        sweep="lr_decay",
        runs=6,
        tokens_unshared=48 * 10**12,
        tokens_shared=9 * 10**12,
        tokens_own=10**12,
        flops_unshared=9e23,
        flops=1.7e23,
        verdict="controlled",
    )
    said = " ".join(page(make_plan(three(), cards, studies=(study,))).split())
    assert "lr_decay 6 48.0T 9.00T 1.00T 1.70e+23 controlled" in said
    assert "Power" not in said and "in the stage /" not in said


def test_what_follows_from_the_ladder_is_shown(make_run, cards):
    dial = {"scale.parameters": 6.9e9, "scale.tokens_per_parameter": 20, "scale.peak_lr": 0.00054}
    wide = {"model.mlp_intermediate_size": 14336, "model.layers": 50}
    arms = {"small": make_run(dial), "large": make_run(dial | wide), "again": make_run(dial | wide | {"replicate": 1})}
    lines = page(make_plan(make_sweep(arms, factor=("model",)), cards), 80).splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("Of the ladder"))
    shown = [line.split() for line in lines[begin + 1 : begin + 5]]
    assert [line[0] for line in shown if line] == ["asked", "6.90B", "6.90B"]
    assert "14,336" in shown[2] and shown[2][-1] == "5.4e-04" and "50" in shown[2]
    assert "Of the ladder" not in page(make_plan(make_sweep({"small": make_run()}), cards))


def test_labels_are_printed_as_they_are(make_run, cards):
    arms = {"[red]a[/red]": make_run(), "[b]": make_run({"optimizer.beta2": 0.99})}
    said = page(make_plan(make_sweep(arms, factor=("optimizer.beta2",)), cards), 120)
    assert "[red]a[/red]" in said
    assert "[b]" in said


def test_the_schema_is_the_plan_s(repository):
    stored = json.loads((repository / "docs" / "plan.schema.json").read_text())
    assert stored == Plan.model_json_schema(), "docs/plan.md says how to write docs/plan.schema.json anew"


def test_the_document_names_every_key(repository):
    text = (repository / "docs" / "plan.md").read_text()
    for kind in ("Plan", "Audit", "Cost", "Epochs", "Study", "Power", "Node", "Point", "PlannedRun", "Arm"):
        schema = Plan.model_json_schema() if kind == "Plan" else Plan.model_json_schema()["$defs"][kind]
        exempt = {
            "model",
            "optimizer",
            "pool",
            "tokenizer_digest",
            "vocab_size",
            "end_of_text",
            "checkpoint_every_tokens",
            "seeds",
        }
        missing = [key for key in schema["properties"] if f"`{key}`" not in text]
        assert set(missing) <= (exempt if kind in ("Node", "Power") else set()), (kind, missing)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1000, "1.00k"), (419_430_400_000, "419B"), (999_996_522_496, "1.00T")]
)
def test_tokens_are_three_digits_and_never_a_thousand_of_a_unit(number, text):
    assert tokens(number) == text
