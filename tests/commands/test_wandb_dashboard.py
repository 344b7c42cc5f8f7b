"""A sweep's W&B workspace, made by the official package: written to a file, and saved to a server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mirrored_sweep import EVALUATION, RUNS, make_sweep, sync
from test_wandb_mirror import offline_runs
from wandb_server import ENTITY, serving

from davinci.config import asked
from davinci.store import Store, read_json, write_json
from davinci.tracking.records import Writer


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    make_sweep(store)
    return store


def dashboard(store: Store, *extra: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "davinci", "dashboard", "qa", "--store", str(store.root), *extra]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_API")}
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def panels(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = spec["section"]["panelBankConfig"]["sections"]
    return {section["name"]: [panel["config"] for panel in section["panels"]] for section in sections}


def test_offline_it_is_a_file_and_online_a_workspace(store: Store) -> None:
    done = dashboard(store)
    assert done.returncode == 0, done.stderr
    path, later = done.stdout.splitlines()
    assert "python -m davinci dashboard qa --save" in later
    found = panels(json.loads(Path(path).read_text())["spec"])
    scores = found["Domain scores by arm"]
    assert [panel["metrics"] for panel in scores[-2:]] == [["eval/Science average"], ["eval/Overall average"]]
    assert all((panel["xAxis"], panel["groupBy"]) == ("tokens", "arm.value") for panel in scores)
    assert [panel["metrics"] for panel in found["Loss by domain"]] == [["train/loss/general"]], "what is trained on"
    (factors,) = found["Factors"]
    axes = [column["accessor"] for column in factors["columns"]]
    assert axes[:2] == ["config:factors.value.mixture_qa", "config:factors.value.s2_mixture"]
    assert axes[-1] == "summary:eval/Overall average"
    assert "table" in found["Ablation table"][0]["value"]

    with serving() as server:
        done = dashboard(store, "--save", **server.environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{server.url}/{ENTITY}/davinci-tests?nw=")
        (view,) = server.views
        assert (view["displayName"], view["type"]) == ("qa", "project-view")
        assert panels(json.loads(view["spec"])).keys() == found.keys()


def test_every_panel_shows_what_the_mirrored_runs_have(store: Store) -> None:
    """Under the names that W&B has them by: nested keys of the config stand below ``value``."""
    manifests = read_json(store.runs("qa"))
    average = {"node": "qa-50-leaf", "tokens": 200, "label": "end", "weights": "average", "states": []}
    manifests[RUNS[1]]["points"] = [average]
    manifests[RUNS[1]]["config"]["model"] = {"experts": {"count": 4}}
    write_json(store.runs("qa"), manifests)
    with Writer(store.records("qa-50-leaf"), 1) as writer:
        suite = asked(EVALUATION.key, "average", [])
        for name, domain in (("sums", "science"), ("prose", "general")):
            values = {"benchmark": name, "domain": domain, "protocol": "ppl", "score": 0.5, "suite": suite}
            writer.write("evaluation", 200, 20, **values)
        figures = {f"router/{name}": 1.0 for name in ("load_max", "entropy", "unused", "balance")}
        writer.write("train", 200, 20, loss=2.0, lr=1e-3, **figures)
    assert dashboard(store).returncode == 0
    sync(store, "--offline")
    spec = json.loads((store.sweep("qa") / "dashboard.json").read_text())["spec"]
    runs = [run for name, run in offline_runs(store).items() if name in RUNS]
    rows = [row for run in runs for row in run.history]
    lines = [panel for found in panels(spec).values() for panel in found if "metrics" in panel]
    assert len(lines) == 2 * 3 + 1 + 2 + 3 + 4
    for panel in lines:
        (metric,) = panel["metrics"]
        assert any({metric, panel["xAxis"]} <= row.keys() for row in rows), f"{metric} by {panel['xAxis']} in one row"
    (key, below), (grouping,) = lines[0]["groupBy"].split("."), spec["section"]["runSets"][0]["grouping"]
    assert (below, grouping["name"]) == ("value", lines[0]["groupBy"])
    assert {run.config[key] for run in runs} == {"QA-30%", "QA-50%"}, "arms are told apart"
    for column in panels(spec)["Factors"][0]["columns"]:
        place, _, name = column["accessor"].partition(":")
        top, *keys = name.split(".")
        found = [run.summary.get(name) if place == "summary" else run.config[top][keys[1]] for run in runs]
        assert any(value is not None for value in found), column
    filters = {one["key"]["name"]: one["value"] for one in spec["section"]["runSets"][0]["filters"]["filters"]}
    assert filters == {"group": "qa", "jobType": "run"}
    assert {(run.run.run_group, run.run.job_type) for run in runs} == {("qa", "run")}


def test_without_a_key_one_line_says_what_is_missing(store: Store, tmp_path: Path) -> None:
    done = dashboard(store, "--save", HOME=str(tmp_path))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: W&B: ") and "key" in done.stderr
