"""A reader who does what a page says, in a folder of her own: the state of earlier blocks of the
page is there for later ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from scaling.cli.app import app
from scaling.config.sweep_file import parse_sweep
from tests.docs.blocks import ROOT, Block, Command, commands, matches

TRAINS = {"run", "tune", "train"}
KEPT = ("reference", "honest", "honest-at-3.2e13")


class Reader:
    """Executes blocks below `here`. With `literally` also the training that takes minutes. `listed`
    tells what was not run as it stands.
    """

    def __init__(self, here: Path, literally: bool = False) -> None:
        self.here, self.literally = here, literally
        self.names: dict[str, object] = {"__name__": "__main__"}
        self.listed: list[str] = []
        for name in KEPT:
            shutil.copytree(ROOT / "results" / name, here / "results" / name)
        shutil.copytree(
            here / "results" / "reference", here / "results" / "demo"
        )  # what `make demo` trains, as it was trained
        shutil.copytree(ROOT / "sweeps", here / "sweeps")
        for name in (
            "Makefile",
            "mkdocs.yml",
            "pyproject.toml",
            "requirements.lock",
            "requirements-dev.lock",
        ):
            shutil.copy(ROOT / name, here / name)

    def follow(self, block: Block) -> None:
        """Do what a block says. Raises AssertionError that names the block's place."""
        if block.mark == "not run":
            self.listed.append(f"{block.place}: not run: {block.said}")
        elif block.language == "python":
            exec(compile(block.text, block.place, "exec"), self.names)
        elif block.language == "toml":
            self._toml(block)
        elif block.language == "yaml":
            import yaml

            yaml.safe_load(block.text)
        elif block.runs:
            asked = commands(block)
            for place, command in enumerate(asked):
                code = (
                    int(block.said) if block.mark == "ends with" and place == len(asked) - 1 else 0
                )
                self._command(block, command, code)

    def _command(self, block: Block, command: Command, code: int) -> None:
        words = command.words
        if words == ["source", ".venv/bin/activate"]:
            return  # the tests run in an environment of their own
        if words[0] == "make":
            done = subprocess.run(
                ["make", "-n", *words[1:]], cwd=self.here, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{block.place}: {command.text}\n{done.stderr}"
            self.listed.append(f"{block.place}: only the target exists: {command.text}")
        elif not command.is_plain:
            self._shell(block, command, code)
        elif block.mark == "planned" or (
            block.mark == "trained in make test-all" and not self.literally
        ):
            self._plan(block, words[1:])
        elif words[1] == "report" and not self.literally:  # ten seconds each
            self._parsed(block, words[1:])
            self.listed.append(
                f"{block.place}: parsed only, written in make test-all: {command.text}"
            )
        else:
            smaller = (
                block.mark == "smaller in make test" and words[1] in TRAINS and not self.literally
            )
            self._verb(
                block,
                command,
                _changed(words[1:], block.said.split()) if smaller else words[1:],
                code,
            )

    def _verb(self, block: Block, command: Command, words: list[str], code: int = 0) -> None:
        if not self.literally and not (words[0] == "fit" and command.printed):
            words = _cheaper(words)
        if (
            words[0] in TRAINS
            # in a process of its own, as a reader's: training settles threads and devices once a
            # process
        ):
            done = subprocess.run(
                [sys.executable, "-m", "scaling", *words],
                cwd=self.here,
                capture_output=True,
                text=True,
            )
            ended, printed, error = done.returncode, done.stdout, done.stderr
        else:
            result = CliRunner().invoke(app, words, env={"COLUMNS": "100"})
            ended, printed, error = (
                result.exit_code,
                result.stdout,
                f"{result.stderr}\n{result.exception!r}",
            )
        assert ended == code, (
            f"{block.place}: {command.text}\nended with {ended}, not {code}:\n{printed[-2000:]}\n"
            f"{error[-4000:]}"
        )
        if command.printed:
            assert matches(printed, command.printed), (
                f"{block.place}: {command.text} prints:\n{printed}"
            )

    def _plan(self, block: Block, words: list[str]) -> None:
        """The plan of what would be trained; parsing alone of what would read its results, but
        where all is done literally.
        """
        command = Command("scaling " + " ".join(words))
        asked = self._parsed(block, words)
        results = [word for word in words[1:] if word.startswith("results/")]
        if words[0] in TRAINS:
            how = [
                f"--{name}={asked[name]}"
                for name in ("mesh", "remat", "workers")
                if asked.get(name)
            ]
            self._verb(block, command, ["plan", words[1], *asked["overrides"], *how, "--no-probe"])
            self.listed.append(
                f"{block.place}: planned, not trained ({block.said}): {command.text}"
            )
        elif words[0] == "plan" or (
            (self.literally or words[0] == "predict")
            and all((self.here / word).exists() for word in results)
        ):
            self._verb(block, command, words)
        else:
            self.listed.append(
                f"{block.place}: parsed only, its results are not the reader's: {command.text}"
            )

    def _parsed(self, block: Block, words: list[str]) -> dict[str, Any]:
        """Every option is one of the command's, and every value one that it takes: what is given,
        with defaults.
        """
        verb: Any = typer.main.get_command(app)
        try:
            while hasattr(verb, "commands"):
                verb, words = verb.commands[words[0]], words[1:]
            with verb.make_context(verb.name, list(words)) as context:
                return {
                    "overrides": (),
                    **{name: value for name, value in context.params.items() if value is not None},
                }
        except Exception as error:
            error.add_note(f"{block.place}: {' '.join(words)}")
            raise

    def _shell(self, block: Block, command: Command, code: int) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.text],
            cwd=self.here,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": path, "COLUMNS": "100"},
        )
        assert done.returncode == code, (
            f"{block.place}: {command.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
        if command.printed:
            assert matches(done.stdout, command.printed), (
                f"{block.place}: {command.text} prints:\n{done.stdout}"
            )

    def _toml(self, block: Block) -> None:
        """A whole sweep file, or tables of one, which are then put into the demo's."""
        text = block.text
        found = tomllib.loads(text)
        if "name" not in found:
            import tomli_w

            text = tomli_w.dumps(
                _merged(
                    tomllib.loads((ROOT / "sweeps" / "demo.toml").read_text(encoding="utf-8")),
                    found,
                )
            )
        parse_sweep(text, block.place)


def _cheaper(words: list[str]) -> list[str]:
    """The same command without refits, and without timing this machine: what `make test` has the
    time for.
    """
    less = {
        "plan": ["--no-probe"],
        "fit": ["--bootstrap", "0"],
        "reconcile": ["--bootstrap", "0"],
    }.get(words[0], [])
    return words if not less or less[0] in words else [*words, *less]


def _merged(whole: dict, part: dict) -> dict:
    """`part` laid over `whole`, table by table."""
    both = dict(whole)
    for key, value in part.items():
        both[key] = (
            _merged(both[key], value)
            if isinstance(value, dict) and isinstance(both.get(key), dict)
            else value
        )
    return both


def _changed(words: list[str], changes: list[str]) -> list[str]:
    """A command with changes of the sweep in place of its own of the same keys."""
    keys = {change.partition("=")[0] for change in changes}
    return [*(word for word in words if word.partition("=")[0] not in keys), *changes]
