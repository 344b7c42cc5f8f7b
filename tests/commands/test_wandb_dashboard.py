"""A sweep's W&B workspace, made by the official package: written to a file, and saved to a server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mirrored_sweep import make_sweep
from wandb_server import ENTITY, serving

from davinci.store import Store, read_json, write_json


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    make_sweep(store)
    manifests = read_json(store.runs("qa"))
    for manifest in manifests.values():
        manifest["config"]["pool"] = {"sources": {"manuals": {"domain": "general"}, "lists": {"domain": "code"}}}
    write_json(store.runs("qa"), manifests)
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
    assert [panel["metrics"] for panel in found["Loss by domain"]] == [["train/loss/code"], ["train/loss/general"]]
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


def test_without_a_key_one_line_says_what_is_missing(store: Store, tmp_path: Path) -> None:
    done = dashboard(store, "--save", HOME=str(tmp_path))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: W&B: ") and "key" in done.stderr
