"""The command line: parse, call one function, print. Verbs import what they need when they are called."""

from __future__ import annotations

import errno
import os
import signal
import sys
from functools import cache

import typer
from typer.core import TyperGroup

from scaling.errors import DISK, ScalingError
from scaling.formatting import sanitize


class CommandGroup(TyperGroup):
    """The group of all verbs; turns a ScalingError into its message and exit code, and survives a closed stdout."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run the verb that was asked for."""
        try:
            result = super().invoke(ctx)  # type: ignore[arg-type]
            if sys.stdout is not None:
                sys.stdout.flush()
        except ScalingError as error:
            typer.echo(f"error: {sanitize(error, 20_000)}", err=True)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:  # `scaling ... | head`: what was wanted has been read
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            if error.filename is not None and error.errno in (
                errno.ENAMETOOLONG,
                errno.EACCES,
                errno.EPERM,
                errno.EROFS,
            ):
                typer.echo(
                    f"error: {sanitize(error.filename, 200)}: {error.strerror}\n  name a path that can be read and written",
                    err=True,
                )
                raise typer.Exit(DISK) from None
            if error.errno not in (errno.ENOSPC, errno.EIO):
                raise
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # what is left in it cannot be written either
            typer.echo(f"error: cannot write the output: {error.strerror}", err=True)
            raise typer.Exit(DISK) from None
        except KeyboardInterrupt:
            raise typer.Exit(128 + signal.SIGINT) from None
        return result


app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Given a compute budget: how large a model, and how many tokens? Train sweeps, fit scaling laws, predict, report.",
    epilog="Start with: scaling plan sweeps/demo.toml",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the `scaling` command."""
    with_commands()()


@cache
def with_commands() -> typer.Typer:
    """The command with all its verbs."""
    from scaling.cli import (
        coord_check,
        count,
        data,
        doctor,
        fit,
        init,
        next,
        plan,
        predict,
        reconcile,
        report,
        results,
        run,
        status,
        train,
        tune,
    )

    for module in (
        init,
        plan,
        tune,
        run,
        train,
        status,
        fit,
        predict,
        reconcile,
        next,
        report,
        count,
        coord_check,
        data,
        results,
        doctor,
    ):
        module.register(app)
    return app
