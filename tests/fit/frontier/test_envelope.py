"""Approach 1: the winners along C, from evaluations or from final losses, and every reason to
refuse.
"""

import numpy as np

from scaling.fit.frontier.envelope import envelope
from scaling.fit.frontier.frontier import Cost
from scaling.fit.laws.laws import LAWS
from scaling.points.points import Points

LAW = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}


def runs(sizes=25, evaluations=40):
    """Loss curves of many sizes, each from 2 to 500 tokens per parameter."""
    n = np.repeat(np.geomspace(1e6, 1e9, sizes), evaluations)
    d = n * np.tile(np.geomspace(2, 500, evaluations), sizes)
    loss = LAW["E"] + LAW["A"] * n ** -LAW["alpha"] + LAW["B"] * d ** -LAW["beta"]
    return Points(loss, n, d, 6 * n * d, group=np.repeat(np.arange(sizes).astype(str), evaluations))


def test_envelope_of_curves_recovers_the_frontier():
    curves = runs()
    truth = LAWS["chinchilla"].frontier(LAW, Cost())
    last = np.arange(len(curves)) % 40 == 39
    estimate = envelope(curves.take(last), curves, resamples=200)
    assert abs(float(estimate.frontier.a - truth.a)) < 0.02
    assert abs(float(estimate.frontier.a + estimate.frontier.b) - 1) < 0.02
    np.testing.assert_allclose(estimate.frontier.n_star(1e19), truth.n_star(1e19), rtol=0.15)
    assert (
        np.quantile(estimate.draws.a, 0.05) < float(truth.a) < np.quantile(estimate.draws.a, 0.95)
    )


def test_final_losses_of_one_size_are_joined():
    estimate, truth = envelope(runs(), resamples=0), LAWS["chinchilla"].frontier(LAW, Cost())
    assert abs(float(estimate.frontier.a - truth.a)) < 0.03
    assert estimate.warnings[0].code == "final_losses_only"


def test_winners_at_the_edge_do_not_count():
    curves = runs()
    small = curves.take(curves.n < 4e6)
    estimate = envelope(small, small, resamples=0)
    largest = max((minimum.n_star for minimum in estimate.minima), default=0.0)
    assert largest < small.n.max() * 0.99
    assert all(minimum.flops < 1e18 for minimum in estimate.minima)


def test_unavailable_approach_has_a_reason():
    curves = runs()
    assert (
        "competes" in envelope(curves.take(curves.group == "3"), resamples=0).unavailable
        or envelope(curves.take(curves.group == "3")).unavailable
    )
    assert envelope(Points(curves.loss, n=curves.n)).unavailable == "the table lacks N, D or C"
