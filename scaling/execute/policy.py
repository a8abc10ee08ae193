"""What a sweep does when a run fails, and how much it may spend."""

from __future__ import annotations

from dataclasses import dataclass

PASSING = ("died", "device")  # causes that may not come again: a killed process, a device or link error


@dataclass(frozen=True)
class Policy:
    """`retries` of a run whose worker died or whose device failed, from its checkpoint; the others are kept as failures.

    `max_flops` (model FLOPs trained by this command) and `max_seconds` (of this command) end it with all states saved;
    `flops_before` and `seconds_before` were spent by the same command on another folder.
    """

    retries: int = 2
    fail_fast: bool = False
    max_flops: float | None = None
    max_seconds: float | None = None
    flops_before: float = 0.0
    seconds_before: float = 0.0

    def spent(self, flops: float, seconds: float) -> str:
        """Which budget is used up; empty while none is."""
        if self.max_flops is not None and self.flops_before + flops >= self.max_flops:
            return f"--max-flops {self.max_flops:.3g} is used up"
        if self.max_seconds is not None and self.seconds_before + seconds >= self.max_seconds:
            return f"--max-seconds {self.max_seconds:g} are over"
        return ""
