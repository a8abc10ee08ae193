"""Nested tables become dotted names; what is no table stays what it is."""

from scaling.formatting import flatten, format_percent


def test_leaves_have_dotted_names_in_order():
    nested = {"a": {"b": {"c": 1}, "none": None}, "list": [{"x": 1}], "empty": {}, 3: True}
    assert list(flatten(nested)) == [
        ("a.b.c", 1),
        ("a.none", None),
        ("list", [{"x": 1}]),
        ("3", True),
    ]
    assert list(flatten({"d": 2}, "before")) == [("before.d", 2)]
    assert list(flatten(7, "alone")) == [("alone", 7)]


def test_percent_has_no_exponent():
    shown = [format_percent(share) for share in (0.0052, 0.123, 0.9999, 1.74, 12.0, 0.0)]
    assert shown == ["0.52 %", "12 %", "100 %", "170 %", "1200 %", "0 %"]
