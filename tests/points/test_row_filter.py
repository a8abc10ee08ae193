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


@pytest.mark.parametrize(
    ("term", "part"),
    [
        ("n < 8 or n", "n"),
        ("n > 6 and True", "True"),
        ("not n", "n"),
        ("n < 8 or (name == 'run 1' and [1])", "[1]"),
        ("n < 8 or -n", "-n"),
        ("~done", "~done"),
        ("n == 3j", "3j"),
        ("name == b'a'", "b'a'"),
        ("n is None", "n is None"),
        ("'a' in name", "'a' in name"),
        ("name in 'run 1'", "name in 'run 1'"),
    ],
)
def test_an_operand_that_is_no_comparison_is_named(term, part):
    done = pd.Series(COLUMNS["n"] < 3)
    with pytest.raises(ScalingError) as caught:
        select(term, COLUMNS | {"done": done})
    assert caught.value.what == f"--where {term!r}: {part!r} is not a comparison"


@pytest.mark.parametrize(
    "term", ["n < 1" + "0" * 400, "n < 1" + "0" * 4900, "not " * 1200 + "n < 3", "-" * 4900 + "n"]
)
def test_a_number_or_a_nesting_that_is_too_large_is_refused(term):
    with pytest.raises(ScalingError, match="--where"):
        select(term, COLUMNS)


def test_nullable_columns_compare_and_a_missing_value_is_false():
    plain = pd.DataFrame({"i": [1, 2, None, 3], "f": [0.5, None, 1.5, 2.5]})
    columns = dict(plain.convert_dtypes().items())
    columns["done"] = pd.Series([True, None, False, True], dtype="boolean")
    assert [str(column.dtype) for column in columns.values()] == ["Int64", "Float64", "boolean"]
    expected = {
        "i > 1": [1, 3],
        "i != 1": [1, 3],
        "f < 2": [0, 2],
        "i in [1, 3]": [0, 3],
        "done": [0, 3],
        "not done": [2],
        "done == False": [2],
        "done and f > 1": [3],
    }
    for term, rows in expected.items():
        assert select(term, columns).nonzero()[0].tolist() == rows, term


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
