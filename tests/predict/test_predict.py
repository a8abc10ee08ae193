"""A fit and one question: values, intervals, warnings, and questions that are none."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.accounting import DeviceTime
from scaling.errors import ScalingError
from scaling.fit.pipeline import FitOptions
from scaling.fit.result import FitResult
from scaling.predict.predict import predict as run_predict
from tests.documents import dump, fit, load, predict
from tests.fit.test_pipeline import LAW, simulated


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits")
    runs = simulated(folder / "runs.csv")
    for approach in ("parametric", "isoflop"):
        dump(
            fit(
                [runs],
                FitOptions(law="chinchilla", approach=approach, bootstrap=200, holdout="none"),
            ),
            folder / f"{approach}.json",
        )
    return folder


@pytest.mark.slow
def test_exact_data_predict_the_true_optimum(tmp_path):
    options = FitOptions(law="chinchilla", bootstrap=50)  # of one law: no approach widens it
    dump(fit([simulated(tmp_path / "exact.csv", noise=0.0)], options), tmp_path / "fit.json")
    found = predict(str(tmp_path / "fit.json"), flops="1e23")
    g = (LAW["alpha"] * LAW["A"] / (LAW["beta"] * LAW["B"])) ** (1 / 0.72)
    np.testing.assert_allclose(
        found["n_params"]["value"], g * (1e23 / 6) ** (0.37 / 0.72), rtol=1e-3
    )
    assert found["n_params"]["lo"] <= found["n_params"]["value"] <= found["n_params"]["hi"]
    assert found["n_params"]["hi"] / found["n_params"]["lo"] < 1.01


@pytest.mark.slow
def test_flops_and_loss_are_inverse_questions(folder):
    source = str(folder / "parametric.json")
    forward = predict(source, flops="1e22")
    back = predict(source, loss=forward["loss"]["value"])
    np.testing.assert_allclose(back["flops"]["value"], 1e22, rtol=1e-6)
    np.testing.assert_allclose(back["n_params"]["value"], forward["n_params"]["value"], rtol=1e-6)
    assert back["flops"]["lo"] < 1e22 < back["flops"]["hi"]
    at = predict(source, n_params=forward["n_params"]["value"], tokens=forward["tokens"]["value"])
    np.testing.assert_allclose(at["loss"]["value"], forward["loss"]["value"], rtol=1e-9)
    assert at["loss"]["lo"] < at["loss"]["value"] < at["loss"]["hi"]
    assert at["n_params"]["lo"] is None


def test_extrapolation_is_reported(folder):
    source = str(folder / "parametric.json")
    inside, beyond = predict(source, flops=1e20), predict(source, flops=3e23)
    assert inside["extrapolation_decades"] == 0
    assert inside["warnings"] == []
    np.testing.assert_allclose(beyond["extrapolation_decades"], np.log10(300), rtol=1e-6)
    assert beyond["warnings"][0]["code"] == "extrapolation"
    np.testing.assert_allclose(beyond["warnings"][0]["data"]["decades"], np.log10(300), rtol=1e-6)
    width = [
        np.log(found["n_params"]["hi"] / found["n_params"]["lo"]) for found in (inside, beyond)
    ]
    assert width[1] > width[0]


def test_a_model_of_usual_shape_is_named_where_it_is_asked_for(folder):
    assert predict(str(folder / "parametric.json"), flops="1e21")["model"] is None
    for flops in ("1e20", "1e22", "1e24"):
        found = predict(str(folder / "parametric.json"), flops=flops, with_model=True)
        model = found["model"]
        assert abs(np.log(model["n_params"] / found["n_params"]["value"])) < 0.2
        assert model["d_model"] % 128 == 0
        assert model["d_head"] in (64, 128)
        assert model["n_heads"] * model["d_head"] == model["d_model"]
        json.dumps(found, allow_nan=False)


def test_an_approach_answers_flops_only(folder):
    source = str(folder / "isoflop.json")
    found = predict(source, flops=1e21)
    assert found["n_params"]["lo"] < found["n_params"]["value"] < found["n_params"]["hi"]
    assert found["loss"]["lo"] <= found["loss"]["value"] <= found["loss"]["hi"]
    back = predict(source, loss=found["loss"]["value"])
    np.testing.assert_allclose(back["flops"]["value"], 1e21, rtol=1e-6)
    with pytest.raises(ScalingError, match="parametric"):
        predict(source, n_params=1e9, tokens=2e10)


def test_prediction_lists_all_approaches(folder):
    found = predict(str(folder / "parametric.json"), flops=1e21)
    assert set(found["approaches"]) == {"parametric", "isoflop", "envelope"}
    assert found["approaches"]["parametric"]["n_params"]["value"] == found["n_params"]["value"]
    for road in found["approaches"].values():
        assert all(
            road[name]["lo"] <= road[name]["value"] <= road[name]["hi"]
            for name in ("n_params", "tokens", "loss")
        )
        np.testing.assert_allclose(road["loss"]["value"], found["loss"]["value"], rtol=0.02)


def test_one_variable_laws_answer_in_their_variable():
    np.testing.assert_allclose(
        predict("published:kaplan2020-n", n_params="1B")["loss"]["value"],
        (8.8e13 / 1e9) ** 0.076,
        rtol=1e-9,
    )
    with pytest.raises(ScalingError, match="kaplan-d does not use N"):
        predict("published:kaplan2020-d", n_params="1B")


BESIROGLU = "published:besiroglu2024"
E, A, B, ALPHA, BETA = 1.8172, 482.01, 2085.43, 0.3478, 0.3658


def besiroglu(n, d):
    return E + A / n**ALPHA + B / d**BETA


def test_two_of_n_d_and_c_are_one_question():
    for question in (
        {"n_params": "1B", "tokens": "20B"},
        {"n_params": "1B", "flops": "1.2e20"},
        {"tokens": "20B", "flops": "1.2e20"},
    ):
        found = predict(BESIROGLU, **question)
        assert found["question"] == "inputs"
        for name, value in (("n_params", 1e9), ("tokens", 2e10), ("flops", 1.2e20)):
            np.testing.assert_allclose(found[name]["value"], value, rtol=1e-9)
        np.testing.assert_allclose(found["loss"]["value"], besiroglu(1e9, 2e10), rtol=1e-4)


def test_a_size_or_its_tokens_alone_ask_for_the_budget_that_they_are_optimal_for():
    at = predict(BESIROGLU, flops=1e21)
    for name, kind in (("n_params", "size"), ("tokens", "tokens")):
        found = predict(BESIROGLU, **{name: at[name]["value"]})
        assert found["question"] == kind
        for measure in ("flops", "n_params", "tokens", "loss"):
            np.testing.assert_allclose(found[measure]["value"], at[measure]["value"], rtol=1e-6)


def test_units_of_options_are_read():
    plain = predict(BESIROGLU, flops=0.5 * 8.64e19)
    for text in ("0.5 PF-days", "4.32e19", "43.2 EFLOPs", "43.2e18 FLOPs"):
        found = predict(BESIROGLU, flops=text)
        np.testing.assert_allclose(found["flops"]["value"], plain["flops"]["value"], rtol=1e-12)
    bits = predict(BESIROGLU, loss=f"{2.5 / np.log(2)} bits")
    np.testing.assert_allclose(bits["loss"]["value"], 2.5, rtol=1e-9)


@pytest.mark.parametrize(
    ("law", "question", "letter", "value"),
    [
        ("kaplan2020-n", {}, "n_params", 8.8e13 / 2.5 ** (1 / 0.076)),
        ("kaplan2020-d", {}, "tokens", 5.4e13 / 2.5 ** (1 / 0.095)),
        ("kaplan2020-c", {}, "flops", 3.1e8 * 8.64e19 / 2.5 ** (1 / 0.050)),
        ("besiroglu2024", {"n_params": 1e9}, "tokens", 0.0),
        ("besiroglu2024", {"tokens": 2e10}, "n_params", 0.0),
    ],
)
def test_a_loss_asks_for_the_input_that_is_left_open(law, question, letter, value):
    found = predict(f"published:{law}", loss=2.5, **question)
    got = found[letter]["value"]
    if value:
        np.testing.assert_allclose(got, value, rtol=0.02)
    back = predict(f"published:{law}", **question, **{letter: got})
    np.testing.assert_allclose(back["loss"]["value"], 2.5, rtol=1e-6)


def test_steps_are_asked_of_the_law_that_has_them():
    found = predict("published:kaplan2020-ns", n_params=1e9, loss=2.5)
    steps = found["inputs"]["S"]["value"]
    back = predict("published:kaplan2020-ns", n_params=1e9, steps=steps)
    np.testing.assert_allclose(back["loss"]["value"], 2.5, rtol=1e-6)


def test_tokens_that_pay_off_for_a_size_that_is_served():
    found = predict(BESIROGLU, n_params="1.3B", inference_tokens="1T")
    d = found["tokens"]["value"]
    assert found["question"] == "served_size"
    again = predict(BESIROGLU, n_params=1.3e9, tokens=d, inference_tokens="1T")
    np.testing.assert_allclose(again["inference"]["n_params"], 1.3e9, rtol=1e-3)
    optimal = predict(BESIROGLU, n_params="1.3B")
    assert d > optimal["tokens"]["value"]


def test_limited_unique_tokens_move_the_optimum():
    source = "published:muennighoff2023"
    free = predict(source, flops=1e21)
    same = predict(source, flops=1e21, unique_tokens=1e13)
    np.testing.assert_allclose(same["n_params"]["value"], free["n_params"]["value"], rtol=1e-3)
    scarce = predict(source, flops=1e21, unique_tokens=4e9)
    assert scarce["loss"]["value"] > free["loss"]["value"] + 0.05
    losses = [
        predict(source, flops=1e21, n_params=share * scarce["n_params"]["value"], unique_tokens=4e9)
        for share in (0.9, 1.1)
    ]
    assert all(near["loss"]["value"] > scarce["loss"]["value"] for near in losses)


@pytest.mark.parametrize("question", [{"smaller": 0.5}, {"inference_tokens": "1T"}])
def test_models_of_equal_loss_are_refused_for_repeated_tokens(question):
    scarce = {"n_params": "2.8B", "tokens": "55B", "unique_tokens": "4B"}
    with pytest.raises(ScalingError, match="for fresh tokens only") as caught:
        predict("published:muennighoff2023", **scarce, **question)
    assert caught.value.where == "--unique-tokens"


def test_the_approaches_which_know_no_repetition_are_silent_on_limited_tokens(tmp_path):
    n, d = (
        grid.ravel() for grid in np.meshgrid(np.geomspace(2e7, 2e9, 6), np.geomspace(4e8, 4e10, 6))
    )
    table = pd.DataFrame({"N": n, "D": d, "U": np.minimum(d, 4e9)})
    table["loss"] = 1.7 + 420 / n**0.34 + 650 / table["U"] ** 0.3
    table.to_csv(tmp_path / "runs.csv", index=False)
    options = FitOptions(law="data-constrained", bootstrap=0, holdout="none")
    fitted = fit([tmp_path / "runs.csv"], options)
    assert "parametric" in predict(fitted, flops=1e20)["approaches"]
    assert "approaches" not in predict(fitted, flops=1e20, unique_tokens=1e9)


def test_training_on_devices_has_a_time():
    devices = DeviceTime("h100", 8, 0.4)
    found = predict(BESIROGLU, flops=devices.flops_of(72), devices=devices)
    np.testing.assert_allclose(found["flops"]["value"], 8 * 0.4 * 989e12 * 72 * 3600, rtol=1e-9)
    np.testing.assert_allclose(found["time"]["hours"], 72, rtol=1e-9)


def test_each_measure_outside_the_runs_is_named(folder):
    source = str(folder / "parametric.json")
    found = predict(source, n_params=1e8, tokens=2e13)
    warned = [each["data"].get("quantity") for each in found["warnings"]]
    assert {"tokens", "tokens_per_param"} <= {*warned}
    optimum = predict(source, flops=1e24)
    assert not any("quantity" in each["data"] for each in optimum["warnings"])
    served = predict(source, flops=1e20, inference_tokens=1e15)
    assert any("cheapest to serve" in each["message"] for each in served["warnings"])


def test_repeated_tokens_are_worth_less():
    fresh = predict("published:muennighoff2023", n_params="2.8B", tokens="55B")
    repeated = predict(
        "published:muennighoff2023", n_params="2.8B", tokens="55B", unique_tokens="4B"
    )
    assert repeated["loss"]["value"] > fresh["loss"]["value"] + 0.005


def test_status_is_passed_on(folder):
    document = json.loads((folder / "parametric.json").read_text())
    dump(document | {"status": "not-identified"}, folder / "loose.json")
    assert (
        "not-identified"
        in predict(str(folder / "loose.json"), flops=1e20)["warnings"][0]["message"]
    )


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"n_params": 1e9, "loss": 500.0}, "is reached without any --tokens"),
        ({"n_params": 1e9, "loss": 1.7}, "the law goes down to 2.053"),
        ({}, "no question is asked"),
        ({"flops": "many"}, "'many'"),
        ({"flops": -1}, "-1"),
        ({"flops": "nan"}, "'nan'"),
        ({"flops": "1e999"}, "1e999"),
        ({"flops": 1e21, "loss": 2.0}, "leaves --n-params, --tokens open"),
        ({"flops": 1e21, "n_params": 1e9, "tokens": 1e9}, "two of them give the third"),
        ({"n_params": 1e9, "tokens": 1e9, "steps": 1e4}, "does not use S"),
        ({"n_params": 1e9, "tokens": 1e9, "unique_tokens": 1e8}, "data-constrained"),
        ({"flops": "1e21 tokens"}, "is not a unit of FLOPs"),
        ({"loss": 1.0}, "floor E is 1.693"),
    ],
)
def test_bad_questions_are_rejected(question, words):
    with pytest.raises(ScalingError) as caught:
        predict("published:hoffmann2022", **question)
    assert words in str(caught.value)


def test_bad_sources_are_rejected(tmp_path):
    for source, words in (
        (str(tmp_path / "absent.json"), "absent.json"),
        (str(tmp_path), str(tmp_path)),
        ("published:nobody", "nobody"),
    ):
        with pytest.raises(ScalingError) as caught:
            predict(source, flops=1e21)
        assert words in str(caught.value)


@pytest.fixture(scope="module")
def small_fit(tmp_path_factory):
    """The file of a fit to twelve exact losses; it loads."""
    folder = tmp_path_factory.mktemp("small")
    n, d = (grid.ravel() for grid in np.meshgrid([1e6, 3e6, 1e7, 3e7], [1e8, 3e8, 1e9]))
    rows = "\n".join(
        f"{a},{b},{1.7 + 400 / a**0.34 + 400 / b**0.28}" for a, b in zip(n, d, strict=True)
    )
    (folder / "runs.csv").write_text(f"params,tokens,loss\n{rows}\n")
    dump(fit([folder / "runs.csv"], FitOptions(bootstrap=0)), folder / "fit.json")
    load(folder / "fit.json")
    return folder / "fit.json"


@pytest.mark.parametrize(
    ("group", "part", "value"),
    [
        ("cost", "c0", "x"),
        ("cost", "p", 0),
        ("cost", "c0", None),
        ("objective", "name", None),
        ("objective", "delta", "x"),
        ("source", "model", 5),
    ],
)
def test_edited_fit_with_a_wrong_type_is_rejected_by_name(small_fit, tmp_path, group, part, value):
    document = json.loads(small_fit.read_text())
    document[group] = {**document[group], part: value}
    dump(document, tmp_path / "fit.json")
    with pytest.raises(ScalingError, match=rf"{group}\.{part} = .*: input should be"):
        load(tmp_path / "fit.json")


def test_a_fit_that_another_program_has_written_again_is_read(small_fit, tmp_path):
    again = tmp_path / "fit.json"
    again.write_text(json.dumps(json.loads(small_fit.read_text()), indent=2))
    assert FitResult.load(again).to_dict() == FitResult.load(small_fit).to_dict()


def test_a_loaded_fit_of_a_copied_folder_knows_its_sweep(tmp_path, monkeypatch):
    for name in ("sweep.toml", "fits/chinchilla.json"):
        copy = tmp_path / "copy" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((Path(__file__).parents[2] / "results/reference" / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    path = Path("copy/fits/chinchilla.json")
    model = run_predict(FitResult.load(path), flops=9e12).model
    assert model == run_predict(str(path), flops=9e12).model
    assert model is not None
    assert model["n_heads"] == 1  # of the sweep; without it the recipe's own would be 2
