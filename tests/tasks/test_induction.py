"""Repeated segments: what windows look like, and which symbols can be copied."""

import numpy as np
import pytest
from pydantic import ValidationError

from scaling.config import InductionTask
from scaling.tasks import Scores, open_task

CONFIG = InductionTask(kind="induction", n_symbols=16, shortest=3, longest=7, seq_len=20)


@pytest.fixture(scope="module")
def task():
    return open_task(CONFIG)


@pytest.fixture(scope="module")
def windows(task):
    return task.batch("val", 0, 400)


def test_windows_repeat_with_the_recorded_length(task, windows):
    assert windows.shape == (400, 21)
    assert windows.dtype == np.int32
    lengths = task.lengths(windows)
    for window, length in zip(windows, lengths, strict=True):
        assert (window[length:] == window[:-length]).all()
        shorter = [n for n in range(CONFIG.shortest, length) if (window[n:] == window[:-n]).all()]
        assert not shorter
    assert set(lengths) == {3, 4, 5, 6, 7}


def test_lengths_and_symbols_are_even(task):
    windows = task.batch("train", 1, 20_000)
    counts = np.bincount(task.lengths(windows), minlength=8)[3:]
    np.testing.assert_allclose(counts / 20_000, 1 / 5, atol=4 * np.sqrt(0.16 / 20_000))
    np.testing.assert_allclose(
        np.bincount(windows[:, 0], minlength=16) / 20_000, 1 / 16, atol=4 * np.sqrt(0.0586 / 20_000)
    )


def test_batches_are_cut_from_one_stream_and_splits_differ(task):
    whole = task.batch("train", 0, 12)
    np.testing.assert_array_equal(
        whole, np.concatenate([task.batch("train", index, 4) for index in range(3)])
    )
    assert not (whole == task.batch("val", 0, 12)).all(axis=1).any()


def test_perfect_copier_has_zero_copied_loss_and_chance_fresh_loss(task, windows):
    """By the definition.

    A symbol can be copied if what stands one length before it is in the window, and so is its own
    predecessor there.
    """
    nll = np.full((400, 20), np.log(task.config.n_symbols))
    for row, (window, length) in enumerate(zip(windows, task.lengths(windows), strict=True)):
        for place in range(1, 21):
            if (
                place - 1 - length >= 0
            ):  # the present symbol stood `length` before, and what followed it is known
                assert window[place] == window[place - length]
                nll[row, place - 1] = 0.0
    found = {one.metric: one for one in task.metrics(windows, Scores(nll, nll == 0.0, nll, nll))}
    assert found["copied_loss"].value == 0.0
    assert found["copied_accuracy"].value == 1.0
    assert found["fresh_loss"].value == pytest.approx(np.log(16))
    assert found["fresh_loss"].stderr == pytest.approx(0.0, abs=1e-12)


def test_a_segment_that_does_not_repeat_is_rejected():
    with pytest.raises(ValidationError, match="do not repeat"):
        InductionTask(kind="induction", shortest=4, longest=20, seq_len=20)
