"""Laws that were fitted to the same runs, compared: `scaling fit --law A --law B`."""

from __future__ import annotations

from collections.abc import Sequence

from scaling.fit.document import Document
from scaling.fit.result import FitResult
from scaling.render.table import Table, record_table


class JudgedLaw(Document):
    """How well one law describes the runs and predicts the budget left out; the criteria of auto
    are those of its headline law.
    """

    law: str
    runs: int
    rmse_percent: float | None
    aic: float | None
    bic: float | None
    holdout_error_percent: float | None
    holdout_inside_percent: float | None
    status: str

    @classmethod
    def of(cls, fit: FitResult) -> JudgedLaw:
        """What a fit says of its law."""
        goodness, held_out = fit.goodness, fit.holdout
        error = held_out.mean_abs_rel_error if held_out else None
        covered = held_out.covered if held_out else None
        return cls(
            law="auto" if fit.combination else fit.law,
            runs=fit.n_points,
            rmse_percent=goodness.rmse_percent if goodness else None,
            aic=goodness.aic if goodness else None,
            bic=goodness.bic if goodness else None,
            holdout_error_percent=None if error is None else 100 * error,
            holdout_inside_percent=None if covered is None else 100 * covered,
            status=fit.status_text,
        )


def compared(laws: Sequence[JudgedLaw]) -> Table | None:
    """Laws fitted to the same runs: information criteria and hold-out."""
    columns = {
        "law": "law",
        "rmse_percent": "rmse %",
        "aic": "AIC",
        "bic": "BIC",
        "holdout_error_percent": "hold-out error %",
        "holdout_inside_percent": "inside %",
        "status": "status",
    }
    sentences = []
    by_bic = [(one.bic, one.law) for one in laws if one.bic is not None]
    if by_bic:
        sentences.append(f"By BIC {min(by_bic)[1]} describes these runs best.")
    by_error = [
        (one.holdout_error_percent, one.law)
        for one in laws
        if one.holdout_error_percent is not None
    ]
    if by_error:
        sentences.append(f"{min(by_error)[1]} predicts the budget that was left out best.")
    title = f"Laws compared on {laws[0].runs} runs"
    rough = ("rmse %", "hold-out error %", "inside %")
    caption = " ".join(sentences)
    return record_table("laws", title, laws, caption, columns=columns, rough=rough)
