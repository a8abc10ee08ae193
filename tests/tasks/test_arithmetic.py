"""Addition.

Windows that are right, streams that repeat, problems as even or as mixed as asked for, metrics by
hand.
"""

import numpy as np
import pytest

from scaling.config import ArithmeticTask
from scaling.tasks import open_task
from scaling.tasks.base import Scores


def opened(**fields):
    return open_task(ArithmeticTask(kind="arithmetic", **fields))


def number(digits):
    return digits.astype(np.int64) @ 10 ** np.arange(digits.shape[1] - 1, -1, -1)


@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("digits", [1, 3, 6])
def test_every_window_is_a_true_sum(digits, reverse):
    task = opened(digits=digits, reverse=reverse)
    windows = task.batch("train", 2, 500)
    assert windows.shape == (500, task.seq_len + 1)
    answer = windows[:, task.prompt_tokens :]
    a, b = number(windows[:, :digits]), number(windows[:, digits + 1 : 2 * digits + 1])
    assert (number(answer[:, ::-1] if reverse else answer) == a + b).all()
    assert (windows[:, digits] == 10).all()
    assert (windows[:, 2 * digits + 1] == 11).all()
    assert windows.max() < task.vocab_size
    assert len(task.config.target_positions) == digits + 1
    assert (windows[:, 1:][:, list(task.config.target_positions)] == answer).all()


def test_windows_are_a_pure_function_of_their_number():
    one_by_one = np.concatenate([opened().batch("val", i, 1) for i in range(12)])
    assert (np.concatenate([opened().batch("val", i, 4) for i in range(3)]) == one_by_one).all()
    assert (opened(data_seed=1).batch("val", 0, 12) != one_by_one).any()
    assert (opened().batch("train", 0, 12) != one_by_one).any()


def test_operands_are_even_over_all_numbers():
    windows = opened(digits=2).batch("val", 0, 20_000)
    counts = np.bincount(number(windows[:, :2]), minlength=100)
    assert len(counts) == 100
    chi2 = ((counts - 200) ** 2 / 200).sum()
    assert abs(chi2 - 99) < 5 * np.sqrt(2 * 99)


def test_lengths_follow_the_power_in_training_and_are_even_when_held_out():
    task = opened(digits=4, length_power=2.0)
    expected = {"train": np.arange(1, 5) ** -2.0, "val": np.ones(4)}
    for split, weights in expected.items():
        lengths = np.maximum(
            1, np.floor(np.log10(np.maximum(number(task.batch(split, 0, 20_000)[:, :4]), 1))) + 1
        ).astype(int)
        shares = np.bincount(lengths, minlength=5)[1:] / 20_000
        np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.02)


def test_metrics_by_hand():
    """Two answers of two digits.

    One all right with p = .8 each, one whose second digit has p = .1 and is not the likeliest.
    """
    task = opened(digits=1)
    right = np.array([[0.8, 0.8], [0.8, 0.1]])
    square = np.array(
        [[0.8**2 + 0.2**2, 0.8**2 + 0.2**2], [0.8**2 + 0.2**2, 0.1**2 + 0.9**2]]
    )  # the rest lies on one other token
    scores = Scores(
        -np.log(right), np.array([[True, True], [True, False]]), square, np.zeros((2, 2))
    )
    found = {(one.metric, one.at): one for one in task.metrics(task.batch("val", 0, 2), scores)}
    assert found["exact_match", None].value == 0.5
    assert found["token_accuracy", None].value == 0.75
    assert found["accuracy_at_position", 1.0].value == 1.0
    assert found["accuracy_at_position", 2.0].value == 0.5
    assert found["answer_nll", None].value == pytest.approx(-(3 * np.log(0.8) + np.log(0.1)) / 2)
    briers = [
        2 * 0.2**2,
        2 * 0.2**2,
        2 * 0.2**2,
        2 * 0.9**2,
    ]  # (1 - p)^2 for the right token and as much for the one other
    assert found["brier", None].value == pytest.approx(np.mean(briers))
    assert found["exact_match", None].stderr == pytest.approx(0.5)  # sd of (1, 0) over root 2
