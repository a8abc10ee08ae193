"""The Slurm executor: one batch script for an array of equal elements, handed to sbatch.

Every element is `scaling run` on the same folder: it trains what no other process trains and ends
when all is done, so elements may start late, be preempted, requeued or cancelled, and more of them
may be submitted at any time.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scaling.errors import ScalingError
from scaling.files import write_text

# what the script sets itself, and what would make sbatch do something else than submit it
OURS = {
    "array",
    "chdir",
    "error",
    "input",
    "job-name",
    "no-requeue",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "signal",
    "help",
    "parsable",
    "quiet",
    "test-only",
    "usage",
    "verbose",
    "version",
    "wait",
    "wrap",
}
FLAGS = {
    "contiguous",
    "exclusive",
    "hold",
    "no-kill",
    "overcommit",
    "oversubscribe",
    "reboot",
    "spread-job",
    "use-min-nodes",
}
# what a run may need to save itself before its time limit; Slurm may warn up to 60 s earlier
WARNING_SECONDS = 120
REQUEUES, SCRIPT = 500, "slurm.sh"

TEMPLATE = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --ntasks-per-node=1
#SBATCH --chdir={workdir}
#SBATCH --output={output}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{warning}
{chosen}
# Every element trains what is missing of the sweep; they share the runs through its folder, so
# elements may start late, be cancelled or be lost, and this script may be submitted again at any
# time. It was written by `scaling run --executor slurm`.
command=({command})

# srun no longer asks sbatch how many cores a task has (since Slurm 22.05).
if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi

# Before the time limit, and before some preemptions, Slurm warns this shell alone: pass it on,
# once. The SIGTERM with which it ends a job goes to every process of the job: passing it on would
# send it twice, and the second means "at once".
child= warning= forwarded= ended= interrupted=yes
warn() {{ interrupted=yes warning=${{warning:-$1}}; forward; }}
forward() {{
    if [ -n "$child" ] && [ -z "$forwarded$ended" ]; then
        forwarded=yes
        kill -"$warning" "$child"
    fi
}}
trap 'warn USR1' USR1
trap 'warn USR2' USR2
trap 'interrupted=yes ended=yes' TERM

restarts=${{SLURM_RESTART_COUNT:-0}}
element="job $SLURM_JOB_ID, element ${{SLURM_ARRAY_TASK_ID:-0}}, restart $restarts"
say() {{ echo "$(date +%FT%T%:z) $element, on $(hostname): $*"; }}
say begins
"${{command[@]}}" &
child=$!
if [ -n "$warning" ]; then forward; fi  # it came before the command had begun
while [ -n "$interrupted" ]; do  # a signal ends `wait` before the command has ended
    interrupted=
    wait "$child"
    code=$?
done
if [ -n "$forwarded" ] && [ "$code" -eq $((128 + $(kill -l "$warning"))) ]; then
    code=75  # it died of the warning: nothing had begun
fi
say "ended with exit code $code${{warning:+ after SIG$warning}}${{ended:+ after SIGTERM}}"

# 75: its state is saved, to be resumed. After a SIGTERM Slurm knows whether the job was preempted
# (it requeues it) or cancelled.
if [ "$code" -eq 75 ] && [ -z "$ended" ]; then
    if [ "$restarts" -ge {requeues} ] || ! scontrol requeue "$SLURM_JOB_ID"; then
        say "is not requeued: submit this script again to go on"
    fi
fi
exit "$code"
"""


@dataclass(frozen=True)
class Job:
    """An array of `elements` equal jobs that train one sweep's folder.

    Args:
        name: the sweep's; the job is called `scaling-NAME`.
        folder: the sweep's folder, on a file system that all nodes see; holds sweep.toml.
        settings: options of sbatch and their values; an empty value is an option without one.
        options: what each element's `scaling run` is given besides SWEEP, --out and --executor.
        workdir: where the elements start: relative paths in the sweep file are seen from there.
        program: how `scaling` is started on a node.
    """

    name: str
    folder: Path
    elements: int
    settings: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    workdir: Path = field(default_factory=Path.cwd)
    program: tuple[str, ...] = (sys.executable, "-m", "scaling")


def script(job: Job) -> str:
    """The batch script of a job. Raises ScalingError for what Slurm cannot take."""
    folder, workdir = Path(os.path.abspath(job.folder)), Path(os.path.abspath(job.workdir))
    for path in map(str, (folder, workdir)):
        if "\\" in path or not path.isprintable():
            raise ScalingError(
                f"{path!r} holds a backslash or a control character",
                where="--executor slurm",
                remedy="Slurm cannot write its logs there: rename the folder",
            )
    nodes(job.settings)
    seconds = limit_seconds(job.settings.get("time", "infinite"))
    command = [*job.program, "run", str(folder / "sweep.toml"), "--out", str(folder)]
    command += ["--executor", "local", *job.options]
    chosen = [
        f"#SBATCH --{key}" + (f"={_quoted(value)}" if value else "") + "\n"
        for key, value in job.settings.items()
    ]
    return TEMPLATE.format(
        name=_quoted(f"scaling-{job.name}"),
        last=job.elements - 1,
        workdir=_quoted(str(workdir)),
        warning=WARNING_SECONDS if seconds is None else max(1, min(WARNING_SECONDS, seconds // 4)),
        output=_quoted(str(folder / "logs").replace("%", "%%") + "/slurm-%A_%a.log"),
        command=shlex.join(command),
        requeues=REQUEUES,
        chosen="".join(chosen),
    )


def _quoted(text: str) -> str:
    """As sbatch reads the words of its directives, which is not as the shell does: a backslash
    counts within every quote.
    """
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse_settings(text: str) -> dict[str, str]:
    """`partition=gpu,time=8:00:00,exclusive` as options of sbatch; a word alone continues the value
    before it (`nodelist=a,b`).

    Raises ScalingError naming what is wrong.
    """
    settings: dict[str, str] = {}
    last = ""
    for piece in text.split(","):
        key, equals, value = piece.strip().partition("=")
        if not equals and key not in FLAGS and settings.get(last):
            key, value = last, f"{settings.pop(last)},{key}"
        if not re.fullmatch(r"[a-z]+(-[a-z]+)*", key):
            problem = f"{key[:80]!r} is not the name of an sbatch option"
        elif key in OURS:
            problem = f"{key} is not yours to set"
        elif key in settings:
            problem = f"{key} is given twice"
        elif not value and key not in FLAGS:
            problem = f"{key} has no value"
        elif not value.isprintable():
            problem = f"{key} = {value[:80]!r} holds a line break or a control character"
        else:
            last, settings[key] = key, value
            continue
        raise ScalingError(
            problem,
            where="--slurm",
            remedy="write options of sbatch as partition=gpu,time=8:00:00,gres=gpu:1; --dry-run "
            "shows the script and what it sets",
        )
    return settings


def nodes(settings: Mapping[str, str]) -> int:
    """How many nodes train one run together. Raises ScalingError for a range, which a mesh cannot
    have.
    """
    text = settings.get("nodes", "1")
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise ScalingError(
            f"nodes = {text[:80]!r} is not a number of nodes",
            where="--slurm",
            remedy="write it as nodes=2",
        )
    return int(text)


def limit_seconds(text: str) -> int | None:
    """A time limit as Slurm writes it, in seconds; None for none. Raises ScalingError."""
    if text.lower() in ("infinite", "unlimited"):
        return None
    match = re.fullmatch(
        r"(?:([0-9]{1,5})-)?([0-9]{1,7})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?", text
    )
    if match is None:
        raise ScalingError(
            f"time = {text[:80]!r} is not a time limit",
            where="--slurm",
            remedy="write it as hours:minutes:seconds or days-hours:minutes:seconds",
        )
    days, first, second, third = (int(part or 0) for part in match.groups())
    in_minutes = match[1] is None and match[4] is None  # the first number is minutes, else hours
    return first * 60 + second if in_minutes else days * 86_400 + first * 3600 + second * 60 + third


def find_sbatch() -> str:
    """Where sbatch is. Raises ScalingError where it is not."""
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise ScalingError(
            "sbatch is not on this machine",
            where="--executor slurm",
            remedy="run it on a login node of the cluster, or with --dry-run to see the script",
        )
    return sbatch


def submit(folder: Path, text: str) -> str:
    """Keep a script as FOLDER/slurm.sh and hand it to sbatch; returns the id of the array. Raises
    ScalingError.
    """
    sbatch = find_sbatch()
    path = Path(os.path.abspath(folder)) / SCRIPT
    write_text(path, text)
    (path.parent / "logs").mkdir(exist_ok=True)
    # submitted from within a job, the array must not inherit that job's restarts and cores
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("SLURM_") or key in ("SLURM_CONF", "SLURM_CLUSTERS")
    }
    done = subprocess.run(
        [sbatch, "--parsable", str(path)], capture_output=True, text=True, check=False, env=kept
    )
    if done.returncode:
        reason = " ".join(done.stderr.replace("sbatch: ", "").replace("error: ", "").split())
        raise ScalingError(
            f"sbatch rejected the job: {reason}",
            where=path,
            remedy="fix the pairs of --slurm; --dry-run shows the script",
        )
    return done.stdout.strip().partition(";")[0]
