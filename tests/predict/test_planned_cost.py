"""What the answers beyond the data cost: the counts of the models that the sweep's recipe plans."""

import shutil

import pytest

from scaling.accounting import n_params, train_flops
from scaling.config import ModelConfig
from scaling.fit.result import FitResult
from scaling.predict.law_source import load_law
from scaling.predict.predict import predict
from scaling.warning import WarningCode
from tests.browser.reports import REFERENCE

FIT = REFERENCE / "fits" / "chinchilla.json"


@pytest.fixture(scope="module")
def law():
    return load_law(str(FIT))


@pytest.mark.parametrize("flops", [2e12, 9e12, 9e13, 1e15])  # to 100k, 192k, 790k and 3M parameters
def test_n_and_d_of_the_answer_cost_the_budget_by_the_exact_count(law, flops):
    answer = predict(str(FIT), flops=flops)
    fields = {name: answer.model[name] for name in ModelConfig.model_fields if name in answer.model}
    model, seq_len = ModelConfig.model_validate(fields), answer.model["seq_len"]
    n, d = answer.n_params.value, answer.tokens.value
    per_param = train_flops(model, seq_len, 1) / n_params(model, seq_len)
    assert n * d * per_param == pytest.approx(flops, rel=0.003)
    built = n_params(model, seq_len)
    assert law.cost.flops(built, 1.0) == pytest.approx(train_flops(model, seq_len, 1), rel=0.001)


def test_power_of_the_runs_own_flops_is_off_beyond_them(law):
    plain = law.cost.model_copy(update={"planned": None})
    for n, error in ((192e3, 0.031), (790e3, 0.078)):
        assert plain.flops(n, 1.0) / law.cost.flops(n, 1.0) == pytest.approx(1 - error, abs=0.005)


def test_a_fit_that_was_moved_counts_the_same_models(law, tmp_path):
    moved = shutil.copy(FIT, tmp_path)
    assert load_law(moved).cost == law.cost
    assert predict(moved, flops=1e14).n_params == predict(str(FIT), flops=1e14).n_params


def test_power_of_the_runs_flops_is_said_where_no_plan_is_known_beyond_the_data(law):
    fit = FitResult.load(FIT)
    plain = law.cost.model_copy(update={"planned": None})
    unplanned = fit.model_copy(update={"cost": plain})

    def warned(source, flops):
        warnings = predict(source, flops=flops).warnings
        return [each.data for each in warnings if each.code is WarningCode.UNPLANNED_COST]

    assert warned(unplanned, 1e13) == [{"c0": plain.c0, "p": plain.p}]
    assert warned(unplanned, 9e11) == warned(fit, 1e13) == []
