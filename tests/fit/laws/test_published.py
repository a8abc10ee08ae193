"""Published laws predict what their papers say."""

import numpy as np
import pytest

from scaling.errors import ScalingError
from scaling.fit.laws.published import PF_DAY, PUBLISHED, published
from tests.documents import predict


def test_hoffmann_unrounded():
    prediction = predict("published:hoffmann2022", flops="5.76e23")
    np.testing.assert_allclose(prediction["n_params"]["value"], 4.036e10, rtol=5e-4)
    np.testing.assert_allclose(prediction["tokens_per_param"]["value"], 58.9, rtol=1e-3)
    assert prediction["n_params"]["lo"] is None


def test_kaplan_optimum():
    entry = published("kaplan2020").frontier()
    np.testing.assert_allclose(entry.n_star(PF_DAY), 1.3e9, rtol=1e-9)
    np.testing.assert_allclose(
        entry.n_star(10 * PF_DAY) / entry.n_star(PF_DAY), 10**0.73, rtol=1e-9
    )
    np.testing.assert_allclose(entry.loss(PF_DAY), (3.1e8) ** 0.050, rtol=1e-9)
    np.testing.assert_allclose(
        predict("published:kaplan2020", loss=2.5)["flops"]["value"],
        3.1e8 * PF_DAY / 2.5**20,
        rtol=1e-6,
    )


def test_devries_table():
    """De Vries 2023: N and D at the optimum of a budget, and D at half and at 0.3 of that N for the
    same loss.
    """
    law, entry = PUBLISHED["devries2023"].values, published("devries2023").frontier()
    table = {
        2.21e19: (0.40e9, 9.22e9, 22.28e9, 63.20e9),
        1e23: (18.73e9, 889.63e9, 2149.02e9, 6095.86e9),
    }
    for flops, (n, d, d_half, d_third) in table.items():
        np.testing.assert_allclose((entry.n_star(flops), entry.d_star(flops)), (n, d), rtol=0.006)
        size = float(entry.n_star(flops))
        gap = (
            law["A"] * size ** -law["alpha"] + law["B"] * float(entry.d_star(flops)) ** -law["beta"]
        )
        for part, tokens in ((0.5, d_half), (0.3, d_third)):
            needed = ((gap - law["A"] * (part * size) ** -law["alpha"]) / law["B"]) ** (
                -1 / law["beta"]
            )
            np.testing.assert_allclose(needed, tokens, rtol=0.006)


def test_sardana_inference_demand():
    """13B quality, 2e12 tokens served: 6.97e9 parameters on 1.25e12 tokens save 17.4 %; without
    demand nothing moves.
    """
    entry = published("devries2023").frontier()
    flops = float(np.exp((np.log(13e9) - entry.log_n) / entry.a))
    prediction = predict("published:devries2023", flops=flops, inference_tokens="2T")["inference"]
    optimum = prediction["n_params"], prediction["tokens"]
    np.testing.assert_allclose(optimum, (6.97e9, 1.25e12), rtol=0.003)
    assert abs(prediction["saved_fraction"] - 0.174) < 0.001
    np.testing.assert_allclose(
        predict("published:devries2023", flops=flops, inference_tokens=1)["inference"]["n_params"],
        13e9,
        rtol=1e-6,
    )


def test_unknown_name_lists_the_known():
    with pytest.raises(ScalingError, match=r"unknown'\n.*known: besiroglu2024"):
        published("unknown")


def test_every_entry_has_a_reference_and_positive_numbers():
    for name, entry in PUBLISHED.items():
        assert len(entry.reference) > 20, name
        assert entry.convention, name
        signed = entry.law == "farseer"  # its exponents of exponents
        assert signed or all(value > 0 for value in entry.values.values()), name
