"""The commands of ``python -m davinci``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import launch_fakes
import pytest

from davinci.__main__ import main
from davinci.launching.job import read_job, run_job
from davinci.launching.launch import write_jobs
from davinci.launching.lock import Lock
from davinci.launching.manifests import record
from davinci.store import Store, write_json


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A plan of two arms: the trunk and arm0 are done, arm1 is not begun."""
    for name, module in launch_fakes.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    store = Store(tmp_path / "store")
    plan = launch_fakes.make_plan()
    record(plan, store)
    for path in write_jobs(plan, store, ["b-s0", "c0-s0"]).values():
        run_job(read_job(path), lambda event: None, lambda: False)
    return store


def test_help_is_light() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "davinci", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "numpy", "pandas", "pydantic", "wandb", "rich", "hydra"}


def test_status(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with Lock(store.node("c1-s0")):
        assert main(["status", "fake", "--store", str(store.root)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["seed", "0"]
    assert table[1].split() == ["arm0", "done"]
    assert table[2].split() == ["arm1", "running", "66%"]
    assert main(["status", "fake", "--json", "--store", str(store.root)]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [(run["id"], run["state"], run["tokens"], run["total_tokens"]) for run in runs] == [
        ("arm0-s0", "done", 240, 240),
        ("arm1-s0", "waiting", 160, 240),
    ]


def test_many_seeds_are_counted(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("davinci.commands.status_page.SEEDS_SHOWN", 0)
    assert main(["status", "fake", "--store", str(store.root)]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[:2]] == [
        ["arm0", "1", "done"],
        ["arm1", "1", "waiting"],
    ]


def test_where(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["where", "arm0-s0", "--store", str(store.root)]) == 0
    shown = capsys.readouterr().out
    for path in (store.records("a-s0"), store.checkpoint("c0-s0", 240), store.jobs("fake")):
        assert str(path) in shown
    assert main(["where", "fake", "--store", str(store.root)]) == 0
    assert "arm1-s0" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["where", "status"])
def test_an_unknown_name_is_one_line(store: Store, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "fakee", "--store", str(store.root)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: store ") and "nearest: fake" in error and error.count("\n") == 1


@pytest.mark.parametrize("command", ["status", "sync"])
def test_a_sweep_that_was_only_planned_says_so(store: Store, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(store.sweep("idea") / "plan.json", {})
    assert main([command, "idea", "--store", str(store.root)]) == 2
    assert capsys.readouterr().err.startswith("error: sweep 'idea' was planned but never launched; ")
    assert main(["where", "idea", "--store", str(store.root)]) == 0
    assert str(store.sweep("idea") / "plan.json") in capsys.readouterr().out


def test_status_needs_neither_frames_nor_torch(store: Store) -> None:
    code = "from davinci.__main__ import main; main(['status', 'fake', '--store', sys.argv[1]])"
    code = f"import davinci.evaluation.settings, launch_fakes; launch_fakes.install(); {code}"
    code = f"import sys; sys.path.append(sys.argv[2]); {code}"
    code += "; print(sorted({'torch', 'pandas', 'pyarrow', 'numpy', 'lm_eval'} & sys.modules.keys()))"
    command = [sys.executable, "-c", code, str(store.root), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_data_build_makes_the_tasks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str]] = []
    build, embedded = ModuleType("build"), ModuleType("embedded")
    build.build = lambda pool, store, log: made.append(("pool", pool))  # type: ignore[attr-defined]
    embedded.make_tasks = lambda store, pool: made.append(("tasks", pool))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "davinci.data.build", build)
    monkeypatch.setitem(sys.modules, "davinci.evaluation.embedded", embedded)
    assert main(["data", "build", "embedded", "--store", str(tmp_path)]) == 0
    assert made == [("pool", "embedded"), ("tasks", "embedded")]
