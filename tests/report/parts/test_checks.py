"""Each check of a fit has a verdict that its numbers deserve."""

import copy

import numpy as np
import pytest

from scaling.predict.law_source import load_law
from scaling.render.section import Verdict
from scaling.report.parts.checks import checks, worst
from tests.documents import as_fit


def judged(document, **changes):
    fit = as_fit(copy.deepcopy(document) | changes)
    return {part.title: part for part in checks(fit, load_law(fit))}


def test_a_hold_out_is_judged_by_its_error_and_its_intervals(document):
    assert judged(document)["Hold-out"].verdict is Verdict.OK
    missed = document["holdout"] | {"mean_abs_rel_error": 0.08}
    assert judged(document, holdout=missed)["Hold-out"].verdict is Verdict.BAD
    narrow = document["holdout"] | {"covered": 0.5}
    assert judged(document, holdout=narrow)["Hold-out"].verdict is Verdict.LOOK
    assert "no budget" in judged(document, holdout=None)["Hold-out"].notes[0]


def test_curves_that_were_held_out_are_a_hold_out(document):
    for r2, verdict in ((0.99, Verdict.OK), (0.8, Verdict.LOOK)):
        test = {"n": 9, "r2": r2, "mae": 0.007, "final_error": 0.01}
        part = judged(document, holdout=None, test=test)["Hold-out"]
        assert part.verdict is verdict
        assert f"R2 {r2:.4f}, mean absolute error 0.00700" in part.notes[0]


def test_residuals_with_a_bend_are_to_be_looked_at(document):
    assert judged(document)["Residuals of the law"].verdict is Verdict.OK
    bent = copy.deepcopy(document["data"])
    u = np.log(np.array(bent["flops"]) / 1e12)
    bent["loss"] = list(np.array(bent["loss"]) * np.exp(0.004 * u**2))
    part = judged(document, data=bent)["Residuals of the law"]
    assert part.verdict is Verdict.LOOK
    assert "wrong form" in part.notes[0]


@pytest.mark.parametrize(
    ("lo", "verdict"), [(0.99, Verdict.BAD), (0.0, Verdict.BAD)], ids=["inside", "at zero"]
)
def test_parameters_that_are_not_identified_are_bad_without_other_laws(document, lo, verdict):
    params = copy.deepcopy(document["params"])
    params["E"]["lo"] = lo
    part = judged(document, params=params)["Parameters"]
    assert part.verdict is verdict
    assert part.notes[0] == "not identified by these runs: E."


def test_the_worst_check_is_named(document):
    parts = list(judged(document).values())
    text, where = worst(parts)
    assert text.endswith("look first at: parameters.")
    assert where == "check-parameters"
    text, where = worst([part for part in parts if part.verdict is Verdict.OK])
    assert (text.startswith("All "), where) == (True, "")
