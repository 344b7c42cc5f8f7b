"""The small pool, built once for all tests."""

import pytest
from small_pool import make_pool

from davinci.data.build import Request, build
from davinci.store import Store


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """(store, pool file) of a built pool named ``small``; read it, do not change it."""
    store = Store(tmp_path_factory.mktemp("store"))
    file = make_pool(store, tmp_path_factory.mktemp("pool"))
    build(file, store, lambda line: None, Request(workers=1))
    return store, file
