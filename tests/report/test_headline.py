"""The first lines of fit and predict: what was used, what was left out and why, and the answer."""

import numpy as np
import pandas as pd
import pytest

from scaling.fit.pipeline import FitOptions
from scaling.fit.pipeline import fit as run_fit
from scaling.predict.predict import predict
from scaling.report.headline import fit_lines, prediction_lines, title


@pytest.fixture(scope="module")
def fit():
    n, d = (g.ravel() for g in np.meshgrid(np.geomspace(2e7, 2e9, 5), np.geomspace(4e8, 4e10, 5)))
    rng = np.random.default_rng(1)
    loss = (1.7 + 420 / n**0.34 + 650 / d**0.3) * np.exp(0.002 * rng.standard_normal(25))
    state = ["finished"] * 22 + ["crashed"] * 3
    table = pd.DataFrame({"params": n, "tokens": d, "val_loss": loss, "run_state": state})
    return run_fit([table], FitOptions(bootstrap=50))


def test_five_lines_of_a_fit_say_what_was_used_left_out_and_found(fit):
    lines = dict(fit_lines(fit, None, "scaling fit runs.csv"))
    assert list(lines) == ["answer", "trust", "used", "left out", "next"]
    assert lines["used"].startswith("22 of 25 rows; ")
    assert "L = 'val_loss'" in lines["used"]
    assert lines["left out"] == "3 not finished by column 'run_state'"
    assert lines["next"].startswith("scaling fit runs.csv --out fit.json")
    assert "N* = " in lines["answer"]
    saved = dict(fit_lines(fit, "fit.json"))
    assert saved["next"].startswith("scaling predict fit.json --flops ")


def test_lines_and_title_follow_the_question(fit):
    top = fit.range["flops"][1]
    budget = predict(fit, flops=top)
    assert title(budget) == "Compute-optimal training"
    assert "parameters" in dict(prediction_lines(budget))["answer"]
    at = predict(fit, n_params=1e9, tokens=2e10)
    assert title(at) == "What the law gives at these inputs"
    far = predict(fit, n_params=1e8, tokens=2e13)
    assert dict(prediction_lines(far))["trust"].startswith("with care: ")
    ten_times = prediction_lines(predict(fit, flops=10 * top))
    assert dict(ten_times)["trust"].startswith("10 times the compute of the largest run")
    near = predict(fit, n_params=2e8, tokens=4e9)
    assert "that were trained" in dict(prediction_lines(near))["trust"]
