"""What `scaling predict` prints of over-training and serving."""

import json

import pytest

from tests.command_line import scaling

LAW = "published:devries2023"
DEMAND = ("--flops", "1e23", "--inference-tokens", "2T")


def predicted(*options):
    """Standard output of `scaling predict`, which succeeds."""
    return scaling("predict", *options, code=0).stdout


def test_prediction_without_serving_options_is_unchanged():
    found = json.loads(predicted(LAW, *DEMAND, "--json"))
    assert {"smaller", "models", "time"}.isdisjoint(found)
    assert set(found["inference"]) == {
        "demand_tokens",
        "n_params",
        "tokens",
        "flops_total",
        "flops_total_without",
        "flops_saved",
        "saved_fraction",
    }


def test_the_tables_of_a_served_and_of_a_smaller_model():
    text = predicted(LAW, *DEMAND, "--smaller", "0.5,0.3")
    for words in (
        "With inference demand",
        "The price of a smaller model",
        "2.15T",
        "6.1T",
        "20.8",
        "106",
    ):
        assert words in text


def test_named_models_need_no_question_and_stand_beside_one():
    alone = json.loads(predicted("published:besiroglu2024", "--models", "--json"))
    assert "flops" not in alone
    assert any(
        "times the compute of its largest run" in warning["message"]
        for warning in alone["warnings"]
    )
    llama = next(row for row in alone["models"] if row["model"] == "Llama 3 8B")
    assert llama["tokens_per_param"] == 1875
    beside = json.loads(
        predicted("published:besiroglu2024", "--flops", "1e23", "--models", "--json")
    )
    assert beside["models"] == alone["models"]
    assert beside["flops"]["value"] == 1e23
    assert "Chinchilla 70B" in predicted("published:besiroglu2024", "--models")


def test_csv_leaves_no_table_out_and_has_no_empty_rows():
    for asked, option in (
        (("--flops", "1e23", "--smaller", "0.5,0.3"), "--smaller"),
        (DEMAND, "--inference-tokens"),
        (("--flops", "1e23", "--models"), "--models"),
    ):
        done = scaling("predict", LAW, *asked, "--csv", code=2)
        assert f"--csv does not show {option}" in done.stderr
        assert done.stdout == ""
    for asked in (("--smaller", "0.5"), ("--models",), ("--device", "h100"), ("--model",)):
        done = scaling("predict", LAW, "--flops", "1e22,1e23", *asked, code=2)
        assert f"the table of several budgets does not show {asked[0]}" in done.stderr
    table = predicted("published:kaplan2020-n", "--n-params", "1e9", "--csv").splitlines()
    assert [line.split(",")[1] for line in table] == ["quantity", "n_params", "loss"]
    served = ("--n-params", "1.3B", "--inference-tokens", "1T")
    rows = predicted("published:besiroglu2024", *served, "--csv").splitlines()
    tokens = next(line for line in rows if ",tokens," in line)
    assert float(tokens.split(",")[2]) == pytest.approx(2.6696e11, rel=1e-4)


def test_several_budgets_and_device_hours_are_answered():
    document = json.loads(
        predicted(LAW, "--flops", "1e21,1e22", "--flops", "0.5 PF-days", "--json")
    )
    flops = [each["flops"]["value"] for each in document["predictions"]]
    assert flops == [1e21, 1e22, 0.5 * 8.64e19]
    one = json.loads(
        predicted(
            LAW, "--device", "h100", "--count", "8", "--hours", "72", "--mfu", "0.4", "--json"
        )
    )
    assert one["flops"]["value"] == 8 * 0.4 * 989e12 * 72 * 3600
    assert one["time"] == {"device": "h100", "count": 8, "mfu": 0.4, "hours": 72.0}
    asked = (LAW, "--flops", "1e21", "--device", "h100")
    hours = 1e21 / (0.4 * 989e12) / 3600
    assert json.loads(predicted(*asked, "--json"))["time"]["hours"] == hours
    assert f"1e+21,hours,{hours},," in predicted(*asked, "--csv").splitlines()
