"""Estimation: certified numbers on published data, agreement of starts, and errors of what cannot
be known.
"""

import numpy as np
import pandas as pd
import pytest

from scaling.errors import ScalingError
from scaling.fit.bootstrap import bootstrap, resampled
from scaling.fit.estimate import estimate
from scaling.fit.laws.laws import LAWS
from scaling.fit.profile import profile
from scaling.points.points import Points
from tests.fit.laws.test_laws import TRUTH, surface

CHINCHILLA = LAWS["chinchilla"]


def besiroglu(folder):
    """The 240 points of Besiroglu 2024: the five highest losses left out."""
    table = pd.read_csv(folder / "epoch_chinchilla" / "svg_extracted_data.csv")
    table = table[table["loss"] < table["loss"].nlargest(5).iloc[-1]]
    n, c = table["Model Size"].to_numpy(), table["Training FLOP"].to_numpy()
    return Points(loss=table["loss"].to_numpy(), n=n, d=c / (6 * n), c=c)


def takano(folder):
    table = pd.read_csv(folder / "kyo_takano" / "df.csv").astype(float)
    return Points(
        loss=table["loss"].to_numpy(),
        n=table["N"].to_numpy(),
        d=table["D"].to_numpy(),
        c=table["C"].to_numpy(),
    )


CERTIFIED = [
    (
        besiroglu,
        "huber-log",
        1.0182740178e-3,
        1e-9,
        {"E": 1.817218, "A": 477.826, "B": 2143.417, "alpha": 0.347310, "beta": 0.367172},
    ),
    (
        besiroglu,
        "lad-log",
        None,
        None,
        {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
    ),
    (
        takano,
        "huber-log",
        8.400931e-4,
        1e-6,
        {"E": 1.78389, "A": 442.164, "B": 1271.81, "alpha": 0.342626, "beta": 0.342002},
    ),
    (
        takano,
        "mse",
        0.04634289,
        1e-6,
        {"E": 1.80911, "A": 475.367, "B": 1798.85, "alpha": 0.347047, "beta": 0.358764},
    ),
]


@pytest.mark.parametrize(("data", "objective", "value", "digits", "params"), CERTIFIED)
def test_certified_optima(shared_data, data, objective, value, digits, params):
    fitted = estimate(CHINCHILLA, data(shared_data), objective)
    if value:
        assert fitted.value == pytest.approx(value, rel=digits)
    assert fitted.values == {
        name: pytest.approx(each, rel=3e-4 if objective == "lad-log" else 3e-6)
        for name, each in params.items()
    }
    assert fitted.status == "ok"
    assert fitted.starts.agree == fitted.starts.tried


def test_certified_bootstrap(shared_data):
    points = besiroglu(shared_data)
    draws = bootstrap(estimate(CHINCHILLA, points), 4000)
    assert len(draws.theta) == 4000
    values = CHINCHILLA.values(draws.theta)
    spread = {"A": 124.5, "B": 1293, "E": 0.0257, "alpha": 0.0154, "beta": 0.0206}
    assert {name: each.std() for name, each in values.items()} == {
        name: pytest.approx(each, rel=0.08) for name, each in spread.items()
    }
    a = values["beta"] / (values["alpha"] + values["beta"])
    assert np.quantile(a, [0.025, 0.975]) == pytest.approx([0.480, 0.556], rel=0.012)


def test_the_profile_agrees_with_the_bootstrap_where_the_data_are_many(shared_data):
    fitted = profile(estimate(CHINCHILLA, besiroglu(shared_data)))
    assert all(each.identified for each in fitted.values())
    for name, (lo, hi) in {
        "E": (1.76, 1.86),
        "alpha": (0.318, 0.378),
        "beta": (0.327, 0.408),
    }.items():
        assert (fitted[name].lo, fitted[name].hi) == (
            pytest.approx(lo, rel=0.08),
            pytest.approx(hi, rel=0.08),
        )


def test_weights_are_repeated_points():
    points = surface(CHINCHILLA, noise=0.01)
    twice = np.r_[np.arange(len(points)), np.arange(10)]
    weight = np.ones(len(points))
    weight[:10] = 2.0
    weighted = estimate(
        CHINCHILLA, Points(loss=points.loss, n=points.n, d=points.d, c=points.c, weight=weight)
    )
    assert estimate(CHINCHILLA, points.take(twice)).values == {
        name: pytest.approx(v, rel=1e-6) for name, v in weighted.values.items()
    }


def test_resamples_keep_clusters_together_and_repeat_with_their_seed():
    counts = resampled(50, np.array([0, 0, 1, 1, 1, 2]), np.random.default_rng(1))
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 2] == counts[:, 4]).all()
    assert (counts[:, [0, 2, 5]].sum(1) == 3).all()
    points = surface(CHINCHILLA, noise=0.01)
    fitted = estimate(CHINCHILLA, points)
    one, two = (bootstrap(fitted, 20, seed=5).theta for _ in range(2))
    assert (one == two).all()


def test_one_ratio_of_tokens_to_parameters_is_not_identified():
    n = np.geomspace(1e7, 1e10, 30)
    truth = CHINCHILLA.theta(TRUTH["chinchilla"])
    points = Points(
        loss=np.exp(CHINCHILLA.log_predict(truth, {"N": n, "D": 20 * n})), n=n, d=20 * n
    )
    fitted = estimate(CHINCHILLA, points)
    assert fitted.status == "not-identified"
    assert fitted.warnings[0].code == "one_ratio"


def table(n, d, loss):
    return Points(loss=np.array(loss, float), n=np.array(n, float), d=np.array(d, float))


REFUSED = [
    (table([1e6] * 8, np.geomspace(1e7, 1e9, 8), np.linspace(4, 3, 8)), "N takes 1 distinct value"),
    (table(np.geomspace(1e6, 1e8, 8), [1e7] * 8, np.linspace(4, 3, 8)), "D takes 1 distinct value"),
    (table([1e6, 2e6], [1e7, 2e7], [3, 2.9]), "2 points"),
    (table([1e6, 2e6, 3e6] * 4, [1e7, 2e7, 3e7] * 4, [3, 2.9, 2.8] * 4), "3 distinct points"),
    (
        table(np.geomspace(1e6, 1e8, 8), np.geomspace(1e7, 1e9, 8), [3, 2, -1, 2, 2, 2, 2, 2]),
        "loss is not finite and positive in 1 of 8",
    ),
    (
        table(np.geomspace(1e6, 1e8, 8), [1e7] * 7 + [np.nan], np.linspace(4, 3, 8)),
        "D is not finite",
    ),
]


@pytest.mark.parametrize(("points", "words"), REFUSED)
def test_unidentifiable_tables_are_rejected(points, words):
    with pytest.raises(ScalingError, match=words) as caught:
        estimate(CHINCHILLA, points)
    assert caught.value.remedy
