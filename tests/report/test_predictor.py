"""What the page is given to predict with is what the fit document knows; a browser compares the
answers (tests/browser).
"""

import json
import math

import numpy as np
import pytest

from scaling.predict.law_source import load_law
from scaling.report.page import html
from scaling.report.predictor import predictor
from scaling.report.sections import Report
from tests.documents import dump
from tests.report.conftest import BUDGETS


@pytest.fixture
def path(document, tmp_path):
    dump(document, tmp_path / "fit.json")
    return tmp_path / "fit.json"


def test_the_frontier_and_every_draw_of_it_are_given(path):
    found, known = predictor(path, BUDGETS[-1]), load_law(str(path))
    assert found.data["frontier"]["a"] == float(known.optimum.a)
    assert (found.draws, found.level) == (300, 95.0)
    assert set(found.data["draws"]) == {"a", "log_n", "floor", "log_gap", "gamma"}, (
        "D* follows from N* and the cost"
    )
    np.testing.assert_allclose(found.data["draws"]["log_n"], known.optimum_draws.log_n, rtol=1e-9)
    assert found.data["command"] == f"scaling predict {path} --flops"
    low, high = found.budget
    assert 10**low < BUDGETS[0]
    assert 10**high > 1e5 * BUDGETS[-1]


def test_infinities_and_nan_are_encoded_for_javascript(document, path):
    odd = json.loads(json.dumps(document))
    odd["bootstrap"]["draws"]["A"][:2] = [0.0, None]
    dump(odd, path)
    data = predictor(path, BUDGETS[-1]).data
    assert {*data["draws"]["log_gap"][:2]} <= {"NaN", "Infinity", "-Infinity"}
    assert all(
        isinstance(value, str) or math.isfinite(value)
        for column in data["draws"].values()
        for value in column
    )
    json.dumps(data, allow_nan=False)


def test_without_a_bootstrap_a_law_or_a_budget(document, path):
    dump({name: value for name, value in document.items() if name != "bootstrap"}, path)
    found = predictor(path, BUDGETS[-1])
    assert (found.draws, found.data["draws"]) == (0, None)
    assert "refits" not in html(Report("bare", "", (), predictor=found)).partition("<script")[0]
    dump({**document, "law": "kaplan-c", "bootstrap": None}, path)
    assert predictor(path, BUDGETS[-1]) is None
    assert predictor(None, BUDGETS[-1]) is None
    assert predictor(path, None) is None


def test_a_page_without_a_predictor_carries_none_of_it():
    page = html(Report("bare", "", ()))
    assert "script-src 'none'" in page.replace("&#39;", "'")
    assert "predict" not in page
