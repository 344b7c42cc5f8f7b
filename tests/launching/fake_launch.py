"""``fake_launch.py STORE [ARMS [SEEDS [WORKERS]]]``: a real launch whose workers run the stand-ins."""

import sys
from pathlib import Path

import launch_fakes

launch_fakes.install()

from davinci.launching import local  # noqa: E402
from davinci.launching.launch import launch  # noqa: E402
from davinci.store import Store  # noqa: E402

local.WORKER = [sys.executable, str(Path(__file__).with_name("fake_worker.py"))]
store = Store(Path(sys.argv[1]))
arms, seeds, workers = [int(text) for text in sys.argv[2:]] + [2, 1, 2][len(sys.argv) - 2 :]
plan = launch_fakes.make_plan(arms, seeds)
first = plan.arms[0].config
sys.exit(launch(plan, store, first.cluster.model_copy(update={"workers": workers}), first.tracking))
