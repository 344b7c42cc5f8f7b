"""`launch.py` as people call it: mistakes are one line, planning alone leaves what was launched alone."""

import subprocess
import sys

import pytest

PAPER = ["-m", "sweep=qa_ratio_stage2_2", "scale=paper", "plan_only=true"]  # needs no pool


@pytest.fixture
def launch(repository):
    def run(*arguments):
        command = [sys.executable, "launch.py", *arguments]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle=tiny"], "error: command line: modle: unknown key; nearest: model"),
        (["audit=off"], "error: command line: audit=off: strict or warn is accepted"),
        (["model.layers=${modle.x}"], "error: command line: Interpolation key 'modle.x' not found"),
        (["-m", "--cfg", "job"], "error: command line: Only one of --run, --multirun, --cfg"),
        (["-m", "sweep=nosuch"], "error: sweep=nosuch: no sweeps/nosuch.yaml"),
        (["store=launch.py/x"], "error: store=launch.py/x: cannot write there"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(launch, tmp_path, arguments, message):
    store = tmp_path / "store"
    done = launch(*arguments, *([] if "store=launch.py/x" in arguments else [f"store={store}"]))
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not store.exists()


def test_a_plan_before_the_pool_is_built_is_provisional(launch, tmp_path):
    done = launch("plan_only=true", f"store={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "sources are not on this machine yet: ids are provisional" in " ".join(done.stdout.split())


def test_planning_alone_leaves_the_launched_plan_alone(launch, tmp_path):
    folder = tmp_path / "sweeps" / "qa_ratio_stage2_2"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("launched")
    done = launch(*PAPER, f"store={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert (folder / "plan.json").read_text() == "launched"
    assert sorted(path.name for path in folder.iterdir()) == ["plan.json", "plan_only.json"]
