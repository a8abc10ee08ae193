"""A fit and one question: values, intervals, warnings, and questions that are none."""

import json

import numpy as np
import pytest

from scaling.errors import ScalingError
from scaling.fit.pipeline import FitOptions
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


def test_exact_data_predict_the_true_optimum(tmp_path):
    dump(
        fit([simulated(tmp_path / "exact.csv", noise=0.0)], FitOptions(bootstrap=50)),
        tmp_path / "fit.json",
    )
    found = predict(str(tmp_path / "fit.json"), flops="1e23")
    g = (LAW["alpha"] * LAW["A"] / (LAW["beta"] * LAW["B"])) ** (1 / 0.72)
    np.testing.assert_allclose(
        found["n_params"]["value"], g * (1e23 / 6) ** (0.37 / 0.72), rtol=1e-3
    )
    assert found["n_params"]["lo"] <= found["n_params"]["value"] <= found["n_params"]["hi"]
    assert found["n_params"]["hi"] / found["n_params"]["lo"] < 1.01


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


def test_a_buildable_model_is_named(folder):
    found = predict(str(folder / "parametric.json"), flops="1e21")
    assert abs(np.log(found["model"]["n_params"] / found["n_params"]["value"])) < 0.35
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
    with pytest.raises(ScalingError, match="kaplan-d needs D"):
        predict("published:kaplan2020-d", n_params="1B")


def test_repeated_tokens_are_worth_less():
    fresh = predict("published:muennighoff2023", n_params="2.8B", tokens="55B")
    repeated = predict(
        "published:muennighoff2023", n_params="2.8B", tokens="55B", unique_tokens="4B"
    )
    assert repeated["loss"]["value"] > fresh["loss"]["value"] + 0.005


def test_status_is_passed_on(folder):
    document = json.loads((folder / "parametric.json").read_text())
    (folder / "loose.json").write_text(json.dumps(document | {"status": "not-identified"}))
    assert (
        "not-identified"
        in predict(str(folder / "loose.json"), flops=1e20)["warnings"][0]["message"]
    )


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({}, "no question is asked"),
        ({"flops": "many"}, "'many'"),
        ({"flops": -1}, "-1"),
        ({"flops": "nan"}, "'nan'"),
        ({"flops": "1e999"}, "1e999"),
        ({"flops": 1e21, "loss": 2.0}, "--flops, --loss"),
        ({"n_params": 1e9}, "give one of"),
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
def test_edited_fit_with_a_wrong_type_is_rejected_by_name(tmp_path, group, part, value):
    n, d = (grid.ravel() for grid in np.meshgrid([1e6, 3e6, 1e7, 3e7], [1e8, 3e8, 1e9]))
    rows = "\n".join(
        f"{a},{b},{1.7 + 400 / a**0.34 + 400 / b**0.28}" for a, b in zip(n, d, strict=True)
    )
    (tmp_path / "runs.csv").write_text(f"params,tokens,loss\n{rows}\n")
    document = fit([tmp_path / "runs.csv"], FitOptions(bootstrap=0))
    dump(document, tmp_path / "fit.json")
    load(tmp_path / "fit.json")
    document[group] = {**document[group], part: value}
    dump(document, tmp_path / "fit.json")
    with pytest.raises(ScalingError, match=rf"{group}\.{part} = .*: input should be"):
        load(tmp_path / "fit.json")
