"""Schedules and step grids against a step-by-step simulation."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davinci.schedules import Piece, StepGrid, value_at


@st.composite
def grids(draw):
    sequence_length = draw(st.integers(1, 16))
    starts = sorted(draw(st.sets(st.integers(1, 3000), max_size=3)))
    batches = draw(st.lists(st.integers(1, 12), min_size=len(starts) + 1, max_size=len(starts) + 1))
    tokens = draw(st.integers(1, 4000))
    return StepGrid(tokens, sequence_length, tuple(zip([0, *starts], batches, strict=True)))


def simulate(grid):
    """(tokens before, sequences) of every step, one after another."""
    position, steps = 0, []
    while True:
        sequences = [size for start, size in grid.batch_sizes if start <= position][-1]
        if position + sequences * grid.sequence_length > grid.tokens:
            return steps, position
        steps.append((position, sequences))
        position += sequences * grid.sequence_length


@given(grids(), st.integers(0, 5000))
def test_grid_equals_simulation(grid, tokens):
    steps, end = simulate(grid)
    assert grid.steps == len(steps)
    assert grid.tokens_used == end
    assert [(grid.tokens_at(step), grid.batch_at(step)) for step in range(grid.steps)] == steps
    done = [index for index, (position, size) in enumerate(steps) if position + size * grid.sequence_length <= tokens]
    assert grid.step_at(tokens) == len(done)


def test_the_papers_batch_rises_after_70k_and_110k_steps():
    grid = StepGrid(4 * 10**12, 4096, ((0, 1024), (293_601_280_000, 2048), (629_145_600_000, 4096)))
    assert [grid.batch_at(step) for step in (0, 69_999, 70_000, 109_999, 110_000)] == [1024, 1024, 2048, 2048, 4096]
    assert grid.tokens - grid.tokens_used < 4096 * 4096


def test_cosine_runs_from_start_to_stop():
    piece = Piece("cosine", 100, 300, 3e-4, 3e-5)
    assert piece.at(100) == pytest.approx(3e-4)
    assert piece.at(200) == pytest.approx((3e-4 + 3e-5) / 2)
    assert piece.at(300) == pytest.approx(3e-5)


@given(st.integers(0, 2000))
def test_value_is_finite_and_bounded(tokens):
    pieces = (
        Piece("linear", 0, 100, 0.0, 1.0),
        Piece("constant", 100, 500, 1.0, 1.0),
        Piece("cosine", 500, 900, 1.0, 0.1),
    )
    value = value_at(pieces, tokens)
    assert 0.0 <= value <= 1.0
    assert math.isclose(value_at(pieces, 10_000), 0.1)


@pytest.mark.parametrize("kind", ["linear", "cosine", "exponential", "inverse", "sqrt"])
def test_every_decay_falls_from_start_to_stop(kind):
    piece = Piece(kind, 100, 300, 3e-4, 3e-5)
    values = [piece.at(tokens) for tokens in range(100, 301)]
    assert values[0] == pytest.approx(3e-4) and values[-1] == pytest.approx(3e-5)
    assert all(after < before for before, after in itertools.pairwise(values))


def test_decays_against_their_papers():
    halfway = {kind: Piece(kind, 0, 100, 1.0, 0.01).at(50) for kind in ("exponential", "inverse", "sqrt")}
    assert halfway["exponential"] == pytest.approx(0.1)  # the geometric mean
    assert halfway["inverse"] == pytest.approx(2 / (1 + 100))  # the harmonic mean
    assert halfway["sqrt"] == pytest.approx(1 - 0.99 * math.sqrt(0.5))


def test_inverse_sqrt_is_vaswanis_where_the_timescale_is_the_warmup():
    warmup = 4000
    piece = Piece.inverse_sqrt(warmup, 10**6, 1e-3, warmup)
    for tokens in (4000, 16_000, 400_000):
        assert piece.at(tokens) == pytest.approx(1e-3 * math.sqrt(warmup / tokens))
    assert piece.stop == piece.at(10**6)
