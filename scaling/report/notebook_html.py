"""Documents as a notebook shows them: a fragment of HTML in which every text is escaped, and the
words of the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scaling.render.escape import sanitize
from scaling.render.table import Document, Table
from scaling.report import summary, terminal
from scaling.report.parts import fit_tables, inference, special_tables

TEMPLATES = Path(__file__).parent / "templates"
WIDTH = 100  # columns of a notebook's plain text


def fit_html(document: Document) -> str:
    """A fit document as a fragment: what was fitted, its parameters, the three approaches, the
    hold-out, warnings.
    """
    return _fragment(
        "Fit",
        list(terminal.header(document)),
        list(_of_fit(document)),
        [summary.holdout_sentence(document)],
        document,
    )


def prediction_html(prediction: Document) -> str:
    """A prediction document as a fragment: the optimum with intervals, the model that can be built,
    how far it reaches.
    """
    head = [(what, value) for what, value in terminal.asked(prediction).formatted()]
    return _fragment(
        "Prediction",
        head,
        list(_of_prediction(prediction)),
        [terminal.reach(prediction)],
        prediction,
    )


def fit_words(document: Document) -> str:
    """A fit document as `scaling fit` prints it, without colour."""
    return _words(terminal.fit_text(document))


def prediction_words(prediction: Document) -> str:
    """A prediction document as `scaling predict` prints it, without colour."""
    return _words(terminal.prediction_text(prediction))


def _of_fit(document: Document) -> Iterator[Table]:
    if not document.get("groups"):
        yield fit_tables.parameters(document)
    if document["approaches"]:
        yield fit_tables.approaches(document)
    for table in (
        special_tables.groups(document),
        special_tables.schedules(document),
        special_tables.accuracy(document),
        fit_tables.kaplan(document),
    ):
        if table is not None:
            yield table


def _of_prediction(prediction: Document) -> Iterator[Table]:
    if prediction.get("approaches"):
        yield fit_tables.predicted_approaches(prediction)
    for build in (
        fit_tables.model,
        inference.demand,
        inference.served,
        inference.decoding,
        inference.smaller,
    ):
        table = build(prediction)
        if table is not None:
            yield table


def _fragment(
    title: str,
    head: list[tuple[str, str]],
    tables: list[Table],
    notes: list[str | None],
    document: Document,
) -> str:
    """Autoescape is on; the template holds no script and asks for no file."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else sanitize(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["html"] = lambda table: Markup(table.to_html(inline_style=True))
    sentences = [sentence for sentence in notes if sentence]
    warnings = [warning["message"] for warning in document.get("warnings") or []]
    return environment.get_template("inline.html.j2").render(
        title=title, head=head, tables=tables, sentences=sentences, warnings=warnings
    )


def _words(shown: object) -> str:
    import io

    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        width=WIDTH,
        color_system=None,
        force_jupyter=False,
        force_terminal=False,
    )
    with console.capture() as captured:
        console.print(shown)
    return captured.get().rstrip()
