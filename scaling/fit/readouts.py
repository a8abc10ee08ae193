"""What a trunk says at the budgets of its branches without cooling down, as if each were a run: a fit without a cooldown.

The loss at the constant rate and of the averaged weights cost one evaluation a budget. They lie above the cooled losses, at
small horizons by as much as a valley is deep, but their exponents can be compared.
"""

from __future__ import annotations

import json

import pandas as pd

from scaling.errors import ScalingError

KINDS = ("constant", "averaged")


def as_runs(table: pd.DataFrame, kind: str, where: str) -> pd.DataFrame:
    """The rows of a results table in which each read-out is the final loss of a run of its own that ends there.

    Raises ScalingError where the runs hold none.
    """
    held_out = table[table["split"] == "val"]
    read = held_out.loc[held_out["metric"] == "constant_loss", ["run_id", "step"]]
    found = held_out[held_out["metric"] == f"{kind}_loss"].merge(read.drop_duplicates(), on=["run_id", "step"])
    if found.empty:
        remedy = "read-outs are made where budgets share a trunk" + (", with [evals] averaged = true" if kind == "averaged" else "")
        raise ScalingError(f"holds no {kind}-weights read-outs" if kind == "averaged" else "holds no constant-rate read-outs",
                           where=where, remedy=f"{remedy}: schedule wsd or constant, several budgets of a size")  # fmt: skip
    ends = [_ended(config, step) for config, step in zip(found["config"], found["step"], strict=True)]
    names = [f"{run_id}@{step}" for run_id, step in zip(found["run_id"], found["step"], strict=True)]
    return found.assign(run_id=names, metric="loss", config=ends)


def _ended(config: str, step: int) -> str:
    """The configuration of a run that ends at a step."""
    return json.dumps(json.loads(config) | {"n_steps": int(step)})
