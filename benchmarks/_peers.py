"""Virtual environments of the peers: their requirements and ours do not go together."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def peer_python(folder: Path, packages: Sequence[str]) -> Path | None:
    """Python of the environment with `packages`, made where it is missing; None where it cannot be had.

    Not under constraints.txt: its huggingface_hub is too new for some, and pip then tries every version they ever had.
    """
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"making {folder} with {' '.join(packages)}", flush=True)
        started = time.monotonic()
        install = [str(python), "-m", "pip", "install", "-q", *packages]
        for command in ([sys.executable, "-m", "venv", str(folder)], install):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{', '.join(packages)} are left out: {done.stderr.strip().splitlines()[-1]}")
                return None
        (folder / "complete").touch()
        print(f"made in {time.monotonic() - started:.0f} s")
    return python
