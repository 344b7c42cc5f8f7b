"""Jobs on a real Slurm that are stopped, killed and starved: they end with the same weights, or say why not."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import launch_fakes
import pytest
from slurm_jobs import (
    SLURM,
    attempts,
    deaths,
    digests,
    field,
    is_done,
    jobs,
    run_here,
    state,
    steered,
    submit,
    wait_for,
    wait_until,
)

from davinci.launching.lock import holder
from davinci.planning.plan import Plan
from davinci.store import Store, read_json

CLUSTER = Path(__file__).with_name("cluster.sh")
Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def store(tmp_path: Path, control: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def plan() -> Plan:
    """One chain: both stages of the trunk and the branch."""
    return launch_fakes.make_plan(arms=1, seeds=1, cluster=SLURM)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the weights of the plan when nothing happens."""
    return run_here(
        launch_fakes.make_plan(arms=1, seeds=1, cluster=SLURM), Store(tmp_path_factory.mktemp("undisturbed"))
    )


def started(store: Store, plan: Plan, control: Path, until: Until) -> str:
    """Submit and wait until the job is in the middle of node b, where it stays until it is told to stop."""
    (control / "b-s0.120.awaits-stop").touch()
    assert submit(plan, store) == 0
    (job,) = jobs(store).values()
    until(lambda: 120 in attempts(store, "b-s0"))
    return job


def go_on(control: Path) -> None:
    (control / "b-s0.120.awaits-stop").unlink()


def go_on_after_kill(store: Store, control: Path) -> None:
    """Kill the process that works on node b, which waits nowhere when it is started again."""
    owner = holder(store.node("b-s0"))
    assert owner is not None
    os.kill(owner.pid, signal.SIGSTOP)
    go_on(control)
    os.kill(owner.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Disturbed:
    """A job in the middle of node b, and what steers it."""

    store: Store
    control: Path
    job: str


@pytest.fixture(scope="module", autouse=True)
def disturbed(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Disturbed]:
    """Jobs that are disturbed while the other tests run, since to be queued again takes its time.

    The one that meets its time limit, of one minute, has a node for itself.
    """
    found = {}
    for name in ("timed", "warned", "requeued", "damaged"):
        folder = tmp_path_factory.mktemp(name)
        change = {"time_minutes": 1, "cpus_per_task": 4} if name == "timed" else {}
        store = Store(folder / "store")
        with pytest.MonkeyPatch.context() as patch:
            control = steered(folder, patch)
            (control / "b-s0.120.awaits-stop").touch()
            assert submit(launch_fakes.make_plan(arms=1, seeds=1, cluster=SLURM | change), store) == 0
        found[name] = Disturbed(store, control, jobs(store)["c0-s0"])
    for one in found.values():
        wait_until((one.store.checkpoint("b-s0", 120) / "state.json").is_file)
    subprocess.run(["scancel", "--signal=USR2", found["warned"].job], check=True)
    subprocess.run(["scontrol", "requeue", found["requeued"].job], check=True)
    damaged = found["damaged"]
    os.truncate(damaged.store.checkpoint("b-s0", 120) / "model.safetensors", 10)
    go_on_after_kill(damaged.store, damaged.control)
    return found


def test_a_preempted_job_checkpoints_and_is_queued_again(
    store: Store, control: Path, until: Until, undisturbed: dict[str, str]
) -> None:
    plan = launch_fakes.make_plan(arms=1, seeds=1, cluster=SLURM | {"cpus_per_task": 4})
    job = started(store, plan, control, until)
    urgent = ["srun", "--quiet", "-p", "urgent", "-w", field(job, "NodeList"), "-c4", "--mem=3000", "true"]
    subprocess.run(urgent, check=True, timeout=60, cwd="/")
    wait_for(store)
    assert (state(job), field(job, "Restarts")) == ("COMPLETED", "1")
    assert (attempts(store, "b-s0")[128], attempts(store, "b-s0")[136]) == (1, 2)
    assert deaths(store, "c0-s0") == 0
    assert digests(store) == undisturbed


def test_a_cancelled_job_stays_cancelled(store: Store, plan: Plan, control: Path, until: Until) -> None:
    job = started(store, plan, control, until)
    subprocess.run(["scancel", job], check=True)
    wait_for(store)
    assert state(job) == "CANCELLED"
    assert submit(plan, store) == 0
    wait_for(store)
    assert is_done(store)


def test_a_job_that_keeps_dying_is_given_up(store: Store, control: Path) -> None:
    plan = launch_fakes.make_plan(arms=2, seeds=1, cluster=SLURM | {"max_retries": 1})
    (control / "b-s0.dies").touch()
    assert submit(plan, store) == 0
    ids = jobs(store)
    wait_for(store)
    assert [state(ids[name]) for name in ("b-s0", "c0-s0")] == ["FAILED", "CANCELLED"]
    error = read_json(store.jobs("fake") / "b-s0.failed.json")["error"]
    assert error == "the job died 2 times, at last: killed by signal 9"
    (control / "b-s0.dies").unlink()
    assert submit(plan, store) == 0
    wait_for(store)
    assert is_done(store)
    assert deaths(store, "b-s0") == 0


def test_every_task_of_an_array_is_queued_again_by_itself(
    store: Store, control: Path, until: Until, undisturbed: dict[str, str]
) -> None:
    """Also the last, whose own id is that of the array."""
    plan = launch_fakes.make_plan(arms=1, seeds=3, cluster=SLURM)
    for seed in range(3):
        (control / f"b-s{seed}.120.awaits-stop").touch()
    assert submit(plan, store) == 0
    ids = jobs(store)
    until(lambda: all(120 in attempts(store, f"b-s{seed}") for seed in range(3)))
    last = next(name for name, job in ids.items() if job.endswith("_2"))
    owner = holder(store.node(last.replace("c0", "b")))
    assert owner is not None
    os.kill(owner.pid, signal.SIGUSR2)
    until(lambda: int(field(ids[last], "Restarts")) == 1)
    others = [name for name in ids if name != last]
    assert {field(ids[name], "Restarts") for name in others} == {"0"}
    for path in control.glob("*.awaits-stop"):
        path.unlink()
    wait_for(store)
    assert is_done(store)
    assert {name: found for name, found in digests(store).items() if name in undisturbed} == undisturbed


def test_a_job_outlives_its_node(
    store: Store, plan: Plan, control: Path, until: Until, undisturbed: dict[str, str], cluster: Path
) -> None:
    job = started(store, plan, control, until)
    node = field(job, "NodeList")
    subprocess.run([CLUSTER, "fail", cluster, node], check=True, timeout=30)
    go_on(control)
    wait_for(store)
    subprocess.run([CLUSTER, "recover", cluster, node], check=True, timeout=30)
    assert (state(job), field(job, "Restarts")) == ("COMPLETED", "1")
    assert (attempts(store, "b-s0")[120], attempts(store, "b-s0")[128]) == (1, 2)
    assert deaths(store, "c0-s0") == 1
    assert digests(store) == undisturbed


def test_where_there_is_no_scontrol_a_job_submits_itself_again(
    store: Store, control: Path, until: Until, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor sacct. The chains behind it wait for the new job."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name not in ("scontrol", "sacct"):
            (tools / program.name).symlink_to(program)
    plan = launch_fakes.make_plan(arms=2, seeds=1, cluster=SLURM)
    (control / "b-s0.120.awaits-stop").touch()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tools))
        assert submit(plan, store) == 0
    before = jobs(store)
    until(lambda: 120 in attempts(store, "b-s0"))
    go_on_after_kill(store, control)
    until(lambda: jobs(store).get("c1-s0", before["c1-s0"]) != before["c1-s0"])
    after = jobs(store)
    assert not set(before.values()) & set(after.values())
    wait_for(store)
    assert is_done(store)
    assert {state(job) for job in after.values()} == {"COMPLETED"}
    assert deaths(store, "b-s0") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=False).returncode:
        pytest.skip("no tmpfs may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_fails_cleanly_and_there_is_room_again(
    plan: Plan, control: Path, until: Until, small_disk: Path, undisturbed: dict[str, str]
) -> None:
    store = Store(small_disk / "store")
    job = started(store, plan, control, until)
    with suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    go_on(control)
    wait_for(store)
    assert state(job) == "FAILED"
    assert "No space left on device" in str(read_json(store.jobs("fake") / "c0-s0.failed.json")["error"])
    assert holder(store.node("b-s0")) is None
    (small_disk / "ballast").unlink()
    assert submit(plan, store) == 0
    wait_for(store)
    assert is_done(store)
    assert digests(store) == undisturbed


@pytest.mark.parametrize("how", ["warned", "requeued", "timed"])
def test_a_job_that_is_told_to_stop_goes_on_from_there(
    disturbed: dict[str, Disturbed], undisturbed: dict[str, str], how: str
) -> None:
    """By a warning, by hand, or by its time limit: of one minute, which submitit's own handler gets wrong."""
    store, job = disturbed[how].store, disturbed[how].job
    wait_for(store)
    assert (state(job), field(job, "Restarts")) == ("COMPLETED", "1")
    assert (attempts(store, "b-s0")[128], attempts(store, "b-s0")[136]) == (1, 2)
    assert deaths(store, "c0-s0") == 0
    assert digests(store) == undisturbed


def test_a_damaged_checkpoint_is_passed_over_by_the_retry_of_a_killed_process(
    disturbed: dict[str, Disturbed], undisturbed: dict[str, str]
) -> None:
    store, job = disturbed["damaged"].store, disturbed["damaged"].job
    wait_for(store)
    assert (state(job), field(job, "Restarts")) == ("COMPLETED", "1")
    assert (attempts(store, "b-s0")[96], attempts(store, "b-s0")[104]) == (1, 2)
    assert deaths(store, "c0-s0") == 1
    assert digests(store) == undisturbed
