"""Named models compare_named_models the optimum of a law."""

import numpy as np
import pytest

from scaling.errors import ScalingError
from scaling.predict.law_source import load_law
from scaling.predict.named_models import NAMED, compare_named_models


def row(compared, name):
    return next(one for one in compared.models if one.model == name)


def test_llama_3_8b_has_1875_tokens_for_a_parameter():
    compared = compare_named_models(load_law("published:besiroglu2024"))
    assert row(compared, "Llama 3 8B").tokens_per_param == 1875


def test_chinchilla_is_near_the_optimum_and_gpt_3_is_too_large():
    compared = compare_named_models(load_law("published:besiroglu2024"))
    assert row(compared, "Chinchilla 70B").size_ratio == pytest.approx(0.96, abs=0.01)
    assert row(compared, "GPT-3 175B").size_ratio > 3
    for one in compared.models:
        assert one.excess_loss >= -1e-12, "nothing is better than the optimum of its own budget"
        np.testing.assert_allclose(one.tokens_per_param_ratio, one.size_ratio**-2, rtol=1e-6)


def test_every_name_once_with_a_source():
    assert len({model.name for model in NAMED}) == len(NAMED)
    assert all(len(model.source) > 20 and model.tokens > model.n_params / 2 for model in NAMED)


def test_frontier_without_a_law_gives_sizes_and_no_loss():
    one = row(compare_named_models(load_law("published:porian2024")), "GPT-3 175B")
    assert one.size_ratio > 1
    assert one.excess_loss is None


def test_a_law_without_an_optimum_is_rejected():
    with pytest.raises(ScalingError, match="no compute-optimal N and D"):
        compare_named_models(load_law("published:kaplan2020-d"))
