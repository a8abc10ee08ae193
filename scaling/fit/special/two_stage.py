"""Two stages to a task's accuracy: a law of the loss, then a sigmoid of the loss (Bhagia et al.
2024; Llama 3, section 3.2.1).
"""

from __future__ import annotations

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.bootstrap import fit_law
from scaling.fit.dataset import Dataset
from scaling.fit.document import Estimate, Interval, r_squared, subsample_draws
from scaling.fit.fit_options import FitOptions
from scaling.fit.laws.laws import LAWS
from scaling.fit.result import AccuracyStage
from scaling.points.points import Points


def second_stage(points: Points, options: FitOptions) -> AccuracyStage:
    """The sigmoid from loss to accuracy (column Y, in 0 to 1).

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
    stage = Points(
        loss=accuracy, group=points.group, weight=points.weight, others={"X": points.loss}
    )
    plain = FitOptions(law="sigmoid", bootstrap=options.bootstrap, seed=options.seed)
    fit = fit_law(Dataset(stage), LAWS["sigmoid"], plain)
    predicted = np.exp(fit.predict(stage))
    return AccuracyStage(
        formula=fit.law.formula,
        params=fit.params(options.ci),
        r2=r_squared(accuracy, predicted),
        mae=np.abs(predicted - accuracy).mean(),
        status=fit.status,
        warnings=fit.warnings,
        draws=subsample_draws(fit.drawn),
    )


def predicted_accuracy(
    stage: AccuracyStage, loss: float, drawn: np.ndarray | None, ci: float
) -> Interval:
    """Accuracy at a predicted loss; `drawn` (R,) are draws of that loss, combined with draws of the
    sigmoid.
    """
    law, draws = LAWS["sigmoid"], {} if drawn is None else stage.draws
    losses = np.r_[loss, [] if drawn is None else drawn]
    params = {name: [entry.value, *draws.get(name, ())] for name, entry in stage.params.items()}
    count = min(len(losses), len(params["k"]))
    columns = {name: np.array(column[:count], float) for name, column in params.items()}
    # each draw of the sigmoid at the draw of the loss that it is combined with
    accuracy = law.predict(law.theta(columns), {"X": losses[:count]}).diagonal()
    return Estimate.of(float(accuracy[0]), accuracy[1:], ci).interval()
