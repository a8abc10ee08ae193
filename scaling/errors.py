"""The one exception that the command line turns into a message: what is wrong, where, and what to
do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

BAD_INPUT, RUNS_FAILED, DISK, STOPPED = 2, 3, 74, 75  # exit codes of the CLI contract
LONGEST = 400  # characters of each part of a message


class ScalingError(Exception):
    """A mistake that the user can fix.

    Args:
        what: what is wrong, naming the offending value.
        where: the file (a path), field or option that holds it; empty when `what` says it already.
        remedy: what to do instead, one line.
        exit_code: 2 bad input, 74 disk or permission, 75 stopped and resumable or held by another.
    """

    def __init__(
        self, what: str, *, where: object = "", remedy: str = "", exit_code: int = BAD_INPUT
    ) -> None:
        super().__init__(what)
        self.what, self.where, self.remedy, self.exit_code = what, str(where), remedy, exit_code

    def __str__(self) -> str:
        """`where: what` on the first line and the remedy, indented, on the second."""
        lines = (" ".join(text.splitlines()) for text in (self.what, self.where, self.remedy))
        what, where, remedy = (
            line if len(line) <= LONGEST else f"{line[:LONGEST]}..." for line in lines
        )
        head = f"{where}: {what}" if where else what
        return f"{head}\n  {remedy}" if remedy else head


def closest_match(word: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelt one, or None when nothing is close."""
    lowered = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[matches[0]] if matches else None


def unknown_choice(
    kind: str, word: str, known: Iterable[str], *, where: object = ""
) -> ScalingError:
    """The error for a name that is not in a registry: lists the known names and suggests the
    nearest.
    """
    names = sorted(known)
    guess = closest_match(word, names)
    hint = f"did you mean {guess}? " if guess else ""
    return ScalingError(
        f"unknown {kind} {word!r}", where=where, remedy=f"{hint}known: {', '.join(names) or 'none'}"
    )


@contextmanager
def with_location(where: object) -> Iterator[None]:
    """Adds where it happened to an error that does not say it."""
    try:
        yield
    except ScalingError as error:
        error.where = error.where or str(where)
        raise
