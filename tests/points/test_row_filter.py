"""The expression of `--where` on tables."""

import time

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
    ("term", "what"),
    [
        ("n < 8 or n", "'n' is not a comparison"),
        ("n > 6 and True", "'True' is not a comparison"),
        ("not n", "'n' is not a comparison"),
        ("n < 8 or (name == 'run 1' and [1])", "'[1]' is not a comparison"),
        ("n < 8 or -n", "'-n' is not a comparison"),
        ("~done", "'~done' is not a comparison"),
        ("n == 3j", "constant"),
        ("name == b'a'", "constant"),
        ("n is 3", "only <, <=, >, >=, ==, !=, in and not in compare"),
        ("'a' in name", "in needs a column on its left and a list on its right"),
        ("name in 'run 1'", "in needs a column on its left and a list on its right"),
    ],
)
def test_an_operand_that_is_no_comparison_is_named(term, what):
    done = pd.Series(COLUMNS["n"] < 3)
    with pytest.raises(ScalingError) as caught:
        select(term, COLUMNS | {"done": done})
    assert what in caught.value.what
    assert select("done and n > 0", COLUMNS | {"done": done}).nonzero()[0].tolist() == [1, 2]


@pytest.mark.parametrize(
    "term", ["n < 1" + "0" * 400, "n < 1" + "0" * 4900, "not " * 1200 + "n < 3", "-" * 4900 + "n"]
)
def test_a_number_or_a_nesting_that_is_too_large_is_refused(term):
    with pytest.raises(ScalingError, match="--where"):
        select(term, COLUMNS)


def test_nullable_columns_compare_and_a_missing_value_equals_nothing():
    plain = pd.DataFrame({"i": [1, 2, None, 3], "f": [0.5, None, 1.5, 2.5]})
    columns = dict(plain.convert_dtypes().items())
    columns["done"] = pd.Series([True, False, True, False], dtype="boolean")
    assert [str(column.dtype) for column in columns.values()] == ["Int64", "Float64", "boolean"]
    expected = {
        "i > 1": [1, 3],
        "i != 1": [1, 2, 3],
        "f < 2": [0, 2],
        "i in [1, 3]": [0, 3],
        "done": [0, 2],
        "not done": [1, 3],
        "done == False": [1, 3],
        "done and f > 1": [2],
    }
    for term, rows in expected.items():
        assert select(term, columns).nonzero()[0].tolist() == rows, term


@pytest.mark.parametrize("term", ["n == {}", 'name == "run {}"'])
def test_ten_thousand_terms_take_less_than_two_seconds(term):
    began = time.process_time()
    rows = select(" or ".join(term.format(i) for i in range(500, 10_500)), COLUMNS)
    assert time.process_time() - began < 2.0
    assert np.flatnonzero(rows).tolist() == list(range(500, 1000))


def test_a_quoted_name_chained_comparisons_and_not():
    columns = COLUMNS | {"loss (bits)": COLUMNS["n"]}
    assert select("1 < `loss (bits)` <= 3", columns).nonzero()[0].tolist() == [2, 3]
    assert select("not n < 998 or n not in [1]", columns).sum() == 999


def test_numbers_compare_with_numbers_and_text_with_text():
    assert select('n < 2 or name in ["run 7"]', COLUMNS).nonzero()[0].tolist() == [0, 1, 7]
    assert not select('n == "1"', COLUMNS).any()
