"""The true floor of a synthetic language with the fitted E: the one case where it is known
how wrong a fit is.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from scaling.fit.diagnostics.results import KnownEntropy
from scaling.fit.document import Estimate


def known_entropy(runs: pd.DataFrame | None, fitted: Estimate | None) -> KnownEntropy | None:
    """The language that all `runs` learn (one row each, `config` as a dictionary) with the `fitted`
    E; None without E, for text, for simulated losses, and for tables that are none of this
    program's.

    `entropy`, in nats per token, is the lowest loss on average over all windows, H(K) / period:
    windows begin and end with whole facts but for the first symbol, which one fact lends the other.
    `floor` is what an ideal predictor loses on the very windows that the runs were measured on; it
    differs by chance, and is None where runs were measured on different windows. `covers` says
    whether the interval of E holds the floor (the entropy where the floor is not known).
    """
    if runs is None or not len(runs) or fitted is None or fitted.value is None:
        return None
    configs = list(runs["config"])
    if any(config["task"]["kind"] != "synthetic" or config.get("simulated") for config in configs):
        return None
    from scaling.config import SyntheticTask
    from scaling.config.resolve_execution import EVAL_SEQUENCES
    from scaling.tasks import fixed_batches, open_task
    from scaling.tasks.synthetic import Synthetic

    windows = {
        json.dumps([config["task"], config["evals"]["tokens"]], sort_keys=True)
        for config in configs
    }
    task = open_task(SyntheticTask.model_validate(configs[0]["task"]))
    assert isinstance(task, Synthetic)
    floor = None
    if len(windows) == 1:
        batches = fixed_batches(task, EVAL_SEQUENCES, configs[0]["evals"]["tokens"])
        floor = float(np.concatenate([task.ideal_loss(batch) for batch in batches]).mean())
    value, low, high, entropy = fitted.value, fitted.lo, fitted.hi, task.entropy
    aim = entropy if floor is None else floor
    return KnownEntropy(
        entropy=entropy,
        floor=floor,
        fitted_E=value,
        lo=low,
        hi=high,
        difference_percent=100 * (value / entropy - 1),
        floor_difference_percent=None if floor is None else 100 * (value / floor - 1),
        covers=None if low is None or high is None else bool(low <= aim <= high),
    )
