"""What the models of a sweep's recipe cost, counted: a prediction lies beyond the runs, where the
power of N that their own FLOPs follow is off by a few per cent. A fit keeps the counts, so that it
predicts alike wherever its file goes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np

from scaling import accounting
from scaling.config.sweep_file import sweep_in
from scaling.errors import ScalingError
from scaling.fit.frontier.frontier import Cost, PlannedModels, fit_power
from scaling.points.points import Points
from scaling.recipe.shapes import MAX_WIDTHS, InfeasibleCell, shape

BELOW, BEYOND = 8.0, 1e4  # times the smallest and the largest size of the runs
WIDER = 1.05  # a width over the one before, at least
NEAR = math.log(4)  # of log N: models that say how the cost grows with N, steps of depth apart
ANOTHER = 0.05  # of log C: a recipe farther from the runs' own cost did not build them


def planned_cost(
    cost: Cost, points: Points, folders: Sequence[Path], task: Mapping[str, int]
) -> Cost:
    """The cost of the runs of some results folders with the counted models of their sweep's recipe,
    from below the smallest to far beyond the largest of their sizes; the cost itself where there is
    no sweep that can be read, or another recipe. `task` holds vocab_size and seq_len.
    """
    sweep = None
    with suppress(ScalingError):
        sweep = sweep_in(folders)
    if sweep is None or points.n is None or len(task) < 2 or cost == Cost():
        return cost
    vocab_size, seq_len = task["vocab_size"], task["seq_len"]
    params, flops = (cast(Any, points.convention[name]) for name in ("params", "flops"))
    sizes = float(points.n.min()), float(points.n.max())
    options: Any = sweep.base.model
    overrides, step = options.model_dump(exclude_none=True), 0
    counts: list[tuple[int, float]] = []
    while not counts or counts[-1][0] < BEYOND * sizes[1]:
        step = max(step + 1, round(WIDER * step))
        if step > MAX_WIDTHS:
            return cost
        try:
            model = shape(sweep.recipe.width_multiple * step, vocab_size, sweep.recipe, overrides)
        except InfeasibleCell:
            continue
        n = accounting.n_params(model, seq_len, params)
        if counts and n <= counts[-1][0]:
            return cost  # the sweep gives the width
        if n > sizes[0] / BELOW:
            counts.append((n, accounting.train_flops(model, seq_len, 1, flops)))
    log_n, log_flops = np.log(counts).T
    slopes = [
        float(fit_power(log_n[near], log_flops[near])[0])
        for near in (abs(log_n - each) <= NEAR for each in log_n)
    ]
    models = PlannedModels(log_n=tuple(log_n), log_flops=tuple(log_flops), p=tuple(slopes))
    planned = cost.model_copy(update={"planned": models})
    middle = math.sqrt(sizes[0] * sizes[1])
    is_same = abs(math.log(planned.flops(middle, 1.0) / cost.flops(middle, 1.0))) < ANOTHER
    return planned if is_same else cost
