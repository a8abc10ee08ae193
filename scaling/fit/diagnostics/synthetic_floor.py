"""The true floor of a synthetic language with the fitted E: the one case where it is known
how wrong a fit is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from scaling.config import SyntheticTask
from scaling.config.resolve_execution import EVAL_SEQUENCES
from scaling.fit.diagnostics.results import KnownEntropy
from scaling.fit.document import Estimate

Truth = Mapping[str, float]


def known_entropy(runs: pd.DataFrame | None) -> Truth | None:
    """{entropy, floor} in nats per token of the language that all `runs` learn (one row each,
    `config` as a dictionary).

    `entropy` is the lowest loss on average over all windows, H(K) / period: windows begin and end
    with whole facts but for the first symbol, which one fact lends the other. `floor` is what an
    ideal predictor loses on the very windows that the runs were measured on; it differs by chance,
    and is absent where runs were measured on different windows. None for text, for simulated
    losses, and for tables that are none of this program's.
    """
    if runs is None or not len(runs):
        return None
    configs = list(runs["config"])
    if any(config["task"]["kind"] != "synthetic" or config.get("simulated") for config in configs):
        return None
    windows = {
        json.dumps([config["task"], config["evals"]["tokens"]], sort_keys=True)
        for config in configs
    }
    config, tokens = configs[0]["task"], configs[0]["evals"]["tokens"]
    return _known(SyntheticTask.model_validate(config), tokens if len(windows) == 1 else None)


def _known(config: SyntheticTask, tokens: int | None) -> Truth:
    """The entropy, and the floor on the windows that `tokens` held-out tokens fill."""
    from scaling.tasks import fixed_batches, open_task
    from scaling.tasks.synthetic import Synthetic

    task = open_task(config)
    assert isinstance(task, Synthetic)
    if tokens is None:
        return {"entropy": task.entropy}
    losses = np.concatenate(
        [task.ideal_loss(batch) for batch in fixed_batches(task, EVAL_SEQUENCES, tokens)]
    )
    return {"entropy": task.entropy, "floor": float(losses.mean())}


def compare_floor(truth: Truth | None, fitted: Estimate | None) -> KnownEntropy | None:
    """Entropy and floor with the fitted E; None where either is missing.

    `difference_percent` is of E from the entropy, `floor_difference_percent` from the floor;
    `covers` whether the interval of E holds the floor (the entropy where the floor is not known),
    None without an interval.
    """
    if truth is None or fitted is None or fitted.value is None:
        return None
    value, low, high = fitted.value, fitted.lo, fitted.hi
    floor = truth.get("floor")
    aim = truth["entropy"] if floor is None else floor
    return KnownEntropy(
        entropy=truth["entropy"],
        floor=floor,
        fitted_E=value,
        lo=low,
        hi=high,
        difference_percent=_percent(value, truth["entropy"]),
        floor_difference_percent=None if floor is None else _percent(value, floor),
        covers=None if low is None or high is None else bool(low <= aim <= high),
    )


def _percent(value: float, truth: float) -> float:
    return 100.0 * (float(value) / truth - 1.0)
