"""The commands `init`, which writes a first sweep file, and `schema`, which is for editors."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.output import Json, echo_err, print_json
from scaling.errors import ScalingError, unknown_choice

if TYPE_CHECKING:
    from scaling.plan import Plan
    from scaling.plan.starter_sweep import StarterRequest

SCHEMA_FILE = "sweep.schema.json"
DEFAULTS = {"budget": "1e13", "device": "cpu", "data": "stdlib"}
QUESTIONS = {
    "budget": "How many FLOPs may the whole sweep take? 6.7e12 take about two minutes on two cores",
    "device": "On what will it train? cpu, gpu, tpu, or a name such as h100",
    "data": (
        'On what data? "stdlib" (Python source, nothing to download), or a folder that '
        "`scaling data prepare` wrote"
    ),
}


def init(
    path: Annotated[
        Path,
        typer.Argument(metavar="[PATH]", help="The sweep file to write; its stem names the sweep."),
    ] = Path("sweep.toml"),
    budget: Annotated[
        str | None, typer.Option(metavar="FLOPS", help="FLOPs of the whole sweep: 1e13.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1e7, help="Instead of --budget: minutes of training on the device."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cpu, gpu, tpu, or a name: h100, tpu-v5e, ..."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="stdlib|FOLDER", help="stdlib, or a folder of `scaling data prepare`."
        ),
    ] = None,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", "-y", help="Ask nothing: take 1e13, cpu, stdlib for what is not given."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a commented sweep file for a budget, a device and data; asks for what no option gives.

    Example: scaling init

    Example: scaling init sweeps/first.toml --budget 1e13 --device cpu --data stdlib

    Example: scaling init sweeps/short.toml --minutes 10 --yes
    """
    from scaling import files
    from scaling.formatting import count_option, format_flops
    from scaling.plan import plan
    from scaling.plan.starter_sweep import draft
    from scaling.tasks import open_task, resolve

    _check_free(path)
    if budget is not None and minutes is not None:
        raise ScalingError(
            "--budget and --minutes exclude each other",
            remedy="give FLOPs of the whole sweep, or minutes of training",
        )
    flops = 0.0
    if minutes is None:
        flops = _answer(
            "budget",
            budget,
            yes,
            lambda text: count_option(text, "--budget", "write FLOPs as 1e13"),
        )
    name = _answer("device", device, yes, lambda text: _kind(text) and text)
    kind = _kind(name)
    if minutes is not None:
        flops = _flops_of_minutes(minutes, name, kind)
    corpus, task = _answer("data", data, yes, _opened)
    opened = open_task(resolve(task))
    question: StarterRequest = _question(flops, kind, corpus, opened.vocab_size, path)
    made = draft(question, lambda sweep: plan(sweep, resolve(sweep.base.task), opened.vocab_size))
    _check_free(path)
    files.write_text(path, _schema_line(path) + made.text)
    for doubt in _doubts(made.plan, opened):
        echo_err(f"warning: {doubt}")
    if as_json:
        document = {
            "path": str(path),
            "name": question.name,
            "runs": len(made.plan.runs),
            "flops": made.plan.flops,
            "device": kind,
        }
        return print_json(document)
    typer.echo(
        f"{path}: {len(made.plan.runs)} runs, {format_flops(made.plan.flops)} FLOPs on {kind}"
    )
    return typer.echo(f"next: scaling plan {shlex.quote(str(path))}")


def _check_free(path: Path) -> None:
    """Raise ScalingError for a file that is there, or a name that a comment or a command cannot
    hold.
    """
    if path.exists() or path.is_symlink():
        raise ScalingError(
            "is there already", where=str(path), remedy="name another file, or delete this one"
        )
    if not str(path).isprintable():
        raise ScalingError(
            f"{str(path)!r} holds a control character", where="PATH", remedy="name another file"
        )


def _schema_line(path: Path) -> str:
    """The line by which editors know the schema, where there is one next to the file or in docs/ of a
    folder above; else nothing.
    """
    from scaling.config.sweep_file import schema as made

    folder = path.absolute().parent
    for place in (folder, *(above / "docs" for above in (folder, *folder.parents))):
        if (place / SCHEMA_FILE).is_file() and _is_schema(place / SCHEMA_FILE, made()["title"]):
            return f"#:schema {_relative(place / SCHEMA_FILE, folder)}\n"
    return ""


def _relative(path: Path, folder: Path) -> str:
    """A path from a folder, as an editor reads it: with a dot in front, and slashes."""
    relative = Path(os.path.relpath(path, folder)).as_posix()
    return relative if relative.startswith(".") else f"./{relative}"


def _answer(name: str, given: str | None, yes: bool, check: Callable[[str], Any]) -> Any:
    """An option, a default, or the answer; on a terminal a wrong one is asked for again."""
    if given is not None or yes:
        return check(DEFAULTS[name] if given is None else given)
    while True:
        typer.echo(f"{QUESTIONS[name]} [{DEFAULTS[name]}]: ", err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            raise ScalingError(
                "no answer: the input has ended",
                where=f"--{name}",
                remedy="give it as an option, or --yes for the defaults",
            )
        try:
            return check(line.strip() or DEFAULTS[name])
        except ScalingError as error:
            if not sys.stdin.isatty():
                raise
            echo_err(str(error))


def _flops_of_minutes(minutes: float, device: str, kind: str) -> float:
    """The FLOPs that a device trains in some minutes; of "gpu" and "tpu" the smallest known."""
    from scaling.accounting import DEVICES
    from scaling.execute.environment import default_workers
    from scaling.plan.starter_sweep import flops_of_minutes

    typical = {"gpu": "a100", "tpu": "tpu-v5e"}
    peak = None if kind == "cpu" else DEVICES[typical.get(device, device)].flops_per_second
    return flops_of_minutes(minutes, default_workers() if kind == "cpu" else 1, peak)


def _kind(device: str) -> str:
    """cpu, gpu or tpu. Raises ScalingError listing the known names."""
    from scaling.accounting import DEVICES

    if device in ("cpu", "gpu", "tpu"):
        return device
    if device not in DEVICES:
        raise unknown_choice("device", device, ["cpu", "gpu", "tpu", *DEVICES], where="--device")
    return "tpu" if device.startswith("tpu") else "gpu"


def _opened(data: str) -> tuple[str, Any]:
    """The corpus and its task. Raises ScalingError where it is not one."""
    from pydantic import ValidationError

    from scaling.config import TextTask
    from scaling.tasks import resolve

    try:
        task = TextTask(kind="text", corpus=data)
    except ValidationError as error:
        raise ScalingError(
            str(error.errors()[0]["msg"]),
            where="--data",
            remedy="name a folder that `scaling data prepare` wrote",
        ) from None
    resolve(task)
    return data, task


def _question(flops: float, kind: str, corpus: str, vocab_size: int, path: Path) -> StarterRequest:
    from scaling.plan.starter_sweep import StarterRequest

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:64].rstrip("-._") or "sweep"
    return StarterRequest(flops, kind, corpus, vocab_size, path, name)


def _doubts(planned: Plan, opened: Any) -> list[str]:
    from scaling.execute.planning import repeated_data_warnings

    return [*planned.warnings, *repeated_data_warnings(opened, planned)]


def schema(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write it here, over an older schema; default stdout."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the JSON Schema of sweep files (draft 2020-12), for editors that complete TOML.

    Example: scaling schema --out sweep.schema.json

    Then begin a sweep file with the line #:schema ./sweep.schema.json: editors that know TOML
    schemas (Even Better TOML, Tombi, taplo) complete its keys.
    """
    from scaling import files
    from scaling.config.sweep_file import schema as made

    document = made()
    if out is None:
        return print_json(document)
    if out.exists() and not _is_schema(out, document["title"]):
        raise ScalingError(
            "is there already, and is no schema of sweep files",
            where=str(out),
            remedy="name another file",
        )
    files.write_text(out, json.dumps(document, indent=1) + "\n")
    if as_json:
        return print_json({"path": str(out)})
    return typer.echo(
        f"{out}: begin a sweep file in the same folder with the line\n#:schema ./{out.name}"
    )


def _is_schema(path: Path, title: str) -> bool:
    """Whether a file is one that `scaling schema` wrote, by this program or an older one."""
    try:
        document = json.loads(path.read_bytes()[:1_000_000])
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("title") == title
