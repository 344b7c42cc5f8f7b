"""The mirror with the real wandb client, online, against a server on loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mirrored_sweep import RUNS, evaluate, identities, make_many, make_sweep, sync, train
from test_wandb_mirror import offline_runs
from wandb_server import ENTITY, Received, Server, serving

from davinci.errors import UserError
from davinci.store import Store, read_json, write_json
from davinci.tracking import wandb_sending, wandb_session
from davinci.tracking.records import Writer
from davinci.tracking.wandb_mirror import Mirror, Mode

KEY = "planted0key0that0no0file0may0hold0000000"
TOKENS = list(range(10, 201, 10))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests: the client of a process stays with the first it is sent to."""
    import wandb

    with serving() as server, pytest.MonkeyPatch.context() as patch:
        environment = server.environment | {"WANDB_API_KEY": KEY, "HOME": str(tmp_path_factory.mktemp("home"))}
        for name, value in environment.items():
            patch.setenv(name, value)
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp("client")))
        yield server
        wandb.teardown()


@pytest.fixture
def server(served: Server) -> Iterator[Server]:
    wandb_session.reset()  # A client of an earlier test may still hold something.
    served.runs.clear()
    served.artifacts.clear()
    served.requests.clear()
    yield served
    served.faults.clear()
    served.failing, served.hanging, served.on_stream = None, False, lambda key: None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    make_sweep(store, "online")
    return store


def send(store: Store) -> list[str]:
    """Send everything as `sync` does; returns what was said."""
    said: list[str] = []
    mirror = Mirror(store, "qa", "online", said.append)
    assert wandb_sending.send(mirror, mirror.shown, said.append) == wandb_sending.SENT, said
    return said


def received(server: Server, store: Store, name: str) -> Received:
    return server.runs[ENTITY, "davinci-tests", identities(store)[name]]


def tokens_of(run: Received, metric: str = "train/loss") -> list[int]:
    return [row["tokens"] for row in run.history if metric in row]


def interrupt(store: Store, name: str, server: Server, arrived: int) -> None:
    """As if the mirror was killed when the server had only the first `arrived` rows of what was noted."""
    path = store.wandb / "mirrored" / f"{identities(store)[name]}.online.json"
    write_json(path, read_json(path) | {"confirmed": 0, "records": None, "artifacts": []})
    run = received(server, store, name)
    del run.history[arrived:]
    run.exit_code = None


def test_runs_are_sent_whole_and_continued(server: Server, store: Store) -> None:
    evaluate(store, "qa-30-leaf", 200, 0.25, attempt=2, key="e1")
    send(store)
    assert {(entity, project) for entity, project, _ in server.runs} == {(ENTITY, "davinci-tests")}
    run = received(server, store, RUNS[0])
    assert (run.display_name, run.group, run.job_type) == ("QA-30% seed 0", "qa", "run")
    assert tokens_of(run) == TOKENS and tokens_of(received(server, store, "trunk-trunk")) == TOKENS[:10]
    assert run.history[-2]["eval/sums"] == 0.25
    assert run.summary["eval/Overall average"] == pytest.approx(1.75 / 3)
    assert run.config["curriculum"]["value"]["stages"]["s1"] == {"tokens": 100}
    assert {one.exit_code for one in server.runs.values()} == {0}

    # Who made and who used what, from the dataset to the scores.
    me, trunk = ((ENTITY, "davinci-tests", identities(store)[name]) for name in (RUNS[0], "trunk-trunk"))
    evaluation = (ENTITY, "davinci-tests", identities(store)[f"{RUNS[0]} evaluation"])
    assert {trunk, me} <= server.version("dataset-embedded").used_by
    assert server.version("checkpoint-trunk").made_by == trunk and me in server.version("checkpoint-trunk").used_by
    assert server.version("checkpoint-qa-30-leaf").made_by == me
    assert server.version("checkpoint-qa-30-leaf").used_by == {evaluation}
    assert server.version("evaluation-qa-30-s0").made_by == evaluation
    assert not any(name.startswith("artifact/") and "checkpoint" in name for name in server.files), "by reference"

    evaluate(store, "qa-50-leaf", 200, 0.75, attempt=2)
    assert send(store) == [f"{RUNS[1]}: 1 rows sent to W&B run {identities(store)[RUNS[1]]}"]
    other = received(server, store, RUNS[1])
    assert tokens_of(other) == TOKENS, "only what is new was sent"
    assert [row["eval/sums"] for row in other.history if "eval/sums" in row] == [0.25, 0.75]
    assert [row["_step"] for row in other.history] == list(range(len(other.history)))
    assert not [path for path in store.root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("arrived", [0, 7])
def test_after_a_kill_the_rest_is_sent(server: Server, store: Store, arrived: int) -> None:
    send(store)
    interrupt(store, RUNS[0], server, arrived)
    send(store)
    assert tokens_of(received(server, store, RUNS[0])) == TOKENS
    assert received(server, store, RUNS[0]).exit_code == 0


def test_lost_notes_are_read_back(server: Server, store: Store) -> None:
    send(store)
    for path in (store.wandb / "mirrored").iterdir():
        path.unlink()
    send(store)
    assert tokens_of(received(server, store, RUNS[0])) == TOKENS
    assert tokens_of(received(server, store, "trunk-trunk")) == TOKENS[:10]


def test_a_sync_killed_midway_goes_on(server: Server, store: Store) -> None:
    command = [sys.executable, "-m", "davinci", "sync", "qa", "--store", str(store.root)]
    process = subprocess.Popen(command, process_group=0)
    server.on_stream = lambda key: os.kill(process.pid, signal.SIGKILL)  # as soon as any rows have arrived
    assert process.wait(timeout=60) == -signal.SIGKILL
    server.on_stream = lambda key: None
    assert sync(store).stdout.endswith("2 of 2 runs are finished and mirrored\n")
    assert sync(store).stdout == "2 of 2 runs are finished and mirrored\n"
    for run in RUNS:
        assert tokens_of(received(server, store, run)) == TOKENS
    assert len(server.runs) == 5 and {run.exit_code for run in server.runs.values()} == {0}


def trains(store: Store) -> tuple[Mirror, tuple[str, str, str]]:
    """A run that has a checkpoint at 150 and is at 180, and one that has not begun its own stage."""
    for node in ("qa-30-leaf", "qa-50-leaf"):
        (store.node(node) / "done.json").unlink()
        store.records(node).unlink()
    with Writer(store.records("qa-30-leaf"), 1) as writer:
        for tokens in range(110, 181, 10):
            writer.write("train", tokens, tokens // 10, loss=1.0 if tokens <= 150 else 9.0)
    store.checkpoint("qa-30-leaf", 150).mkdir(parents=True)
    return Mirror(store, "qa", None, print), (ENTITY, "davinci-tests", identities(store)[RUNS[0]])


def test_a_run_is_followed_up_to_its_last_checkpoint_and_after_a_requeue(server: Server, store: Store) -> None:
    mirror, key = trains(store)
    for name in mirror.shown:
        mirror.send(name)
    assert server.runs[key].exit_code is None, "it is shown as running"
    assert {run.job_type for run in server.runs.values()} == {"trunk", "run"} and len(server.runs) == 2
    mirror.close()  # The launcher was stopped.
    assert tokens_of(server.runs[key]) == TOKENS[:15], "what comes after the checkpoint may be trained again"
    assert server.runs[key].exit_code == 1

    # Killed after 180, and requeued: training goes on from the checkpoint, and ends.
    train(store, "qa-30-leaf", attempt=2)
    evaluate(store, "qa-30-leaf", 200, 0.5, attempt=2)
    write_json(store.node("qa-30-leaf") / "done.json", {})
    send(store)
    run = server.runs[key]
    replayed = [
        (row["tokens"], row["train/loss"]) for row in run.history if "train/loss" in row and row["tokens"] > 150
    ]
    assert replayed == [(tokens, 300 / (100 + tokens)) for tokens in range(160, 201, 10)]
    assert run.exit_code == 0 and run.summary["eval/sums"] == 0.5


@pytest.mark.slow
def test_rows_arrive_while_the_run_is_open(server: Server, store: Store) -> None:
    """Within the 15 seconds for which the client collects them."""
    mirror, key = trains(store)
    arrived = threading.Event()
    server.on_stream = lambda sent: arrived.set() if len(server.runs[key].history) >= 15 else None
    mirror.send(RUNS[0])
    assert arrived.wait(60)
    assert tokens_of(server.runs[key]) == TOKENS[:15] and server.runs[key].exit_code is None
    mirror.close()


@pytest.mark.parametrize("trouble", ["hanging", "failing"])
def test_a_server_that_does_not_answer_is_one_error(
    server: Server, store: Store, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(wandb_session, "OPEN_SECONDS", 1.0)
    setattr(server, trouble, 500 if trouble == "failing" else True)
    mirror = Mirror(store, "qa", "online", print)
    with pytest.raises(wandb_session.Unreachable, match="does not answer"):
        mirror.send(RUNS[0])
    mirror.abandon()
    server.failing, server.hanging = None, False
    server.released.set()
    server.released = threading.Event()
    send(store)
    assert tokens_of(received(server, store, RUNS[0])) == TOKENS


def test_without_a_key_one_line_says_what_is_missing(store: Store, tmp_path: Path, server: Server) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_API")}
    command = [sys.executable, "-m", "davinci", "sync", "qa", "--store", str(store.root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: W&B: No API key configured") and "WANDB_API_KEY" in line


def test_many_runs_stay_below_the_published_limits(server: Server, tmp_path: Path) -> None:
    """A second: 2 file-stream requests a run and 500 a project, 80 new runs."""
    store = Store(tmp_path / "many")
    make_many(store, 20)
    server.requests.clear()
    send(store)
    shown = [run for run in server.runs.values() if run.job_type == "run"]
    assert len(shown) == 20 and all(tokens_of(run) == TOKENS for run in shown)
    assert {run.exit_code for run in server.runs.values()} == {0}
    assert max(server.most_in_a_second(f"file_stream {name}") for _, _, name in server.runs) <= 2
    assert server.counted()["file_stream"] <= 2 * len(server.runs) + 2, "all of a run in a request or two"
    assert server.most_in_a_second("file_stream") <= 500
    assert server.most_in_a_second("RunResumeStatus") <= 80, "one a run that is opened"


def failing_midway(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said when everything is sent once; whatever comes of it."""
    monkeypatch.setattr(wandb_session, "CLOSE_SECONDS", 5.0)
    said: list[str] = []
    mirror = Mirror(store, "qa", "online", lambda line: None)
    try:
        wandb_sending.send(mirror, mirror.shown, said.append)
    except UserError as error:
        said.append(str(error))
    return said


def assert_whole(server: Server, store: Store) -> None:
    """Everything is there, once, and each run ended well."""
    for name in RUNS:
        run = received(server, store, name)
        assert tokens_of(run) == TOKENS and run.exit_code == 0
        assert [row["_step"] for row in run.history] == list(range(len(run.history)))


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([429, 500, 502], id="too many requests, and errors in a burst"),
        pytest.param(["cut", "unheard"], id="cut in the middle of a request, and when it was taken"),
    ],
)
def test_what_passes_is_waited_for(
    server: Server, store: Store, monkeypatch: pytest.MonkeyPatch, faults: list[int | str]
) -> None:
    made = wandb_session._settings
    quick = {"x_file_stream_retry_wait_min_seconds": 0.1, "x_file_stream_transmit_interval": 0.2}
    monkeypatch.setattr(wandb_session, "_settings", lambda wandb: made(wandb).model_copy(update=quick))
    server.faults.extend(faults)
    send(store)
    assert not server.faults and all(server.counted()[str(one)] for one in faults if isinstance(one, int))
    assert_whole(server, store)


@pytest.mark.parametrize(
    ("trouble", "line"),
    [
        pytest.param(
            "hangs",
            r"W&B .*(does not answer|did not take all of run \w+ within 5 s)",
            id="hangs",
            marks=pytest.mark.slow,
        ),
        pytest.param("401", r"W&B.* http://127.0.0.1:\d+.*\b401\b", id="the key expires"),
        pytest.param("403", r"W&B.* http://127.0.0.1:\d+.*\b403\b", id="the project is closed"),
    ],
)
def test_what_begins_in_the_middle_of_a_run_is_one_line_and_nothing_is_lost(
    server: Server, store: Store, monkeypatch: pytest.MonkeyPatch, trouble: str, line: str
) -> None:
    def begin(key: tuple[str, str, str]) -> None:
        server.hanging = trouble == "hangs"
        server.failing = None if trouble == "hangs" else int(trouble)

    monkeypatch.setattr(wandb_session, "OPEN_SECONDS", 5.0)
    server.on_stream = begin  # as soon as any rows have arrived
    (said,) = failing_midway(store, monkeypatch)
    assert re.match(line, said), said
    server.on_stream, server.hanging, server.failing = (lambda key: None), False, None
    server.released.set()
    server.released = threading.Event()
    send(store)
    assert_whole(server, store)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_full_disk_is_one_line_a_run_and_nothing_is_lost(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    monkeypatch.setattr(wandb_session, "CLOSE_SECONDS", 20.0)
    store.wandb.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", store.wandb], check=False).returncode:
        pytest.skip("no tmpfs may be mounted here")
    try:
        with suppress(OSError), (store.wandb / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        said: list[str] = []
        mirror = Mirror(store, "qa", mode, lambda line: None)
        assert wandb_sending.send(mirror, mirror.shown, said.append) != wandb_sending.SENT
        assert said and all("no space left" in line.lower() or "does not answer" in line for line in said), said
        (store.wandb / "ballast").unlink()
        assert wandb_sending.send(mirror, mirror.shown, said.append) == wandb_sending.SENT
        if mode == "online":
            assert_whole(server, store)
        else:
            found = offline_runs(store)
            for name in RUNS:
                assert [row["tokens"] for row in found[name].history if "train/loss" in row] == TOKENS
                assert found[name].exit_code == 0
    finally:
        wandb_session.reset()
        subprocess.run(["umount", "--lazy", store.wandb], check=True)
