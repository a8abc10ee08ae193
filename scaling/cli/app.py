"""The typer application: its commands, loaded on use, with help from docstrings; exit codes."""

from __future__ import annotations

import errno
import inspect
import io
import os
import signal
import sys
from collections import UserDict
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.models import OptionInfo

from scaling import files
from scaling.cli.output import flag
from scaling.errors import BAD_INPUT, DISK, ScalingError
from scaling.formatting import sanitize

USAGE_ERROR: Any = typer.BadParameter.__base__  # of click, which typer brings along
BUGS = (errno.ENOENT, errno.EBADF, errno.EFAULT, errno.ECHILD)  # of this program
COMMANDS = {  # in the order of the pipeline: panel, and module:function or module:group
    "init": ("Design", "init:init"),
    "schema": ("Design", "init:schema"),
    "plan": ("Design", "plan:plan"),
    "count": ("Design", "count:count"),
    "coord-check": ("Design", "coord_check:coord_check"),
    "data": ("Train", "data:group"),
    "tune": ("Train", "tune:tune"),
    "run": ("Train", "run:run"),
    "train": ("Train", "train:train"),
    "status": ("Train", "status:status"),
    "fit": ("Fit and predict", "fit:fit"),
    "predict": ("Fit and predict", "predict:predict"),
    "reconcile": ("Fit and predict", "reconcile:reconcile"),
    "next": ("Fit and predict", "next:next_runs"),
    "report": ("Fit and predict", "report:report"),
    "results": ("Inspect", "results:group"),
    "doctor": ("Inspect", "doctor:doctor"),
}


class Commands(UserDict[str, Any]):
    """Commands by name; a module is imported when its command is asked for."""

    def __getitem__(self, name: str) -> Any:
        if isinstance(self.data[name], tuple):
            panel, path = self.data[name]
            module, _, attribute = path.partition(":")
            command = getattr(import_module(f"scaling.cli.{module}"), attribute)
            parent = typer.Typer(rich_markup_mode="rich")
            if isinstance(command, typer.Typer):
                parent.add_typer(command, rich_help_panel=panel)
            else:
                add_command(parent, command, panel, name)
            self.data[name] = typer.main.get_group(parent).commands[name]
        return self.data[name]


class CommandGroup(TyperGroup):
    """Prints a ScalingError and ends with its exit code; survives a closed stdout."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands(COMMANDS)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """An empty argument is a variable that was not set: a path would be the working folder."""
        for before, arg in zip(["", *args], args, strict=False):
            if arg == "" or (arg.startswith("--") and arg.endswith("=")):
                option = (arg or before).rstrip("=")
                where = f"{option}: the value" if option.startswith("-") else "an argument"
                typer.echo(f"error: {where} is empty\n  is a variable not set?", err=True)
                raise typer.Exit(BAD_INPUT)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run the command that was asked for."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # paths that are not UTF-8 can be printed
                stream.reconfigure(errors="backslashreplace")
        try:
            result = super().invoke(ctx)  # type: ignore[arg-type]
            if sys.stdout is not None:
                sys.stdout.flush()
        except ScalingError as error:
            typer.echo(f"error: {sanitize(error)}", err=True)
            raise typer.Exit(error.exit_code) from None
        except USAGE_ERROR as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                raise
            path = error.ctx.command_path if error.ctx else f"scaling {ctx.invoked_subcommand}"
            text = " ".join(sanitize(error.format_message()).split())[:400]
            text = text.replace(": Input should", ": should")
            typer.echo(f"error: {text}\n  see {path} --help", err=True)
            raise typer.Exit(BAD_INPUT) from None
        except BrokenPipeError:  # the reader of `scaling ... | head` has left
            _discard_stdout()
            raise typer.Exit(0) from None
        except OSError as error:
            try:
                os.getcwd()
            except FileNotFoundError:
                what = "error: the working folder was removed\n  change to another folder"
                typer.echo(what, err=True)
                raise typer.Exit(DISK) from None
            if error.errno is None or error.errno in BUGS:
                raise
            if error.filename is None and error.errno in (errno.ENOSPC, errno.EIO):
                _discard_stdout()  # what is still buffered cannot be written either
                typer.echo(f"error: cannot write the output: {error.strerror}", err=True)
            else:
                message = files.disk_error(error, Path(os.fsdecode(error.filename or ".")), "use")
                typer.echo(f"error: {sanitize(message)}", err=True)
            raise typer.Exit(DISK) from None
        except KeyboardInterrupt:
            raise typer.Exit(128 + signal.SIGINT) from None
        return result


class Command(TyperCommand):
    """Refuses an option that takes one value and is given twice, for the last would silently win,
    and two forms of output.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises ScalingError that names the option."""
        given = [] if ctx.resilient_parsing else self.make_parser(ctx).parse_args(list(args))[2]
        for item in given:
            single = isinstance(item, TyperOption) and not (item.is_flag or item.multiple)
            if single and given.count(item) > 1:
                names = ", names separated by commas" if item.name == "columns" else ""
                what = f"{item.opts[0]} is given twice: only the last would count"
                raise ScalingError(what, remedy=f"write it once{names}")
        if {"as_json", "as_csv"} <= {item.name for item in given}:
            raise ScalingError(
                "--json and --csv exclude each other",
                remedy="choose one: stdout holds one document or one table",
            )
        return super().parse_args(ctx, args)


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
    version: bool = flag(
        "Print the version and exit.", names="--version", callback=_print_version, is_eager=True
    ),
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
        name or function.__name__.replace("_", "-"),
        cls=Command,
        help="\n\n".join(paragraphs[:examples]),
        epilog="\n\n".join(paragraphs[examples:]) if examples is not None else None,
        rich_help_panel=panel,
    )(_with_options_spread(function))


def _with_options_spread(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with each parameter that is a dataclass replaced by the fields of it."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = inspect.Parameter.KEYWORD_ONLY
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name], kind=kind))
            continue
        types = get_type_hints(groups[name], include_extras=True)
        parameters += [
            inspect.Parameter(item.name, kind, default=item.default, annotation=types[item.name])
            for item in fields(groups[name])
        ]

    for item in parameters:
        info = item.default  # a switch is one flag, without a --no-... of its own
        if isinstance(info, OptionInfo) and info.default is False and not info.param_decls:
            info.param_decls = (f"--{item.name.replace('_', '-')}",)

    def command(**values: Any) -> Any:
        for name, value in values.items():
            if isinstance(value, Path):  # a shell leaves the ~ of --out=~/results as it is
                values[name] = Path(os.path.expanduser(value))
        for name, group in groups.items():
            values[name] = group(**{item.name: values.pop(item.name) for item in fields(group)})
        return function(**values)

    command.__name__ = function.__name__
    command.__annotations__ = {item.name: item.annotation for item in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command
