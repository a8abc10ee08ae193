"""Every message of `wrong_inputs`, as a person reads it, stands in errors.txt: what is wrong,
where, and what to do.

After a change, read them again: SCALING_RENEW=1 python -m pytest tests/cli/test_errors.py, then
`git diff tests/cli/errors.txt`.
"""

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.wrong_inputs import LINES, prepare
from tests.command_line import scaling
from tests.report.conftest import document  # noqa: F401

pytestmark = pytest.mark.slow

SNAPSHOT = Path(__file__).with_name("errors.txt")
CODES = {2, 74}


def said(line):
    """A command with its exit code and what stderr says."""
    done = scaling(*line, said="")
    assert done.returncode in CODES, (line, done.stderr)
    assert done.stdout == "", line
    return f"$ scaling {shlex.join(line)}\n[{done.returncode}] {done.stderr}"


@pytest.fixture(scope="module")
def messages(document, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("wrong")
    prepare(folder, document)
    names = sorted(path.name for path in folder.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NO_COLOR", "1")
        patch.setenv("COLUMNS", "200")
        messages = [said(line) for line in LINES]
    assert sorted(path.name for path in folder.iterdir()) == names, (
        "a refused command has written something"
    )
    return messages


def test_error_messages_equal_the_snapshot(messages):
    text = "\n".join(messages)
    if os.environ.get("SCALING_RENEW"):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8"), (
        "read the new messages, then: SCALING_RENEW=1 python -m pytest tests/cli/test_errors.py"
    )


def test_every_error_message_has_a_remedy_and_no_traceback(messages):
    for message in messages:
        lines = message.rstrip("\n").splitlines()
        assert len(lines) <= 4
        assert max(map(len, lines)) < 900
        assert "Traceback" not in message
        assert not re.search(r"\b(NoneType|KeyError|TypeError|ValueError)\b", message), message
        assert len(lines) >= 3 or "error:" not in message, (
            message
        )  # what, where, and on a line of its own the remedy


def test_every_snapshot_command_is_unique():
    assert len({tuple(line) for line in LINES}) == len(LINES) >= 60
