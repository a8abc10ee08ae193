"""Seeds: the noise that replicates show, and whether the law misses more than that."""

import numpy as np
import pytest

from scaling.fit.dataset import Dataset
from scaling.fit.estimate import estimate
from scaling.fit.fit_options import FitOptions
from scaling.fit.laws.laws import LAWS
from scaling.fit.noise import noise_result, noise_warnings, seed_noise
from scaling.points.points import Points
from tests.documents import fit

TRUTH = {"E": 1.8, "A": 480.0, "B": 2000.0, "alpha": 0.34, "beta": 0.36}
CHINCHILLA = LAWS["chinchilla"]


def sweep(sd=0.005, seeds=3, bend=0.0, seed=0):
    """A grid of sizes and tokens with replicates; `bend` makes the law wrong."""
    n, d = (
        axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6))
    )
    cell = np.repeat(np.arange(len(n)), seeds)
    n, d = n[cell], d[cell]
    log_loss = CHINCHILLA.log_predict(CHINCHILLA.theta(TRUTH), {"N": n, "D": d}) + bend * np.sin(
        2 * np.log(n)
    ) * np.cos(np.log(d))
    return Points(
        np.exp(log_loss + sd * np.random.default_rng(seed).standard_normal(len(n))),
        n,
        d,
        6 * n * d,
        cell=cell,
    )


def noise_of(points):
    fit = estimate(CHINCHILLA, points)
    return noise_result(fit.data, fit.residuals, fit.noise, fit.n_free, 0.95)


def test_the_noise_of_seeds_lies_within_its_interval():
    replicates = [Dataset(sweep(seed=seed)).replicates for seed in range(60)]
    noise = [seed_noise(each, 0.9) for each in replicates]
    assert np.mean([sd for sd, _, _ in noise]) == pytest.approx(0.005, rel=0.03)
    assert 0.78 <= np.mean([lo <= 0.005 <= hi for _, lo, hi in noise]) <= 1.0
    assert {(each.cells, each.freedom) for each in replicates} == {(36, 72)}


def test_without_replicates_the_noise_is_that_of_the_residuals():
    points = sweep(seeds=1)
    assert Dataset(points).replicates is None
    result = [noise_of(sweep(seeds=1, seed=seed)) for seed in range(12)]
    assert np.mean([each.sd for each in result]) == pytest.approx(0.005, rel=0.2)
    assert all(
        each.basis == "residuals" and each.lack_of_fit is None and not noise_warnings(each)
        for each in result
    )


def test_a_wrong_law_is_distinguished_from_noise():
    for bend, wrong in ((0.0, False), (0.01, True)):
        points = sweep(bend=bend)
        result = noise_of(points)
        assert result.sd == pytest.approx(0.005, rel=0.25)
        assert bool(noise_warnings(result)) == wrong
    assert noise_warnings(result)[0].code == "lack_of_fit"


@pytest.mark.slow
def test_foreign_table_with_a_seed_column_has_replicates(tmp_path):
    points = sweep(seeds=2)
    rows = zip(points.n, points.d, points.loss, np.tile([0, 1], len(points) // 2), strict=True)
    text = "\n".join(
        [
            "params,tokens,loss,seed",
            *(f"{n:.6g},{d:.6g},{loss:.8g},{seed}" for n, d, loss, seed in rows),
        ]
    )
    (tmp_path / "runs.csv").write_text(text + "\n")
    noise = fit([tmp_path / "runs.csv"], FitOptions(bootstrap=0))["noise"]
    assert (noise["basis"], noise["cells"]) == ("seeds", 36)
    assert noise["sd"] == pytest.approx(0.005, rel=0.3)
