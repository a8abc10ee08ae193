"""What a terminal gets: no colour under NO_COLOR, nothing cut on a narrow one, and completion in
three shells.
"""

import errno
import io
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from scaling.cli.app import app
from scaling.cli.output import LOG_WIDTH, console
from scaling.cli.plan import plan_text
from scaling.cli.training_display import Display
from scaling.execute.events import RunProgress, RunWarning
from scaling.plan import plan
from scaling.plan.document import plan_document
from scaling.render.rich_table import page
from scaling.render.table import Column, Table
from scaling.warning import WarningCode, warn
from tests.sweep_files import tiny

COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-8]|4[0-8]|9[0-7])(;[0-9;]*)?m")
SWEEP = tiny()
PLAN = plan(SWEEP, SWEEP.base.task, 16)


def shown(what, width, **options):
    made = Console(width=width, file=io.StringIO(), highlight=False, **options)
    made.print(what)
    return made.file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 150])
def test_plan_is_not_truncated_on_a_narrow_terminal(width):
    text = shown(page(*plan_text(plan_document(PLAN, None, 1).to_dict())), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = text.split()
    for item in PLAN.runs:
        assert item.run_id in words
        assert f"{item.run.optim.lr:.2e}" in words


def test_a_table_that_fits_stays_a_table():
    columns = (Column("run"), Column("status"), Column("reason"))
    rows = (
        ("3f2a9c0d1e4b", "done", ""),
        ("3f2a9c0d1e4c", "failed", "the loss is no number"),
    )
    made = page(Table("runs", "title", columns, rows))
    assert shown(made, 40).splitlines()[1].split() == ["run", "status", "reason"]
    assert [line.rstrip() for line in shown(made, 20).splitlines()[1:]] == [
        "3f2a9c0d1e4b  status",
        "done",
        "3f2a9c0d1e4c  status",
        "failed  reason the",
        "loss is no number",
    ]


@pytest.mark.parametrize("width", [24, 40])
def test_progress_fits_a_narrow_terminal(tmp_path, width):
    display = Display(tmp_path, PLAN, PLAN.runs, to_stderr=False)
    run = PLAN.runs[0]
    event = RunProgress(
        run_id=run.run_id,
        step=12,
        n_steps=run.run.n_steps,
        loss=2.5,
        tokens_per_second=123456.0,
        flops_per_second=4.2e9,
        flops=1e9,
    )
    display.handle(event)
    text = shown(Text(display._summary()), width)
    assert max(map(len, text.splitlines())) <= width
    assert {"0/4", "2.500,", "123k", "4.2"} <= set(text.split())


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("file", "count"), [(Terminal(), 1), (io.StringIO(), 0)])
def test_a_terminal_is_told_of_the_page_that_follows_the_sweep(tmp_path, file, count):
    display = Display(tmp_path, PLAN, PLAN.runs, to_stderr=False)
    display.console = Console(width=200, file=file, force_terminal=file.isatty())
    with display:
        pass
    assert file.getvalue().count(f"in a browser: scaling report {tmp_path} --watch") == count


@pytest.mark.parametrize(("code", "is_lost"), [(errno.EIO, True), (errno.ENOSPC, False)])
def test_training_goes_on_where_what_it_prints_cannot_be_written(tmp_path, code, is_lost):
    """The end of a terminal is nothing to report; a full disk is, when the summary is written."""
    display = Display(tmp_path, PLAN, PLAN.runs, to_stderr=False)
    with open(tmp_path / "log", "w") as log:

        class Refusing(io.StringIO):
            def write(self, text):
                raise OSError(code, os.strerror(code))

            def fileno(self):
                return log.fileno()

        display.console.file = Refusing()
        with display as handle:
            handle(RunWarning(message="a warning"))
        assert display.console.quiet
        assert (os.readlink(f"/proc/self/fd/{log.fileno()}") == os.devnull) == is_lost


def test_no_color_is_respected(monkeypatch):
    made = page(warn(WarningCode.OTHER, "a warning stands out"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert COLOUR.search(shown(made, 80, force_terminal=True, color_system="standard"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search(shown(made, 80, force_terminal=True, color_system="standard"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_help_on_a_terminal_has_no_colour_under_no_color():
    reader, writer = os.openpty()
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    done = subprocess.run(
        [sys.executable, "-m", "scaling", "plan", "--help"],
        stdout=writer,
        stderr=writer,
        env=environment,
    )
    os.close(writer)
    text = os.read(reader, 65_536).decode(errors="replace")  # may end inside a character
    os.close(reader)
    assert done.returncode == 0
    assert "scaling plan" in text
    assert not COLOUR.search(text)


def test_a_log_is_not_cut_to_the_width_of_a_terminal(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == LOG_WIDTH


def completed(shell, line):
    words = line.split(" ")
    environment = {
        "_SCALING_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    return CliRunner().invoke(app, [], prog_name="scaling", env=environment).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completes_commands_and_options(shell):
    assert {"report", "reconcile", "results"} <= set(
        re.findall(r"\w+", completed(shell, "scaling re"))
    )
    assert "--max-runs" in completed(shell, "scaling run sweeps/demo.toml --max")


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed(shell):
    found = CliRunner().invoke(
        app, [], prog_name="scaling", env={"_SCALING_COMPLETE": f"source_{shell}"}
    )
    assert f"_SCALING_COMPLETE=complete_{shell}" in found.stdout
    assert found.exit_code == 0
