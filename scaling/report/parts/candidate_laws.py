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
        errors = {
            f"holdout_{name}_percent": getattr(fit.holdout, key, None)
            for name, key in (("error", "mean_abs_rel_error"), ("inside", "covered"))
        }
        return cls(
            law="auto" if fit.combination else fit.law,
            runs=fit.n_points,
            status=fit.status_text,
            **{name: getattr(fit.goodness, name, None) for name in ("rmse_percent", "aic", "bic")},
            **{name: None if part is None else 100 * part for name, part in errors.items()},
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
    for name, sentence in (
        ("bic", "By BIC {} describes these runs best."),
        ("holdout_error_percent", "{} predicts the budget that was left out best."),
    ):
        known = [(getattr(one, name), one.law) for one in laws if getattr(one, name) is not None]
        sentences += [sentence.format(min(known)[1])] if known else []
    title, caption = f"Laws compared on {laws[0].runs} runs", " ".join(sentences)
    rough = ("rmse %", "hold-out error %", "inside %")
    return record_table("laws", title, laws, caption, columns=columns, rough=rough)
