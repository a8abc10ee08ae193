"""The tables that a prediction has of serving and of smaller models."""

from scaling.predict.predict import predict
from scaling.report.parts.prediction_tables import demand, smaller


def test_a_prediction_without_these_has_no_tables():
    plain = predict("published:besiroglu2024", flops=1e20)
    assert demand(plain) is None
    assert smaller(plain.smaller) is None
