"""What a figure is in numbers: its ticks, its colours, its limits, and the table of its points."""

import csv

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas

from scaling.render.figure import (
    INK,
    MUTED,
    PALETTE,
    Axis,
    Band,
    Figure,
    Line,
    Markers,
    ReferenceLine,
    Text,
)
from scaling.render.matplotlib_backend import colour_scale, draw_on, ticks


@pytest.mark.parametrize(
    ("low", "high", "log", "unit", "labels"),
    [
        (1e11, 1e14, True, "flops", ["10¹¹", "10¹²", "10¹³", "10¹⁴"]),
        (4e3, 5e5, True, "count", ["5k", "10k", "20k", "50k", "100k", "200k", "500k"]),
        (1.5, 5.2, True, "number", ["1.5", "2", "2.5", "3", "3.5", "4", "4.5", "5"]),
        (
            1.91,
            2.29,
            True,
            "number",
            ["1.95", "2", "2.05", "2.1", "2.15", "2.2", "2.25"],
        ),
        (-0.012, 0.012, False, "number", ["−0.01", "−0.005", "0", "0.005", "0.01"]),
        (1e6, 1e26, True, "flops", ["10¹⁰", "10¹⁵", "10²⁰", "10²⁵"]),
        (0.22, 4.5, True, "times", ["×0.25", "×0.5", "×1", "×2", "×4"]),
        (0.0, 190.0, False, "percent", ["0", "50", "100"]),
    ],
)
def test_ticks_are_few_and_round(low, high, log, unit, labels):
    values, shown = ticks(low, high, Axis("", log, unit), 8)
    assert shown == labels
    assert all(low <= value <= high * (1 + 1e-12) for value in values)


@pytest.mark.parametrize("most", [3, 4, 5, 6, 8])
@pytest.mark.parametrize("decades", [0.05, 0.3, 0.7, 1.3, 2.2, 5.4, 21.0])
def test_a_log_axis_has_about_as_many_ticks_as_it_can_hold(decades, most):
    for start in np.geomspace(2.1e3, 2.1e4, 7):
        values, _ = ticks(start, start * 10**decades, Axis("", True, "flops"), most)
        assert 1 <= len(values) <= most + 1
        assert values == sorted(set(values))


def test_every_line_colour_stands_out_from_the_background():
    def luminance(colour):
        parts = [value / 255 for value in bytes.fromhex(colour[1:])]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(colour):
        return 1.05 / (luminance(colour) + 0.05)

    assert min(contrast(colour) for colour in [*PALETTE, MUTED]) >= 3
    assert contrast(INK) >= 7
    values = np.geomspace(1, 100, 9)
    points = Figure("x", "", "", Axis("x"), Axis("y"), [Markers(values, values, "", values)])
    ramp = [to_hex(rgba) for rgba in colour_scale(points).to_rgba(values)]
    brightness = [luminance(colour) for colour in ramp]
    assert brightness == sorted(brightness), "an ordered scale must be ordered in grey too"
    assert min(map(contrast, ramp)) > 1.6


def drawn(*traces, log=False):
    figure = Figure("x", "", "", Axis("x", log), Axis("y", log), traces)
    return draw_on(Canvas().add_subplot(), figure)


def test_limits_hold_all_traces_and_ignore_what_a_log_axis_cannot_show():
    axes = drawn(
        Line([1, 10], [2.0, 3.0]),
        Band([1, 100], [0.0, 1.0], [4.0, 5.0]),
        Markers([5], [9.0], lo=[8.0], hi=[11.0]),
        log=True,
    )
    assert 0 < axes.get_xlim()[0] < 1 < 100 < axes.get_xlim()[1]
    assert 0 < axes.get_ylim()[0] < 1 < 11 < axes.get_ylim()[1] < 13


def test_lines_of_several_colours_differ_in_dashes_and_in_marks_where_dashes_mean_something():
    one, two, three = (Line([1, 2], [1, 2], "", colour) for colour in (0, 1, 2))
    scale = Line([1, 2], [1, 2], "", 0.0)
    assert [line.get_linestyle() for line in drawn(one, two, scale).lines] == ["-", "--", "-"]
    (alone,) = drawn(one).lines
    assert (alone.get_linestyle(), alone.get_marker()) == ("-", "None")
    lines = drawn(one, two, three, Line([1, 2], [1, 2], "", 2, "dash")).lines
    assert [line.get_linestyle() for line in lines] == ["-", "-", "-", "--"]
    assert [line.get_marker() for line in lines] == ["o", "s", "^", "^"]


def test_reference_lines_cross_the_picture_and_have_their_labels():
    axes = drawn(
        Line([1, 100], [1, 2]), ReferenceLine(x=9.0, label="largest"), ReferenceLine(y=1.5)
    )
    assert list(axes.lines[1].get_xdata()) == [9.0, 9.0]
    assert list(axes.lines[2].get_ydata()) == [1.5, 1.5]
    assert [word.get_text() for word in axes.texts] == ["largest", ""]


def test_table_of_a_figure_names_every_trace_and_says_what_colours_stand_for():
    traces = (
        Line([1, 2], [3, 4], "", 1e18, name="law"),
        Markers([1, 2], [3, 4], "", np.array([1e19, 1e20]), name="runs"),
        Band([1, 2], [1, 2], [3, 4], name="interval"),
        ReferenceLine(x=1.5, label="edge"),
        Text(1.2, 3.3, "1e18", 1e18),
    )
    text = Figure("x", "", "", Axis("x"), Axis("y"), traces, Axis("budget")).to_csv()
    rows = list(csv.DictReader(text.splitlines()))
    names = [row["trace"] for row in rows]
    assert names == ["law"] * 2 + ["runs"] * 2 + ["interval"] * 2 + ["edge", "1e18"]
    budgets = [float(row["budget"]) for row in rows if row["budget"]]
    assert budgets == pytest.approx([1e18, 1e18, 1e19, 1e20, 1e18])
    assert (rows[6]["x"], rows[6]["y"]) == ("1.5", "")


def test_a_single_point_is_drawn_with_a_margin():
    axes = drawn(Markers([5.0], [7.0]))
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        assert low < high
    assert len(axes.get_xticks()) >= 2
