"""Figures for papers: `fit.plot` on axes of the user, the paper style, and published frontiers."""

import re
import warnings

import matplotlib
import matplotlib.style
import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from scaling.errors import ScalingError
from scaling.render import matplotlib_backend
from scaling.render.matplotlib_backend import PAPER_STYLE, Style
from scaling.report.fit_plots import FitPlots
from scaling.report.page import write_report
from tests.documents import as_fit, dump
from tests.report.conftest import BUDGETS


@pytest.mark.parametrize("name", ["isoflop", "frontier", "forecast", "law", "residuals"])
def test_each_plot_draws_on_the_given_axes_and_returns_them(document, name):
    canvas = Canvas()
    left, right = canvas.subplots(1, 2)
    assert getattr(FitPlots(as_fit(document)), name)(ax=right) is right
    assert right.get_xlabel()
    assert len(right.lines) + len(right.collections) > 0
    assert not left.lines


def test_six_plots_on_one_page_keep_their_size_and_no_legend_covers_data(document):
    names = ["isoflop", "frontier", "law", "residuals", "forecast"]
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("error")  # "axes sizes collapsed to zero"
        matplotlib.style.use(PAPER_STYLE)
        canvas = Canvas(figsize=(6.75, 4.6))
        axes = canvas.subplots(2, 3).flat
        for name, each in zip(names, axes, strict=False):
            getattr(FitPlots(as_fit(document)), name)(ax=each)
        canvas.draw_without_rendering()
    for each in axes:
        assert each.get_window_extent().width > 1.0 * canvas.dpi, "inches"
        legend = each.get_legend()
        if legend is None:
            continue
        box = legend.get_window_extent()
        for dots in each.collections:
            places = each.transData.transform(dots.get_offsets())
            assert not any(box.contains(*place) for place in places)
        for line in each.lines:
            if len(line.get_xdata()) > 2:
                assert not any(map(box.contains, *each.transData.transform(line.get_xydata()).T))


def test_lines_of_a_figure_differ_without_colour(document):
    axes = FitPlots(as_fit(document)).frontier(ax=Canvas().subplots())
    drawn = [line for line in axes.lines if line.get_label()[0] != "_"]
    looks = [(line.get_linestyle(), line._unscaled_dash_pattern[1]) for line in drawn]
    assert len(set(map(str, looks))) == len(drawn) == 4


def test_forecast_plot_ends_at_ten_times_the_largest_budget(document):
    axes = FitPlots(as_fit(document)).forecast(ax=Canvas().subplots())
    line = next(line for line in axes.lines if line.get_label().startswith("L*(C)"))
    assert line.get_xdata()[-1] == pytest.approx(10 * BUDGETS[-1])


def test_a_fit_without_a_law_of_n_and_d_has_no_contours(document):
    powers = {"a": 0.5, "n_coef": 0.2, "b": 0.5, "d_coef": 0.8}
    values = {name: {"value": v, "se": None, "lo": None, "hi": None} for name, v in powers.items()}
    fit = as_fit({**document, "approach": "isoflop", "params": values, "bootstrap": None})
    with pytest.raises(ScalingError, match="has no such figure"):
        FitPlots(fit).law(ax=Canvas().subplots())


@pytest.mark.slow
def test_paper_style_keeps_text_and_has_the_width_asked_for(document, tmp_path):
    dump(document, tmp_path / "fit.json")
    page = write_report(tmp_path / "fit.json", style=Style("paper", 3.0), models=True)
    figures = page.parent / "figures"
    svg = (figures / "isoflop-curves.svg").read_text()
    assert "parameters N (with head)</text>" in svg, "letters are text, not outlines"
    assert re.search(r'width="216pt"', svg), "3 inches of 72 points"
    pdf = (figures / "isoflop-curves.pdf").read_bytes()
    assert b"/Type3" not in pdf
    assert b"/TrueType" in pdf or b"/CIDFontType2" in pdf
    with Image.open(figures / "isoflop-curves.png") as image:
        assert image.width == 900, "300 dots per inch"
    assert "--models --style paper --width 3" in (page.parent / "report.md").read_text()


@pytest.mark.slow
def test_published_frontiers_stand_on_the_page_that_asks_for_them(document, tmp_path):
    dump(document, tmp_path / "fit.json")
    page = write_report(tmp_path / "fit.json", models=True)
    rows = (page.parent / "figures" / "models.csv").read_text().splitlines()
    assert any(row.startswith("besiroglu2024,line") for row in rows)
    names = (page.parent / "tables" / "models.csv").read_text()
    assert "Chinchilla 70B" in names
    assert "What does not: losses" in (page.parent / "report.md").read_text()


def test_paper_style_file_is_read_by_matplotlib():
    with matplotlib.rc_context(), np.errstate(all="raise"):
        matplotlib.style.use(PAPER_STYLE)
        assert matplotlib.rcParams["pdf.fonttype"] == 42
        assert matplotlib.rcParams["svg.fonttype"] == "none"
        assert matplotlib.rcParams["font.size"] == 9.0
        assert matplotlib.rcParams["savefig.dpi"] == 300
    assert matplotlib_backend.SCREEN.settings["savefig.dpi"] == 120
