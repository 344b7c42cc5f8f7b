"""A build that is killed leaves no process behind."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizer_files import write_bytes_tokenizer

from davinci.data.document_files import write_documents
from davinci.data.documents import Document

HERE = Path(__file__).parent
PATIENCE = 60  # seconds
POOL = """
name: waits
tokenizer: waits
vocab_size: 300
sources:
  texts:
    domain: general
    depths: [L1]
    chain:
      - files: {paths: "*.txt"}
      - own_waiting:Waiting: {pipe: PIPE}
"""
# Writes a source's shards with processes, and waits where a second part would come.
ENCODING = """
import multiprocessing, sys
from pathlib import Path
from davinci.data.tokenizer_choice import card_of
from davinci.data.writing import write_variant

def parts():
    yield Path("part.parquet").absolute()
    print(*(one.pid for one in multiprocessing.active_children()), flush=True)
    sys.stdin.read()

if __name__ == "__main__":
    tokenizer = card_of(Path("tokenizer.json"), "<|endoftext|>", "here")
    write_variant(Path("s@L1").absolute(), parts(), 0.0, tokenizer, "key", [], workers=2)
"""


@pytest.fixture
def running(tmp_path):
    """Starts Python in the test's folder."""
    started = []

    def run(*arguments):
        paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        command, environment = [sys.executable, *arguments], os.environ | {"PYTHONPATH": paths}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes))
        return started[-1]

    yield run
    for one in started:
        one.kill()
        one.communicate()


def _kill(process, pids):
    """The others end by themselves."""
    ends = {os.pidfd_open(pid): pid for pid in pids}
    process.kill()
    while ends:
        ended, _, _ = select.select([*ends], [], [], PATIENCE)
        left = {one: pid for one, pid in ends.items() if one not in ended}
        if not ended:
            for pid in left.values():
                os.kill(pid, signal.SIGKILL)
        for one in ends.keys() - left.keys() if ended else ends:
            os.close(one)
        assert ended, f"still there: {[*left.values()]}"
        ends = left


def test_workers_end_with_their_build(running, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("one text\n")
    (tmp_path / "waits.yaml").write_text(POOL.replace("PIPE", str(pipe)))
    build = running("-m", "davinci", "data", "build", "waits.yaml", "--workers", "2", "--store", "store")
    with pipe.open("r+b", buffering=0) as said:  # both ends, so that it has no end of file
        _kill(build, [int(said.readline()) for _ in "ab"])


def test_encoders_end_with_their_build(running, tmp_path):
    write_bytes_tokenizer(tmp_path)
    write_documents(tmp_path / "part.parquet", [Document("a", "a", "one text")])
    (tmp_path / "encode.py").write_text(ENCODING)
    build = running("encode.py")
    pids = [int(one) for one in build.stdout.readline().split()]
    assert pids
    _kill(build, pids)
