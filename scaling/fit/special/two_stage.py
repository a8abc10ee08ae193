"""Two stages to a task's accuracy: a law of the loss, then a sigmoid of the loss (Bhagia et al. 2024; Llama 3, section 3.2.1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.bootstrap import bootstrap
from scaling.fit.estimate import estimate
from scaling.fit.fit_document import interval, subsample_draws
from scaling.fit.laws.laws import LAWS
from scaling.fit.options import FitOptions
from scaling.points.points import Points


def second_stage(points: Points, options: FitOptions) -> dict[str, Any]:
    """The sigmoid from loss to accuracy (column Y, in 0 to 1): {params, r2, mae, status, warnings, draws}.

    Raises ScalingError without such a column, or where it leaves 0 to 1.
    """
    accuracy = points.others.get("Y")
    if accuracy is None:
        raise ScalingError(
            "the table has no accuracy Y",
            remedy='name its column: --columns "N=...,D=...,L=loss,Y=accuracy"',
        )
    if (accuracy > 1).any():
        raise ScalingError(
            f"an accuracy is {accuracy.max():g}",
            remedy="accuracies are fractions of 1: divide percentages by 100",
        )
    law = LAWS["sigmoid"]
    stage = Points(
        loss=accuracy, group=points.group, weight=points.weight, others={"X": points.loss}
    )
    found = estimate(law, stage, "mse")
    draws = bootstrap(found, stage, options.bootstrap, options.seed) if options.bootstrap else None
    drawn = law.values(draws.theta) if draws is not None and len(draws.theta) > 1 else {}
    predicted = np.exp(law.log_predict(found.theta, {"X": points.loss}))
    error = predicted - accuracy
    return {
        "formula": law.formula,
        "params": {
            name: interval(value, drawn.get(name), options.ci)
            for name, value in found.values.items()
        },
        "r2": 1 - float(np.sum(error**2) / np.sum((accuracy - accuracy.mean()) ** 2)),
        "mae": float(np.abs(error).mean()),
        "status": found.status,
        "warnings": list(found.warnings),
        "draws": subsample_draws(drawn) if drawn else {},
    }


def predicted_accuracy(
    stage: dict[str, Any], loss: float, drawn: np.ndarray | None, ci: float
) -> dict[str, float | None]:
    """Accuracy {value, lo, hi} at a predicted loss; `drawn` (R,) are draws of that loss, combined with draws of the sigmoid."""
    law = LAWS["sigmoid"]
    theta = law.theta({name: np.asarray(entry["value"]) for name, entry in stage["params"].items()})
    value = float(np.exp(law.log_predict(theta, {"X": np.array([loss])}))[0])
    spread = None
    if drawn is not None and stage["draws"]:
        count = min(len(drawn), len(stage["draws"]["k"]))
        held = {name: np.array(column[:count], float) for name, column in stage["draws"].items()}
        rate = held["k"] * (drawn[:count] - held["X_0"])
        spread = held["lo"] + held["span"] * np.exp(-np.logaddexp(0.0, rate))
    found = interval(value, spread, ci)
    return {name: found[name] for name in ("value", "lo", "hi")}
