"""The honest part of a report: forecasts against measurements, seeds, runs above the law, collapse,
tuning.
"""

import pytest

from scaling.config import Forecast
from scaling.predict.verification import CheckedForecast
from scaling.render.matplotlib_backend import draw
from scaling.render.section import Verdict
from scaling.report.parts import forecasts, training
from scaling.report.parts.checks import checks
from scaling.tuning.document import TuningResult
from tests.documents import as_fit

VERDICTS = (
    CheckedForecast(
        Forecast(size=9e4, tokens=1e7, flops=8e12, loss=1.40, lo=1.38, hi=1.42, role="half"),
        9e4,
        1e7,
        (1.405,),
    ),
    CheckedForecast(
        Forecast(
            size=2e5,
            tokens=5e6,
            flops=8e12,
            loss=1.38,
            lo=1.36,
            hi=1.40,
            seen=1e12,
            source="fit.json",
        ),
        2e5,
        5e6,
        (1.37, 1.41),
    ),
    CheckedForecast(
        Forecast(size=4e5, tokens=2e6, flops=8e12, loss=1.39, lo=1.37, hi=1.41, role="twice"),
        4e5,
        2e6,
        (1.385,),
    ),
)
VALUE = {"losses": [], "state": "trained", "kept": True}
SIZE = {
    "size": 3e4,
    "n_params": 3e4,
    "tokens": 1e6,
    "d_model": 24,
    "state": "interior",
    "why": None,
    "optimum": {
        "value": 0.01,
        "log_value": -4.605170185988091,
        "se_log": 0.1,
        "lo": 0.008,
        "hi": 0.012,
        "loss": 1.6,
        "curvature": 0.04,
        "by": "parabola",
        "why": None,
        "noise": 0.01,
        "noise_from": "seeds",
    },
    "recipe": {"value": 0.005, "excess_relative": 0.018, "known_from": "fit"},
    "rule": {"value": 0.0101, "excess_relative": 0.0001, "known_from": "fit"},
    "values": [
        VALUE | {"index": -1, "value": 0.005, "short_run_loss": 2.0, "loss": 1.61},
        VALUE | {"index": 0, "value": 0.01, "short_run_loss": 1.98, "loss": 1.6},
        VALUE | {"index": 1, "value": 0.02, "short_run_loss": None, "loss": None},
    ],
    "excluded": [],
}
TUNING = TuningResult.model_validate(
    {
        "sweep": "demo",
        "digest": "0",
        "simulated": None,
        "flops": 2e12,
        "sweep_flops": 5e12,
        "share": 0.4,
        "warnings": [],
        "tuned": {},
        "fields": [
            {
                "field": "optim.lr",
                "unit": "",
                "folder": "tuning/optim.lr",
                "short_run_frac": None,
                "margin": 0.03,
                "seeds": [0],
                "runs": 3,
                "flops": 2e12,
                "sizes": [
                    SIZE,
                    SIZE
                    | {"n_params": 9e4, "state": "edge", "why": "the best value is the lowest"},
                ],
                "rule": {
                    "kind": "power",
                    "coef": 11.0,
                    "n_power": -0.67,
                    "n_power_se": 0.05,
                    "n_range": [1e4, 1e5],
                },
            }
        ],
    }
)


def test_forecasts_are_shown_with_their_outcomes():
    section = forecasts.forecasts(VERDICTS)
    (table,) = section.tables
    assert [row[0] for row in table.rows] == ["half", "optimum", "twice"]
    assert table.rows[1][5:] == ("1.3700, 1.4100", pytest.approx(1.38 / 1.39 - 1), "1 of 2")
    sentence = section.summary
    assert "8.0 times the largest budget that the law had seen" in sentence
    assert "3 of 4 runs lie in their 95 % intervals" in sentence
    assert sentence.endswith(
        "half the size 1.4050, twice the size 1.3850; twice the size is better."
    )
    draw(forecasts.forecast_figure(VERDICTS))


def test_without_forecasts_there_is_no_table():
    assert forecasts.forecasts(()).is_empty
    assert forecasts.forecast_figure(()) is None
    assert forecasts.forecasts(()).summary == ""


def check(document, id):
    return next((part for part in checks(as_fit(document), None) if part.id == f"check-{id}"), None)


def test_the_noise_check_compares_residuals_with_seeds(document):
    noise = {
        "sd": 0.01,
        "residual_sd": 0.02,
        "basis": "seeds",
        "lo": 0.007,
        "hi": 0.02,
        "cells": 3,
        "degrees_of_freedom": 6,
        "lack_of_fit": {"ratio": 4.0, "p": 0.003},
    }
    part = check({**document, "noise": noise}, "noise")
    assert part.notes == [
        "seeds change the loss by 1.00 % [0.70, 2.00] (3 cells, 6 degrees of freedom); the law "
        "misses its runs by 2.00 %, 4.00 times the variance of seeds (p = 0.003)."
    ]
    assert part.verdict is Verdict.OK
    noise["lack_of_fit"]["p"] = 0.0001
    part = check({**document, "noise": noise}, "noise")
    assert part.verdict is Verdict.BAD
    assert part.notes[0].endswith("(p = 0.0001): more than seeds explain.")
    noise = {"sd": 0.02, "residual_sd": 0.02, "basis": "residuals"}
    part = check({**document, "noise": noise}, "noise")
    assert part.verdict is Verdict.LOOK
    assert "noise and errors of the law mix; the law misses its runs by 2.00 %." in part.notes[0]
    assert check(document, "noise") is None


def test_runs_above_the_law_are_listed_with_their_cause(document):
    runs = [
        {
            "run_id": "ab12",
            "n_params": 3e4,
            "tokens": 1e6,
            "loss": 1.8,
            "excess": 0.05,
            "cause": "too few steps: 60",
        }
    ]
    (table,) = check({**document, "runs_above_law": runs}, "above").tables
    assert table.rows == (("ab12", 3e4, 1e6, 1.8, 0.05, "too few steps: 60"),)
    assert check({**document, "runs_above_law": []}, "above") is None


def test_tuning_section_shows_optimum_edge_and_regret():
    (table,) = training.optima(TUNING)
    assert [row[2] for row in table.rows] == ["interior", "edge: the best value is the lowest"]
    assert table.rows[0][3] == 0.018
    assert "11 x N^(-0.670 ± 0.050), N from 10k to 100k" in table.caption
    assert "40 % of the sweep's" in table.caption
    assert training.optima(None) == []
