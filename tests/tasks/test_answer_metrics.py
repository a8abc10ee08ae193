"""What many answers are worth, against counting every case."""

import itertools

import numpy as np
import pytest

from scaling.tasks.answer_metrics import (
    best_of_k,
    edit_distance,
    exact_pass_at_k,
    label_answers,
    majority_at_k,
    pass_at_k,
)


@pytest.mark.parametrize(("n", "c"), [(7, 0), (7, 2), (7, 6), (7, 7)])
def test_pass_at_k_is_the_share_of_all_choices_of_k_that_hold_a_right_one(n, c):
    right = np.arange(n) < c
    for k in range(1, n + 1):
        share = np.mean(
            [right[list(chosen)].any() for chosen in itertools.combinations(range(n), k)]
        )
        assert pass_at_k(np.array([n]), np.array([c]), np.array([k]))[0, 0] == pytest.approx(
            share, abs=1e-12
        )


def test_exact_coverage_keeps_its_digits_where_chances_are_small():
    found = exact_pass_at_k(np.array([np.log(4.0), 60.0, 0.0]), np.array([1, 3]))
    np.testing.assert_allclose(
        found, [[0.25, 1 - 0.75**3], [np.exp(-60.0), 3 * np.exp(-60.0)], [1.0, 1.0]], rtol=1e-6
    )


def levenshtein(a, b):
    """By its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(
        levenshtein(a[1:], b) + 1,
        levenshtein(a, b[1:]) + 1,
        levenshtein(a[1:], b[1:]) + (a[0] != b[0]),
    )


def test_edit_distance_is_levenshteins():
    written, right = np.random.default_rng(0).integers(0, 3, (2, 20, 5))
    found = edit_distance(written, right)
    assert found.tolist() == [
        levenshtein(a, b) for a, b in zip(written.tolist(), right.tolist(), strict=True)
    ]
    assert len(set(found)) > 2


def test_equal_answers_share_a_number_and_the_right_one_is_0():
    labels = label_answers(
        np.array([[[1, 2], [3, 4], [1, 2], [5, 6]], [[7, 8], [7, 8], [1, 2], [9, 9]]]),
        np.array([[3, 4], [1, 1]]),
    )
    assert (labels == 0).tolist() == [[False, True, False, False], [False] * 4]
    assert labels[0, 0] == labels[0, 2] != labels[0, 3]
    assert labels[1, 0] == labels[1, 1] != labels[1, 2]


def test_majority_vote_breaks_ties_at_random():
    rng = np.random.default_rng(1)
    labels, likelihood = rng.integers(0, 4, (30, 12)), rng.normal(size=(30, 12))
    for k in (1, 2, 5, 12):
        votes, best = [], []
        for row, liked in zip(labels, likelihood, strict=True):
            groups = [
                (row[first : first + k], liked[first : first + k])
                for first in range(0, 12 // k * k, k)
            ]
            counts = [np.bincount(group, minlength=4) for group, _ in groups]
            votes.append(
                np.mean(
                    [(count[0] == count.max()) / (count == count.max()).sum() for count in counts]
                )
            )
            best.append(np.mean([group[own.argmax()] == 0 for group, own in groups]))
        np.testing.assert_allclose(majority_at_k(labels, k), votes)
        np.testing.assert_allclose(best_of_k(labels, likelihood, k), best)
