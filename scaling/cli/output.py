"""What every verb shares about printing: one JSON document or one CSV table on stdout when asked for, everything else for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.errors import ScalingError
from scaling.formatting import flatten, sanitize

if TYPE_CHECKING:
    from rich.console import Console

FORMS = "scaling.forms"  # where a command line keeps what it was asked to print


def _one_form(context: typer.Context, asked: bool) -> bool:
    """Raise ScalingError where both forms are asked for, before anything is done."""
    if asked and not context.resilient_parsing:
        context.meta[FORMS] = context.meta.get(FORMS, 0) + 1
        if context.meta[FORMS] > 1:
            raise ScalingError(
                "--json and --csv exclude each other",
                remedy="ask for one: stdout holds one document, or one table",
            )
    return asked


Json = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_one_form,
        help="Print one JSON document on stdout; everything else goes to stderr.",
    ),
]
Csv = Annotated[
    bool,
    typer.Option(
        "--csv",
        callback=_one_form,
        help="Print one table as CSV on stdout, all digits; everything else goes to stderr.",
    ),
]

LOG_WIDTH = 150
LARGE = (
    5000  # runs in a document that nobody reads by eye; indenting takes longer than all the rest
)


def console(stderr: bool = False) -> Console:
    """A console that does not guess highlights; it respects NO_COLOR and plain pipes by itself."""
    import os

    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = LOG_WIDTH  # a log or a pipe has no width: do not cut its tables
    return made


def print_json(document: Any) -> None:
    """One document on stdout, on one line where it lists thousands; a number that is not finite is a bug, and raises."""
    runs = document.get("runs") if isinstance(document, dict) else None
    large = isinstance(runs, list) and len(runs) > LARGE
    typer.echo(json.dumps(document, indent=None if large else 1, allow_nan=False))


def print_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Rows as CSV on stdout, numbers with all digits, an empty cell where there is no value; `columns` head a table without rows.

    What is nested becomes columns of its own, their names joined by dots; a list stays one cell, as JSON.
    """
    from scaling.render.table import records_to_csv

    typer.echo(records_to_csv(rows, columns), nl=False)


def print_pairs(document: Mapping[str, Any]) -> None:
    """A document of facts as CSV: one row a fact."""
    print_csv(
        [{"field": name, "value": value} for name, value in flatten(document)], ("field", "value")
    )


def note_warnings(document: Mapping[str, Any]) -> None:
    """The warnings of a document on stderr, where its table alone goes to stdout."""
    for warning in document.get("warnings") or []:
        echo_err(f"warning: {warning}")


def is_interactive(made: Console) -> bool:
    """Whether lines may be drawn over: a real terminal that can; colours forced upon a log do not make it one."""
    return made.is_terminal and not made.is_dumb_terminal and made.file.isatty()


def echo_err(text: str) -> None:
    """A line for the reader on stderr."""
    typer.echo(sanitize(text, 20_000), err=True)
