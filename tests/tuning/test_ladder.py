"""Which rungs a ladder trains: halving, growth to an interior optimum, and honesty at an edge. A valley stands in for training."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.tuning.ladder import Ladder, next_rungs, standing

PLAIN = Ladder(rungs=5, extend=4, margin=0.03, scouted=True)


def climb(rules, loss, closed=None, scout_loss=None):
    """Train what the ladder asks for until it asks no more; (scouts, full, rounds)."""
    scouts, full, rounds, closed = {}, {}, 0, closed or {}
    while asked := next_rungs(rules, scouts, full, closed):
        assert not asked.scouts & scouts.keys()
        assert not asked.full & full.keys()
        assert not (asked.scouts | asked.full) & closed.keys()
        scouts |= {rung: [(scout_loss or loss)(rung)] for rung in asked.scouts}
        full |= {rung: [loss(rung)] for rung in asked.full}
        rounds += 1
        assert rounds < 60
    return scouts, full, rounds


def bowl(at, width=0.04, ceiling=math.inf):
    return lambda rung: 2.0 + width * (rung - at) ** 2 if rung < ceiling else math.inf


def test_a_good_guess_costs_five_scouts_and_three_whole_runs():
    scouts, full, rounds = climb(PLAIN, bowl(0.2))
    assert (sorted(scouts), sorted(full), rounds) == ([-2, -1, 0, 1, 2], [-1, 0, 1], 2)


def test_a_ladder_grows_towards_an_optimum_beyond_its_end():
    scouts, full, _ = climb(PLAIN, bowl(-3.2))
    assert sorted(scouts) == [-4, -3, -2, -1, 0, 1, 2]
    assert sorted(full) == [-4, -3, -2]
    assert standing(PLAIN, scouts, full, {}).state == "interior"


def test_growth_ends_and_the_edge_is_called_one():
    scouts, full, _ = climb(PLAIN, bowl(-20.0))
    assert min(scouts) == -6
    found = standing(PLAIN, scouts, full, {})
    assert found.state == "edge"
    assert found.why == "the best rung is the lowest; extend = 4 is used up"


def test_a_best_rung_beside_a_divergence_is_an_edge():
    scouts, full, _ = climb(PLAIN, bowl(2.0, ceiling=1))
    assert sorted(full) == [-1, 0]
    assert standing(PLAIN, scouts, full, {}).why == "the rung above the best diverges"


@pytest.mark.parametrize(("safer", "end"), [(-1, -6), (1, 6)])
def test_where_all_diverge_the_ladder_goes_to_the_safer_side(safer, end):
    scouts, full, _ = climb(Ladder(5, 4, 0.03, True, safer), lambda rung: math.inf)
    assert end in scouts
    assert not full
    assert standing(PLAIN, scouts, full, {}).why == "every rung diverges"


def test_scouts_that_were_wrong_are_found_out():
    """At the short horizon higher rates look better; the whole runs move on, first over dropped rungs, then beyond the ladder."""
    scouts, full, _ = climb(PLAIN, bowl(-2.0), scout_loss=bowl(1.0))
    assert sorted(scouts) == [-2, -1, 0, 1, 2]
    assert sorted(full) == [-3, -2, -1, 0, 1, 2]
    assert standing(PLAIN, scouts, full, {}).state == "interior"


def test_without_scouts_all_rungs_are_trained_and_grow():
    scouts, full, _ = climb(Ladder(3, 4, 0.03, False), bowl(2.1))
    assert not scouts
    assert sorted(full) == [-1, 0, 1, 2, 3]


def test_a_closed_rung_ends_the_ladder_and_is_told():
    closed = {-1: "4 steps are fewer than 20"}
    scouts, full, _ = climb(PLAIN, bowl(0.0), closed)
    assert (
        standing(PLAIN, scouts, full, closed).why
        == "the rung below the best cannot be trained: 4 steps are fewer than 20"
    )


def test_an_even_ladder_has_its_extra_rung_above():
    assert sorted(Ladder(4, 0, 0.03, True).first) == [-1, 0, 1, 2]


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
def test_any_losses_end_and_interior_means_interior(
    rungs, extend, scouted, safer, told, diverged, closed
):
    rules, closed = Ladder(rungs, extend, 0.05, scouted, safer), dict.fromkeys(closed, "closed")

    def loss(rung):
        return math.inf if rung in diverged else told.get(rung, 2.0)

    scouts, full, _ = climb(rules, loss, closed)
    assert len({*scouts, *full} - rules.first) <= extend
    if standing(rules, scouts, full, closed).state == "interior":
        best = min(full, key=loss)
        assert math.isfinite(loss(best - 1) + loss(best + 1))
        assert {best - 1, best + 1} <= full.keys()
