"""Intervals of profiles where a law is hard to minimise, and where a parameter has any size."""

import numpy as np
import pytest

from scaling.fit.estimate import estimate
from scaling.fit.laws.laws import FARSEER_2025, LAWS
from scaling.fit.profile import profile
from scaling.points.points import Points

# where 2,500 steps from the published values end, with a damping of at least 1e-7
LOWER = {
    "s": -2.4407809e-05,
    "q": 0.54949092,
    "S": -0.18262543,
    "B": 182822.13,
    "b": -0.57979689,
    "Q": -0.11006677,
    "A": -25.390198,
    "a": 0.015655514,
    "E": 32.524047,
}


@pytest.mark.slow
def test_an_interval_leaves_out_no_place_where_the_objective_is_lower():
    law, noise = LAWS["farseer"], np.random.default_rng(1).normal(size=25)
    axes = np.geomspace(1e7, 1e8, 5), np.geomspace(1e9, 5e9, 5)
    n, d = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    loss = law.predict(law.theta(FARSEER_2025), {"N": n, "D": d}) * np.exp(0.01 * noise)
    fit = estimate(law, Points(loss, n, d), delta=None)
    assert fit.problem.penalty(fit.problem.centred(law.theta(LOWER))[None]) < fit.value
    for name, each in profile(fit).items():
        assert not each.identified, name
        assert each.lo is None or each.lo <= LOWER[name], name
        assert each.hi is None or each.hi >= LOWER[name], name


def test_the_break_of_a_power_law_has_an_interval_in_any_unit():
    law, c = LAWS["bnsl"], np.geomspace(1e17, 1e22, 20)
    theta = law.theta({"E": 1.0, "b": 60.0, "c0": 0.07, "c1": 0.1, "d": 3e19, "f": 0.3})
    noise = np.exp(0.003 * np.random.default_rng(0).normal(size=20))
    points = Points(law.predict(theta, {"C": c}) * noise, c=c)
    ends = []
    for unit in (1.0, 1e19):
        each = profile(estimate(law, Points(points.loss, c=c / unit), "mse-log"))["d"]
        assert each.identified
        ends.append([each.lo * unit, each.hi * unit])
    assert ends[0] == pytest.approx(ends[1], rel=1e-3)
    assert ends[0][0] < 3e19 < ends[0][1] < 2 * ends[0][0]


def test_a_refit_that_has_not_converged_below_the_rise_leaves_the_interval_closed():
    rows = [  # the seven held-out runs of Li et al. 2025 (Farseer): N, D, loss
        (2273495040.0, 430537310208.0, 0.4600584099831048),
        (2697992704.0, 430537310208.0, 0.4548075815344646),
        (3816352512.0, 453197168640.0, 0.4460747851747051),
        (6369572352.0, 304437264384.0, 0.4406577644428261),
        (25120768000.0, 125599744000.0, 0.4381460921911891),
        (5354047488.0, 215270162432.0, 0.4493814300408138),
        (5354047488.0, 430540062720.0, 0.4390641046993989),
    ]
    n, d, loss = np.array(rows).T
    alpha = profile(estimate(LAWS["chinchilla"], Points(loss, n, d), delta=None))["alpha"]
    assert (alpha.lo, alpha.hi) == pytest.approx((0.1375, 0.7318), rel=1e-2)
    assert alpha.identified
