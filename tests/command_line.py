"""The command line in this process, for tests that need no process of its own."""

import subprocess
from functools import cache

import pytest
import typer
from typer.testing import CliRunner

from scaling.cli.app import app


@cache
def command():
    """The click command, built once."""
    return typer.main.get_command(app)


def scaling(*args, cwd=None, env=None):
    """The exit code, stdout and stderr of `scaling ARGS`; an unexpected exception is raised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", lambda app: command())
        # it would replace this process
        patch.setattr("scaling.execute.environment.restart_once", lambda: None)
        if cwd is not None:
            patch.chdir(cwd)
        words = list(map(str, args))
        done = CliRunner().invoke(app, words, prog_name="scaling", env=env)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
