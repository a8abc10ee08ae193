"""What every verb shares about printing: one JSON document on stdout when asked for, everything else for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.plain import plain

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; everything else goes to stderr.")]

LOG_WIDTH = 150
LARGE = 5000  # runs in a document that nobody reads by eye; indenting takes longer than all the rest


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


def note(text: str) -> None:
    """A line for the reader on stderr."""
    typer.echo(plain(text, 20_000), err=True)
