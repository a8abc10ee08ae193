"""Fits and predictions as a notebook shows them: a fragment of HTML in which every text is escaped,
and the words of the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scaling.fit.result import FitResult
from scaling.predict.prediction import PredictionResult
from scaling.render.table import Table
from scaling.render.templating import environment
from scaling.report import summary, terminal
from scaling.report.parts import fit_tables, inference, special_tables
from scaling.warning import ResultWarning

TEMPLATES = Path(__file__).parent / "templates"
WIDTH = 100  # columns of a notebook's plain text


def fit_html(fit: FitResult) -> str:
    """A fit as a fragment: what was fitted, its parameters, the three approaches, the hold-out,
    warnings.
    """
    tables = [
        None if fit.groups else fit_tables.parameters(fit),
        fit_tables.approaches(fit),
        special_tables.groups(fit),
        special_tables.schedules(fit),
        special_tables.accuracy(fit),
        fit_tables.kaplan(fit),
    ]
    head = list(terminal.header(fit))
    return _fragment("Fit", head, tables, summary.holdout_sentence(fit), fit.warnings)


def prediction_html(prediction: PredictionResult) -> str:
    """A prediction as a fragment: the optimum with intervals, the model that can be built, how far
    it reaches.
    """
    tables = [
        fit_tables.predicted_approaches(prediction),
        fit_tables.model(prediction),
        inference.demand(prediction),
        inference.served(prediction),
        inference.decoding(prediction),
        inference.smaller(prediction.smaller),
    ]
    head = [(what, value) for what, value in terminal.asked(prediction).formatted()]
    reach = terminal.reach(prediction)
    return _fragment("Prediction", head, tables, reach, prediction.warnings)


def as_text(result: FitResult | PredictionResult) -> str:
    """A fit or a prediction as the terminal shows it, without colour."""
    import io

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
    head: list[tuple[str, str]],
    tables: Sequence[Table | None],
    sentence: str | None,
    warnings: Sequence[ResultWarning],
) -> str:
    """Autoescape is on; the template holds no script and asks for no file."""
    made = environment(TEMPLATES, html=lambda table: table.to_html(inline_style=True))
    return str(
        made.get_template("inline.html.j2").render(
            title=title,
            head=head,
            tables=[table for table in tables if table is not None],
            sentences=[sentence] if sentence else [],
            warnings=[warning.message for warning in warnings],
        )
    )
