"""Laws written as formulas: what is read, its derivatives, and fits that equal those of the
built-in laws.
"""

from io import StringIO

import numpy as np
import pandas as pd
import pytest

from scaling.errors import ScalingError
from scaling.fit.document import FitStatus, in_one_table
from scaling.fit.estimate import estimate
from scaling.fit.frontier.frontier import Cost
from scaling.fit.laws.formula import parse_formula
from scaling.fit.laws.formula_starts import draw
from scaling.fit.laws.laws import LAWS, sum_of_powers
from scaling.fit.pipeline import FitOptions, FitResult
from scaling.fit.pipeline import fit as fit_sources
from scaling.fit.result import Agreement
from scaling.points.points import Points
from scaling.predict.predict import predict
from scaling.report.headline import fit_lines
from tests.command_line import scaling
from tests.fit.test_law_weights import isoflop_runs

CHINCHILLA = "L = E + A/N^alpha + B/D^beta"
COUPLED = "L(N, D) = E + (A/N^alpha + B/D^beta)^k"
TRUTH = {"E": 1.7, "A": 400.0, "B": 1800.0, "alpha": 0.34, "beta": 0.37}


def fit(table: pd.DataFrame, **options: object) -> FitResult:
    return fit_sources([table], FitOptions(**options))  # type: ignore[arg-type]


def grid(noise: float = 0.0) -> Points:
    n, d = (
        values.ravel()
        for values in np.meshgrid(np.geomspace(1e7, 1e10, 8), np.geomspace(1e9, 1e12, 8))
    )
    law = LAWS["chinchilla"]
    loss = np.exp(law.log_predict(law.theta(TRUTH), {"N": n, "D": d}))
    return Points(
        loss=loss * np.exp(noise * np.random.default_rng(0).standard_normal(len(n))),
        n=n,
        d=d,
        c=6 * n * d,
    )


def test_derivatives_of_every_operation_equal_differences() -> None:
    law = parse_formula(
        "L(x, y) = a + b*x^c - exp(-d*y)/(1 + e*log(x)) + sqrt(f + y)*tanh(g*x) + max(a*x, h*y) "
        "+ min(c, abs(e - 3), x) - +ln(y + h)^2"
    )
    rng = np.random.default_rng(1)
    x = {"x": rng.uniform(1.5, 3, 5), "y": rng.uniform(0.2, 2, 5)}
    theta = rng.uniform(0.5, 1.5, (2, len(law.names)))
    _, gradient = law.gradient(theta, x)
    for i in range(len(law.names)):
        step = np.zeros(len(law.names))
        step[i] = 1e-6
        difference = (law.gradient(theta + step, x)[0] - law.gradient(theta - step, x)[0]) / 2e-6
        np.testing.assert_allclose(gradient[:, i], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("text", "position", "what"),
    [
        ("L = E + A N", "11", "no arithmetic"),
        ("L = E + A/N^alpha)", "18", "no arithmetic"),
        ("L = E + foo(N)", "9", "unknown function 'foo'"),
        ("L = E + log(N, D)", "9", "log takes one argument"),
        ("L = E + A*log", "11", "log is a function"),
        ("L = N if N > 1 else E", "7", "no arithmetic"),
        ("L = E.real * N", "5", "no arithmetic"),
        ("E + A/N", "1", "the left side is not a name"),
        ("L(N, V) = E + A/N", "6", "V does not occur"),
    ],
)
def test_a_formula_that_cannot_be_read_names_the_position(
    text: str, position: str, what: str
) -> None:
    with pytest.raises(ScalingError, match=rf"position {position}, .*{what}"):
        parse_formula(text)


def test_linear_parameters_are_recognised() -> None:
    assert set(parse_formula(CHINCHILLA).linear) == {"E", "A", "B"}
    assert parse_formula(COUPLED).linear == ("E",)
    assert set(parse_formula("L(x, y) = a + b*x + c*x*y + d*exp(-k*y)").linear) == {
        "a",
        "b",
        "c",
        "d",
    }
    assert set(parse_formula("L(V, N) = c + A*N^-a*(1 + C*(log(V) - v)^2)").linear) == {"c", "A"}


@pytest.mark.slow
@pytest.mark.parametrize(("text", "name"), [(CHINCHILLA, "chinchilla"), (COUPLED, "skaling")])
def test_a_formula_gives_the_fit_of_the_built_in_law(text: str, name: str) -> None:
    points = grid(noise=0.003)
    ours, theirs = estimate(parse_formula(text), points), estimate(LAWS[name], points)
    assert ours.value == pytest.approx(theirs.value, rel=1e-6)
    for parameter, value in theirs.values.items():
        assert ours.values[parameter] == pytest.approx(value, rel=1e-3)


KAPLAN = "L(N,D) = ((n/N)^(p/q) + d/D)^q"
SAME = {"e": "E", "a": "A", "b": "B", "x": "alpha", "y": "beta"}
IN_KAPLAN = {"n": "N_c", "d": "D_c", "p": "alpha_N", "q": "alpha_D"}


@pytest.mark.parametrize(
    ("text", "name", "names"),
    [
        ("L = e + a/N^x + b*D^-y", "chinchilla", SAME),
        ("loss(D, N) = (a*N^-x + b/D^y)^k + e", "skaling", {**SAME, "k": "k"}),
        (KAPLAN, "kaplan", IN_KAPLAN),
    ],
)
def test_a_formula_in_the_shape_of_a_built_in_law_is_fitted_as_that_law(text, name, names):
    points = grid(noise=0.003)
    table = pd.DataFrame({"N": points.n, "D": points.d, "loss": points.loss})
    ours, theirs = fit(table, formula=text, bootstrap=20), fit(table, law=name, bootstrap=20)
    assert ours.objective.value == pytest.approx(theirs.objective.value, rel=1e-12)
    for parameter, known in names.items():
        assert ours.params[parameter].value == pytest.approx(theirs.params[known].value, rel=1e-9)
        assert ours.params[parameter].hi == pytest.approx(theirs.params[known].hi, rel=1e-9)
    answers = [predict(each, flops=1e22) for each in (ours, theirs)]
    assert answers[0].n_params.lo == pytest.approx(answers[1].n_params.lo, rel=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "L = E - A/N^alpha + B/D^beta",
        "L = E + A/N^alpha + A/D^beta",  # one coefficient of two terms
        "L = E + A/N^alpha + F/N^gamma + B/D^beta",
        "L = E + A*N^alpha",
        "L = E + F + A/N^alpha",
        "L = E + A/(2*N)^alpha",
        "L = E + A/(N*N)^alpha",
        "L = E + (A/N^alpha + B/D^beta)^alpha",
        "L = ((n/N)^(p/q) + b/D^p)^q",
        "L = E + A/N^alpha^beta",
        "y = E + A/N^alpha + B/D^beta",
    ],
)
def test_another_shape_is_no_sum_of_powers(text):
    law = parse_formula(text)
    assert sum_of_powers(law) is None
    assert LAWS[law.name].expressions


@pytest.mark.slow
def test_a_formula_without_an_optimum_leaves_its_approach_out_of_the_comparison():
    points = grid()
    table = pd.DataFrame({"N": points.n, "D": points.d, "loss": points.loss})
    result = fit(table, formula="L = E + exp(-a*log(N)/10) + B/D^beta + N/1e7", bootstrap=0)
    assert result.approaches["parametric"].a.value is None
    assert "a" not in result.derived
    (answer, *_) = fit_lines(result)
    assert answer[1].startswith("E = ")
    assert result.approaches_agree.verdict is Agreement.AGREE  # of the other two
    assert "a is isoflop 0.520, envelope 0.516;" in result.approaches_agree.message


def test_a_sum_of_powers_below_zero_is_fitted_as_it_is_written_and_predicted_from_its_document():
    n = np.geomspace(1e7, 1e10, 30)
    table = pd.DataFrame({"N": n, "loss": -6 + 900 * n**-0.3})
    result = fit(table, formula="L = E + A/N^alpha", bootstrap=0)
    assert result.law == "y(N) = E + A/N^alpha"
    assert result.params["E"].value == pytest.approx(-6, rel=1e-4)
    read = FitResult.parse(result.to_dict(), "document", "")
    assert predict(read, n_params=1e11).loss.value == pytest.approx(-6 + 900 * 1e11**-0.3, rel=1e-3)


def test_a_frontier_without_closed_form_stands_with_its_draws():
    steps = np.r_[1.0, np.linspace(0.99, 1.01, 5)]
    values = {name: value * steps for name, value in TRUTH.items()}
    closed, numeric = (
        law.frontier(values, Cost()) for law in (LAWS["chinchilla"], parse_formula(CHINCHILLA))
    )
    assert numeric.n_star(1e22).shape == (6,)
    np.testing.assert_allclose(numeric.n_star(1e22), closed.n_star(1e22), rtol=1e-5)
    np.testing.assert_allclose(numeric.flops_of("L", 2.3), closed.flops_of("L", 2.3), rtol=1e-5)


def test_the_numeric_frontier_equals_the_closed_one() -> None:
    closed = LAWS["chinchilla"].frontier(TRUTH, Cost())
    numeric = parse_formula(CHINCHILLA).frontier(TRUTH, Cost())
    assert float(numeric.a) == pytest.approx(float(closed.a), rel=1e-4)
    for flops in (1e18, 1e24):
        assert float(numeric.n_star(flops)) == pytest.approx(float(closed.n_star(flops)), rel=1e-4)
        assert float(numeric.loss(flops)) == pytest.approx(float(closed.loss(flops)), rel=1e-9)
    assert float(numeric.flops_of("L", 2.0)) == pytest.approx(
        float(closed.flops_of("L", 2.0)), rel=1e-4
    )


@pytest.mark.slow
def test_a_fitted_formula_predicts_from_its_document_alone(tmp_path) -> None:
    points = grid(noise=0.002)
    table = pd.DataFrame({"params": points.n, "tokens": points.d, "loss": points.loss})
    result = fit(table, formula=CHINCHILLA, bootstrap=20)
    assert result.law == "L(N, D) = E + A/N^alpha + B/D^beta"
    result.save(tmp_path / "fit.json")
    read = FitResult.load(tmp_path / "fit.json")
    at_flops = predict(read, flops=1e22)
    closed = LAWS["chinchilla"].frontier(TRUTH, Cost())
    assert at_flops.n_params.lo is not None
    assert at_flops.n_params.value == pytest.approx(float(closed.n_star(1e22)), rel=0.2)
    at_inputs = predict(read, n_params=1e9, tokens=1e11)
    assert at_inputs.loss.value == pytest.approx(
        1.7 + 400 / 1e9**0.34 + 1800 / 1e11**0.37, rel=0.005
    )


def test_a_formulas_own_a_and_b_stand_next_to_the_exponents_of_the_frontier(tmp_path) -> None:
    points = grid(noise=0.002)
    table = pd.DataFrame({"N": points.n, "D": points.d, "loss": points.loss})
    table.to_csv(tmp_path / "runs.csv", index=False)
    asked = ("fit", tmp_path / "runs.csv", "--bootstrap", 0, "--holdout", "none")
    asked += ("--formula", "L = E + A/N^a + B/D^b")
    rows = pd.read_csv(StringIO(scaling(*asked, "--csv", code=0).stdout), index_col="parameter")
    expected = {"a": TRUTH["alpha"], "b": TRUTH["beta"]}
    expected |= {"a of the frontier": 0.37 / 0.71, "b of the frontier": 0.34 / 0.71}
    assert rows["value"].loc[list(expected)].to_dict() == pytest.approx(expected, rel=0.03)
    shown = [" ".join(line.split()) for line in scaling(*asked, code=0).stdout.splitlines()]
    for name in expected:
        assert any(line.startswith(f"{name} 0.") for line in shown), name
    fitted = fit(table, formula="L = E + A/N^a + B/D^b", bootstrap=0, holdout="none")
    law = fit(table, law="chinchilla", bootstrap=0, holdout="none")
    own, usual = in_one_table(fitted, law)
    assert own["a of the frontier"].value == pytest.approx(usual["a of the frontier"].value)
    assert own["a"].value == pytest.approx(usual["alpha"].value)
    assert "a" not in usual


def test_an_approach_names_its_exponents_once() -> None:
    runs = isoflop_runs("chinchilla", TRUTH, noise=0.001)
    table = pd.DataFrame({"N": runs.n, "D": runs.d, "C": runs.c, "loss": runs.loss})
    [named] = in_one_table(fit(table, approach="isoflop", bootstrap=20))
    assert list(named)[:4] == ["a", "n_coef", "b", "d_coef"]
    assert not [name for name in named if "of the frontier" in name]


def test_inputs_of_any_name_and_losses_below_zero() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"vocab": rng.choice([4e3, 1e4, 3e4, 1e5], 60), "chars": np.geomspace(1e8, 1e11, 60)}
    )
    table["unigram_loss"] = -6 + 900 * table["chars"] ** -0.3 + 0.1 * np.log(table["vocab"])
    result = fit(
        table,
        formula="L = c + A*chars^-alpha + b*log(vocab)",
        columns="L=unigram_loss",
        bootstrap=10,
    )
    for name, value in {"c": -6, "A": 900, "alpha": 0.3, "b": 0.1}.items():
        assert result.params[name].value == pytest.approx(value, rel=1e-3)
    assert result.objective.name == "huber"


def test_a_law_file_gives_start_bounds_and_source(tmp_path) -> None:
    law = tmp_path / "law.toml"
    law.write_text(
        'formula = "L = E + A/N^alpha + B/D^beta"\nsource = "a paper"\n'
        '[start]\nalpha = 0.3\n[bounds]\nalpha = [0.2, 0.33]\n[units]\nN = "parameters"\n'
    )
    points = grid()
    table = pd.DataFrame({"N": points.n, "D": points.d, "L": points.loss})
    result = fit(table, formula=str(law), bootstrap=0)
    assert result.params["alpha"].value == pytest.approx(0.33)
    assert any(warning.code == "at_bound" for warning in result.warnings)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"law": "chinchilla"}, "two laws"),
        ({"start": "z=1"}, "no parameter 'z'"),
        ({"start": "alpha"}, "NAME=VALUE"),
        ({"columns": "N=N,D=D,L=L,S=N"}, "does not use S"),
    ],
)
def test_options_that_a_formula_cannot_follow_are_rejected(
    options: dict[str, str], what: str
) -> None:
    table = pd.DataFrame({"N": [1e8, 1e9], "D": [1e10, 1e11], "L": [3.0, 2.5]})
    with pytest.raises(ScalingError, match=what):
        fit(table, formula=CHINCHILLA, **options)


def test_a_missing_column_is_named() -> None:
    table = pd.DataFrame({"N": [1e8, 1e9], "L": [3.0, 2.5]})
    with pytest.raises(ScalingError, match="no column 'experts' for experts"):
        fit(table, formula="L(N, experts) = E + A*N^-a*experts^-b")


def test_farseer_published_gives_its_own_optimum() -> None:
    answer = predict("published:farseer2025", flops=1e22)
    assert answer.n_params.value == pytest.approx(6.41e9, rel=0.01)
    assert answer.loss.value == pytest.approx(0.4411, rel=1e-3)
    assert predict("published:farseer2025", n_params=1e9, tokens=1e11).loss.value == pytest.approx(
        np.exp(-0.062465473 * 1e9**0.13 + 0.1284880679)
        + np.exp(230.73437 * 1e9**-0.1729 - 1.544209554)
        * 1e11 ** -np.exp(-1.665630816 * 1e9**0.0459 + 3.1333472),
        rel=1e-4,
    )


def test_inputs_by_name_give_the_loss_and_unknown_ones_are_refused() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"N": np.geomspace(1e7, 1e9, 40), "experts": rng.choice([1, 4, 16, 64], 40)}
    )
    table["loss"] = 1.5 + 40 * (table["N"] * table["experts"] ** 0.4) ** -0.2
    result = fit(table, formula="L = c + A*(N*experts^g)^-a", bootstrap=10)
    loss = predict(result, N=1e10, experts=16).loss
    assert loss.value == pytest.approx(1.5 + 40 * (1e10 * 16**0.4) ** -0.2, rel=1e-3)
    with pytest.raises(ScalingError, match="does not use E"):
        predict(result, N=1e10, E=16)
    with pytest.raises(ScalingError, match="experts is missing"):
        predict(result, n_params=1e10)


def test_a_formula_may_name_a_parameter_by_a_word_of_python() -> None:
    law = parse_formula("L(N) = E + lambda*N^-is")
    assert law.names == ("E", "lambda", "is")


def test_every_parameter_is_drawn_where_inputs_are_zero() -> None:
    """A power of zero, and a factor of what is mostly zero: each was left at one."""
    law = parse_formula("L(p, q) = exp(bias + c*p^a + d*q^b) + E*exp(-max(q - 0.8, 0)/s)")
    share = np.linspace(0, 1, 21)
    drawn = draw(law, {"p": share, "q": 1 - share}, np.random.default_rng(0), 200)
    assert (drawn[:, [law.index("a"), law.index("b")]] > 0).all()
    for name in ("bias", "c", "d", "s"):
        assert np.ptp(drawn[:, law.index(name)]) > 0.1


def test_a_written_law_has_the_minimum_of_the_built_in_one_and_starts_that_crept_are_none():
    """Runs of the coupled law whose coefficients and exponents trade along a long valley."""
    n, d = (g.ravel() for g in np.meshgrid(np.geomspace(1e6, 1e10, 12), np.geomspace(1e8, 1e11, 8)))
    rng = np.random.default_rng(0)
    loss = 1.75 + (1357 / n**0.398 + 4111 / d**0.391) ** 0.83
    points = Points(loss=loss * np.exp(0.005 * rng.standard_normal(len(n))), n=n, d=d, c=6 * n * d)
    written = estimate(parse_formula("L = E + (A/N^alpha + B/D^beta)^k"), points)
    built_in = estimate(LAWS["skaling"], points)
    assert written.status is built_in.status is FitStatus.OK
    assert written.value == pytest.approx(built_in.value, rel=1e-9)
    for name, value in built_in.values.items():
        assert written.values[name] == pytest.approx(value, rel=1e-4)
    assert all(one.value > 1.5 * written.value for one in written.starts.minima[1:])


def test_budget_of_a_size_or_of_tokens_is_that_of_the_closed_frontier_far_from_1e21():
    values = TRUTH | {"k": 1.0}
    written = parse_formula(COUPLED).frontier(values, Cost())
    closed = LAWS["chinchilla"].frontier(TRUTH, Cost())
    for letter, value in (("N", 1e5), ("D", 3e6), ("N", 1e11)):
        flops = closed.flops_of(letter, value)
        assert written.flops_of(letter, value) == pytest.approx(flops, rel=1e-4)
