"""What the figures of a report share: axes, how many points are drawn, and the notes of points."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from scaling.fit.result import FitResult
from scaling.formatting import format_count, format_flops
from scaling.render.figure import Axis

N_AXIS = Axis("parameters N", log=True, unit="count")
C_AXIS = Axis("training FLOPs C", log=True, unit="flops")
POINTS_SHOWN = 2000
AHEAD = 10.0  # times the largest budget: where fits and reports answer
WORDS: dict[str, Callable[[float], str]] = {
    "n": lambda n: f"{format_count(n)} parameters",
    "d": lambda d: f"{format_count(d)} tokens",
    "c": lambda c: f"{format_flops(c)} FLOPs",
    "loss": "loss {:.4g}".format,
    "predicted": "predicted {:.4g}".format,
    "error": "{:+.2%}".format,
}


def answer_budget(fit: FitResult) -> float:
    """The budget that is answered unasked, as people would type it: three digits."""
    return float(f"{AHEAD * fit.range['flops'][1]:.3g}")


def loss_unit(fit: FitResult | None) -> str:
    """The unit of a loss; a user's table does not say it."""
    return "" if fit is None or fit.source.columns else "nats per token"


def loss_axis(fit: FitResult, label: str = "loss", log: bool = True) -> Axis:
    """The axis of a loss with its unit."""
    return Axis(f"{label} ({loss_unit(fit)})" if loss_unit(fit) else label, log)


def thinned(count: int, limit: int) -> np.ndarray:
    """At most `limit` indices out of `count`, evenly spread, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


def of_all(drawn: int, count: int) -> str:
    """What a caption says of a picture that shows some of the runs."""
    return "" if drawn >= count else f" {drawn:,} of {count:,} runs are drawn."


def notes(**columns: Iterable[float]) -> list[str]:
    """What points say when they are pointed at: `notes(n=sizes, loss=losses)` gives "30k
    parameters, loss 2.34" for each.
    """
    return [
        ", ".join(WORDS[name](value) for name, value in zip(columns, values, strict=True))
        for values in zip(*columns.values(), strict=True)
    ]


def fitted_points(fit: FitResult, *names: str) -> list[np.ndarray] | None:
    """Columns of the fitted points; None where the fit does not keep one of them."""
    columns = [fit.data.get(name) for name in names]
    return [np.asarray(column, float) for column in columns] if all(columns) else None
