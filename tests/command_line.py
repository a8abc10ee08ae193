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


def scaling(*args, code=None, cwd=None, env=None, said=None):
    """The exit code, stdout and stderr of `scaling ARGS`, to which `said` is typed; an unexpected
    exception is raised, and so is any other exit code than `code`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", lambda app: command())
        # it would replace this process
        patch.setattr("scaling.execute.environment.restart_once", lambda: None)
        if cwd is not None:
            patch.chdir(cwd)
        words = list(map(str, args))
        runner = CliRunner()
        done = runner.invoke(app, words, said, prog_name="scaling", env=env)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert code in (None, done.exit_code), done.stderr
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
