"""How many times the tokens one sweep needs for the losses of another, at equal N: `python -m
benchmarks.tokens_for_loss DIR OTHER`.

Runs of one size and seed are a curve of loss against tokens. Where the loss that OTHER reaches with
D tokens lies between two runs of DIR, the tokens that DIR needs for it are interpolated (log D), so
no law is assumed. A cell is one N and D, its seeds are averaged; the interval is Student's, over
cells, 95 %.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from scaling.store import run_files


def final_losses(folder: str) -> pd.Series:
    """The last held-out loss of each run, by N, D and seed."""
    rows = run_files.read_folder(Path(folder)).table.to_pandas()
    rows = rows[(rows["split"] == "val") & (rows["metric"] == "loss")].sort_values("step")
    ends = rows.drop_duplicates("run_id", keep="last")
    return ends.set_index(["n_params", "tokens", "seed"])["value"]


def token_ratios(base: pd.Series, other: pd.Series) -> pd.Series:
    """Tokens of `base` over those of `other` for the loss of `other`, by N, D and seed."""
    ratios = {}
    for (n, seed), runs in base.groupby(level=[0, 2]):
        curve = runs.droplevel([0, 2]).sort_index()
        for tokens in curve.index:
            loss = other.get((n, tokens, seed))
            if loss is not None and curve.min() <= loss <= curve.max():
                log_tokens = np.interp(-loss, -curve, np.log(curve.index.to_numpy(float)))
                ratios[n, tokens, seed] = np.exp(log_tokens) / tokens
    return pd.Series(ratios)


def main() -> None:
    """Print the mean difference of losses, and the ratio of tokens with its interval."""
    base, other = map(final_losses, sys.argv[1:3])
    differences = (base - other).dropna()
    low, high = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    print(
        f"loss lower by {differences.mean():.4f} [{low:.4f}, {high:.4f}], {len(differences)} pairs"
    )
    cells = np.log(token_ratios(base, other)).groupby(level=[0, 1]).mean()
    low, high = stats.t.interval(0.95, len(cells) - 1, cells.mean(), cells.sem())
    mean, low, high = np.exp([cells.mean(), low, high])
    print(
        f"tokens for the same loss at equal N: {mean:.3f} [{low:.3f}, {high:.3f}] times, ", end=""
    )
    print(f"{len(cells)} cells; by N:")
    print(np.exp(cells.groupby(level=0).mean()).to_string())


if __name__ == "__main__":
    main()
