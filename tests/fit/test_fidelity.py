"""Every command of docs/fidelity.md gives what the page says."""

import pytest

from benchmarks.fidelity import answer, arguments, at, claims, tolerance

pytestmark = pytest.mark.slow

CLAIMS = list(claims())


def test_fidelity_page_is_parsed():
    assert len(CLAIMS) > 10
    assert tolerance(".5146") == pytest.approx((0.5146, 0.00005), rel=1e-6)
    assert tolerance(".192 ± .005") == (0.192, 0.005)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.command[8:60])
def test_published_numbers(claim, request):
    data = request.getfixturevalue("shared_data") if "$DATA" in claim.command else None
    document = answer(arguments(claim, data))
    for key, text in claim.expected.items():
        value, margin = tolerance(text)
        assert abs(at(document, key) - value) <= margin, (
            f"{key} = {at(document, key)!r}, published {text}"
        )
