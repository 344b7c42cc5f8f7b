"""What a machine is said to have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from davinci.accounting import machine


def test_cores_heed_a_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for text, expected in (("max 100000\n", 8), ("300000 100000\n", 3), ("50000 100000\n", 1)):
        monkeypatch.setattr(Path, "read_text", lambda self, text=text: text)
        assert machine.cores() == expected
