"""The mirror with the real wandb client, offline, read back from its files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mirrored_sweep import RUNS, evaluate, identities, make_sweep, sync
from offline_reader import Offline, read_offline

from davinci.__main__ import main
from davinci.store import Store, read_json, write_json
from davinci.tracking.wandb_mirror import Mirror
from davinci.tracking.wandb_runs import levels, shown, wandb_id
from davinci.tracking.wandb_session import Unreachable, plain_errors


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    make_sweep(store)
    return store


def offline_runs(store: Store) -> dict[str, Offline]:
    """What the offline files hold, by what they show."""
    names = {identity: name for name, identity in identities(store).items()}
    return {names[folder.name.rsplit("-", 1)[1]]: read_offline(folder) for folder in folders(store)}


def folders(store: Store) -> list[Path]:
    return sorted(store.wandb.glob("offline-run-*"))


def test_offline_runs_then_nothing_twice(store: Store) -> None:
    first = sync(store, "--offline")
    assert first.stdout.splitlines()[-1] == "2 of 2 runs are finished and mirrored offline"
    before = folders(store)
    found = offline_runs(store)
    assert set(found) == {"trunk-trunk", *RUNS, *(f"{run} evaluation" for run in RUNS)}
    one = found[RUNS[0]]
    assert (one.run.display_name, one.run.run_group, one.run.job_type) == ("QA-30% seed 0", "qa", "run")
    assert one.run.run_id == wandb_id("qa", RUNS[0]) and one.run.notes == "How much QA?"
    assert one.run.project == "davinci-tests"
    assert sorted(one.run.tags) == ["QA-30%", "s2_mixture=qa30", "seed 0", "tiny"]
    assert one.config["curriculum"]["stages"]["s1"] == {"tokens": 100}
    assert one.config["factors"] == {"s2_mixture": "qa30", "mixture_qa": 0.3}
    assert one.config["stages"]["s2"] == {"place": 1, "begin": 100, "end": 200}
    rows = [row for row in one.history if "train/loss" in row]
    assert [row["tokens"] for row in rows] == list(range(10, 201, 10)), "the trunk's history is there too"
    assert all(row["_timestamp"] == row["record/time"] for row in rows), "on a time axis they stand where they happened"
    assert {row["tokens"]: row["stage/place"] for row in rows if "stage/place" in row} == {
        10: 0,
        100: 0,
        110: 1,
        200: 1,
    }
    assert rows[-1]["eval/sums"] == 0.25 and one.summary["eval/Overall average"] == pytest.approx(1.75 / 3)
    assert [row["evaluations/nrows"] for row in one.history if "evaluations/nrows" in row] == [3], "a table of scores"
    assert one.exit_code == 0
    steps = {metric.name or metric.glob_name: metric.step_metric for metric in one.metrics}
    assert steps["*"] == "tokens" or steps["train/loss"] == "tokens"
    assert not {"stats", "output", "output_raw"} & one.kinds, "no system statistics, no console"
    trunk = found["trunk-trunk"]
    assert (trunk.run.job_type, [row["tokens"] for row in trunk.history]) == ("trunk", list(range(10, 101, 10)))
    assert trunk.config["runs"] == list(RUNS)
    assert trunk.config["curriculum"]["stages"] == {"s1": {"tokens": 100}, "s2": {"mixture": {}}}, "what they share"

    # Nothing new: nothing sent, and wandb not even imported.
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "davinci",
        "sync",
        "qa",
        "--offline",
        "--store",
        str(store.root),
    ]
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert second.stdout == "2 of 2 runs are finished and mirrored offline\n"
    imported = {line.rpartition("|")[2].strip() for line in second.stderr.splitlines()}
    assert "davinci.tracking.wandb_mirror" in imported and not imported & {"wandb", "torch", "numpy", "pydantic"}
    assert folders(store) == before

    # A new evaluation: only its row, in the same W&B run, after the steps before.
    evaluate(store, "qa-50-leaf", 200, 0.75, attempt=2)
    assert not Mirror(store, "qa", "offline", print).is_mirrored(RUNS[1])
    assert Mirror(store, "qa", "offline", print).is_mirrored(RUNS[0])
    sync(store, "--offline")
    added = {read_offline(folder).run.run_id: read_offline(folder) for folder in set(folders(store)) - set(before)}
    assert set(added) == {identities(store)[RUNS[1]], identities(store)[f"{RUNS[1]} evaluation"]}
    again = added[wandb_id("qa", RUNS[1])]
    score, table = again.history
    assert (score["_step"], score["tokens"], score["eval/sums"]) == (21, 200, 0.75)
    assert "eval/maths" not in score and "train/loss" not in score, "what did not change is not sent again"
    assert table["evaluations/nrows"] == 3
    assert again.summary["train/loss"] == 1.0, "the summary is that of the whole run"


def test_lineage_is_in_the_offline_files(store: Store) -> None:
    evaluate(store, "qa-30-leaf", 200, 0.5, attempt=2, key="e1")
    sync(store, "--offline")
    found = offline_runs(store)
    run = {artifact.name: artifact for artifact in found[RUNS[0]].artifacts}
    used = {name for name, artifact in run.items() if artifact.use_after_commit}
    assert used == {"dataset-embedded", "checkpoint-trunk"}
    assert "checkpoint-qa-30-leaf" in run and "checkpoint-qa-30-leaf" not in used
    (entry,) = run["checkpoint-qa-30-leaf"].manifest.contents
    assert entry.ref == store.checkpoint("qa-30-leaf", 200).as_uri() and not entry.local_path, "by reference"
    evaluation = {artifact.name: artifact for artifact in found[f"{RUNS[0]} evaluation"].artifacts}
    assert evaluation["checkpoint-qa-30-leaf"].use_after_commit
    assert evaluation["checkpoint-qa-30-leaf"].digest == run["checkpoint-qa-30-leaf"].digest, "the same version"
    assert [one.ref.rpartition("/")[2] for one in evaluation["evaluation-qa-30-s0"].manifest.contents] == ["e1.parquet"]


def test_watching_takes_runs_as_they_finish(store: Store) -> None:
    (store.node("qa-30-leaf") / "done.json").unlink()
    leftover = store.wandb / f"offline-run-20260101_000000-{wandb_id('qa', RUNS[1])}"
    leftover.mkdir(parents=True)
    sync(store, "--told", input=f"{RUNS[1]}\n")
    assert not leftover.exists(), "what a killed mirror left half-written is replaced"
    assert set(offline_runs(store)) == {"trunk-trunk", RUNS[1], f"{RUNS[1]} evaluation"}
    assert not Mirror(store, "qa", None, print).is_mirrored(RUNS[0])


def test_unfinished_and_disabled_runs_are_left_alone(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (store.node("qa-30-leaf") / "done.json").unlink()
    (store.node("qa-50-leaf") / "done.json").unlink()
    (store.node("trunk") / "done.json").unlink()
    assert main(["sync", "qa", "--offline", "--store", str(store.root)]) == 0
    assert capsys.readouterr().out == "0 of 2 runs are finished and mirrored offline\n"
    make_sweep(store, mode="disabled")
    assert Mirror(store, "qa", None, print).modes == set()
    Mirror(store, "qa", None, print).send(RUNS[0])
    assert not folders(store)


def test_names_that_are_no_names(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync", "qqa", "--store", str(store.root)]) == 2
    assert "has no sweep 'qqa'; nearest: qa" in capsys.readouterr().err
    manifests = read_json(store.runs("qa"))
    arm = "<script>alert(1)</script>" + "x" * 80
    manifests[RUNS[0]]["arm"] = arm
    write_json(store.runs("qa"), manifests)
    one = shown(store, "qa")[RUNS[0]]
    assert one.name == f"{arm} seed 0" and one.id == wandb_id("qa", RUNS[0]), "a name is text, and no place"
    assert arm[-64:] in one.tags and max(map(len, one.tags)) <= 64


def test_factors_have_short_names_that_tell_them_apart() -> None:
    keys = ["a.s1.mixture.qa", "a.s2.mixture.qa", "optimizer.lr", "a.s1.mixture"]
    config = {"a": {"s1": {"mixture": {"qa": 1}}, "s2": {"mixture": {"qa": 2}}}, "optimizer": {"lr": 0.5}}
    arm = {
        "label": "x",
        "overrides": ["optimizer.lr=0.25", "+mixture@a.s1.mixture=rich", "elsewhere=1"],
        "config": config,
    }
    plan = {"audit": {"factor": keys[2:], "differing": keys[:2]}, "arms": [arm]}
    assert levels(plan) == {
        "x": {"s1_mixture": "rich", "s1_mixture_qa": 1, "s2_mixture_qa": 2, "optimizer_lr": 0.25},
    }


def test_a_client_that_is_busy_is_a_server_that_does_not_answer() -> None:
    """Its service repeats what a server turns away (429, 5xx), and meanwhile fails requests by an error of its own."""
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    with pytest.raises(Unreachable, match="W&B's client does not answer: the service process is busy"), plain_errors():
        raise WandbApiFailedError("the service process is busy\nand did not respond in time")
    with pytest.raises(KeyError), plain_errors():
        raise KeyError("a mistake of this program stays one")
