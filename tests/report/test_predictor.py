"""What the page is given to predict with is what the fit document knows; a browser compares the
answers (tests/browser).
"""

import json
import math

import numpy as np
import pytest

from scaling.fit.pipeline import FitOptions
from scaling.fit.pipeline import fit as run_fit
from scaling.predict.law_source import load_law
from scaling.predict.predict import predict
from scaling.report.page import html
from scaling.report.predictor import predictor
from scaling.report.sections import Report
from tests.documents import dump
from tests.report.conftest import BUDGETS


@pytest.fixture
def path(document, tmp_path):
    dump(document, tmp_path / "fit.json")
    return tmp_path / "fit.json"


@np.errstate(all="ignore")
def opened(path):
    return predictor(load_law(str(path)), path, BUDGETS[-1])


def test_the_frontier_and_every_draw_of_it_are_given(path):
    page, law = opened(path), load_law(str(path))
    assert page.data["frontier"]["a"] == float(law.optimum.a)
    assert (page.draws, page.level) == (300, 95.0)
    assert set(page.data["draws"]) == {"a", "log_n", "floor", "log_gap", "gamma"}, (
        "D* follows from N* and the cost"
    )
    np.testing.assert_allclose(page.data["draws"]["log_n"], law.frontier.log_n[1:], rtol=1e-9)
    assert page.data["command"] == f"scaling predict {path} --flops"
    low, high = page.budget
    assert 10**low < BUDGETS[0]
    assert 10**high > 1e5 * BUDGETS[-1]


def test_infinities_and_nan_are_encoded_for_javascript(document, path):
    odd = json.loads(json.dumps(document))
    odd["bootstrap"]["draws"]["A"][:2] = [0.0, None]
    dump(odd, path)
    data = opened(path).data
    assert {*data["draws"]["log_gap"][:2]} <= {"NaN", "Infinity", "-Infinity"}
    assert all(
        isinstance(value, str) or math.isfinite(value)
        for column in data["draws"].values()
        for value in column
    )
    json.dumps(data, allow_nan=False)


def test_without_a_bootstrap_a_law_or_a_budget(document, path):
    dump({name: value for name, value in document.items() if name != "bootstrap"}, path)
    page = opened(path)
    assert (page.draws, page.data["draws"]) == (0, None)
    assert "refits" not in html(Report("bare", "", (), predictor=page)).partition("<script")[0]
    dump({**document, "law": "kaplan-c", "bootstrap": None}, path)
    assert opened(path) is None
    assert predictor(None, None, BUDGETS[-1]) is None
    assert predictor(load_law("published:besiroglu2024"), None, None) is None


def test_no_predictor_of_a_law_of_ones_own_whose_optimum_is_no_power_of_c(results_folder):
    formula = "y(N, D) = E + A/N^alpha + B/D^beta"
    law = load_law(run_fit([results_folder], FitOptions(formula=formula, bootstrap=0)))
    assert law.optimum.n_star(1e12) > 0
    assert predictor(law, None, 1e12) is None


def test_a_combination_travels_as_frontiers_with_weights(results_folder, tmp_path):
    fit = run_fit([results_folder], FitOptions(bootstrap=20))
    law = load_law(fit)
    data = predictor(law, tmp_path / "fit.json", BUDGETS[-1]).data
    assert data["draws"] is None
    candidates = data["combination"]["candidates"]
    flops = 10 * BUDGETS[-1]
    logs = [
        candidate["powers"]["log_n"] + candidate["powers"]["a"] * math.log(flops)
        for candidate in candidates
    ]
    weights = [candidate["weights"]["n_star"] for candidate in candidates]
    mean = np.average(logs, weights=weights)
    spread = np.sqrt(np.average((np.array(logs) - mean) ** 2, weights=weights))
    share, noise, growth = data["combination"]["parts"]["n_star"]
    decades = np.log10(flops / data["combination"]["largest"])
    width = data["combination"]["quantile"] * np.sqrt(
        (share * spread) ** 2 + noise**2 + (growth * decades) ** 2
    )
    said = predict(fit, flops=flops).n_params
    expected = [said.value, said.lo, said.hi]
    ends = [math.exp(mean), math.exp(mean - width), math.exp(mean + width)]
    np.testing.assert_allclose(ends, expected, rtol=1e-9)


def test_a_page_without_a_predictor_carries_none_of_it():
    page = html(Report("bare", "", ()))
    assert page.count("<script>") == 1, "that of the page itself"
    body = page.partition("</style>")[2]
    assert "predict" not in body
