"""A figure that a study promises: what it is, what was published or asked for, and what these runs reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the table that `make lab` prints; `holds` is None where the runs do not settle it.

    `figure` names what is measured and `target` what it should be, both in words with units; `reached` is the number.
    """

    figure: str
    target: str
    reached: str
    holds: bool | None
