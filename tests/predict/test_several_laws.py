"""`scaling predict` on a fit for which no law was named: the combination answers, and says what
stands behind it.
"""

import json

import numpy as np
import pandas as pd
import pytest

from scaling.errors import ScalingError
from scaling.fit.document import Interval
from scaling.fit.fit_options import FitOptions
from scaling.fit.pipeline import fit
from scaling.fit.result import FitResult
from scaling.predict.answers import crossing
from scaling.predict.breakdown import with_disagreement
from scaling.predict.law_source import load_law
from scaling.predict.predict import predict as predict_model
from scaling.predict.prediction import ApproachPrediction, PredictionResult
from scaling.report.headline import prediction_lines
from scaling.report.summary import Light, light
from scaling.warning import WarningCode
from tests.fit.test_law_weights import CHINCHILLA, isoflop_runs

MEASURES = ("flops", "n_params", "tokens", "loss", "tokens_per_param")


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """{law: document} of noisy runs; auto and chinchilla."""
    points = isoflop_runs("chinchilla", CHINCHILLA, 0.003)
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    rows = zip(points.n, points.d, points.loss, strict=True)
    path.write_text("N,D,loss\n" + "".join(f"{n!r},{d!r},{loss!r}\n" for n, d, loss in rows))
    path.write_text(path.read_text().replace("np.float64(", "").replace(")", ""))
    laws = ("auto", "chinchilla")
    return {law: fit([path], FitOptions(law=law, bootstrap=50)).to_dict() for law in laws}


def predict(document, **question):
    return predict_model(document, **question).to_dict()


@pytest.mark.slow
def test_the_parameters_are_those_of_the_headline_law(documents):
    auto, named = documents["auto"], documents["chinchilla"]
    assert auto["law"] == "chinchilla"
    assert auto["params"] == named["params"]
    assert "combination" not in named
    assert {one["name"] for one in auto["combination"]["candidates"]} >= {"skaling", "isoflop"}


def test_a_budget_is_answered_by_the_combination(documents):
    found = predict(documents["auto"], flops=1e22)
    assert found["law"] == "combination"
    for name in MEASURES[1:]:
        assert found[name]["lo"] <= found[name]["value"] <= found[name]["hi"]
    each = found["combination"]["n_params"]["each"]
    weights = found["combination"]["n_params"]["weights"]
    mean = sum(weights[name] * np.log(each[name]) for name in each) / sum(weights.values())
    assert found["n_params"]["value"] == pytest.approx(np.exp(mean))
    assert found["tokens"]["value"] == pytest.approx(1e22 / (6 * found["n_params"]["value"]))
    parts = found["combination"]["loss"]["parts"]
    squares = [parts[name] ** 2 for name in ("noise", "parameters", "form", "distance")]
    assert parts["total"] == pytest.approx(np.sqrt(sum(squares)))
    assert parts["distance"] > 0


def test_named_law_answers_without_the_combination(documents):
    found = predict(documents["chinchilla"], flops=1e22)
    assert found["law"] == "chinchilla"
    assert "combination" not in found


def test_loss_and_flops_are_inverse_questions(documents):
    forward = predict(documents["auto"], flops=1e22)
    back = predict(documents["auto"], loss=forward["loss"]["value"])
    assert back["flops"]["value"] == pytest.approx(1e22, rel=1e-6)
    assert back["flops"]["lo"] < 1e22 < back["flops"]["hi"]
    assert back["n_params"]["value"] == pytest.approx(forward["n_params"]["value"], rel=1e-6)
    with pytest.raises(ScalingError, match="cannot be reached"):
        predict(documents["auto"], loss=0.001)


def test_a_smaller_model_and_one_to_serve_cost_more_and_less_than_the_combined_optimum(documents):
    question = {"flops": 3e23, "smaller": "1,0.9,0.5"}
    found = predict(documents["auto"], inference_tokens=0, **question)
    n, d = found["n_params"]["value"], found["tokens"]["value"]
    optimum = documents["auto"]["combination"]["candidates"][0]["powers"]
    assert n != pytest.approx(optimum["n_coef"] * 3e23 ** optimum["a"], rel=1e-3)
    assert found["inference"]["n_params"] == pytest.approx(n, rel=1e-4)
    assert found["inference"]["saved_fraction"] == pytest.approx(0, abs=1e-9)
    extra = [row["extra_compute_percent"]["value"] for row in found["smaller"]]
    assert extra == sorted(extra)
    assert extra[0] == pytest.approx(0, abs=1e-9)
    assert found["smaller"][0]["tokens"]["value"] == pytest.approx(d, rel=1e-9)
    for row in found["smaller"]:
        assert row["tokens"]["lo"] < row["tokens"]["value"] < row["tokens"]["hi"]
    alone = predict(documents["chinchilla"], flops=3e23, smaller="0.5")["smaller"][0]
    assert extra[2] == pytest.approx(alone["extra_compute_percent"]["value"], rel=1e-6)


def test_tokens_that_pay_off_begin_at_the_combined_optimum(documents):
    best = predict(documents["auto"], n_params=1e9)["tokens"]["value"]
    few, many = (
        predict(documents["auto"], n_params=1e9, inference_tokens=demand)["tokens"]
        for demand in (1e3, 1e12)
    )
    assert few["value"] == pytest.approx(best, rel=1e-5)
    budget = predict(documents["auto"], flops=1e23, inference_tokens=1e13)["inference"]
    again = predict(documents["auto"], n_params=budget["n_params"], inference_tokens=1e13)
    assert again["tokens"]["value"] == pytest.approx(budget["tokens"], rel=1e-6)
    assert many["lo"] < many["value"] < many["hi"]
    assert many["value"] > 2 * best


def test_a_run_has_an_interval_that_holds_its_noise(documents):
    found = predict(documents["auto"], n_params=1e9, tokens=2e10)
    assert found["loss"]["lo"] < found["loss"]["value"] < found["loss"]["hi"]
    assert found["combination"]["loss"]["parts"]["noise"] > 0
    assert set(found["combination"]["loss"]["each"]) >= {"chinchilla", "skaling", "surface"}


def test_the_loss_at_the_optimum_is_the_same_by_both_questions(documents):
    best = predict(documents["auto"], flops=1e22)
    n, d = best["n_params"]["value"], best["tokens"]["value"]
    run = predict(documents["auto"], n_params=n, tokens=d)
    assert run["loss"]["value"] == pytest.approx(best["loss"]["value"], rel=1e-9)
    assert run["loss"]["lo"] < best["loss"]["lo"], "a run has noise of its own"
    far = predict(documents["auto"], n_params=30 * n, tokens=d / 30)
    assert far["loss"]["value"] > best["loss"]["hi"]


def test_warnings_of_the_holdout_reach_the_prediction(documents):
    warning = {"code": "holdout_one_sided", "message": "all misses have one sign", "data": {}}
    document = documents["auto"] | {"warnings": [warning]}
    assert warning in predict(document, flops=1e22)["warnings"]


def test_a_budget_farther_out_than_any_test_is_a_guess_and_the_first_lines_say_so(documents):
    def trust(flops):
        answer = predict_model(documents["auto"], flops=flops)
        return dict(prediction_lines(answer))["trust"]

    assert "the interval is a guess" in trust(1e23)
    assert "guess" not in trust(5e21)
    one_law = predict_model(documents["chinchilla"], flops=1e23)
    assert WarningCode.UNTESTED not in {each.code for each in one_law.warnings}


def test_only_a_distance_that_these_runs_have_tested_is_to_be_trusted(documents):
    """The budgets of the runs are 1e18 to 3.16e20, and their second prefix ends at 1e19."""
    auto = documents["auto"] | {"warnings": []}
    assert auto["combination"]["tested"] == pytest.approx(1.5)
    document = auto | {"combination": auto["combination"] | {"tested": 0.7}}
    fit = FitResult.parse(document, "here", "again")
    near, far = (predict_model(document, flops=3.16e20 * 10**x) for x in (0.5, 1.0))
    untested = [each for each in far.warnings if each.code is WarningCode.UNTESTED]
    assert "these runs test forecasts over" in untested[0].message
    assert WarningCode.UNTESTED not in {each.code for each in near.warnings}
    assert light(fit, near)[0] is Light.TRUST
    assert light(FitResult.parse(auto, "", ""), predict_model(auto, flops=3e21))[0] is Light.TRUST
    assert light(fit, far) == (Light.CARE, untested[0].message)


def test_the_interval_spans_approaches_that_disagree_and_the_answer_says_so(documents):
    """isoFLOP three times above the law, both with narrow intervals."""
    document = json.loads(json.dumps(documents["auto"]))
    isoflop = document["approaches"]["isoflop"]
    for powers in (isoflop["powers"], isoflop["draws"]):
        powers["n_coef"] = (3 * np.array(powers["n_coef"])).tolist()
    answer = predict(document, flops=1e22)
    sizes = {name: each["n_params"]["value"] for name, each in answer["approaches"].items()}
    assert answer["warnings"][0]["code"] == WarningCode.APPROACHES_DISAGREE
    assert answer["warnings"][0]["data"]["isoflop"] == pytest.approx(sizes["isoflop"])
    assert answer["n_params"]["lo"] <= min(sizes.values())
    assert answer["n_params"]["hi"] >= max(sizes.values())
    smallest = 1e22 / (6 * answer["n_params"]["hi"])
    assert answer["tokens"]["lo"] == pytest.approx(smallest)
    lines = dict(prediction_lines(PredictionResult.model_validate(answer)))
    assert "disagree beyond their intervals" in lines["trust"]


def size(value, lo, hi):
    interval = {"value": value, "lo": lo, "hi": hi}
    return ApproachPrediction(n_params=interval, tokens=interval, loss=interval)


def widened(document, approaches):
    """The codes and the ends of N* of a narrow answer of 1.2B parameters for 1e20 FLOPs."""
    narrow = Interval(value=1.2e9, lo=1.1e9, hi=1.3e9)
    flops = Interval(value=1e20, lo=None, hi=None)
    answer = {"flops": flops, "n_params": narrow, "loss": narrow}
    answer, warnings = with_disagreement(load_law(document), answer, approaches)
    return warnings, (answer["n_params"].lo, answer["n_params"].hi)


APART = {"parametric": size(1e9, 9e8, 1.1e9), "isoflop": size(2e9, 1.5e9, 3e9)}


def test_approaches_whose_intervals_do_not_meet_disagree(documents):
    (warning,), ends = widened(documents["auto"], APART)
    assert warning.code is WarningCode.APPROACHES_DISAGREE
    assert warning.data == {"parametric": 1e9, "isoflop": 2e9}
    assert ends == (1e9, 2e9)
    near = {"parametric": size(1e9, 9e8, 1.6e9), "isoflop": size(2e9, 1.5e9, 3e9)}
    assert widened(documents["auto"], near) == ([], (1.1e9, 1.3e9))


def test_a_few_percent_apart_is_no_disagreement_though_no_interval_holds_both(documents):
    small = {"parametric": size(1e9, 1e9, 1e9), "isoflop": size(1.1e9, 1.09e9, 1.11e9)}
    assert widened(documents["auto"], small) == ([], (1e9, 1.3e9))


def test_an_approach_that_later_budgets_contradict_is_named_and_not_held(documents):
    document = json.loads(json.dumps(documents["auto"]))
    for one in document["combination"]["candidates"]:
        if one["name"] == "chinchilla":
            one["weights"]["n_star"] = 0.01
    (warning,), ends = widened(document, APART)
    assert "later budgets contradict parametric" in warning.message
    assert ends == (1.1e9, 2e9)


def test_the_budget_of_a_size_or_of_tokens_has_intervals_in_order(documents):
    for inputs in ({"n_params": 1e9}, {"tokens": 2e10}):
        prediction = predict(documents["auto"], **inputs)
        for name in ("flops", "n_params", "tokens", "tokens_per_param"):
            entry = prediction[name]
            assert entry["lo"] is None or entry["lo"] < entry["value"] < entry["hi"], name


def test_an_end_of_an_interval_that_begins_below_the_level_is_found_where_it_comes_down():
    """Far from the data an interval is wide: its lower end may be low there, too."""

    def curves(x):
        log = np.log(x)
        falling = 10 * np.exp(-log / 20)
        return np.array([falling, np.where(log < 2, 1.0, falling - 0.5), np.full_like(x, 1.0)])

    value, low, never = crossing(curves, 5.0, 3)
    assert np.log([value, low]) == pytest.approx(-20 * np.log([0.5, 0.55]), rel=1e-6)
    assert np.isnan(never)


def test_the_range_of_a_law_of_one_input_is_that_of_its_data(tmp_path):
    x = np.linspace(1.6, 3.6, 20)
    table = pd.DataFrame({"ce": x, "acc": 0.25 + 0.7 / (1 + np.exp(6 * (x - 2.6)))})
    table.to_csv(tmp_path / "runs.csv", index=False)
    options = FitOptions(law="sigmoid", columns="X=ce,Y=acc", bootstrap=0)
    document = fit([tmp_path / "runs.csv"], options).to_dict()
    assert document["range"]["X"] == [1.6, 3.6]
    inside, beyond = (predict(document, task_loss=loss) for loss in (2.6, 9.0))
    assert not inside["warnings"]
    assert [each["code"] for each in beyond["warnings"]] == ["outside_data"]
