"""lr*(N, D) and B*(N, D) from a grid whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from scaling.errors import ScalingError
from scaling.fit.pipeline import FitOptions
from tests.documents import fit

TRUE = {"lr_coef": 2.0, "lr_N": -0.7, "lr_D": 0.3, "B_coef": 0.6, "B_N": 0.0, "B_D": 0.57}


def grid(noise=3e-4, batches=True):
    """Runs over learning rates and batches at 16 pairs of N and D, off the
    optimum on both sides.
    """
    rng = np.random.default_rng(0)
    rows = []
    for n in (6e7, 1.2e8, 2.4e8, 5e8):
        for d in (2e9, 5e9, 1.2e10, 3e10):
            lr_best = TRUE["lr_coef"] * n ** TRUE["lr_N"] * d ** TRUE["lr_D"]
            b_best = TRUE["B_coef"] * d ** TRUE["B_D"]
            for lr in lr_best * 2.0 ** (np.arange(-4, 5) / 2 + 0.2):
                for b in b_best * 2.0 ** (np.arange(-4, 5) / 2 - 0.15) if batches else [b_best]:
                    away = np.log([lr / lr_best, b / b_best])
                    rise = 0.008 * away[0] ** 2 + 0.011 * away[1] ** 2 - 0.004 * away.prod()
                    loss = (1.7 + 420 / n**0.34 + 650 / d**0.3) * np.exp(rise)
                    rows.append((n, d, lr, b / 2048, loss * np.exp(noise * rng.normal())))
    return pd.DataFrame(rows, columns=["params", "tokens", "lr", "bsz", "val_loss"])


def test_powers_of_learning_rate_and_batch_are_recovered_with_intervals():
    options = FitOptions(law="hyper", columns="B=bsz [sequences of 2048]", bootstrap=200)
    document = fit([grid()], options)
    for name, value in TRUE.items():
        entry = document["params"][name]
        assert entry["lo"] <= value <= entry["hi"] or abs(entry["value"] - value) < 0.01, name
        if not name.endswith("coef"):
            assert abs(entry["value"] - value) < 0.02, name
    assert any(note.startswith("[recipe] batch_rule") for note in document["source"]["notes"])
    assert document["source"]["columns"]["LR"] == "lr"


def test_a_grid_of_learning_rates_alone_gives_them_alone():
    table = grid(batches=False).drop(columns="bsz")
    document = fit([table], FitOptions(law="hyper", bootstrap=0))
    assert set(document["params"]) == {"lr_coef", "lr_N", "lr_D"}
    assert abs(document["params"]["lr_N"]["value"] + 0.7) < 0.05


def test_a_table_without_a_grid_is_refused():
    table = grid().drop_duplicates(["params", "tokens"])
    with pytest.raises(ScalingError, match="three learning rates or batches"):
        fit([table], FitOptions(law="hyper", columns="B=bsz"))
    with pytest.raises(ScalingError, match="no column of learning rates"):
        fit([table.drop(columns=["lr", "bsz"])], FitOptions(law="hyper"))
