"""The price of a smaller model in the report of a fit, and the table that a prediction has of
serving.
"""

from scaling.predict.law_source import load_law
from scaling.predict.predict import predict
from scaling.report.parts.prediction_tables import demand, price, smaller
from tests.documents import as_fit
from tests.report.conftest import BUDGETS


def test_fit_reports_the_overhead_of_smaller_models_at_a_named_budget(document):
    table = price(load_law(as_fit(document)), 10 * BUDGETS[-1])
    assert [row[0] for row in table.rows] == [0.75, 0.5, 0.3]
    assert "the optimum of 1e14 FLOPs by the law chinchilla" in table.caption
    extra = [row[4][0] for row in table.rows]
    assert 0 < extra[0] < extra[1] < extra[2]
    assert "No number of tokens" in table.caption


def test_a_law_without_equal_losses_has_no_price(document):
    powers = {
        "law": "power",
        "params": {name: document["params"][name] for name in ("E", "A", "alpha")},
    }
    law = load_law(as_fit({**document, **powers, "bootstrap": None}))
    assert price(law, BUDGETS[-1]) is None
    assert price(None, BUDGETS[-1]) is None


def test_a_prediction_without_these_has_no_tables():
    plain = predict("published:besiroglu2024", flops=1e20)
    assert demand(plain) is None
    assert smaller(plain.smaller) is None
