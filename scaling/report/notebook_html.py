"""Fits and predictions as a notebook shows them: a fragment of HTML in which every text is escaped,
and the words of the terminal.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from scaling.fit.result import FitResult
from scaling.predict.prediction import PredictionResult
from scaling.render.table import Table
from scaling.render.templating import environment
from scaling.report import headline, summary, terminal
from scaling.report.parts import fit_tables, prediction_tables
from scaling.warning import ResultWarning

TEMPLATES = Path(__file__).parent / "templates"
WIDTH = 100  # columns of a notebook's plain text


def fit_html(fit: FitResult) -> str:
    """A fit as a fragment: what was fitted, its parameters, the three approaches, the hold-out,
    warnings.
    """
    head, sentence = list(terminal.header(fit)), summary.holdout_sentence(fit)
    tables = [*fit_tables.law_tables(fit), fit_tables.approaches(fit), fit_tables.kaplan(fit)]
    return _fragment("Fit", head, tables, sentence, fit.warnings)


def prediction_html(prediction: PredictionResult) -> str:
    """A prediction as a fragment: the optimum with intervals, the model that can be built, how far
    it reaches.
    """
    head, reach = terminal.asked(prediction).formatted(), headline.reach(prediction)
    tables = prediction_tables.prediction_tables(prediction)
    return _fragment("Prediction", head, tables, reach, prediction.warnings)


def as_text(result: FitResult | PredictionResult) -> str:
    """A fit or a prediction as the terminal shows it, without colour."""
    from rich.console import Console

    plain = {"color_system": None, "force_jupyter": False, "force_terminal": False}
    console = Console(file=io.StringIO(), width=WIDTH, **plain)  # type: ignore[arg-type]
    with console.capture() as captured:
        if isinstance(result, FitResult):
            console.print(terminal.fit_text(result))
        else:
            console.print(terminal.prediction_text(result))
    return captured.get().rstrip()


def _fragment(
    title: str,
    head: Sequence[Sequence[str]],
    tables: Sequence[Table | None],
    sentence: str | None,
    warnings: Sequence[ResultWarning],
) -> str:
    """Autoescape is on; the template holds no script and asks for no file."""
    template = environment(TEMPLATES, html=lambda table: table.to_html(inline_style=True))
    return str(
        template.get_template("inline.html.j2").render(
            title=title,
            head=head,
            tables=[table for table in tables if table is not None],
            sentence=sentence,
            warnings=[warning.message for warning in warnings],
        )
    )
