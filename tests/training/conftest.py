"""Settings and stores of the training tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from pools import tiny_pool

from davinci.store import Store
from davinci.training import numerics


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    numerics.configure(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with the tiny pool, small enough that a training reads some of it twice."""
    store = Store(tmp_path / "store")
    tiny_pool(store, tokens=4_000)
    return store
