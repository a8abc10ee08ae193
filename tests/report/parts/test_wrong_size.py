"""The cost of being wrong is counted at the same compute, against the law itself, and every draw
has its own truth.
"""

import numpy as np
import pytest

from scaling.predict.law_source import load_law
from scaling.render.figure import Band, Line, Markers
from scaling.report.parts import wrong_size
from tests.documents import dump, predict
from tests.report.conftest import BUDGETS, law

FLOPS = 10 * BUDGETS[-1]


@pytest.fixture(scope="module")
def path(document, tmp_path_factory):
    written = tmp_path_factory.mktemp("fit") / "fit.json"
    dump(document, written)
    return written


def test_waste_is_that_of_the_law_at_the_same_compute(path):
    found = load_law(str(path))
    n = float(found.optimum.n_star(FLOPS)) * wrong_size.SHARES
    waste = wrong_size.wasted(found, FLOPS)[0]
    loss = law(n, FLOPS / (6 * n))
    assert (wrong_size.SHARES[0], wrong_size.SHARES[-1]) == (0.25, 4.0)
    assert waste.argmin() == len(n) // 2
    for place in (0, 12, 36):  # what is left of the budget reaches the same loss at its own optimum
        enough = predict(str(path), flops=(1 - waste[place]) * FLOPS)
        assert enough["loss"]["value"] == pytest.approx(loss[place], rel=1e-9)


def test_a_draw_keeps_the_size_that_the_fit_names(path, document):
    found = load_law(str(path))
    drawn = {name: np.array(values) for name, values in document["bootstrap"]["draws"].items()}
    n = float(found.optimum.n_star(FLOPS)) * wrong_size.SHARES
    expected = (
        drawn["E"][0]
        + drawn["A"][0] / n ** drawn["alpha"][0]
        + drawn["B"][0] / (FLOPS / (6 * n)) ** drawn["beta"][0]
    )
    spread = found.frontier  # its first row is the fit itself
    needed = (spread.log_gap[1] - np.log(expected - spread.floor[1])) / spread.gamma[1]
    draws = wrong_size.wasted(found, FLOPS)[1:]
    np.testing.assert_allclose(draws[0], np.maximum(1 - np.exp(needed) / FLOPS, 0), atol=1e-9)
    assert draws.shape == (300, len(n))
    assert (draws >= 0).all()
    assert draws[0].argmin() != len(n) // 2, "the draw's own optimum lies elsewhere"


def test_figure_and_sentence_say_the_same(path):
    waste, said = wrong_size.wrong_size(load_law(str(path)), FLOPS)
    line, band = (
        next(trace for trace in waste.traces if isinstance(trace, kind)) for kind in (Line, Band)
    )
    assert (np.asarray(band.lo) <= line.y).all()
    assert (line.y <= np.asarray(band.hi)).all()
    dots, star = (trace for trace in waste.traces if isinstance(trace, Markers))
    np.testing.assert_allclose([*dots.x, *star.x], [0.5, 2.0, 1.0])
    assert star.y[0] == pytest.approx(0, abs=1e-9)
    half, twice = 100 * wrong_size.wasted(load_law(str(path)), FLOPS)[0, [12, 36]]
    np.testing.assert_allclose(dots.y, [half, twice])
    assert f"half the best size wastes {half:.2g} [" in said
    assert f"twice the size {twice:.2g} [" in said


def test_without_a_bootstrap_there_is_no_band_and_without_a_law_nothing(document, tmp_path):
    dump(
        {name: value for name, value in document.items() if name != "bootstrap"},
        tmp_path / "bare.json",
    )
    figure, said = wrong_size.wrong_size(load_law(str(tmp_path / "bare.json")), FLOPS)
    assert not any(isinstance(trace, Band) for trace in figure.traces)
    assert "[" not in said
    powers = {"a": 0.5, "n_coef": 1.0, "b": 0.5, "d_coef": 1 / 6}
    only = {
        **document,
        "approach": "isoflop",
        "params": {
            name: {"value": value, "se": None, "lo": None, "hi": None}
            for name, value in powers.items()
        },
    }
    dump(
        {name: value for name, value in only.items() if name != "bootstrap"},
        tmp_path / "isoflop.json",
    )
    assert wrong_size.wrong_size(load_law(str(tmp_path / "isoflop.json")), FLOPS) == (None, "")
    assert wrong_size.wrong_size(None, FLOPS) == (None, "")
