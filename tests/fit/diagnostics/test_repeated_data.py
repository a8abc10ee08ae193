"""D' of repeated runs: recovered from simulated runs whose D' is known, with every way of not
knowing it said.
"""

import numpy as np
import pytest

from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics.repeated_data import (
    effective_epochs,
    fresh_curve,
    repeat_warning,
    repeated_runs,
)
from scaling.points.points import Points

R_D, UNIQUE, EPOCHS = 6.0, 65_536.0, (2, 4, 8, 16)


def loss_of(n, d):
    return 0.6 + 30 / n**0.4 + 60 / d**0.35


def runs(
    sizes=(15e3, 31e3, 60e3),
    seeds=1,
    noise=0.0,
    uniques=(UNIQUE,),
    epochs=EPOCHS,
    fresh=(1, 2, 4, 8, 16),
):
    """Repeated runs whose loss is that of D' fresh tokens, and fresh ones."""
    amounts = sorted({unique * each for unique in uniques for each in fresh})
    cells = [(n, d, d, d) for n in sizes for d in amounts]
    cells += [
        (n, u * e, u, u * float(effective_epochs(e, R_D)))
        for n in sizes
        for u in uniques
        for e in epochs
    ]
    n, d, u, effective = np.repeat(np.array(cells), seeds, axis=0).T
    loss = loss_of(n, effective) * np.exp(np.random.default_rng(0).normal(0, noise, len(n)))
    return Points(
        loss=loss,
        n=n,
        d=d,
        c=6 * n * d,
        others={"U": u},
        cell=np.repeat(np.arange(len(cells)), seeds),
    )


def test_effective_tokens_are_read_off_the_fresh_runs():
    result = repeated_runs(Dataset(runs(uniques=(UNIQUE, 2 * UNIQUE))), 0.95)
    assert len(result) == 3 * 2 * 4
    for row in result:
        assert row.ratio == pytest.approx(float(effective_epochs(row.epochs, R_D)), rel=0.01)
        assert row.effective_tokens == pytest.approx(row.ratio * row.unique_tokens)
        assert not row.extrapolated
        assert row.lo is None, "nothing is known of seeds"


def test_muennighoffs_equation():
    assert effective_epochs(1, 15.4) == 1.0
    assert effective_epochs(4, 15.3878) == pytest.approx(1 + 15.3878 * (1 - np.exp(-3 / 15.3878)))
    assert effective_epochs(1e9, 15.3878) == pytest.approx(16.3878)  # never more than U (1 + R_D)


def test_an_interval_comes_from_replicates_and_holds_the_truth():
    result = repeated_runs(Dataset(runs(seeds=3, noise=0.004)), 0.95)
    assert {row.runs for row in result} == {3}
    inside = [row.lo <= float(effective_epochs(row.epochs, R_D)) <= row.hi for row in result]
    assert np.mean(inside) >= 10 / 12
    assert all(row.lo < row.ratio < row.hi for row in result)


def test_overfit_runs_are_worth_less_and_extrapolation_is_marked():
    points = runs(sizes=(31e3,))
    worst = int(np.argmax(points.d / points.others["U"]))
    loss = points.loss.copy()
    loss[worst] = loss_of(31e3, UNIQUE / 3)  # worse than the fewest fresh tokens
    best = int(np.flatnonzero(np.isclose(points.d / points.others["U"], 8))[0])
    loss[best] = loss_of(31e3, UNIQUE * 40)
    by_epochs = {
        round(row.epochs): row
        for row in repeated_runs(
            Dataset(Points(loss, points.n, points.d, others=points.others)), 0.95
        )
    }
    assert by_epochs[16].extrapolated
    assert by_epochs[16].ratio < 0.6
    assert by_epochs[8].extrapolated
    assert by_epochs[8].ratio > 16
    assert not by_epochs[4].extrapolated


def test_a_size_without_fresh_runs_has_no_effective_tokens():
    points = runs(sizes=(15e3, 31e3))
    kept = points.take((points.n > 20e3) | (points.d > 1.01 * points.others["U"]))
    result = {(row.n_params, row.ratio is None) for row in repeated_runs(Dataset(kept), 0.95)}
    assert result == {(15e3, True), (31e3, False)}


def test_fresh_runs_that_do_not_fall_are_pooled():
    curve = fresh_curve(np.array([1e4, 2e4, 4e4, 8e4]), np.array([3.0, 2.5, 2.6, 2.2]))
    assert (np.diff(curve.log_loss) < 0).all()
    assert len(curve.log_d) == 3
    assert fresh_curve(np.array([1e4, 1e4]), np.array([3.0, 2.9])) is None
    assert (
        fresh_curve(np.array([1e4, 2e4]), np.array([2.9, 3.0])) is None
    )  # all one point: nothing falls


def test_without_repeats_the_document_has_no_field():
    plain = runs(epochs=())
    assert repeated_runs(Dataset(plain), 0.95) == []
    assert repeat_warning(Dataset(plain), "chinchilla") == []
    (warning,) = repeat_warning(Dataset(runs()), "chinchilla")
    assert (warning.code, warning.data) == ("repeated_data", {"runs": 12})
    assert repeat_warning(Dataset(runs()), "data-constrained") == []
