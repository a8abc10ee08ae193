"""The commands `init`, which writes a first sweep file, and `schema`, which is for editors."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from scaling.cli.options import COUNT, GLOB, HOURS, MFU, device_time
from scaling.cli.output import Output, argument, echo_err, flag, option, print_json
from scaling.errors import ScalingError

DEFAULTS = {"budget": "1e13", "device": "cpu", "data": "stdlib"}
QUESTIONS = {
    "budget": "How many FLOPs may the whole sweep take? 6.7e12 take about two minutes on two cores",
    "device": "On what will it train? cpu, gpu, tpu, or a name such as h100",
    "data": (
        'On what data? "stdlib" (Python source, nothing to download), or your own: a folder of '
        "text, or one that `scaling data prepare` wrote"
    ),
}


def init(
    path: Path = argument(
        "[PATH]", "The sweep file to write; its stem names the sweep.", default=Path("sweep.toml")
    ),
    budget: str | None = option("FLOPs of the whole sweep: 1e13.", metavar="FLOPS"),
    minutes: float | None = option(
        "Instead of --budget: minutes of training on the device.", min=0.01, max=1e7
    ),
    device: str | None = option("cpu, gpu, tpu, or a name: h100, tpu-v5e, ...", metavar="NAME"),
    hours: float | None = HOURS,
    count: int | None = COUNT,
    mfu: float | None = MFU,
    data: str | None = option(
        "stdlib, a folder (or file) of text, or one of `scaling data prepare`. Text is "
        "prepared as data/NAME.",
        metavar="stdlib|FOLDER",
    ),
    patterns: list[str] | None = GLOB,
    yes: bool = flag(
        "Ask nothing: take 1e13, cpu, stdlib for what is not given.", names="--yes -y"
    ),
    *,
    output: Output,
) -> None:
    """Write a commented sweep file for a budget, a device and data; asks for missing options.

    With a budget (or minutes) and data it asks nothing, and the device is cpu unless named.

    Example: scaling init

    Example: scaling init sweeps/first.toml --budget 1e13 --device cpu --data stdlib

    Example: scaling init sweeps/short.toml --minutes 10 --data notes --glob '*.md'

    Example: scaling init sweeps/large.toml --device h100 --count 8 --hours 72 --mfu 0.4
    """
    from scaling import files
    from scaling.execute import first_sweep
    from scaling.formatting import format_count, format_flops
    from scaling.units import flops_option

    _check_free(path)
    if budget is not None and minutes is not None:
        raise ScalingError(
            "--budget and --minutes exclude each other",
            remedy="give FLOPs of the whole sweep, or minutes of training",
        )
    times = device_time(device, count, mfu, hours)
    if times is not None and hours is not None:
        if budget is not None or minutes is not None:
            raise ScalingError(
                "--hours gives the budget too", remedy="leave out --budget and --minutes"
            )
        budget = repr(times.flops_of(hours))
    flops = 0.0
    if minutes is None:
        _, flops = _answer("budget", budget, yes, lambda text: flops_option(text, "--budget"))
    is_described = data is not None and (budget is not None or minutes is not None)
    name, kind = _answer("device", device, yes or is_described, first_sweep.device_kind)
    if minutes is not None:
        flops = first_sweep.device_flops(minutes, name)
    globs = patterns or ()
    _, corpus = _answer("data", data, yes, lambda text: first_sweep.check_data(text, globs))
    if first_sweep.is_raw_text(corpus):
        corpus = first_sweep.prepare_text(corpus, flops, echo_err, globs)
    first, warnings = first_sweep.first_sweep(path, flops, kind, corpus)
    planned = first.plan
    _check_free(path)
    files.write_text(path, first.text)
    for warning in warnings:
        echo_err(f"warning: {warning}")
    per_day = 24.0 * times.flops_of(1.0) if times else first_sweep.device_flops(1440.0, name)
    if planned.flops > per_day:
        days = format_count(planned.flops / per_day, 2)
        echo_err(f"warning: {format_flops(planned.flops)} FLOPs take about {days} days on {name}")
    document = {
        "path": str(path),
        "name": planned.sweep.name,
        "runs": len(planned.runs),
        "flops": planned.flops,
        "device": kind,
    }
    output.emit(
        document,
        lambda: f"{path}: {len(planned.runs)} runs, {format_flops(planned.flops)} FLOPs on {kind}",
        next_command=f"scaling plan {shlex.quote(str(path))}",
    )


def _check_free(path: Path) -> None:
    """Raise ScalingError for a file that is there, or a name that a comment or a command cannot
    hold.
    """
    from scaling.config.sweep_file import check_absent

    check_absent(path)
    if not str(path).isprintable():
        raise ScalingError(
            f"{str(path)!r} holds a control character", where="PATH", remedy="name another file"
        )


def _answer(
    name: str, given: str | None, yes: bool, check: Callable[[str], Any]
) -> tuple[str, Any]:
    """An option, a default, or the answer, and what it stands for; on a terminal a wrong one is
    asked for again.
    """
    if given is not None or yes:
        text = DEFAULTS[name] if given is None else given
        return text, check(text)
    while True:
        typer.echo(f"{QUESTIONS[name]} [{DEFAULTS[name]}]: ", err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            raise ScalingError(
                "no answer: the input has ended",
                where=f"--{name}",
                remedy="give it as an option, or --yes for the defaults",
            )
        text = line.strip() or DEFAULTS[name]
        try:
            return text, check(text)
        except ScalingError as error:
            if not sys.stdin.isatty():
                raise
            echo_err(str(error))


def schema(
    out: Path | None = option(
        "Write it here, over an older schema; default stdout.", metavar="FILE"
    ),
    *,
    output: Output,
) -> None:
    """Print the JSON Schema of sweep files (draft 2020-12), for editors that complete TOML.

    Example: scaling schema --out sweep.schema.json

    Then begin a sweep file with the line #:schema ./sweep.schema.json: editors that know TOML
    schemas (Even Better TOML, Tombi, taplo) complete its keys.
    """
    from scaling import files
    from scaling.config import sweep_file

    document = sweep_file.schema()
    if out is None:
        return print_json(document)
    if out.exists() and sweep_file.SCHEMA_TITLE.encode() not in out.read_bytes():
        raise ScalingError(
            "exists already and is not a schema of sweep files",
            where=out,
            remedy="name another file",
        )
    files.write_text(out, json.dumps(document, indent=1) + "\n")
    text = f"{out}: begin a sweep file in the same folder with the line\n#:schema ./{out.name}"
    return output.emit({"path": str(out)}, lambda: text)
