"""What is done with plans: written, launched one after another, measured."""

import re
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from davinci.composition import entry
from davinci.composition.entry import Steering, named
from davinci.composition.expand import expand
from davinci.data.cards import PoolCard, SourceCard, TokenizerCard, VariantCard
from davinci.errors import UserError

SWEEP = """
question: Does depth matter?
factor: [depth]
arms: {raw: [depth=l1], filtered: [depth=l2]}
seeds: [3, 5]
"""
STEERING = {"plan_only": False, "probe": False, "audit": "strict", "max_epochs": 4}


@pytest.fixture
def run(conf, folder, tmp_path, monkeypatch):
    """Applies ``sweep=NAME`` with steering keys; returns the exit status and the sweeps that were launched."""
    files = folder(SWEEP)
    folder(SWEEP.replace("l1", "native"), "other")
    folder("question: Both?\nsuite: [depths, other]\n", "both")
    monkeypatch.setattr(entry._Apply, "_build_pools", lambda self: False)
    monkeypatch.setattr(entry, "read_card", lambda store, name: built)
    (arm, *_) = expand(["sweep=depths"], conf, files).sweeps[0].arms
    built = card(arm.config.pool)

    def apply(name, statuses=(0, 0), **steering):
        launched, left = [], list(statuses)

        def launch(plan, store, cluster, tracking):
            assert (store.sweep(plan.sweep) / "plan.json").is_file()
            launched.append(plan.sweep)
            return left.pop(0)

        monkeypatch.setattr("davinci.launching.launch.launch", launch)
        expanded = expand([f"sweep={name}", f"store={tmp_path / 'store'}"], conf, files)
        return entry._Apply(expanded, Steering.model_validate({**STEERING, **steering})).status(), launched

    return apply


def card(pool):
    """A card that holds every source of `pool` at every depth."""
    counts = dict.fromkeys(("heldout_tokens", "heldout_documents", "heldout_bytes"), 1)

    def variant(digest):
        return VariantCard(digest=digest, tokens=10**7, documents=1000, bytes=10**7, chain=(), **counts)

    sources = {
        name: SourceCard(
            domain=source.domain,
            licence={},
            archive={},
            variants={depth: variant(f"{name}@{depth}") for depth in source.depths},
        )
        for name, source in pool.sources.items()
    }
    tokenizer = TokenizerCard(file="tokenizer.json", digest="0", vocab_size=pool.vocab_size)
    return PoolCard(name=pool.name, tokenizer=tokenizer, sources=sources)


def written(tmp_path):
    return sorted(str(path.relative_to(tmp_path / "store")) for path in (tmp_path / "store").rglob("*.json"))


def test_a_plan_is_written_and_nothing_launched(run, tmp_path):
    assert run("depths", plan_only=True) == (0, [])
    assert written(tmp_path) == ["sweeps/depths/plan.json"]


def test_a_launch_writes_its_plan_first(run, tmp_path):
    assert run("depths") == (0, ["depths"])
    assert written(tmp_path) == ["sweeps/depths/plan.json"]  # the rest is the launcher's


def test_a_suite_is_planned_as_one_and_launched_one_by_one(run, tmp_path):
    assert run("both", plan_only=True) == (0, [])
    assert written(tmp_path) == ["sweeps/both/plan.json"]
    assert run("both") == (0, ["depths", "other"])
    assert written(tmp_path)[1:] == ["sweeps/depths/plan.json", "sweeps/other/plan.json"]


@pytest.mark.parametrize(
    ("statuses", "status", "launched"), [((1, 0), 1, ["depths", "other"]), ((143, 0), 143, ["depths"])]
)
def test_a_failed_study_lets_the_next_one_run_a_stopped_one_does_not(run, statuses, status, launched):
    assert run("both", statuses) == (status, launched)


def test_a_probe_is_a_second_plan_with_what_was_measured(run, monkeypatch):
    probes = []
    build = entry.build_plans

    def build_plans(sweeps, *, probe, **rest):
        probes.append(probe)
        return build(sweeps, probe=None, **rest)

    monkeypatch.setattr(entry, "build_plans", build_plans)
    monkeypatch.setattr("davinci.launching.probe.measure", lambda plan, store, cluster: (plan.sweep, cluster.kind))
    assert run("depths", plan_only=True, probe=True) == (0, [])
    assert probes == [None, ("depths", "local")]


def test_the_limit_of_epochs_reaches_the_plan(run, tmp_path):
    run("depths", plan_only=True, max_epochs=0.001)
    assert '"warnings": []' not in (tmp_path / "store/sweeps/depths/plan.json").read_text()


def test_a_page_nobody_reads_any_more_does_not_stop_the_work(run, tmp_path, monkeypatch):
    class Closed:
        encoding = "utf-8"

        def write(self, text):
            raise BrokenPipeError

        flush = isatty = lambda self: False

    monkeypatch.setattr(sys, "stdout", Closed())
    assert run("depths", plan_only=True) == (0, [])
    assert written(tmp_path) == ["sweeps/depths/plan.json"]


def test_one_run_is_a_sweep_of_its_own_called_by_what_is_trained(conf, folder):
    def name(*lines):
        (arm, *_) = expand(["sweep=depths", *lines], conf, folder(SWEEP)).sweeps[0].arms
        found = named(arm.config)
        assert found == arm.config.model_copy(update={"sweep": found.sweep})
        return found.sweep

    one = name()
    assert re.fullmatch("single-[0-9a-f]{8}", one)
    for line in ("store=elsewhere", "cluster.workers=2", "tracking=disabled", "evaluation.heldout_sequences=3"):
        assert name(line) == one
    assert len({one, name("model.layers=1"), name("optimizer.beta1=0.8"), name("trunk_seed=7")}) == 4


def test_steering_keys_are_checked():
    for wrong, message in {
        "plan_only": "command line: plan_only: Input should be a valid boolean",
        "audit": "command line: audit: Input should be 'strict' or 'warn'",
        "max_epochs": "command line: max_epochs: Input should be a valid number",
    }.items():
        with pytest.raises(UserError, match=message):
            Steering.of(OmegaConf.create({**STEERING, wrong: "x"}))


def test_sweeps_lie_beside_conf():
    assert (Path(entry.SWEEPS) / "template.yaml").is_file()
