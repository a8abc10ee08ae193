"""Fenced blocks of the documentation, and what it takes to run them: marks, commands, and what is
checked of what cannot run.

A mark is a comment directly above a block:

    <!-- not run: a reason -->            nothing here can run it; the reason is listed
    <!-- planned: a reason -->            `scaling run`, `tune` and `train` become `scaling plan`;
    what would read their results is parsed only
    <!-- smaller in make test: K=V ... -->  `scaling run` takes these changes; `make test-all` runs
    what stands there
    <!-- trained in make test-all: a reason -->  as planned in `make test`, as it stands in `make
    test-all`
    <!-- ends with 2 -->                  the block's last command ends with this code
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELL, SHOWN = {"sh", "console"}, {"text", "html"}  # what is shown is not run
LANGUAGES = {*SHELL, *SHOWN, "python", "toml", "yaml"}
MARK = re.compile(
    r"<!-- (not run|planned|smaller in make test|trained in make test-all|ends with):? ?(.*?) -->"
)
README = {  # marks of the README's blocks, by a block's first line: it keeps no comments of its own
    "make demo": ("planned", "make itself is tried by `make demo`"),
    "source .venv/bin/activate": ("planned", "two to five minutes"),
    "scaling/": ("not run", "the layout of the package"),
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its fence, its language ("" for none), its text, and
    its mark with what that says.
    """

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    said: str = ""

    @property
    def place(self) -> str:
        """Where a reader finds it."""
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether something of it is executed."""
        return self.mark != "not run" and self.language not in SHOWN


def pages() -> list[Path]:
    """README.md and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order. Raises ValueError for a fence that is never closed."""
    found, lines, place = [], page.read_text(encoding="utf-8").splitlines(), 0
    while place < len(lines):
        opened = re.match(r"( *)(`{3,})\s*([\w-]*)", lines[place])
        if not opened:
            place += 1
            continue
        end = next(
            (at for at in range(place + 1, len(lines)) if lines[at].strip() == opened[2]), None
        )
        if end is None:
            raise ValueError(f"{page.name}:{place + 1}: a block that does not end")
        text = "\n".join(line.removeprefix(opened[1]) for line in lines[place + 1 : end])
        mark = MARK.fullmatch(lines[place - 1].strip()) if place else None
        found.append(_block(page, place + 1, opened[3], text, mark.groups() if mark else ("", "")))
        place = end + 1
    return found


def _block(page: Path, line: int, language: str, text: str, mark: tuple[str, str]) -> Block:
    if page.name == "README.md" and not language:
        language = "sh"
        mark = next((told for first, told in README.items() if text.startswith(first)), mark)
    return Block(page.name, line, language, text, *mark)


@dataclass(frozen=True)
class Command:
    """What stands between the line ends and `&&` of a shell block, and the lines that it is said to
    print (of a console block).
    """

    text: str
    printed: tuple[str, ...] | None = None

    @property
    def words(self) -> list[str]:
        """As a shell would split it, without its comment."""
        return shlex.split(self.text, comments=True)

    @property
    def is_plain(self) -> bool:
        """Whether it is one call of `scaling` that needs no shell: no pipe, no redirection, no
        variable.
        """
        lexer = shlex.shlex(self.text, posix=False, punctuation_chars=True)
        tokens = list(lexer)
        bare = [token for token in tokens if token[0] not in "'\""]
        return (
            bool(tokens)
            and tokens[0] == "scaling"
            and not any(set(token) & set("|<>;&$()`*") for token in bare)
        )


def commands(block: Block) -> list[Command]:
    """The commands of a shell or console block, in order."""
    if block.language == "console":
        return _sessions(block)
    text = re.sub(r"\\\n\s*", "", block.text)
    found: list[Command] = []
    lines = iter(text.splitlines())
    for line in lines:
        heredoc = re.search(r"<<-?\s*'?(\w+)'?", line)
        if heredoc:
            body = [line]
            for inner in lines:
                body.append(inner)
                if inner.strip() == heredoc[1]:
                    break
            found.append(Command("\n".join(body)))
            continue
        found += [
            Command(part.strip())
            for part in line.split("&&")
            if part.strip() and not part.strip().startswith("#")
        ]
    return found


def _sessions(block: Block) -> list[Command]:
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line.rstrip())
        else:
            raise ValueError(f"{block.place}: a console block begins with a command, $ ...")
    return [Command(text, tuple(printed)) for text, printed in found]


def matches(printed: str, shown: tuple[str, ...]) -> bool:
    """Whether what was printed is what is shown, where a line of three dots stands for any lines;
    space at line ends is nothing.
    """
    pattern = ""
    for line in shown:
        pattern += r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line.rstrip()) + "\n"
    said = "".join(line.rstrip() + "\n" for line in printed.splitlines())
    return re.fullmatch(pattern, said) is not None
