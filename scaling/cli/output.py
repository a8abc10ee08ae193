"""Printing: one JSON document or one CSV table on stdout when asked for, else a text for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from scaling.errors import unknown_choice
from scaling.formatting import flatten, format_bytes, sanitize, strip_ends

if TYPE_CHECKING:
    from rich.console import Console

    from scaling.render.table import Table

LOG_WIDTH = 150
LARGE = 5000  # runs from which on a document is written without indentation, which takes seconds


def argument(metavar: str, help: str, default: Any = ..., **more: Any) -> Any:
    """An argument of a command, required unless it has a default."""
    return typer.Argument(default, metavar=metavar, help=help, **more)


def option(
    help: str,
    panel: str | None = None,
    metavar: str | None = None,
    names: str = "",
    default: Any = None,
    **more: Any,
) -> Any:
    """An option in a panel of the help; `names` replace the one that follows from the parameter,
    `more` are those of `typer.Option`.
    """
    return typer.Option(
        default, *names.split(), metavar=metavar, rich_help_panel=panel, help=help, **more
    )


def flag(help: str, panel: str | None = None, names: str = "", **more: Any) -> Any:
    """A switch, off unless it is given; `app.add_command` names it after its parameter."""
    return option(help, panel, None, names, default=False, **more)


def choice(
    words: str,
    help: str,
    panel: str | None = None,
    kind: str | None = None,
    default: Any = None,
) -> Any:
    """An option with a closed set of words ("auto never always"), which its help and completion
    list.

    A wrong word raises the ScalingError that suggests the closest one; `kind` says what it is of
    where the option's name does not.
    """
    known = words.split()
    listed = "|".join(known)
    if len(listed) > 28:  # a metavar is broken inside a word
        listed, help = str(kind).upper(), f"{help} One of {', '.join(known)}."

    def check(param: typer.CallbackParam, value: str | None) -> str | None:
        if value is not None and value not in known:
            flag = param.opts[0]
            raise unknown_choice(kind or flag.removeprefix("--"), value, known, where=flag)
        return value

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return option(help, panel, listed, default=default, callback=check, autocompletion=complete)


@dataclass(frozen=True)
class Output:
    """The form in which a command prints its result, and the options that ask for it."""

    as_json: bool = flag(
        "Print one JSON document on stdout; everything else goes to stderr.",
        "Output",
        names="--json",
    )
    as_csv = False  # of a command whose result is no table

    def emit(
        self,
        document: Mapping[str, Any],
        text: Callable[[], Any],
        next_command: str | None = None,
        rows: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Print the document, its rows as CSV with its warnings on stderr, or its text (a line, or
        tables and sentences) and what the reader may type next.
        """
        if self.as_json:
            return print_json(document)
        if self.as_csv:
            for warning in document.get("warnings") or []:
                echo_err(f"warning: {warning['message']}")
            return print_csv(rows)
        shown = text()
        if isinstance(shown, str):
            typer.echo(shown)
        else:
            from scaling.render.rich_table import page

            screen = console()
            with screen.capture() as captured:
                screen.print(page(*shown))
            typer.echo(strip_ends(captured.get()), nl=False, color=True)
        return typer.echo(f"next: {next_command}") if next_command else None


@dataclass(frozen=True)
class TableOutput(Output):
    """The same of a command whose result is a table too."""

    as_csv: bool = flag(
        "Print one table as CSV on stdout, with all digits; everything else goes to stderr.",
        "Output",
        names="--csv",
    )


def facts(title: str, document: Mapping[str, Any]) -> Table:
    """A line for each key of a document, with what it holds."""
    from scaling.render.table import pairs

    def text(value: Any, name: str = "") -> str:
        if isinstance(value, (list, tuple)):
            return "; ".join(map(text, value))
        if isinstance(value, Mapping):
            parts = [(key, item) for key, item in flatten(value) if item is not None]
            return ", ".join(f"{key} {text(item, key)}" for key, item in parts) or "none"
        return format_bytes(value) if name.endswith("_bytes") else str(value)

    rows = [(key, sanitize(text(value, key), 1000)) for key, value in document.items()]
    return pairs("facts", title, rows)


def console(stderr: bool = False) -> Console:
    """A console that does not guess highlights; it respects NO_COLOR and plain pipes by itself."""
    import os

    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = LOG_WIDTH  # a log or a pipe has no width: do not cut its tables
    return console


def print_json(document: Any) -> None:
    """One document on stdout; a number that is not finite is a bug, and raises ValueError."""
    runs = document.get("runs") if isinstance(document, dict) else None
    large = isinstance(runs, list) and len(runs) > LARGE
    typer.echo(json.dumps(document, indent=None if large else 1, allow_nan=False))


def print_csv(rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as CSV on stdout, with all digits; an empty cell where there is no value.

    Nested values become columns of their own, names joined by dots; a list is one cell, as JSON.
    """
    from scaling.render.table import records_to_csv

    typer.echo(records_to_csv(rows), nl=False)


def echo_err(text: str) -> None:
    """Print a line for people on stderr."""
    typer.echo(sanitize(text, 20_000), err=True)
