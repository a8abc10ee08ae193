"""The expression of `--where` on tables with many rows and in long expressions."""

import time

import numpy as np
import pandas as pd
import pytest

from scaling.points.row_filter import select

COLUMNS = {
    "n": pd.Series(np.arange(1000.0)),
    "name": pd.Series([f"run {i}" for i in range(1000)]),
}


@pytest.mark.parametrize("term", ["n == {}", 'name == "run {}"'])
def test_ten_thousand_terms_take_less_than_two_seconds(term):
    began = time.process_time()
    rows = select(" or ".join(term.format(i) for i in range(500, 10_500)), COLUMNS)
    assert time.process_time() - began < 2.0
    assert np.flatnonzero(rows).tolist() == list(range(500, 1000))


def test_numbers_compare_with_numbers_and_text_with_text():
    assert select('n < 2 or name in ["run 7"]', COLUMNS).nonzero()[0].tolist() == [0, 1, 7]
    assert not select('n == "1"', COLUMNS).any()
