"""What every folder of tests shares."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Tests compare bits, which a GPU does not promise.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

# The same examples on every machine, however slow it is.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parent.parent
