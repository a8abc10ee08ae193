import math

import numpy as np
import pytest

from scaling.config import SyntheticTask
from scaling.errors import ScalingError
from scaling.tasks import open_task, resolve


def opened(**fields):
    return open_task(SyntheticTask(kind="synthetic", **fields))


def keys_of(task, windows):
    """The facts of full windows: keys of shape (n,) and values of shape (n,)."""
    facts = windows[:, :-1].reshape(-1, task.period)
    places = task.config.n_symbols ** np.arange(task.key_len - 1, -1, -1)
    return facts[:, :-1] @ places, facts[:, -1]


@pytest.mark.parametrize(
    ("n_facts", "n_symbols", "key_len"),
    [(32, 32, 1), (33, 32, 2), (4096, 32, 3), (2, 2, 1), (5, 2, 3)],
)
def test_keys_use_the_fewest_symbols(n_facts, n_symbols, key_len):
    task = opened(n_facts=n_facts, n_symbols=n_symbols, seq_len=(key_len + 1) * 6)
    assert (task.key_len, task.period, task.vocab_size) == (key_len, key_len + 1, n_symbols)
    keys, values = keys_of(task, task.batch("train", 0, 400))
    assert keys.max() < n_facts
    assert (values == task.values[keys]).all()


def test_windows_are_a_pure_function_of_their_number():
    task = opened(seq_len=40)
    one_by_one = np.concatenate([opened(seq_len=40).batch("train", i, 1) for i in range(24)])
    assert (np.concatenate([task.batch("train", i, 8) for i in range(3)]) == one_by_one).all()
    assert one_by_one.dtype == np.int32
    assert one_by_one.shape == (24, 41)
    for other in (
        task.batch("val", 0, 24),
        opened(seq_len=40, data_seed=1).batch("train", 0, 24),
        task.batch("train", 1, 24),
    ):
        assert (other != one_by_one).any(axis=1).mean() > 0.9


def test_keys_follow_the_power_law():
    task = opened(n_facts=64, zipf=0.5, seq_len=66)
    keys, _ = keys_of(task, task.batch("train", 3, 4000))
    expected = task.probabilities * len(keys)
    chi2 = ((np.bincount(keys, minlength=64) - expected) ** 2 / expected).sum()
    assert 63 - 5 * math.sqrt(126) < chi2 < 63 + 5 * math.sqrt(126)
    assert task.probabilities[7] / task.probabilities[0] == pytest.approx(8**-1.5)
    assert task.entropy == pytest.approx(-(task.probabilities @ np.log(task.probabilities)) / 3)


def test_the_ideal_predictor_reaches_the_entropy():
    task = opened(n_facts=500, n_symbols=8, seq_len=64)
    windows = task.batch("val", 0, 6000)
    digits = np.arange(500)[:, None] // 8 ** np.arange(2, -1, -1) % 8
    chance = {(): 1.0}  # of each beginning of a fact
    for p, key, value in zip(task.probabilities, digits, task.values, strict=True):
        fact = (*key, value)
        for length in range(1, 5):
            chance[fact[:length]] = chance.get(fact[:length], 0.0) + p
    places = np.arange(1, 65)
    nll = np.empty((len(windows), 64))
    for row, window in enumerate(windows.tolist()):
        for place in places:
            begun = place - place % 4
            nll[row, place - 1] = math.log(
                chance[tuple(window[begun:place])] / chance[tuple(window[begun : place + 1])]
            )
    losses = nll.mean(axis=1)
    np.testing.assert_allclose(task.ideal_loss(windows), losses, rtol=1e-12)
    assert abs(losses.mean() - task.entropy) < 4 * losses.std() / math.sqrt(len(losses))
    assert losses.std() / math.sqrt(len(losses)) < 0.01 * task.entropy


def test_windows_must_hold_whole_facts():
    with pytest.raises(ScalingError, match="is not a multiple of 4") as caught:
        opened(seq_len=66)
    assert "64 or 68" in caught.value.remedy
    config = SyntheticTask(kind="synthetic")
    assert resolve(config) is config
    assert opened().digest == opened(seq_len=8).digest != opened(zipf=0.6).digest
