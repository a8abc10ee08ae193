"""The next runs: within the budget, better than the obvious alternative, refused without a law."""

import json

import numpy as np
import pytest

from scaling.errors import ScalingError
from scaling.fit.design import next_runs
from scaling.fit.document import dump
from scaling.fit.run import FitOptions, fit
from tests.fit.test_run import simulated


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("next")
    dump(fit([simulated(folder / "runs.csv")], FitOptions(bootstrap=300, holdout="none")), folder / "fits" / "chinchilla.json")
    return folder


def test_proposal_spends_the_budget_and_narrows_the_target(folder):
    found = next_runs(folder, "3e21", "1e23")
    sd = found["sd_log_n_star"]
    assert 0.9 * 3e21 < found["spent"] <= 3e21
    assert sd["after"] < 0.8 * sd["before"]
    assert next_runs(folder, "3e22", "1e23")["sd_log_n_star"]["after"] < sd["after"]
    for run in found["runs"]:
        np.testing.assert_allclose(run["flops"], 6 * run["n_params"] * run["tokens"], rtol=1e-9)


def test_expected_sd_agrees_with_the_bootstrap(folder):
    document = json.loads((folder / "fits" / "chinchilla.json").read_text())
    draws = {name: np.array(values) for name, values in document["bootstrap"]["draws"].items()}
    alpha, beta = draws["alpha"], draws["beta"]
    log_n = np.log(alpha * draws["A"] / (beta * draws["B"])) / (alpha + beta) + beta / (alpha + beta) * np.log(1e23 / 6)
    np.testing.assert_allclose(next_runs(folder, "1e21", "1e23")["sd_log_n_star"]["before"], np.std(log_n), rtol=0.35)


def test_refusals(folder, tmp_path):
    for source, budget, target, words in (
        (tmp_path, 1e21, 1e23, "holds no fit"), (folder, "lots", 1e23, "'lots'"), (folder, 1e21, -1, "--target"), (folder, 1e9, 1e23, "--budget"),
    ):  # fmt: skip
        with pytest.raises(ScalingError, match=words):
            next_runs(source, budget, target)
    document = json.loads((folder / "fits" / "chinchilla.json").read_text())
    (tmp_path / "road.json").write_text(json.dumps(document | {"approach": "isoflop"}))
    with pytest.raises(ScalingError, match=r"road\.json: no parametric law"):
        next_runs(tmp_path / "road.json", 1e21, 1e23)
