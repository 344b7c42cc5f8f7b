"""The small pool, built once for all tests."""

import pytest
from small_pool import make_recipe

from davinci.data.build import build_recipe
from davinci.store import Store


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """(store, recipe) of a built pool named ``small``; read it, do not change it."""
    store = Store(tmp_path_factory.mktemp("store"))
    recipe = make_recipe(store)
    build_recipe(recipe, store, lambda line: None, workers=1)
    return store, recipe
