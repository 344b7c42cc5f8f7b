"""The mixture order: exact, random-access, never far from its shares."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davinci.data.order import MixtureOrder
from davinci.errors import UserError

weights = st.lists(st.integers(0, 10**6) | st.integers(0, 10**13), min_size=1, max_size=28).filter(any)
position = st.integers(0, 10**4) | st.integers(0, 10**12)


@given(weights, position)
@settings(max_examples=200, deadline=None)
def test_prefix_is_within_two_of_its_share(weights, n):
    counts = MixtureOrder(weights).counts(n)
    total = sum(weights)
    assert sum(counts) == n
    # in integers: |count - n w / W| < 2
    assert all(abs(count * total - n * weight) < 2 * total for count, weight in zip(counts, weights, strict=True))


def test_fibonacci_weights_stay_within_the_stated_bound():
    """The tree is deepest here; the docstring's bound of 1.68 must hold."""
    weights = [1, 1]
    while len(weights) < 28:
        weights.append(weights[-1] + weights[-2])
    order, total = MixtureOrder(weights), sum(weights)
    for n in [*range(3000), *range(10**12, 10**12 + 1000)]:
        for count, weight in zip(order.counts(n), weights, strict=True):
            assert abs(count * total - n * weight) * 100 <= 168 * total


@given(weights, position)
@settings(max_examples=100, deadline=None)
def test_at_agrees_with_counts(weights, n):
    order = MixtureOrder(weights)
    source, k = order.at(n)
    before, after = order.counts(n), order.counts(n + 1)
    assert k == before[source]
    assert after == [count + (index == source) for index, count in enumerate(before)]
    assert weights[source] > 0


@given(weights, position, st.integers(0, 300))
@settings(max_examples=100, deadline=None)
def test_block_agrees_with_at(weights, start, count):
    order = MixtureOrder(weights)
    sources, draws = order.block(start, count)
    assert list(zip(sources.tolist(), draws.tolist(), strict=True)) == [order.at(start + i) for i in range(count)]


def test_long_block_agrees_with_its_pieces():
    order = MixtureOrder([7, 11, 0, 3])
    sources, draws = order.block(5, 150_000)
    for begin in (0, 65_530, 149_000):
        part = order.block(5 + begin, 1000)
        assert (sources[begin : begin + 1000] == part[0]).all() and (draws[begin : begin + 1000] == part[1]).all()
    assert sources.dtype == draws.dtype == "int64"


def test_block_is_exact_where_int64_would_overflow():
    order = MixtureOrder([3 * 10**18 + 1, 10**18, 7])
    sources, draws = order.block(10**12, 50)
    assert list(zip(sources.tolist(), draws.tolist(), strict=True)) == [order.at(10**12 + i) for i in range(50)]


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=28))
@settings(max_examples=100, deadline=None)
def test_no_source_starves(weights):
    """A source of share p is drawn within any 4 / p positions in a row: its count cannot stay within 2 otherwise."""
    order, total = MixtureOrder(weights), sum(weights)
    for index, weight in enumerate(weights):
        window = 4 * total // weight + 1
        assert order.counts(10**6 + window)[index] > order.counts(10**6)[index]


def test_equal_weights_alternate_and_scaling_changes_nothing():
    assert [MixtureOrder([1, 1]).at(i)[0] for i in range(6)] == [1, 0, 1, 0, 1, 0]
    small, large = MixtureOrder([3, 5, 9]), MixtureOrder([3 * 10**9, 5 * 10**9, 9 * 10**9])
    assert [small.at(i) for i in range(200)] == [large.at(i) for i in range(200)]


def test_order_is_frozen():
    """Golden: a change here changes every run's data. It must come with a new numerics version."""
    assert "".join(str(MixtureOrder([5, 3, 2]).at(i)[0]) for i in range(20)) == "10201020101020102010"


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1]])
def test_wrong_weights(weights):
    with pytest.raises(UserError, match="mixture weights"):
        MixtureOrder(weights)
