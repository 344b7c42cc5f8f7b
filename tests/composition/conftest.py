"""The real conf/ through Hydra's own loader, and sweep files written by a test."""

import subprocess
import sys

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from davinci.composition.conf import Conf


@pytest.fixture(scope="module")
def conf(repository):
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        yield Conf(GlobalHydra.instance().config_loader())


@pytest.fixture
def folder(tmp_path):
    """Writes a sweep file; returns its folder."""

    def write(text, name="depths"):
        folder = tmp_path / "sweeps"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return folder

    return write


@pytest.fixture
def launch(repository):
    """Runs `launch.py` as people do."""

    def run(*arguments, at=repository, **environment):
        return subprocess.run(
            [sys.executable, "launch.py", *arguments],
            cwd=at,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "PYTHONPATH": str(at), **environment},
        )

    return run
