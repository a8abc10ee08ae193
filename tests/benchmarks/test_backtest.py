"""The backtest runs on a table of one's own, and its summary has a row for each method."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import backtest
from scaling.points.source import read_source

pytestmark = pytest.mark.slow


def test_a_table_of_ones_own_is_cut_and_scored():
    random = np.random.default_rng(0)
    budgets = np.repeat(np.geomspace(1e18, 3e19, 4), 6)
    n = np.sqrt(budgets / 120) * np.tile(np.geomspace(0.3, 3, 6), 4)
    d = budgets / (6 * n)
    loss = (1.7 + 400 / n**0.34 + 410 / d**0.28) * np.exp(0.003 * random.standard_normal(24))
    table = pd.DataFrame({"params": n, "tokens": d, "loss": loss})
    points = read_source([table], backtest.SourceOptions(inputs=("N", "D"))).points
    scores = backtest.backtest({"own": points})
    for quantity in backtest.QUANTITIES:
        of_table = scores[quantity]["combination"]["own"]
        assert of_table
        assert max(np.abs(score.error).max() for score in of_table) < np.log(3)
    assert "combination" in "\n".join(backtest.summary(scores))
