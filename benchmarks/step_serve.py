"""How every contestant of `steps.py` is timed: it gets ready, says so, and times a stretch of steps
for each line on stdin.

Standard library only, so that a contestant may live in any interpreter. All contestants of a cell
stand ready together and
take turns, so what else the machine does falls on all of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

STRETCH_SECONDS = 0.5


def seconds_per_step(take: Callable[[int], object]) -> float:
    """Seconds of one step over steps that fill STRETCH_SECONDS; `take(n)` takes n steps and returns
    when they are done.
    """
    count, spent = 0, 0.0
    while spent < STRETCH_SECONDS:
        some = 1 if count == 0 else max(1, int(STRETCH_SECONDS / 3 / (spent / count)))
        begun = time.perf_counter()
        take(some)
        spent += time.perf_counter() - begun
        count += some
    return spent / count


def serve(measure: Callable[[], float], facts: dict[str, Any]) -> None:
    """Print the facts, then one measurement for each line read: JSON, a line each."""
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)
