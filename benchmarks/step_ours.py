"""Our own step as a contestant of `steps.py`: `python -m benchmarks.step_ours RUN [once]`, RUN a
`RunConfig` as JSON.

What is timed is `scaling.train.step_timing.seconds_per_step`: the compiled program with which
`scaling run` trains. With `once` it
prints how long the first step took after the imports, compilation or cache included, and ends.
"""

from __future__ import annotations

import json
import sys

from benchmarks.step_serve import serve
from scaling.config import RunConfig
from scaling.train.step_timing import seconds_per_step


def main() -> None:
    """Compile, then serve."""
    run = RunConfig.model_validate(json.loads(sys.argv[1]), strict=False)
    first, _ = seconds_per_step(run)
    if "once" in sys.argv[2:]:
        print(json.dumps(first))
    else:
        serve(lambda: seconds_per_step(run)[1], {"first_step_seconds": first})


if __name__ == "__main__":
    main()
