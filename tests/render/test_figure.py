"""Ticks, colours and limits: what both backends rely on."""

import csv
import math

import numpy as np
import pytest

from scaling.render.figure import (
    DARK,
    LIGHT,
    Axis,
    Band,
    ColorScale,
    Figure,
    Line,
    Markers,
    ReferenceLine,
    Text,
    ticks,
)


@pytest.mark.parametrize(
    ("low", "high", "log", "unit", "labels"),
    [
        (1e11, 1e14, True, "flops", ["10¹¹", "10¹²", "10¹³", "10¹⁴"]),
        (4e3, 5e5, True, "count", ["10k", "30k", "100k", "300k"]),
        (1.5, 5.2, True, "number", ["2", "3", "4", "5"]),
        (1.9, 2.3, True, "number", ["1.9", "2", "2.1", "2.2", "2.3"]),
        (-0.012, 0.012, False, "number", ["−0.01", "−0.005", "0", "0.005", "0.01"]),
        (2.7, 9.5, True, "number", ["3", "4", "5", "6", "7", "8", "9"]),
        (3.0, 15.0, True, "number", ["3", "4", "6", "8", "10"]),
        (1e6, 1e26, True, "flops", ["10⁶", "10⁹", "10¹²", "10¹⁵", "10¹⁸", "10²¹", "10²⁴"]),
    ],
)
def test_ticks_are_few_and_round(low, high, log, unit, labels):
    values, shown = ticks(low, high, log, unit)
    assert shown == labels
    assert all(low <= value <= high * (1 + 1e-12) for value in values)


@pytest.mark.parametrize("most", [3, 4, 5, 6, 8])
@pytest.mark.parametrize("decades", [0.05, 0.3, 0.7, 1.3, 2.2, 5.4, 21.0])
def test_a_log_axis_has_at_least_two_and_at_most_as_many_ticks_as_it_can_hold(decades, most):
    for start in np.geomspace(2.1e3, 2.1e4, 7):
        values, _ = ticks(start, start * 10**decades, True, "flops", most)
        assert 2 <= len(values) <= most
        assert values == sorted(set(values))


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_every_line_colour_stands_out_from_its_background(theme):
    def luminance(colour):
        parts = [value / 255 for value in bytes.fromhex(colour[1:])]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one, two):
        high, low = sorted((luminance(one), luminance(two)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for colour in [*range(len(theme.palette)), "muted"]:
        assert contrast(theme.colour(colour), theme.background) >= 3, colour
    assert contrast(theme.ink, theme.background) >= 7
    ramp = [luminance(theme.colour(step / 8)) for step in range(9)]
    assert ramp == sorted(ramp), "an ordered scale must be ordered in grey too"
    assert min(contrast(theme.colour(step / 8), theme.background) for step in range(9)) > 1.6


def test_limits_hold_all_traces_and_ignore_what_a_log_axis_cannot_show():
    traces = (
        Line([1, 10], [2.0, 3.0]),
        Band([1, 100], [0.0, 1.0], [4.0, 5.0]),
        Markers([5], [9.0], lo=[8.0], hi=[11.0]),
    )
    figure = Figure("x", "", "", Axis("x", log=True), Axis("y", log=True), traces)
    (x_low, x_high), (y_low, y_high) = figure.limits()
    assert 0 < x_low < 1 < 100 < x_high
    assert 0 < y_low < 1 < 11 < y_high < 13


@pytest.mark.parametrize(("x", "anchor"), [(1.0, "right"), (100.0, "left")])
def test_an_axis_makes_way_for_words_at_its_ends(x, anchor):
    word = Text(x, 1.0, "2.95e21", 0, anchor)
    figure = Figure("x", "", "", Axis("x", log=True), Axis("y"), (Line([1, 100], [1, 2]), word))
    low, high = np.log10(figure.limits(letter=0.03)[0])
    end = high - 2 if anchor == "left" else -low
    assert end / (high - low) >= 0.03 * len("2.95e21")


def test_labels_of_reference_lines_stand_in_rows_on_the_side_with_place():
    rules = [ReferenceLine(x=1.2, label="largest"), ReferenceLine(x=90.0, label="largest")]
    figure = Figure("x", "", "", Axis("x", True), Axis("y"), (Line([1, 100], [1, 2]), *rules))
    first, second = (trace for trace in figure.drawn() if isinstance(trace, Text))
    assert (first.anchor, second.anchor) == ("left", "right")
    assert first.x > 1.2
    assert second.x < 90.0
    assert second.y < first.y < figure.limits()[1][1], "in rows from the top"


def test_lines_of_several_colours_differ_in_dashes_and_in_marks_where_dashes_mean_something():
    def drawn(*traces):
        return Figure("x", "", "", Axis("x"), Axis("y"), traces).drawn()

    one, two, three = (Line([1, 2], [1, 2], "", colour) for colour in (0, 1, 2))
    scale = Line([1, 2], [1, 2], "", 0.0)
    assert [line.dash for line in drawn(one, two, scale)] == ["solid", "longdash", "solid"]
    (alone,) = drawn(one)
    assert (alone.dash, alone.mark) == ("solid", None)
    lines = drawn(one, two, three, Line([1, 2], [1, 2], "", 2, "dash"))
    assert [line.dash for line in lines] == ["solid", "solid", "solid", "dash"]
    assert [line.mark for line in lines] == ["circle", "square", "up", "up"]
    dots = drawn(one, two, Markers([1], [1], colour=1), Markers([1], [1], "", 1, "star"))[2:]
    assert [each.mark for each in dots] == ["square", None]


def test_table_of_a_figure_names_every_trace_and_says_what_colours_stand_for():
    scale = ColorScale.of([1e18, 1e20], "budget", "flops")
    traces = (
        Line([1, 2], [3, 4], "", scale.at(1e18), note="law"),
        Markers([1, 2], [3, 4], "", scale.at(np.array([1e19, 1e20])), name="runs"),
        Band([1, 2], [1, 2], [3, 4], name="interval"),
        ReferenceLine(x=1.5, label="edge"),
        Text(1.2, 3.3, "1e18", scale.at(1e18)),
    )
    text = Figure("x", "", "", Axis("x"), Axis("y"), traces, scale).to_csv()
    rows = list(csv.DictReader(text.splitlines()))
    names = [row["trace"] for row in rows]
    assert names == ["law"] * 2 + ["runs"] * 2 + ["interval"] * 2 + ["edge", "1e18"]
    budgets = [float(row["budget"]) for row in rows if row["budget"]]
    assert budgets == pytest.approx([1e18, 1e18, 1e19, 1e20, 1e18])
    assert (rows[6]["x"], rows[6]["y"]) == ("1.5", "")


def test_single_point_has_a_margin():
    figure = Figure("x", "", "", Axis("x", log=True), Axis("y"), (Markers([5.0], [7.0]),))
    for low, high in figure.limits():
        assert low < high
        assert all(math.isfinite(value) for value in (low, high))
        assert len(ticks(low, high, False)[0]) >= 2
    assert np.all(np.diff(ticks(*figure.limits()[0], True)[0]) > 0)


def test_times_double_and_percent_end_at_a_hundred():
    assert ticks(0.22, 4.5, True, "times") == (
        [0.25, 0.5, 1.0, 2.0, 4.0],
        ["×0.25", "×0.5", "×1", "×2", "×4"],
    )
    assert ticks(0.0, 190.0, False, "percent") == ([0.0, 50.0, 100.0], ["0", "50", "100"])
