"""In-context regression: windows hold what they say, and errors are those of the mean."""

import numpy as np
import pytest

from scaling.config import RegressionTask
from scaling.tasks import Scores, open_task
from scaling.tasks.regression import REACH

CONFIG = RegressionTask(kind="regression", n_features=3, n_levels=61, noise=0.1, examples=40)


@pytest.fixture(scope="module")
def task():
    return open_task(CONFIG)


@pytest.fixture(scope="module")
def told(task):
    return task.examples(task.batch("val", 0, 2000))


def test_windows_alternate_points_and_levels(task):
    windows = task.batch("val", 0, 50)
    assert windows.shape == (50, 80)
    assert task.seq_len == 79
    assert task.vocab_size == 8 + 61
    assert windows[:, 0::2].max() == 7
    assert windows[:, 1::2].min() >= 8
    assert windows.max() < task.vocab_size
    assert CONFIG.target_positions == tuple(range(0, 79, 2))  # target i is token i + 1: the y


def test_points_are_the_corners_of_the_cube(task):
    assert sorted(map(tuple, task.points)) == sorted(
        (a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)
    )
    np.testing.assert_allclose(task.levels, np.linspace(-REACH, REACH, 61))


def test_y_is_linear_in_x_with_the_configured_noise(told):
    x, y = told
    inside = (np.abs(y) < REACH).all(axis=1)  # where nothing was cut off
    w = np.stack(
        [np.linalg.lstsq(a, b, rcond=None)[0] for a, b in zip(x[inside], y[inside], strict=True)]
    )
    rest = y[inside] - np.einsum("wmn,wn->wm", x[inside], w)
    variance = rest.var() * 40 / (40 - 3)
    assert variance == pytest.approx(
        0.1**2 + 0.1**2 / 12, rel=0.03
    )  # noise, and rounding to levels that are .1 apart
    np.testing.assert_allclose(
        np.cov(w.T) * 3, np.eye(3), atol=0.15
    )  # without the windows that reach the ends: a little less than 1


def test_windows_have_weights_of_their_own(told):
    x, y = told
    w = np.stack(
        [np.linalg.lstsq(a, b, rcond=None)[0] for a, b in zip(x[:50], y[:50], strict=True)]
    )
    assert len(np.unique(w.round(3), axis=0)) == 50


def test_squared_error_is_that_of_the_mean_by_examples_seen(task):
    windows = task.batch("val", 1, 100)
    _, y = task.examples(windows)
    shift = np.arange(40.0) / 10
    found = task.metrics(windows, Scores(y, y, y, y + shift))
    assert [one.at for one in found] == list(range(40))
    assert {one.metric for one in found} == {"squared_error"}
    np.testing.assert_allclose([one.value for one in found], shift**2, atol=1e-9)


def test_level_values_and_none_for_points(task):
    assert (task.level_values[:8] == 0).all()
    assert task.level_values[8] == -REACH
    assert task.level_values[-1] == REACH
