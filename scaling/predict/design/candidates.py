"""The runs that could be trained, and what they cost: alone, or as branches of a shared prefix.

With schedule `wsd` the runs of one size share a prefix up to their cooldowns, so a size with
horizons D1 < ... < Dk costs Dk + cooldown x (D1 + ... ) times its FLOPs a token. A prefix that was
trained before is gone: only new runs share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling import accounting, recipe
from scaling.config import NConvention, OptimConfig, Sweep
from scaling.errors import ScalingError
from scaling.fit.frontier.frontier import Cost

SIZES = 48
RATIOS = 17  # tokens per parameter that are tried, within those of the runs
# no run is cheaper than this part of the money: a hundred tiny runs would rest on the law being
# exact
CHEAPEST = 64
COOLDOWN = float(OptimConfig.model_fields["cooldown_frac"].default)
SCHEDULE = str(OptimConfig.model_fields["schedule"].default)


@dataclass(frozen=True)
class Candidates:
    """Candidates: N, D and FLOPs alone (K,); `prefix` (K,) is equal where they share one.
    `cooldown` is a branch's share of its own cost.

    Where nothing is shared each candidate has a prefix of its own.
    """

    n: np.ndarray
    d: np.ndarray
    price: np.ndarray
    prefix: np.ndarray
    cooldown: float
    shared: bool


@dataclass(frozen=True)
class ModelBuilder:
    """How a results folder builds its models: its sweep, and the vocabulary and window of its runs;
    `params` is how the fit counts N.
    """

    sweep: Sweep
    vocab_size: int
    seq_len: int
    params: NConvention

    @property
    def schedule(self) -> str:
        """The learning-rate schedule of the sweep."""
        return self._optim.get("schedule", SCHEDULE)

    @property
    def cooldown(self) -> float:
        """The share of a horizon that its cooldown takes."""
        return float(self._optim.get("cooldown_frac", COOLDOWN))

    @property
    def _optim(self) -> dict[str, str]:
        optim = self.sweep.base.optim
        return dict(optim.model_dump(exclude_none=True))  # type: ignore[attr-defined]

    def size(self, n: float) -> tuple[int, float] | None:
        """(N, FLOPs a token, both exact) of the buildable model nearest to n; None where the recipe
        has none near it.
        """
        given = self.sweep.base.model
        overrides = given.model_dump(exclude_none=True)  # type: ignore[attr-defined]
        try:
            model = recipe.model_for(
                n,
                self.sweep.recipe,
                vocab_size=self.vocab_size,
                seq_len=self.seq_len,
                params=self.params,
                overrides=overrides,
            )
        except recipe.InfeasibleCell:
            return None
        return accounting.n_params(model, self.seq_len, self.params), accounting.train_flops(
            model, self.seq_len, 1, "exact"
        )

    def horizon(self, n: float, tokens: float) -> tuple[int, int, int]:
        """(steps, tokens a step, warm-up steps): runs of one size share a prefix where the
        last two are equal.
        """
        base, rule = self.sweep.base, self.sweep.recipe
        batch = (base.batch_size or recipe.batch_size(n, tokens, self.seq_len, rule)) * self.seq_len
        steps = max(1, round(tokens / batch))
        return (
            steps,
            batch,
            int(self._optim.get("warmup_steps", recipe.warmup_steps(n, steps, batch, rule))),
        )


def candidates(
    n: np.ndarray,
    d: np.ndarray,
    cost: Cost,
    spend: float,
    largest: float,
    builder: ModelBuilder | None,
    shared: bool,
) -> Candidates:
    """Runs from the smallest size trained upwards, at the D/N of the runs: beyond it the law has
    not been seen to hold.

    `n`, `d` are those of the runs that the law was fitted to. Raises ScalingError when no run fits
    between spend / 64 and `largest`.
    """
    sizes = np.geomspace(n.min(), n.max() * 100, SIZES)
    a_token = cost.flops(sizes, np.ones_like(sizes))
    if builder is not None:
        built = sorted({model for model in map(builder.size, sizes) if model})
        sizes, a_token = (
            (np.array(column, float) for column in zip(*built, strict=True))
            if built
            else (sizes[:0], a_token[:0])
        )
    ratios = np.geomspace((d / n).min(), (d / n).max(), RATIOS)
    all_n, price = np.repeat(sizes, RATIOS), np.repeat(a_token, RATIOS)
    all_d = all_n * np.tile(ratios, len(sizes))
    lowest = spend / CHEAPEST
    affordable = (all_d * price <= min(spend, largest) * (1 + 1e-9)) & (all_d * price >= lowest)
    all_n, all_d, price = all_n[affordable], all_d[affordable], price[affordable]
    if builder is not None and len(all_n):
        all_d, affordable, prefix = _whole_steps(builder, all_n, all_d)
        all_n, all_d, price, prefix = (
            all_n[affordable],
            all_d[affordable],
            price[affordable],
            prefix[affordable],
        )
    else:
        prefix = np.unique(all_n, return_inverse=True)[1]
    if not len(all_n):
        raise ScalingError(
            (
                f"no run of a size that was trained costs between {lowest:.3g} and "
                f"{min(spend, largest):.3g} FLOPs"
            ),
            where="--budget",
            remedy="give a budget nearer to that of the runs",
        )
    share = builder.cooldown if builder else COOLDOWN
    return Candidates(
        all_n, all_d, price * all_d, prefix if shared else np.arange(len(all_n)), share, shared
    )


def _whole_steps(
    builder: ModelBuilder, n: np.ndarray, d: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens in whole steps (K,), which of the runs are long enough to be trained, and a number for
    each prefix.
    """
    horizons = [builder.horizon(size, tokens) for size, tokens in zip(n, d, strict=True)]
    keys = np.array(
        [(size, batch, warmup) for size, (_, batch, warmup) in zip(n, horizons, strict=True)]
    )
    steps = np.array([(count, batch) for count, batch, _ in horizons], float)
    return (
        steps.prod(1),
        steps[:, 0] >= recipe.MIN_STEPS,
        np.unique(keys, axis=0, return_inverse=True)[1].ravel(),
    )
