"""Tables of any shape end in a document or in an error: degenerate grids, copies, outliers, noise
without a law.
"""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from scaling.errors import ScalingError
from scaling.fit.fit_options import FitOptions
from scaling.fit.laws.laws import LAWS
from scaling.fit.laws.objectives import OBJECTIVES
from scaling.render.rich_table import page
from scaling.report.terminal import fit_parts
from tests.documents import as_fit, dump, fit, predict


def table(path, rng):
    """A random table, good or bad."""
    count = int(rng.choice([3, 6, 9, 20, 60]))
    n = 10 ** rng.uniform(5, 11, count)
    kind = rng.integers(0, 7)
    n = (
        np.full(count, 1e8)
        if kind == 0
        else 10 ** rng.choice([6.0, 7, 8, 9], count)
        if kind == 1
        else n
    )
    d = (
        20 * n
        if kind == 2
        else 10 ** rng.choice([18.0, 19, 20, 21], count) / (6 * n)
        if kind == 3
        else n * 10 ** rng.uniform(0, 3, count)
    )
    loss = (1.7 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(
        rng.normal(0, rng.choice([0, 1e-6, 0.003, 0.3]), count)
    )
    loss = rng.uniform(1, 5, count) if kind == 4 else np.full(count, 2.5) if kind == 5 else loss
    loss[rng.integers(count)] *= 100 if kind == 6 else 1
    columns = {"N": n, "D": d, "loss": loss} | (
        {"unique_tokens": d / 4} if rng.random() < 0.3 else {}
    )
    rows = list(zip(*(values.tolist() for values in columns.values()), strict=True))
    path.write_text(
        ",".join(columns) + "\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows)
    )


def answered(call):
    """The answer, or None for an error, which must say what to do."""
    try:
        return call()
    except ScalingError as error:
        if not error.remedy:
            raise
        return None


@pytest.mark.parametrize(
    "seed",
    [
        0,
        *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6)),
        *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(6, 24)),
    ],
)
def test_any_table_is_fitted_or_rejected(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / "runs.csv"
    table(path, rng)
    options = FitOptions(
        law=str(rng.choice(list(LAWS))),
        approach=str(rng.choice(["parametric", "parametric", "isoflop", "envelope"])),
        objective=str(rng.choice(list(OBJECTIVES))),
        bootstrap=int(rng.choice([0, 20])),
    )
    document = answered(lambda: fit([path], options))
    if document is None:
        return
    Console(file=io.StringIO()).print(page(*fit_parts(as_fit(document))))
    dump(document, tmp_path / "fit.json")
    for question in ({"flops": 1e22}, {"n_params": 1e9, "tokens": 1e10}, {"loss": 2.2}):
        json.dumps(
            answered(lambda asked=question: predict(str(tmp_path / "fit.json"), **asked)),
            allow_nan=False,
        )
