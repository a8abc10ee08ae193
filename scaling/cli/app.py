"""The typer application: exit codes and messages of errors, and commands with help from docstrings."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from scaling.errors import DISK, ScalingError
from scaling.formatting import sanitize

BAD_PATH = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS)


class CommandGroup(TyperGroup):
    """Prints a ScalingError as its message and ends with its exit code; survives a closed stdout."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run the command that was asked for."""
        try:
            result = super().invoke(ctx)  # type: ignore[arg-type]
            if sys.stdout is not None:
                sys.stdout.flush()
        except ScalingError as error:
            typer.echo(f"error: {sanitize(error, 20_000)}", err=True)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:  # the reader of `scaling ... | head` has left
            _discard_stdout()
            raise typer.Exit(0) from None
        except OSError as error:
            if error.filename is not None and error.errno in BAD_PATH:
                message = f"error: {sanitize(error.filename, 200)}: {error.strerror}"
                typer.echo(f"{message}\n  name a path that can be read and written", err=True)
                raise typer.Exit(DISK) from None
            if error.errno not in (errno.ENOSPC, errno.EIO):
                raise
            _discard_stdout()  # what is still buffered cannot be written either
            typer.echo(f"error: cannot write the output: {error.strerror}", err=True)
            raise typer.Exit(DISK) from None
        except KeyboardInterrupt:
            raise typer.Exit(128 + signal.SIGINT) from None
        return result


def _discard_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Scaling laws: train sweeps of small models, fit the law, predict the compute-optimal "
    "model size and number of tokens, write a report.",
    epilog="Start with: scaling plan sweeps/demo.toml",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        from scaling import __version__

        typer.echo(f"scaling {__version__}")
        raise typer.Exit(0)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """The options that stand before a command."""


def add_command(
    group: typer.Typer,
    function: Callable[..., Any],
    panel: str | None = None,
    name: str | None = None,
) -> None:
    """Add a function as a command: its docstring is the help, from "Example:" on the epilog.

    Lines of a paragraph are joined, so that help is wrapped only by the terminal's width.
    """
    text = (inspect.getdoc(function) or "").replace("[", "\\[")  # rich would read [x] as markup
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    examples = next((i for i, text in enumerate(paragraphs) if text.startswith("Example:")), None)
    group.command(
        name or function.__name__.removesuffix("_runs").replace("_", "-"),
        help="\n\n".join(paragraphs[:examples]),
        epilog="\n\n".join(paragraphs[examples:]) if examples is not None else None,
        rich_help_panel=panel,
    )(function)
