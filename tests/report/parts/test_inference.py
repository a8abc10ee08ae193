"""The price of a smaller model in the report of a fit, and the tables that a prediction has of
serving.
"""

from scaling.report.parts.inference import decoding, demand, price, served, smaller
from tests.documents import dump


def test_fit_reports_the_overhead_of_smaller_models_at_its_largest_budget(document, tmp_path):
    dump(document, tmp_path / "fit.json")
    table = price(document, tmp_path / "fit.json")
    assert [row[0] for row in table.rows] == ["0.75", "0.5", "0.3"]
    extra = [row[4][0] for row in table.rows]
    assert 0 < extra[0] < extra[1] < extra[2]
    assert "No number of tokens" in table.caption


def test_a_law_without_equal_losses_has_no_price(document, tmp_path):
    powers = {
        "law": "power",
        "params": {name: document["params"][name] for name in ("E", "A", "alpha")},
    }
    dump({**document, **powers, "bootstrap": None}, tmp_path / "fit.json")
    assert price(document, tmp_path / "fit.json") is None
    assert price(document, None) is None


def test_a_prediction_without_these_has_no_tables():
    assert [table({}) for table in (demand, served, decoding, smaller)] == [None] * 4
