"""The commands of ``python -m davinci``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from davinci.__main__ import main
from davinci.launching.job import log_path
from davinci.store import Store, write_json

HEAVY = {"torch", "pandas", "pyarrow", "numpy", "lm_eval", "submitit", "hydra"}


def test_help_is_light() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "davinci", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "numpy", "pandas", "pydantic", "wandb", "rich", "hydra"}


@pytest.mark.parametrize("command", ["where", "status", "cancel", "retry", "logs"])
def test_an_unknown_name_is_one_line(store: Store, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "fakee", "--store", str(store.root)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: store ") and error.count("\n") == 1
    assert "nearest: fake" in error or (command == "logs" and "known: arm0-s0, arm1-s0" in error)


@pytest.mark.parametrize("command", ["status", "sync", "cancel", "retry"])
def test_a_sweep_that_was_only_planned_says_so(store: Store, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(store.sweep("idea") / "plan.json", {})
    assert main([command, "idea", "--store", str(store.root)]) == 2
    assert capsys.readouterr().err.startswith("error: sweep 'idea' was planned but never launched; ")
    assert main(["where", "idea", "--store", str(store.root)]) == 0
    assert str(store.sweep("idea") / "plan.json") in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["status", "fake"],
        ["status", "fake", "--json"],
        ["logs", "arm0-s0", "--json"],
        ["cancel", "arm1-s0"],
        ["gc"],
        ["where", "arm0-s0"],
        ["retry", "arm0-s0"],
    ],
    ids=" ".join,
)
def test_commands_need_neither_frames_nor_torch(store: Store, command: list[str]) -> None:
    log_path(store, "fake", "b-s0").write_text("x")
    code = "import sys; sys.path.append(sys.argv[1]); import davinci.evaluation.settings, launch_fakes; "
    code += "launch_fakes.install(); from davinci.__main__ import main; main(sys.argv[2:])"
    code += (
        "; print(sorted({'torch', 'pandas', 'pyarrow', 'numpy', 'lm_eval', 'submitit', 'hydra'} & sys.modules.keys()))"
    )
    fakes = str(Path(__file__).parents[1] / "launching")
    done = subprocess.run(
        [sys.executable, "-c", code, fakes, *command, "--store", str(store.root)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["status", "logs", "cancel", "retry", "where", "gc", "sync"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "exit status: 0 success" in shown and ("--json" in shown or command == "sync")


def test_data_build_makes_the_tasks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str]] = []
    build, embedded = ModuleType("build"), ModuleType("embedded")
    build.Request = lambda *given: given  # type: ignore[attr-defined]
    build.build = lambda file, store, log, request: made.append(("pool", file.pool.name))  # type: ignore[attr-defined]
    embedded.make_tasks = lambda store, pool: made.append(("tasks", pool))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "davinci.data.build", build)
    monkeypatch.setitem(sys.modules, "davinci.evaluation.embedded", embedded)
    assert main(["data", "build", "embedded", "--store", str(tmp_path)]) == 0
    assert made == [("pool", "embedded"), ("tasks", "embedded")]
