"""Comparing two sweeps: the level and power of the test, the compute for one loss, and what is
rejected.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.compare import cheaper, steeper
from benchmarks.simulated_sweeps import SURFACES
from benchmarks.twins import document
from scaling.errors import ScalingError
from scaling.fit.document import to_jsonable
from scaling.fit.frontier.frontier import Cost
from scaling.fit.laws.laws import LAWS
from scaling.fit.significance import holm, open_interval, two_sided
from scaling.points.comparability import comparable
from scaling.predict.compare import compute_ratio
from tests.documents import compare

LAW = SURFACES[0]


@pytest.fixture(scope="module")
def sweeps():
    """Fits of four simulated sweeps of 20 runs: two of one law, one that needs half the compute,
    one with a larger alpha.
    """
    made = {"one": LAW, "twin": LAW, "half": cheaper(LAW, 0.5), "steep": steeper(LAW, 0.1)}
    return {
        name: document(surface, 20, 100, [7, place]).to_dict()
        for place, (name, surface) in enumerate(made.items())
    }


def quantities(found, other):
    return {test["quantity"]: test for test in found["tests"] if test["other"] == other}


def test_comparison_has_its_level_and_power_on_normal_estimates():
    random = np.random.default_rng(0)
    p = {}
    for shift in (0.0, 4.0):
        ends = random.normal([0.0, shift], 1.0, (1000, 2))
        drawn = [ends[:, [side]] + random.normal(size=(1000, 400)) for side in (0, 1)]
        p[shift] = np.mean(
            [two_sided(two - one, 400) < 0.05 for one, two in zip(*drawn, strict=True)]
        )
    assert abs(p[0.0] - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 1000)
    assert p[4.0] > 0.75  # 4 / sqrt(2) standard deviations: a z-test sees 81 %


def test_equal_pairs_do_not_differ_and_half_the_compute_is_recovered(sweeps):
    found = compare({name: sweeps[name] for name in ("one", "twin", "half", "steep")})
    assert not any(test["significant"] for test in quantities(found, "twin").values())
    half, steep = quantities(found, "half"), quantities(found, "steep")
    assert half["compute"]["significant"]
    assert not any(half[name]["significant"] for name in ("a", "b", "E", "alpha", "beta"))
    assert {"a", "alpha"} <= {name for name, test in steep.items() if test["significant"]}
    for name, truth in (("twin", 1.0), ("half", 0.5)):
        share, gain = (found["multipliers"][name]["at_top"][key] for key in ("share", "gain"))
        assert share["lo"] <= truth <= share["hi"]
        assert (gain["value"], gain["lo"], gain["hi"]) == pytest.approx(
            (1 / share["value"], 1 / share["hi"], 1 / share["lo"])
        )
    assert len(found["tests"]) == 18
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_bootstrap_draws_of_one_seed_are_not_paired(sweeps):
    """The same draws on both sides stand for two independent sweeps: their difference spreads by
    the root of two.
    """
    other = sweeps["one"] | {"source": sweeps["one"]["source"] | {"digest": "another"}}
    spread = quantities(compare({"one": sweeps["one"], "other": other}), "other")["alpha"]
    assert spread["difference"]["se"] == pytest.approx(np.sqrt(2) * spread["first"]["se"], rel=0.1)
    assert spread["p"] > 0.9


def test_the_share_is_that_of_the_closed_form_and_open_where_the_floor_is_too_high():
    first, other = (surface.frontier() for surface in (LAW, cheaper(LAW, 0.5)))
    budgets = np.array([1e19, 1e21, 1e23])
    assert compute_ratio(first, other, budgets) == pytest.approx(0.5)
    high = LAWS["chinchilla"].frontier(
        {name: np.asarray(value) for name, value in {**LAW.values, "E": 2.2}.items()},
        Cost(),
    )
    assert compute_ratio(first, high, np.array([1e18, 1e23])).tolist()[1] == np.inf
    assert open_interval(2.0, np.array([1.0] * 5 + [np.inf] * 5), 0.9).to_dict() == {
        "value": 2.0,
        "lo": 1.0,
        "hi": None,
    }
    assert open_interval(np.inf, np.array([3.0] + [np.inf] * 9), 0.9).value is None


def test_requested_budgets_are_compared_and_extrapolation_marked(sweeps):
    held = compare({"one": sweeps["one"], "half": sweeps["half"]}, budgets=[1e23])["multipliers"][
        "half"
    ]
    last = held["rows"][-1]
    assert last["flops"] == 1e23
    assert last["beyond"] == ["one", "half"]
    assert held["at_top"]["flops"] == pytest.approx(1e21)
    assert held["at_top"]["beyond"] == []
    apart = sweeps["half"] | {"range": {"flops": [1e22, 1e24]}}
    assert not compare({"one": sweeps["one"], "half": apart})["multipliers"]["half"]["both_trained"]


def test_the_interval_of_the_share_counts_what_planned_models_cost(sweeps):
    """Draws that all equal the estimate have an interval of no width about it."""
    size = np.log([1e5, 1e12])
    planned = {"log_n": size, "log_flops": 9.0 + 0.8 * (size - size[0]), "p": [0.8, 0.8]}
    fits = {}
    for name in ("one", "steep"):
        fit = sweeps[name]
        values = {key: param["value"] for key, param in fit["params"].items()}
        draws = {key: [value] * 9 for key, value in values.items()}
        fits[name] = fit | {"bootstrap": fit["bootstrap"] | {"draws": draws}}
    fits["one"] |= {"cost": fits["one"]["cost"] | {"planned": to_jsonable(planned)}}
    (row, *_) = compare(fits)["multipliers"]["steep"]["rows"]
    share = row["share"]
    assert (share["lo"], share["hi"]) == pytest.approx((share["value"],) * 2, rel=1e-9)


def test_an_objective_without_a_delta_is_named_alone(sweeps):
    objective = sweeps["half"]["objective"] | {"name": "mse-log", "delta": None}
    found = compare({"one": sweeps["one"], "half": sweeps["half"] | {"objective": objective}})
    assert found["sides"][1]["objective"] == "mse-log"
    assert found["notes"][0].startswith("half was fitted with the objective mse-log, one with ")


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


REFUSED = {
    "the same runs": ({"source": {"digest": "[7, 0]"}}, "rests on the same runs as one"),
    "another counting": (
        {"source": {"convention": {"params": "total", "flops": "6nd"}}},
        "counts N as total, that of one as with_head",
    ),
    "no draws": ({"bootstrap": None}, "holds no bootstrap draws"),
    "no budgets": ({"range": {}}, "which budgets were trained"),
    "no frontier": ({"law": "bnsl"}, "no compute-optimal N and D"),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED)
def test_incomparable_fits_are_rejected_by_name(sweeps, changes, words):
    merged = {
        **sweeps["twin"],
        **changes,
        "source": sweeps["twin"]["source"] | changes.get("source", {}),
    }
    with pytest.raises(ScalingError, match=words) as refused:
        compare({"one": sweeps["one"], "other": merged})
    assert refused.value.where == "other"
    assert refused.value.remedy


def test_losses_on_other_data_leave_the_exponents_only(sweeps):
    elsewhere = sweeps["half"] | {
        "source": sweeps["half"]["source"]
        | {"evaluation": {"corpus": "two", "unit": "nats per token"}}
    }
    found = compare({"one": sweeps["one"], "half": elsewhere})
    assert found["multipliers"] == {}
    assert not found["losses"]["half"]["compare"]
    assert list(quantities(found, "half")) == ["a", "b", "alpha", "beta"]


def said(one, two, **model):
    ours, theirs = (
        {"source": {"evaluation": each, "model": {"seq_len": length}}}
        for each, length in ((one, 64), (two, model.get("seq_len", 64)))
    )
    return comparable(ours, theirs)


def test_what_makes_losses_comparable():
    text = {"corpus": "6fed", "unit": "nats per token", "simulated": None}
    assert said(text, text).compare
    assert said(text, {**text, "corpus": "beef"}).compare is False
    assert said(text, {**text, "unit": "bits per byte"}).compare is False
    assert said(text, {**text, "simulated": "published:hoffmann2022"}).compare is False
    assert said(text, {}).compare is None
    assert "64 and 128" in said(text, text, seq_len=128).why


def test_parameter_fixed_in_both_fits_is_not_tested(sweeps):
    fixed = [
        {
            **each,
            "bootstrap": each["bootstrap"]
            | {
                "draws": each["bootstrap"]["draws"]
                | {"E": np.full_like(each["bootstrap"]["draws"]["E"], 1.8)}
            },
        }
        for each in (sweeps["one"], sweeps["twin"])
    ]
    assert "E" not in quantities(compare(dict(zip(("one", "twin"), fixed, strict=True))), "twin")


def test_the_pairs_of_the_benchmark_differ_as_they_say():
    assert replace(cheaper(LAW, 0.5), name="").frontier().loss(5e20) == pytest.approx(
        LAW.frontier().loss(1e21)
    )
    assert steeper(LAW, 0.1).values["alpha"] == pytest.approx(LAW.values["alpha"] + 0.1)
