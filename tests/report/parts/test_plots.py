"""Every picture has finite data, the traces it promises, and is left out where there is nothing to
show.
"""

import copy

import numpy as np
import pytest
from matplotlib.text import Text as Letters

from scaling.points.run_tables import curves
from scaling.predict.law_source import load_law
from scaling.render.figure import Band, Line, Markers, ReferenceLine, Text
from scaling.render.matplotlib_backend import draw
from scaling.report.parts import fit_tables, isoflop_figure, law_plots, training
from scaling.store import run_files
from tests.documents import as_fit
from tests.report.conftest import BUDGETS, WIDTHS, law


def drawn_by(draw, document):
    """A figure of a fit and its law, made from the document."""
    fit = as_fit(document)
    return draw(fit, load_law(fit))


def kinds(figure, kind):
    return [trace for trace in figure.traces if isinstance(trace, kind)]


def pictures(document, folder):
    """Every figure of the report of a folder."""
    runs = training.training_curves(curves(run_files.load(folder)))
    of_law = (
        isoflop_figure.isoflop_curves,
        law_plots.frontier_size,
        law_plots.frontier_loss,
        law_plots.contours,
        law_plots.residuals,
    )
    return [
        runs,
        *(drawn_by(draw, document) for draw in of_law),
    ]


def test_all_figures_are_there_and_finite(document, results_folder):
    found = pictures(document, results_folder)
    assert all(figure is not None for figure in found)
    assert len({figure.name for figure in found}) == len(found) == 6
    for figure in found:
        for trace in figure.traces:
            for name in ("x", "y", "lo", "hi"):
                values = getattr(trace, name, None)
                assert values is None or np.isfinite(np.asarray(values, float)).all(), (
                    figure.name,
                    trace,
                )


def test_no_word_of_a_figure_is_cut(document, results_folder):
    for figure in pictures(document, results_folder):
        canvas = draw(figure)
        canvas.draw_without_rendering()
        for text in canvas.findobj(Letters):
            if text.get_text() and text.get_visible():
                box = text.get_window_extent()
                assert canvas.bbox.padded(1).contains(box.x0, box.y0), (figure.name, text)
                assert canvas.bbox.padded(1).contains(box.x1, box.y1), (figure.name, text)


def test_training_curves_are_one_line_a_run_over_the_lowest_of_them(results_folder):
    table = curves(run_files.load(results_folder))
    figure = training.training_curves(table)
    *runs, front = kinds(figure, Line)
    assert len(runs) == len(BUDGETS) * len(WIDTHS) == 30
    assert len({line.colour for line in runs}) == len(WIDTHS)
    log_c = np.log(front.x)
    for line in runs:
        at = np.interp(log_c, np.log(line.x), np.log(line.y), left=np.inf, right=np.inf)
        assert (np.log(front.y) <= at + 1e-12).all(), "no curve runs under the lowest one"
    assert min(front.y) == pytest.approx(table.loss.min(), rel=0.02)


def test_many_runs_are_thinned_and_the_caption_says_so(results_folder, monkeypatch):
    monkeypatch.setattr(training, "CURVES_SHOWN", 7)
    figure = training.training_curves(curves(run_files.load(results_folder)))
    lines = len(kinds(figure, Line)) - 1
    assert 10 <= lines <= 17, "seven of all sizes and the ten lowest"
    assert f"{lines} of 30 runs" in figure.caption


def test_isoflop_curves_and_residuals_are_thinned_and_say_so(document, monkeypatch):
    monkeypatch.setattr(isoflop_figure, "POINTS_SHOWN", 15)
    monkeypatch.setattr(law_plots, "POINTS_SHOWN", 10)
    isoflop = drawn_by(isoflop_figure.isoflop_curves, document)
    dots = [trace for trace in kinds(isoflop, Markers) if trace.symbol in ("circle", "open")]
    assert [len(trace.x) for trace in dots] == [3] * len(BUDGETS), (
        "the smallest and the largest size stay"
    )
    assert " 15 of 30 runs are drawn." in isoflop.caption
    many = {**document, "n_points": 12_345}  # of which the document keeps some
    for plot in (law_plots.residuals, law_plots.contours, law_plots.frontier_loss):
        figure = drawn_by(plot, many)
        assert figure.caption.endswith(" 10 of 12,345 runs are drawn.")
        assert max(len(trace.x) for trace in kinds(figure, Markers)) == 10
    whole = drawn_by(law_plots.residuals, document).caption
    monkeypatch.setattr(law_plots, "POINTS_SHOWN", 3)
    few = drawn_by(law_plots.residuals, document).caption
    assert few.split("wrong.")[0] == whole.split("wrong.")[0], "the error is that of all"


def test_isoflop_figure_shows_law_optima_and_answer(document):
    figure = drawn_by(isoflop_figure.isoflop_curves, document)
    optima, answer = (trace for trace in kinds(figure, Markers) if trace.symbol == "star")
    assert len(optima.x) == len(BUDGETS)
    best = drawn_by(law_plots.contours, document)
    frontier = next(line for line in kinds(best, Line) if line.label == "efficient frontier")
    at = np.interp(np.log(BUDGETS[1]), np.log(frontier.x), np.log(frontier.y))
    assert optima.x[1] == pytest.approx(np.exp(at), rel=1e-4)
    assert answer.label == "the answer at 1e14 FLOPs"
    assert answer.lo[0] < answer.y[0] < answer.hi[0]
    solid = [line for line in kinds(figure, Line) if line.width > 2]
    assert len(solid) == len(BUDGETS)
    for line, budget in zip(solid, BUDGETS, strict=True):
        np.testing.assert_allclose(line.y, law(line.x, budget / (6 * line.x)), rtol=1e-9)
    words = [word.text for word in kinds(figure, Text)]
    assert words == ["1e11", "3e11", "1e12", "3e12", "1e13"]


def test_budget_without_a_minimum_is_grey_and_named(document):
    figure = drawn_by(isoflop_figure.isoflop_curves, document)
    rings = [trace for trace in kinds(figure, Markers) if trace.symbol == "open"]
    assert [len(trace.x) for trace in rings] == [len(WIDTHS)]
    assert "1e11: the minimum lies at the edge" in figure.caption


def test_isoflop_curves_of_a_frontier_without_a_law_mark_their_own_minima(document):
    powers = {"a": 0.5, "n_coef": 0.2, "b": 0.5, "d_coef": 0.8}
    values = {name: {"value": v, "se": None, "lo": None, "hi": None} for name, v in powers.items()}
    changed = {**document, "approach": "isoflop", "params": values, "bootstrap": None}
    figure = drawn_by(isoflop_figure.isoflop_curves, changed)
    (stars,) = (trace for trace in kinds(figure, Markers) if trace.symbol == "star")
    assert len(stars.x) == len(BUDGETS) - 1
    assert "its minimum N*" in figure.caption


def test_frontier_figure_has_answer_three_approaches_and_the_20_tokens_line(document):
    figure = drawn_by(law_plots.frontier_size, document)
    labels = [line.label for line in kinds(figure, Line)]
    assert [label.split(" (")[0] for label in labels] == [
        "parametric",
        "isoFLOP",
        "envelope",
        "20 tokens per parameter",
    ]
    assert len(kinds(figure, Band)) == 1, "the interval of the answer"
    assert kinds(figure, ReferenceLine)[0].x == BUDGETS[-1]
    twenty = kinds(figure, Line)[-1]
    np.testing.assert_allclose(np.asarray(twenty.y) ** 2 * 20 * 6, twenty.x, rtol=1e-12)
    assert max(twenty.x) >= 10 * BUDGETS[-1]


def test_unavailable_approach_is_not_drawn(document):
    refused = copy.deepcopy(document)
    refused["approaches"]["envelope"] = {"unavailable": "two budgets only"}
    assert not any(
        line.label.startswith("envelope")
        for line in kinds(drawn_by(law_plots.frontier_size, refused), Line)
    )


def test_contours_lie_on_the_law_and_the_frontier_at_its_minimum(document):
    figure = drawn_by(law_plots.contours, document)
    levels = [line for line in kinds(figure, Line) if line.name]
    assert len(levels) >= 8
    for line in levels:
        n, c = np.asarray(line.y), np.asarray(line.x)
        np.testing.assert_allclose(law(n, c / (6 * n)), float(line.name.split()[1]), rtol=6e-3)
    frontier = next(line for line in kinds(figure, Line) if line.label == "efficient frontier")
    n, c = np.asarray(frontier.y), np.asarray(frontier.x)
    assert (
        law(n, c / (6 * n)) <= np.minimum(law(1.2 * n, c / (7.2 * n)), law(n / 1.2, c / (5 * n)))
    ).all()


def test_residuals_are_logs_of_measured_over_predicted(document):
    goodness = {"rmse_percent": 0.3314, "r2_excess": 0.99}
    figure = drawn_by(law_plots.residuals, {**document, "goodness": goodness})
    data = {name: np.array(values) for name, values in document["data"].items()}
    predicted = law(data["n_params"], data["tokens"])
    points = kinds(figure, Markers)[0]
    np.testing.assert_allclose(points.x, predicted, rtol=1e-9)
    expected = np.log(data["loss"] / predicted)
    np.testing.assert_allclose(points.y, expected, atol=1e-9)
    order = np.argsort(data["n_params"])
    assert (np.diff(points.colour[order]) >= 0).all(), "coloured by size"
    assert "errors 0.331 % root mean square" in figure.caption, "as the fit defines it"


def test_loss_frontier_touches_the_law(document):
    figure = drawn_by(law_plots.frontier_loss, document)
    line = kinds(figure, Line)[0]
    n = np.geomspace(1e3, 1e8, 20_000)
    for c, loss in list(zip(line.x, line.y, strict=True))[::15]:
        assert loss == pytest.approx(law(n, c / (6 * n)).min(), rel=1e-6)
    band = kinds(figure, Band)[0]
    assert (band.lo <= line.y).all()
    assert (line.y <= band.hi).all()


def test_figures_without_data_are_left_out(document):
    bare = {
        key: value
        for key, value in document.items()
        if key not in ("bootstrap", "approaches", "data")
    }
    empty = {"n_params": None, "tokens": None, "flops": None, "loss": [1.0]}
    bare |= {"approaches": {}, "data": empty, "holdout": None, "range": {}}
    assert drawn_by(isoflop_figure.isoflop_curves, bare) is None
    assert drawn_by(law_plots.frontier_size, bare) is None
    assert drawn_by(law_plots.contours, bare) is None
    assert drawn_by(law_plots.residuals, bare) is None


def test_two_fits_of_the_same_runs_stand_side_by_side_with_all_parameters(document):
    skaling = {**document["params"], "k": {"value": 0.379, "se": None, "lo": None, "hi": None}}
    goodness = {"rmse_percent": 0.5, "r2_excess": 0.99, "aic": -100.0, "bic": -90.0}
    other = {**document, "law": "skaling", "params": skaling, "goodness": goodness}
    fits = {"one": as_fit(document), "two": as_fit(other)}
    laws = fit_tables.laws(fits)
    assert "k" in [column.name for column in laws.columns]
    assert [row[-1] for row in laws.rows] == [(None, None, None), (0.379, None, None)]
    table = fit_tables.compared(fits)
    assert [row[0] for row in table.rows] == ["one", "two"]
    assert [row[1:3] for row in table.rows] == [(None, None), (0.5, -100.0)]
    assert fit_tables.compared({"one": fits["one"]}) is None
