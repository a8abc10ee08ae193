"""Fits and predictions as a notebook shows them: what the terminal has, as text or as a fragment of
HTML in which every text is escaped.
"""

from __future__ import annotations

import io
from pathlib import Path

from scaling.fit.result import FitResult
from scaling.formatting import strip_ends
from scaling.predict.prediction import PredictionResult
from scaling.render.escape import environment
from scaling.report import terminal
from scaling.warning import ResultWarning

TEMPLATES = Path(__file__).parent / "templates"
WIDTH = 100  # columns of a notebook's plain text


def as_html(result: FitResult | PredictionResult) -> str:
    """Autoescape is on; the template holds no script and asks for no file."""
    parts = filter(None, _parts(result))
    shown = [f"Warning: {p.message}" if isinstance(p, ResultWarning) else p for p in parts]
    template = environment(TEMPLATES, html=lambda table: table.to_html(inline_style=True))
    return str(template.get_template("inline.html.j2").render(parts=shown))


def as_text(result: FitResult | PredictionResult) -> str:
    """Without colour."""
    from rich.console import Console

    from scaling.render.rich_table import page

    plain = {"color_system": None, "force_jupyter": False, "force_terminal": False}
    console = Console(file=io.StringIO(), width=WIDTH, **plain)  # type: ignore[arg-type]
    with console.capture() as captured:
        console.print(page(*_parts(result)))
    return strip_ends(captured.get()).rstrip()


def _parts(result: FitResult | PredictionResult) -> list[terminal.Part]:
    if isinstance(result, FitResult):
        return terminal.fit_parts(result)
    return terminal.prediction_parts(result)
