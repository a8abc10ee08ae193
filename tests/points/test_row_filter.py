"""The expression of `--where` on tables."""

import numpy as np
import pandas as pd
import pytest

from scaling.errors import ScalingError
from scaling.points.row_filter import select

COLUMNS = {
    "n": pd.Series(np.arange(1000.0)),
    "name": pd.Series([f"run {i}" for i in range(1000)]),
}


@pytest.mark.parametrize(
    "term", ["n.max() > 3", "__import__('os') == n", "n[0] == 1", "@n > 1", "1 < 2", "n", "n + 1"]
)
def test_what_is_no_comparison_of_columns_is_rejected(term):
    with pytest.raises(ScalingError, match="--where"):
        select(term, COLUMNS)


def test_ten_thousand_terms_are_rejected_at_once():
    with pytest.raises(ScalingError, match="longer than 5000 characters"):
        select(" or ".join(f"n == {i}" for i in range(10_000)), COLUMNS)


def test_a_quoted_name_chained_comparisons_and_not():
    columns = COLUMNS | {"loss (bits)": COLUMNS["n"]}
    assert select("1 < `loss (bits)` <= 3", columns).nonzero()[0].tolist() == [2, 3]
    assert select("not n < 998 or n not in [1]", columns).sum() == 999


def test_numbers_compare_with_numbers_and_text_with_text():
    assert select('n < 2 or name in ["run 7"]', COLUMNS).nonzero()[0].tolist() == [0, 1, 7]
    assert not select('n == "1"', COLUMNS).any()
