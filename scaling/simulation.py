"""What is simulated is never taken for what was trained: a table holds runs of one origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from scaling.config import RunConfig
from scaling.errors import ScalingError


def check_not_mixed(configs: Iterable[RunConfig]) -> None:
    """Raise ScalingError where simulated runs stand beside real ones, or beside those of another simulated law."""
    origins = Counter(run.simulated for run in configs)
    if len(origins) < 2:
        return
    told = [f"{count:,} {f'simulated from {law}' if law else 'trained'}" for law, count in sorted(origins.items(), key=_real_first)]
    raise ScalingError(
        f"the table mixes runs of different origins: {', '.join(told)}",
        remedy="losses of a law and losses of a training do not compare: keep each simulation in a folder of its own (--out DIR)",
    )


def _real_first(origin: tuple[str | None, int]) -> str:
    return origin[0] or ""
