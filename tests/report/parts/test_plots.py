"""Every picture has finite data, the traces it promises, and is left out where there is nothing to
show.
"""

import copy
import json

import numpy as np
import plotly.graph_objects as go
import pytest

from scaling.points.run_tables import curves
from scaling.render.figure import Band, Line, Markers, ReferenceLine, Text
from scaling.render.plotly_backend import to_plotly
from scaling.report.parts import bootstrap_plots, law_plots, run_plots
from scaling.report.sections import published
from scaling.store import run_files
from tests.report.conftest import ALPHA, BETA, BUDGETS, WIDTHS, law


def kinds(figure, kind):
    return [trace for trace in figure.traces if isinstance(trace, kind)]


def test_plotly_accepts_the_figures_of_a_report(document):
    for figure in (
        law_plots.frontier_size(document),
        law_plots.contours(document),
        run_plots.holdout(document),
    ):
        drawn = to_plotly(figure)
        drawn.pop("dark")
        assert json.loads(json.dumps(drawn, allow_nan=False)) == drawn
        go.Figure(drawn)  # raises on any name or value that plotly does not know


def pictures(document, folder):
    """Every figure of the report of a folder."""
    runs = run_plots.training_curves(curves(run_files.load(folder)))
    single = (
        run_plots.isoflop_curves,
        run_plots.holdout,
        law_plots.frontier_size,
        law_plots.frontier_tokens,
        law_plots.frontier_loss,
        law_plots.contours,
    )
    return [
        runs,
        *(draw(document) for draw in single),
        *law_plots.residuals(document),
        bootstrap_plots.cloud(document, published(document)),
        bootstrap_plots.exponents(document, published(document)),
    ]


def test_all_figures_are_there_and_finite(document, results_folder):
    found = pictures(document, results_folder)
    assert all(figure is not None for figure in found)
    assert len({figure.name for figure in found}) == len(found) == 12
    for figure in found:
        for trace in figure.traces:
            for name in ("x", "y", "lo", "hi"):
                values = getattr(trace, name, None)
                assert values is None or np.isfinite(np.asarray(values, float)).all(), (
                    figure.name,
                    trace,
                )


def test_training_curves_are_one_line_a_run_under_a_front_that_no_run_beats(results_folder):
    table = curves(run_files.load(results_folder))
    figure = run_plots.training_curves(table)
    *runs, front = kinds(figure, Line)
    assert len(runs) == len(BUDGETS) * len(WIDTHS) == 30
    assert len({line.colour for line in runs}) == len(WIDTHS)
    across, down = np.diff(front.x), np.diff(front.y)
    assert ((across > 0) == (down == 0)).all(), (
        "stairs: no slope claims a loss that was not measured"
    )
    assert (down <= 0).all()
    assert (across >= 0).all()
    assert front.y[-1] == table.loss.min()


def test_many_runs_are_thinned_and_the_caption_says_so(results_folder, monkeypatch):
    monkeypatch.setattr(run_plots, "CURVES_SHOWN", 7)
    figure = run_plots.training_curves(curves(run_files.load(results_folder)))
    assert len(kinds(figure, Line)) == 7 + 1
    assert "7 of 30 runs" in figure.caption


def test_isoflop_residuals_and_held_out_runs_are_thinned_and_say_so(document, monkeypatch):
    monkeypatch.setattr(run_plots, "POINTS_SHOWN", 15)
    monkeypatch.setattr(law_plots, "POINTS_SHOWN", 10)
    monkeypatch.setattr(run_plots, "HELD_SHOWN", 2)
    valleys = run_plots.isoflop_curves(document)
    dots = [trace for trace in kinds(valleys, Markers) if trace.symbol in ("circle", "open")]
    assert [len(trace.x) for trace in dots] == [3] * len(BUDGETS), (
        "the smallest and the largest size stay"
    )
    assert " 15 of 30 runs are drawn." in valleys.caption
    many = {**document, "n_points": 12_345}  # of which the document keeps some
    for figure in (
        *law_plots.residuals(many),
        law_plots.contours(many),
        law_plots.frontier_loss(many),
    ):
        assert figure.caption.endswith(" 10 of 12,345 runs are drawn.")
        assert max(len(trace.x) for trace in kinds(figure, Markers)) == 10
    whole = law_plots.residuals(document)[0].caption
    monkeypatch.setattr(law_plots, "POINTS_SHOWN", 3)
    assert (
        law_plots.residuals(document)[0].caption.split(";")[1].split(".")[:2]
        == whole.split(";")[1].split(".")[:2]
    ), "the error is that of all"
    held = run_plots.holdout(document)
    assert " 2 of 6 runs are drawn." in held.caption


def test_isoflop_figure_shows_minima_and_names_rejected_budgets(document):
    figure = run_plots.isoflop_curves(document)
    stars = [trace for trace in kinds(figure, Markers) if trace.symbol == "star"]
    assert len(stars) == 1
    assert len(stars[0].x) == len(BUDGETS) - 1
    rings = [trace for trace in kinds(figure, Markers) if trace.symbol == "open"]
    assert len(rings) == 1, "the refused budget is drawn, hollow"
    assert len(rings[0].x) == len(WIDTHS)
    assert [word.text for word in kinds(figure, Text)] == ["unavailable"]
    assert "1e11: the minimum lies at the edge" in figure.caption


def test_frontier_figure_has_three_approaches_and_the_20_tokens_line(document):
    figure = law_plots.frontier_size(document)
    labels = [line.label for line in kinds(figure, Line)]
    assert [label.split(" (")[0] for label in labels] == [
        "parametric",
        "isoFLOP",
        "envelope",
        "20 tokens per parameter",
    ]
    assert len(kinds(figure, Band)) == 3
    assert kinds(figure, ReferenceLine)[0].x == BUDGETS[-1]
    twenty = kinds(figure, Line)[-1]
    np.testing.assert_allclose(np.asarray(twenty.y) ** 2 * 20 * 6, twenty.x, rtol=1e-12)
    tokens = kinds(law_plots.frontier_tokens(document), Line)[-1]
    np.testing.assert_allclose(np.asarray(tokens.y), 20 * np.asarray(twenty.y), rtol=1e-12)
    assert figure.limits()[0][1] >= 10 * BUDGETS[-1]


def test_unavailable_approach_is_not_drawn(document):
    refused = copy.deepcopy(document)
    refused["approaches"]["envelope"] = {"unavailable": "two budgets only"}
    assert not any(
        line.label.startswith("envelope") for line in kinds(law_plots.frontier_size(refused), Line)
    )


def test_contours_lie_on_the_law_and_the_frontier_at_its_minimum(document):
    figure = law_plots.contours(document)
    levels = [line for line in kinds(figure, Line) if line.note]
    assert len(levels) >= 8
    for line in levels:
        n, c = np.asarray(line.y), np.asarray(line.x)
        np.testing.assert_allclose(law(n, c / (6 * n)), float(line.note.split()[1]), rtol=6e-3)
    frontier = next(line for line in kinds(figure, Line) if line.label == "efficient frontier")
    n, c = np.asarray(frontier.y), np.asarray(frontier.x)
    assert (
        law(n, c / (6 * n)) <= np.minimum(law(1.2 * n, c / (7.2 * n)), law(n / 1.2, c / (5 * n)))
    ).all()


def test_residuals_are_logs_of_measured_over_predicted(document):
    by_size, by_tokens, by_loss = law_plots.residuals(document)
    data = {name: np.array(values) for name, values in document["data"].items()}
    expected = np.log(data["loss"] / law(data["n_params"], data["tokens"]))
    for figure, x in (
        (by_size, data["n_params"]),
        (by_tokens, data["tokens"]),
        (by_loss, law(data["n_params"], data["tokens"])),
    ):
        points = kinds(figure, Markers)[0]
        np.testing.assert_allclose(points.x, x, rtol=1e-9)
        np.testing.assert_allclose(points.y, expected, atol=1e-9)


def test_loss_frontier_touches_the_law(document):
    figure = law_plots.frontier_loss(document)
    line = kinds(figure, Line)[0]
    n = np.geomspace(1e3, 1e8, 20_000)
    for c, loss in list(zip(line.x, line.y, strict=True))[::15]:
        assert loss == pytest.approx(law(n, c / (6 * n)).min(), rel=1e-6)
    band = kinds(figure, Band)[0]
    assert (band.lo <= line.y).all()
    assert (line.y <= band.hi).all()


def test_cloud_holds_the_draws_the_fit_and_published_laws(document):
    figure = bootstrap_plots.cloud(document, published(document))
    named = {trace.label: trace for trace in kinds(figure, Markers)}
    assert len(named["bootstrap refits"].x) == 300
    assert (named["this fit"].x[0], named["this fit"].y[0]) == (ALPHA, BETA)
    assert {"hoffmann2022", "besiroglu2024"} <= set(named)


def test_exponent_histogram_counts_every_refit_of_every_approach(document):
    spread = copy.deepcopy(document)
    spread["approaches"]["isoflop"]["draws"] = {"a": [0.5] * 30 + [0.6] * 10}
    figure = bootstrap_plots.exponents(spread, published(document))
    lines = kinds(figure, Line)
    assert [line.label.split()[0] for line in lines] == ["parametric", "isoFLOP"]
    assert lines[0].label == "parametric 0.530 [0.477, 0.583]"
    for line in lines:
        assert 98.9 <= np.asarray(line.y)[::2].sum() <= 100 + 1e-9, (
            "all but what lies beyond the central 99 %"
        )
    assert np.asarray(lines[1].y).max() == 75
    assert {word.text for word in kinds(figure, Text)} == set(published(document))
    assert bootstrap_plots.exponents({**document, "bootstrap": None}, {}) is None


def test_figures_without_data_are_left_out(document):
    bare = {
        key: value
        for key, value in document.items()
        if key not in ("holdout", "bootstrap", "approaches", "data")
    }
    empty = {"n_params": None, "tokens": None, "flops": None, "loss": [1.0]}
    bare |= {"approaches": {}, "data": empty}
    assert run_plots.isoflop_curves(bare) is None
    assert run_plots.holdout(bare) is None
    assert law_plots.frontier_size(bare) is None
    assert law_plots.contours(bare) is None
    assert law_plots.residuals(bare) == []
    assert bootstrap_plots.cloud(bare, {}) is None
