"""The runs that could be trained, and what they cost: alone, or as branches of a shared prefix.

With schedule `wsd` the runs of one size share a prefix up to their cooldowns, so a size with
horizons D1 < ... < Dk costs Dk + cooldown x (D1 + ... ) times its FLOPs a token. A prefix that was
trained before is gone: only new runs share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scaling import accounting, recipe
from scaling.config import NConvention, OptimConfig, Sweep
from scaling.errors import ScalingError
from scaling.fit.frontier.frontier import Cost
from scaling.predict.design.law_model import Runs

SIZES = 48
RATIOS = 17  # tokens per parameter that are tried, within those of the runs
# no run is cheaper than this part of the money: a hundred tiny runs would rest on the law being
# exact
CHEAPEST = 64
COOLDOWN = float(OptimConfig.model_fields["cooldown_frac"].default)
SCHEDULE = str(OptimConfig.model_fields["schedule"].default)


@dataclass(frozen=True)
class ModelBuilder:
    """How a results folder builds its models: its sweep, and the vocabulary and window of its runs;
    `params` is how the fit counts N.
    """

    sweep: Sweep
    vocab_size: int
    seq_len: int
    params: NConvention

    def optim(self, name: str, default: Any) -> Any:
        """What the sweep says of a field of [base.optim]."""
        given = getattr(self.sweep.base.optim, name)
        return default if given is None else given

    @property
    def schedule(self) -> str:
        """The learning-rate schedule of the sweep."""
        return str(self.optim("schedule", SCHEDULE))

    def size(self, n: float) -> tuple[int, float] | None:
        """(N, FLOPs a token, both exact) of the buildable model nearest to n; None where the recipe
        has none near it.
        """
        given: Any = self.sweep.base.model
        try:
            model = recipe.model_for(
                n,
                self.sweep.recipe,
                vocab_size=self.vocab_size,
                seq_len=self.seq_len,
                params=self.params,
                overrides=given.model_dump(exclude_none=True),
            )
        except recipe.InfeasibleCell:
            return None
        flops = accounting.train_flops(model, self.seq_len, 1, "exact")
        return accounting.n_params(model, self.seq_len, self.params), flops

    def horizon(self, n: float, tokens: float) -> tuple[int, int, int]:
        """(steps, tokens a step, warm-up steps): runs of one size share a prefix where the
        last two are equal.
        """
        base, rule = self.sweep.base, self.sweep.recipe
        batch = (base.batch_size or recipe.batch_size(n, tokens, self.seq_len, rule)) * self.seq_len
        steps = max(1, round(tokens / batch))
        warmup = self.optim("warmup_steps", recipe.warmup_steps(n, steps, batch, rule))
        return steps, batch, int(warmup)


def candidates(
    n: np.ndarray,
    d: np.ndarray,
    cost: Cost,
    spend: float,
    largest: float,
    builder: ModelBuilder | None,
    shared: bool,
) -> Runs:
    """Runs from the smallest size trained upwards, at the D/N of the runs: beyond it the law has
    not been seen to hold.

    `n`, `d` are those of the runs that the law was fitted to. Raises ScalingError when no run fits
    between spend / 64 and `largest`.
    """
    sizes = np.geomspace(n.min(), n.max() * 100, SIZES)
    if builder is None:
        models = list(zip(sizes, cost.flops(sizes, 1.0), strict=True))
    else:
        models = sorted({model for model in map(builder.size, sizes) if model})
    ratios = pd.DataFrame({"ratio": np.geomspace((d / n).min(), (d / n).max(), RATIOS)})
    runs = pd.DataFrame(models, columns=["n", "per_token"], dtype=float).merge(ratios, how="cross")
    runs["d"] = runs.n * runs.ratio
    price, lowest, highest = runs.d * runs.per_token, spend / CHEAPEST, min(spend, largest)
    runs = runs[(price >= lowest) & (price <= highest * (1 + 1e-9))]
    same_prefix = ["n"]
    if builder is not None and len(runs):
        horizons = [builder.horizon(*run) for run in zip(runs.n, runs.d, strict=True)]
        steps, batch, warmup = np.array(horizons).T
        runs = runs.assign(d=(steps * batch).astype(float), batch=batch, warmup=warmup)
        runs, same_prefix = runs[steps >= recipe.MIN_STEPS], ["n", "batch", "warmup"]
    if runs.empty:
        raise ScalingError(
            f"no run of a size that was trained costs between {lowest:.3g} and {highest:.3g} FLOPs",
            where="--budget",
            remedy="give a budget nearer to that of the runs",
        )
    return Runs(
        runs.n.to_numpy(),
        runs.d.to_numpy(),
        (runs.per_token * runs.d).to_numpy(),
        runs.groupby(same_prefix).ngroup().to_numpy() if shared else np.arange(len(runs)),
    )
