"""Which indices a ladder trains: halving, growth to an interior optimum, and honesty at an edge. A
valley stands in for training.
"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.tuning.value_grid import ValueGrid, next_values, optimum_status

PLAIN = ValueGrid(n_values=5, max_extensions=4, margin=0.03, has_short_runs=True)


def climb(rules, loss, excluded=None, short_loss=None):
    """Train what the ladder asks for until it asks no more; (short, full, rounds)."""
    short, full, rounds, excluded = {}, {}, 0, excluded or {}
    while asked := next_values(rules, short, full, excluded):
        assert not asked.short & short.keys()
        assert not asked.full & full.keys()
        assert not (asked.short | asked.full) & excluded.keys()
        short |= {index: [(short_loss or loss)(index)] for index in asked.short}
        full |= {index: [loss(index)] for index in asked.full}
        rounds += 1
        assert rounds < 60
    return short, full, rounds


def bowl(at, width=0.04, ceiling=math.inf):
    return lambda index: 2.0 + width * (index - at) ** 2 if index < ceiling else math.inf


def test_good_guess_costs_five_short_and_three_full_runs():
    short, full, rounds = climb(PLAIN, bowl(0.2))
    assert (sorted(short), sorted(full), rounds) == ([-2, -1, 0, 1, 2], [-1, 0, 1], 2)


def test_value_grid_extends_towards_an_optimum_beyond_its_end():
    short, full, _ = climb(PLAIN, bowl(-3.2))
    assert sorted(short) == [-4, -3, -2, -1, 0, 1, 2]
    assert sorted(full) == [-4, -3, -2]
    assert optimum_status(PLAIN, short, full, {}).state == "interior"


def test_extensions_are_bounded_and_the_edge_is_marked():
    short, full, _ = climb(PLAIN, bowl(-20.0))
    assert min(short) == -6
    found = optimum_status(PLAIN, short, full, {})
    assert found.state == "edge"
    assert found.why == "the best value is the lowest; max_extensions = 4 is used up"


def test_best_value_next_to_a_divergence_is_an_edge():
    short, full, _ = climb(PLAIN, bowl(2.0, ceiling=1))
    assert sorted(full) == [-1, 0]
    assert optimum_status(PLAIN, short, full, {}).why == "the value above the best diverges"


@pytest.mark.parametrize(("safer", "end"), [(-1, -6), (1, 6)])
def test_where_all_diverge_the_grid_extends_to_lower_values(safer, end):
    short, full, _ = climb(ValueGrid(5, 4, 0.03, True, safer), lambda index: math.inf)
    assert end in short
    assert not full
    assert optimum_status(PLAIN, short, full, {}).why == "every value diverges"


def test_misleading_short_runs_are_corrected():
    """At the short horizon higher rates look better; the whole runs move on, first over dropped
    indices, then beyond the grid.
    """
    short, full, _ = climb(PLAIN, bowl(-2.0), short_loss=bowl(1.0))
    assert sorted(short) == [-2, -1, 0, 1, 2]
    assert sorted(full) == [-3, -2, -1, 0, 1, 2]
    assert optimum_status(PLAIN, short, full, {}).state == "interior"


def test_without_short_runs_all_values_are_trained():
    short, full, _ = climb(ValueGrid(3, 4, 0.03, False), bowl(2.1))
    assert not short
    assert sorted(full) == [-1, 0, 1, 2, 3]


def test_infeasible_value_ends_the_grid_and_is_reported():
    excluded = {-1: "4 steps are fewer than 20"}
    short, full, _ = climb(PLAIN, bowl(0.0), excluded)
    assert (
        optimum_status(PLAIN, short, full, excluded).why
        == "the value below the best cannot be trained: 4 steps are fewer than 20"
    )


def test_even_grid_has_its_extra_value_above():
    assert sorted(ValueGrid(4, 0, 0.03, True).first) == [-1, 0, 1, 2]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(3, 9),
    st.integers(0, 6),
    st.booleans(),
    st.sampled_from([-1, 1]),
    st.dictionaries(st.integers(-12, 12), st.floats(1.0, 9.0)),
    st.sets(st.integers(-12, 12)),
    st.sets(st.integers(-12, 12), max_size=3),
)
def test_search_ends_for_any_losses(indices, extend, scouted, safer, told, diverged, excluded):
    rules, excluded = (
        ValueGrid(indices, extend, 0.05, scouted, safer),
        dict.fromkeys(excluded, "excluded"),
    )

    def loss(index):
        return math.inf if index in diverged else told.get(index, 2.0)

    short, full, _ = climb(rules, loss, excluded)
    assert len({*short, *full} - rules.first) <= extend
    if optimum_status(rules, short, full, excluded).state == "interior":
        best = min(full, key=loss)
        assert math.isfinite(loss(best - 1) + loss(best + 1))
        assert {best - 1, best + 1} <= full.keys()
