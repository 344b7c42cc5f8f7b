"""The mirror with the real wandb client, offline, read back from its files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from offline_reader import read_offline
from plans import small_run

from davinci.__main__ import main
from davinci.errors import UserError
from davinci.store import Store, write_json
from davinci.tracking.records import Writer
from davinci.tracking.wandb_mirror import is_mirrored, run_ids, wandb_id

RUNS = ("qa-30-s0", "qa-50-s0")
EVALUATION = small_run().evaluation
NODES = {"trunk": (0, 100), "qa-30-leaf": (100, 200), "qa-50-leaf": (100, 200)}


def train(store: Store, node: str, attempt: int = 1) -> None:
    begin, end = NODES[node]
    with Writer(store.records(node), attempt) as writer:
        for tokens in range(begin + 10, end + 1, 10):
            writer.write(
                "train", tokens, tokens // 10, loss=300 / (100 + tokens), lr=0.1, batch=4, **{"loss/code": 1.5}
            )
        writer.write("heldout", end, end // 10, domain="code", loss=0.9, bits_per_byte=0.4, sequences=8)


def evaluate(store: Store, node: str, tokens: int, score: float, attempt: int = 1, suite: str = EVALUATION.key) -> None:
    with Writer(store.records(node), attempt) as writer:
        for name, domain, value in (("sums", "science", score), ("maths", "science", 1.0), ("prose", "general", 0.5)):
            values = {"benchmark": name, "domain": domain, "protocol": "ppl", "score": value, "suite": suite}
            writer.write("evaluation", tokens, tokens // 10, **values)


def make_sweep(store: Store, mode: str = "offline") -> None:
    manifests: dict[str, Any] = {}
    for arm in ("30", "50"):
        run, leaf = f"qa-{arm}-s0", f"qa-{arm}-leaf"
        manifests[run] = {
            "id": run,
            "sweep": "qa",
            "arm": f"QA-{arm}%",
            "seed": 0,
            "nodes": [{"id": node, "begin": NODES[node][0], "end": NODES[node][1]} for node in ("trunk", leaf)],
            "points": [],
            "config": {
                "scale": {"name": "tiny"},
                "evaluation": EVALUATION.model_dump(mode="json"),
                "tracking": {"mode": mode, "project": "davinci-tests", "entity": None},
                "curriculum": {"stages": {"s1": {"tokens": 100}}},
            },
        }
        train(store, leaf)
        evaluate(store, leaf, 200, 0.25)
        evaluate(store, leaf, 200, 0.0, suite="another arm's")
    write_json(store.runs("qa"), manifests)
    train(store, "trunk")
    # Past the range that the runs share: another sweep's, no part of these.
    with Writer(store.records("trunk"), 1) as writer:
        writer.write("train", 110, 11, loss=9.0)
    for node in NODES:
        write_json(store.node(node) / "done.json", {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    make_sweep(store)
    return store


def sync(store: Store, *extra: str, input: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "davinci", "sync", "qa", "--store", str(store.root), *extra]
    return subprocess.run(command, input=input, capture_output=True, text=True, check=True)


def test_offline_runs_then_nothing_twice(store: Store) -> None:
    first = sync(store)
    assert first.stdout.splitlines()[-1] == "2 of 2 runs are finished and mirrored"
    folders = sorted(store.wandb.glob("offline-run-*"))
    assert sorted(folder.name.rsplit("-", 1)[1] for folder in folders) == sorted(wandb_id("qa", run) for run in RUNS)
    found = {folder.name.rsplit("-", 1)[1]: read_offline(folder) for folder in folders}
    one = found[wandb_id("qa", RUNS[0])]
    assert (one.run.display_name, one.run.run_group, one.run.job_type) == ("QA-30% seed 0", "qa", "run")
    assert (one.run.project, sorted(one.run.tags)) == ("davinci-tests", ["QA-30%", "seed 0", "tiny"])
    assert one.config["curriculum"] == {"stages": {"s1": {"tokens": 100}}}
    assert [row["tokens"] for row in one.history] == list(range(10, 201, 10))
    assert one.history[-1]["eval/sums"] == 0.25 and one.summary["eval/Overall average"] == pytest.approx(1.75 / 3)
    assert one.exit_code == 0
    steps = {metric.name or metric.glob_name: metric.step_metric for metric in one.metrics}
    assert steps["*"] == "tokens" or steps["train/loss"] == "tokens"
    assert not {"stats", "output", "output_raw"} & one.kinds, "no system statistics, no console"

    # Nothing new: nothing sent, and wandb not even imported.
    command = [sys.executable, "-X", "importtime", "-m", "davinci", "sync", "qa", "--store", str(store.root)]
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert second.stdout == "2 of 2 runs are finished and mirrored\n"
    imported = {line.rpartition("|")[2].strip() for line in second.stderr.splitlines()}
    assert "davinci.tracking.wandb_mirror" in imported and not imported & {"wandb", "torch", "numpy", "pydantic"}
    assert sorted(store.wandb.glob("offline-run-*")) == folders

    # A new evaluation: only its row, in the same W&B run.
    evaluate(store, "qa-50-leaf", 200, 0.75, attempt=2)
    assert not is_mirrored(store, "qa", RUNS[1])
    assert is_mirrored(store, "qa", RUNS[0])
    sync(store)
    (added,) = set(store.wandb.glob("offline-run-*")) - set(folders)
    again = read_offline(added)
    assert again.run.run_id == wandb_id("qa", RUNS[1])
    assert [(row["tokens"], row["eval/sums"]) for row in again.history] == [(200, 0.75)]
    assert again.summary["train/loss"] == 1.0, "the summary is that of the whole run"


def test_watching_takes_runs_as_they_finish(store: Store) -> None:
    leftover = store.wandb / f"offline-run-20260101_000000-{wandb_id('qa', RUNS[1])}"
    leftover.mkdir(parents=True)
    sync(store, "--watch", input=f"{RUNS[1]}\n")
    (folder,) = store.wandb.glob("offline-run-*")
    assert folder != leftover, "what a killed mirror left half-written is replaced"
    assert read_offline(folder).run.run_id == wandb_id("qa", RUNS[1])
    assert not is_mirrored(store, "qa", RUNS[0])


def test_another_target_is_mirrored_anew(store: Store) -> None:
    marker = store.wandb / "mirrored" / f"{wandb_id('qa', RUNS[0])}.json"
    write_json(marker, {"target": {"mode": "online"}, "records": [], "sent": {}, "folders": []})
    assert not is_mirrored(store, "qa", RUNS[0])
    assert run_ids(store, "qa") == sorted(RUNS)


def test_unfinished_and_disabled_runs_are_left_alone(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (store.node("qa-30-leaf") / "done.json").unlink()
    (store.node("qa-50-leaf") / "done.json").unlink()
    assert main(["sync", "qa", "--store", str(store.root)]) == 0
    assert capsys.readouterr().out == "0 of 2 runs are finished and mirrored\n"
    make_sweep(store, mode="disabled")
    assert main(["sync", "qa", "--store", str(store.root)]) == 0
    assert not list(store.wandb.glob("offline-run-*"))


def test_unknown_names(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync", "qqa", "--store", str(store.root)]) == 2
    assert "has no sweep 'qqa'; nearest: qa" in capsys.readouterr().err
    with pytest.raises(UserError, match="nearest: qa-30-s0"):
        is_mirrored(store, "qa", "qa-30-s1")
