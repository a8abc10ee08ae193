"""Which indices a ladder trains: halving, growth to an interior optimum, and honesty at an edge. A
valley stands in for training.
"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.tuning.value_grid import ValueGrid

PLAIN = {"n_values": 5, "max_extensions": 4, "margin": 0.03, "has_short_runs": True}


def climb(loss, excluded=None, short_loss=None, **changes):
    """Train what a grid asks for until it asks no more; (grid, rounds)."""
    grid, rounds = ValueGrid(**{**PLAIN, **changes}, excluded=excluded or {}), 0
    while any(asked := grid.next_values()):
        short, full = asked
        assert not short & grid.short.keys()
        assert not full & grid.full.keys()
        assert not (short | full) & grid.excluded.keys()
        grid.short |= {index: [(short_loss or loss)(index)] for index in short}
        grid.full |= {index: [loss(index)] for index in full}
        rounds += 1
        assert rounds < 60
    return grid, rounds


def why(grid):
    return grid.edge_reason()


def bowl(at, width=0.04, ceiling=math.inf):
    return lambda index: 2.0 + width * (index - at) ** 2 if index < ceiling else math.inf


def test_good_guess_costs_five_short_and_three_full_runs():
    grid, rounds = climb(bowl(0.2))
    assert (sorted(grid.short), sorted(grid.full), rounds) == ([-2, -1, 0, 1, 2], [-1, 0, 1], 2)


def test_value_grid_extends_towards_an_optimum_beyond_its_end():
    grid, _ = climb(bowl(-3.2))
    assert sorted(grid.short) == [-4, -3, -2, -1, 0, 1, 2]
    assert sorted(grid.full) == [-4, -3, -2]
    assert not why(grid)


def test_extensions_are_bounded_and_the_edge_is_marked():
    grid, _ = climb(bowl(-20.0))
    assert min(grid.short) == -6
    assert why(grid) == "the best value is the lowest; max_extensions = 4 is used up"


def test_best_value_next_to_a_divergence_is_an_edge():
    grid, _ = climb(bowl(2.0, ceiling=1))
    assert sorted(grid.full) == [-1, 0]
    assert why(grid) == "the value above the best diverges"


@pytest.mark.parametrize(("safer", "end"), [(-1, -6), (1, 6)])
def test_where_all_diverge_the_grid_extends_to_lower_values(safer, end):
    grid, _ = climb(lambda index: math.inf, safer=safer)
    assert end in grid.short
    assert not grid.full
    assert why(grid) == "every value diverges"


def test_misleading_short_runs_are_corrected():
    """At the short horizon higher rates look better; the whole runs move on, first over dropped
    indices, then beyond the grid.
    """
    grid, _ = climb(bowl(-2.0), short_loss=bowl(1.0))
    assert sorted(grid.short) == [-2, -1, 0, 1, 2]
    assert sorted(grid.full) == [-3, -2, -1, 0, 1, 2]
    assert not why(grid)


def test_without_short_runs_all_values_are_trained():
    grid, _ = climb(bowl(2.1), n_values=3, has_short_runs=False)
    assert not grid.short
    assert sorted(grid.full) == [-1, 0, 1, 2, 3]


def test_infeasible_value_ends_the_grid_and_is_reported():
    excluded = {-1: "4 steps are fewer than 20"}
    grid, _ = climb(bowl(0.0), excluded)
    assert why(grid) == "the value below the best cannot be trained: 4 steps are fewer than 20"


def test_even_grid_has_its_extra_value_above():
    assert sorted(ValueGrid(4, 0, 0.03, True).first) == [-1, 0, 1, 2]


@settings(max_examples=200)
@given(
    st.integers(3, 9),
    st.integers(0, 6),
    st.booleans(),
    st.sampled_from([-1, 1]),
    st.dictionaries(st.integers(-12, 12), st.floats(1.0, 9.0)),
    st.sets(st.integers(-12, 12)),
    st.sets(st.integers(-12, 12), max_size=3),
)
def test_search_ends_for_any_losses(indices, extend, short_runs, safer, losses, diverged, excluded):
    kind = {"n_values": indices, "max_extensions": extend, "margin": 0.05, "safer": safer}
    excluded = dict.fromkeys(excluded, "excluded")

    def loss(index):
        return math.inf if index in diverged else losses.get(index, 2.0)

    grid, _ = climb(loss, excluded, has_short_runs=short_runs, **kind)
    assert len({*grid.short, *grid.full} - grid.first) <= extend
    if not why(grid):
        best = min(grid.full, key=loss)
        assert math.isfinite(loss(best - 1) + loss(best + 1))
        assert {best - 1, best + 1} <= grid.full.keys()
