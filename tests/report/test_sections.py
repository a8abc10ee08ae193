"""What a report contains for fits of other kinds, and what it says when the fit and the folder
disagree.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest

from scaling.predict.predict import predict
from scaling.report.headline import fit_lines
from scaling.report.inputs import load_inputs
from scaling.report.sections import build_report, fit_command
from scaling.report.summary import Light, light, trained, width_reason
from tests.documents import as_fit, dump
from tests.report.conftest import interval


@pytest.fixture
def composed(tmp_path):
    def compose_document(document, **changes):
        path = tmp_path / "fit.json"
        dump(document, path)
        return build_report(
            replace(load_inputs([path], tmp_path / "unused"), **changes),
            None,
            "scaling report fit.json",
        )

    return compose_document


def test_fit_of_one_approach_is_reported(document, composed):
    coefficients = {
        name: interval(value)
        for name, value in {"a": 0.5, "n_coef": 0.2, "b": 0.5, "d_coef": 0.8}.items()
    }
    changed = {
        **document,
        "approach": "isoflop",
        "params": coefficients,
        "derived": {"a": interval(0.5), "b": interval(0.5)},
        "bootstrap": None,
    }
    report = composed(changed)
    assert {figure.name for figure in report.figures} == {
        "isoflop-curves",
        "frontier-size",
    }
    parameters = next(table for table in report.tables if table.name == "parameters")
    assert [row[0] for row in parameters.rows] == ["a", "n_coef", "b", "d_coef"], "each once"
    assert " tokens, " in report.sentences[0]
    assert "expect a loss" not in report.sentences[0]


def test_law_of_one_input_reports_that_it_has_no_frontier(document, composed):
    changed = copy.deepcopy(document) | {
        "law": "kaplan-d",
        "params": {"alpha_D": interval(0.1), "D_c": interval(1e13)},
        "derived": {},
        "holdout": None,
        "approaches": {
            name: {"unavailable": "the table lacks N, D or C", "warnings": []}
            for name in ("parametric", "isoflop", "envelope")
        },
        "bootstrap": None,
    }
    for group in ("range", "data"):
        changed[group] = {name: changed[group][name] for name in ("tokens", "loss")}
    report = composed(changed)
    assert report.figures == []
    assert report.sentences[0].startswith("The law kaplan-d: ")
    assert report.sentences[1].startswith("It rests on ")
    notes = [text for part in report.sections for text in part.notes]
    assert "The law kaplan-d says nothing of the best size for a budget." in notes
    approaches = next(table for table in report.tables if table.name == "approaches")
    assert approaches.caption.count("the table lacks N, D or C") == 3


def test_status_other_than_ok_is_the_first_warning(document, composed):
    report = composed(document | {"status": "not-identified"})
    assert report.light == (Light.NOT_YET, "not identified by these runs: E")
    assert "'not-identified'" in report.caveats[0]


ONE_LAW = (  # at ten times the data
    "the interval does not cover errors in the law's form: on other runs seven of ten such 95 % "
    "intervals held"
)


@pytest.mark.parametrize(
    ("changes", "light", "reason"),
    [
        ({}, Light.CARE, "E = 1.1 lies close to the lowest loss"),
        ({"warnings": []}, Light.CARE, ONE_LAW),
        ({"warnings": [], "holdout": None}, Light.CARE, "no budget was held out to test it"),
        ({"status": "not-converged"}, Light.NOT_YET, "the fit did not converge"),
        (
            {"warnings": [{"code": "one_ratio", "message": "one ratio D/N only"}]},
            Light.NOT_YET,
            "the best size does not follow: all runs have one ratio of tokens to parameters",
        ),
        (
            {"approaches_agree": {"verdict": "disagree", "message": "They disagree."}},
            Light.CARE,
            "the three approaches disagree about the best size",
        ),
    ],
)
def test_the_light_has_one_reason(document, composed, changes, light, reason):
    narrow = copy.deepcopy(document) | changes
    for name, values in narrow["bootstrap"]["draws"].items():
        narrow["bootstrap"]["draws"][name] = list(np.array(values) ** 0.02)
        mean = narrow["params"][name]["value"] ** 0.98
        narrow["bootstrap"]["draws"][name] = [mean * v for v in narrow["bootstrap"]["draws"][name]]
    assert composed(narrow).light == (light, reason)


def test_a_best_size_of_unknown_magnitude_is_not_yet_an_answer(document, composed):
    light, reason = composed({**document, "warnings": []}).light
    assert light is Light.NOT_YET
    assert reason.startswith("the best size is known within a factor of ")


@pytest.mark.parametrize(
    ("lo", "hi", "reason"),
    [
        (1e6, 3e6, ""),
        (None, None, ""),
        (1e6, 5e6, "the best size is known within a factor of 5 only"),
        (1e6, None, "the interval of the best size has no upper end"),
        (0.0, 3e6, "the interval of the best size has no lower end"),
        (0.0, None, "the interval of the best size has no lower end"),
    ],
)
def test_an_interval_that_is_open_at_one_end_is_too_wide(document, lo, hi, reason):
    answer = predict(as_fit(document), flops=1e13)
    size = answer.n_params.model_copy(update={"lo": lo, "hi": hi})
    assert width_reason(answer.model_copy(update={"n_params": size})) == reason


def test_a_fit_of_curves_rests_on_their_losses_and_no_error_has_an_exponent(document):
    curves = [{"name": "wsd", "held_out": False, "n": 9, "r2": 0.9, "mae": 0.1, "final_error": 0.1}]
    assert trained(as_fit(document), None).startswith("It rests on 30 runs of ")
    said = trained(as_fit(document | {"schedules": curves}), None)
    assert said.startswith("It rests on 30 losses of curves ")
    exact = copy.deepcopy(document) | {"warnings": []}
    exact["holdout"]["mean_abs_rel_error"] = 5e-10
    assert light(as_fit(exact), None)[1].endswith(" held out within 0.01 %")


def test_page_and_terminal_give_the_same_reason(document, composed):
    warnings = [
        {"code": code, "message": message}
        for code, message in (("few_points", "few"), ("law_form", "form"), ("mixed_data", "mixed"))
    ]
    narrow = copy.deepcopy(document) | {"warnings": warnings, "bootstrap": None}
    assert composed(narrow).light == (Light.CARE, "mixed")
    said = dict(fit_lines(as_fit(narrow)))["trust"]
    assert said == "with care: mixed (and 1 more below)"


def test_fit_older_than_its_runs_is_reported(document, results_folder, tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "runs").symlink_to(results_folder / "runs")
    dump(document | {"n_points": 20, "excluded": []}, folder / "fits" / "chinchilla.json")
    report = build_report(load_inputs([folder], tmp_path / "unused"), None, "scaling report")
    assert "The fit saw 20 runs, the folder holds 30 now: fit it again." in report.caveats


def test_the_command_that_makes_the_fit_again_quotes_what_a_shell_would_split(document):
    foreign = copy.deepcopy(document)
    foreign["source"] |= {
        "paths": ["my runs; rm -rf x.csv"],
        "columns": {"N": "Model Size", "L": "loss"},
        "filters": {"where": "loss < 4", "drop_highest": 5},
        "convention": {"params": "as given", "flops": "6nd"},
    }
    command = fit_command(as_fit(foreign))
    assert command.startswith(
        "scaling fit 'my runs; rm -rf x.csv' --columns 'N=Model Size,L=loss' --law chinchilla"
    )
    assert command.endswith("--seed 0 --where 'loss < 4' --drop-highest 5")
    assert "--params" not in command
