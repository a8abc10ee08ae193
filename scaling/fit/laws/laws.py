"""The laws of the literature that a table can be fitted with: one literal each, by name."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

import numpy as np

from scaling.fit.laws.derivatives import Array, Inputs, data_constrained
from scaling.fit.laws.expression import parse
from scaling.fit.laws.formula import parse_formula
from scaling.fit.laws.law import Law, Param, Term

GENTLE = tuple(np.geomspace(0.03, 1.6, 18))
SLOW = tuple(np.geomspace(0.01, 1.2, 18))
COARSE = tuple(np.geomspace(0.03, 1.0, 10))
COUPLINGS = (0.2, 0.35, 0.5, 0.7, 1.0, 1.6)  # where k of the coupled law is sought


def _floor(name: str) -> Param:
    return Param(name, (0.0, np.inf))


def _coefficient(name: str) -> Param:
    return Param(name, (-30.0, 30.0), log=True, of_loss=True)


def _exponent(name: str, grid: tuple[float, ...] = GENTLE) -> Param:
    return Param(name, (1e-3, 4.0), grid=grid)


def _scale_constant(name: str, exponent: str) -> Param:
    return Param(name, (-30.0, 30.0), crossing=exponent, of_loss=True)


def _coupled_exponent(name: str) -> Param:
    return Param(name, (1e-3, 4.0), grid=COARSE, scaled_by="k")


def _parsed(**quantities: str) -> dict[str, ast.expr]:
    return {name: parse(text) for name, text in quantities.items()}


def _gain(values: Inputs) -> dict[str, Array]:
    """G of N* = G (C/6)^a, D* = (C/6)^b / G (Hoffmann 2022, eq. 4)."""
    alpha, beta = values["alpha"], values.get("beta", values["alpha"])
    log_g = (np.log(alpha * values["A"]) - np.log(beta * values["B"])) / (alpha + beta)
    return {"G": np.exp(log_g)}


def _crossing_law(name: str, letter: str, equation: str) -> Law:
    """L(X) = (X_c / X)^alpha_X, one of Kaplan's laws in one variable."""
    exponent, crossing = f"alpha_{letter}", f"{letter}_c"
    return Law(
        name=name,
        formula=f"L({letter}) = ({crossing}/{letter})^{exponent}",
        reference=f"Kaplan et al. 2020, {equation}",
        inputs=(letter,),
        params=(_exponent(exponent, SLOW), _scale_constant(crossing, exponent)),
        terms=(Term(crossing, {exponent: {letter: -1}}),),
    )


def _broken_law(name: str, letter: str) -> Law:
    """The broken power law with one break, in one variable."""
    return Law(
        name=name,
        formula=f"L({letter}) = E + b {letter}^-c0 (1 + ({letter}/d)^(1/f))^(-c1 f)",
        reference="Caballero et al. 2023 (Broken Neural Scaling Laws), eq. 1, one break",
        inputs=(letter,),
        params=(
            _floor("E"),
            _coefficient("b"),
            Param("c0", (-2.0, 4.0), grid=(0.02, 0.06, 0.15, 0.3, 0.6)),
            Param("c1", (-4.0, 4.0), grid=(-0.3, -0.08, 0.08, 0.3)),
            Param("d", (-15.0, 15.0), log=True, grid=(-4.0, -2.0, 0.0, 2.0, 4.0), place=letter),
            Param("f", (-3.0, 3.0), log=True, grid=(-1.5, 0.0)),
        ),
        terms=(Term("b", {"c0": {letter: -1}}, "power"),),
        floor="E",
        expressions=_parsed(
            power=f"{letter}^-c0 * (1 + ({letter}/d)^(1/f))^(-c1*f)", loss="E + b*power"
        ),
    )


_COUPLED = (Param("k", (0.05, 5.0), grid=COUPLINGS),)
_A_B_SCALED = (_scale_constant("A", "k"), _scale_constant("B", "k"))
_N_AND_D = (Term("A", {"alpha": {"N": -1}}), Term("B", {"beta": {"D": -1}}))
_TIED = (Term("A", {"alpha": {"N": -1}}), Term("B", {"alpha": {"D": -1}}))
_E_A_B = (_floor("E"), _coefficient("A"), _coefficient("B"))
_ALL = (
    Law(
        name="chinchilla",
        formula="L(N,D) = E + A/N^alpha + B/D^beta",
        reference="Hoffmann et al. 2022, eq. 2",
        inputs=("N", "D"),
        params=(*_E_A_B, _exponent("alpha"), _exponent("beta")),
        terms=_N_AND_D,
        floor="E",
        derived=_gain,
    ),
    Law(
        name="chinchilla-tied",
        formula="L(N,D) = E + A/N^alpha + B/D^alpha",
        reference=(
            "Hoffmann et al. 2022, eq. 2, with alpha = beta (Muennighoff et al. 2023, section 3)"
        ),
        inputs=("N", "D"),
        params=(*_E_A_B, _exponent("alpha")),
        terms=_TIED,
        floor="E",
        derived=_gain,
    ),
    Law(
        name="skaling",
        formula="L(N,D) = E + (A/N^alpha + B/D^beta)^k",
        reference="Videau et al. 2026 (arXiv:2608.07222); k = 1 is Hoffmann et al. 2022, eq. 2",
        inputs=("N", "D"),
        params=(
            _floor("E"),
            *_A_B_SCALED,
            _coupled_exponent("alpha"),
            _coupled_exponent("beta"),
            *_COUPLED,
        ),
        terms=_N_AND_D,
        floor="E",
        root="k",
        derived=_gain,
    ),
    Law(
        name="skaling-tied",
        formula="L(N,D) = E + (A/N^alpha + B/D^alpha)^k",
        reference="Videau et al. 2026 (arXiv:2608.07222), with alpha = beta",
        inputs=("N", "D"),
        params=(_floor("E"), *_A_B_SCALED, _coupled_exponent("alpha"), *_COUPLED),
        terms=_TIED,
        floor="E",
        root="k",
        derived=_gain,
    ),
    Law(
        name="kaplan",
        formula="L(N,D) = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D",
        reference="Kaplan et al. 2020, eq. 1.5",
        inputs=("N", "D"),
        params=(
            _exponent("alpha_N", SLOW),
            _exponent("alpha_D", SLOW),
            _scale_constant("N_c", "alpha_N"),
            _scale_constant("D_c", "alpha_D"),
        ),
        terms=(Term("N_c", {"alpha_N": {"N": -1}}), Term("D_c", {"alpha_D": {"D": -1}})),
        root="alpha_D",
    ),
    _crossing_law("kaplan-n", "N", "eq. 1.1"),
    _crossing_law("kaplan-d", "D", "eq. 1.2"),
    _crossing_law("kaplan-c", "C", "eq. 1.3"),
    Law(
        name="kaplan-ns",
        formula=(
            "L(N,S) = (N_c/N)^alpha_N + (S_c/S)^alpha_S, S the least number of steps "
            "(far above the critical batch)"
        ),
        reference="Kaplan et al. 2020, eq. 1.6",
        inputs=("N", "S"),
        params=(
            _exponent("alpha_N", SLOW),
            _exponent("alpha_S"),
            _scale_constant("N_c", "alpha_N"),
            _scale_constant("S_c", "alpha_S"),
        ),
        terms=(Term("N_c", {"alpha_N": {"N": -1}}), Term("S_c", {"alpha_S": {"S": -1}})),
    ),
    Law(
        name="power",
        formula="L(C) = E + A/C^alpha",
        reference="Henighan et al. 2020, eq. 1.1, in compute",
        inputs=("C",),
        params=(_floor("E"), _coefficient("A"), _exponent("alpha", SLOW)),
        terms=(Term("A", {"alpha": {"C": -1}}),),
        floor="E",
    ),
    Law(
        name="data-constrained",
        formula=(
            "L(N,D,U) = E + A/N'^alpha + B/D'^beta, N' and D' discounting repeats by R_N and R_D"
        ),
        reference="Muennighoff et al. 2023, eq. 5 to 7",
        inputs=("N", "D", "U"),
        params=(
            *_E_A_B,
            _exponent("alpha", GENTLE[::3]),
            _exponent("beta", GENTLE[::3]),
            Param("R_D", (-7.0, 12.0), log=True, grid=(0.5, 2.5, 4.0, 6.0)),
            Param("R_N", (-7.0, 12.0), log=True, grid=(-0.5, 0.5, 1.5, 4.0)),
        ),
        terms=(Term("A", {"alpha": {"N": -1}}, "of_n"), Term("B", {"beta": {"D": -1}}, "of_d")),
        floor="E",
        derived=_gain,
        by_hand=data_constrained,
        expressions=_parsed(  # where a fit begins: N' = N
            of_n="N^-alpha",
            of_d="(min(U, D) * (1 + R_D*(1 - exp((1 - D/min(U, D))/R_D))))^-beta",
        ),
    ),
    Law(
        name="overtraining",
        formula="L(C,M) = E + (A M^eta + B M^-eta) C^-eta, M = D/N",
        reference="Gadre et al. 2024, eq. 4",
        inputs=("N", "D", "C"),
        params=(*_E_A_B, _exponent("eta", SLOW)),
        terms=(
            Term("A", {"eta": {"D": 1, "N": -1, "C": -1}}),
            Term("B", {"eta": {"D": -1, "N": 1, "C": -1}}),
        ),
        floor="E",
    ),
    _broken_law("bnsl", "C"),
    _broken_law("bnsl-n", "N"),
    _broken_law("bnsl-d", "D"),
    Law(
        name="optimum",
        formula="N*(C) = K C^a",
        reference=(
            "Hoffmann et al. 2022, section 3.2: the line through the minima of approach "
            "2; L names the column of N* (or D*)"
        ),
        inputs=("C",),
        params=(_coefficient("K"), Param("a", (-4.0, 4.0), grid=tuple(np.linspace(-1.0, 1.5, 26)))),
        terms=(Term("K", {"a": {"C": 1}}),),
    ),
    Law(
        name="sigmoid",
        formula="accuracy(X) = lo + span / (1 + exp(k (X - X_0))), X the loss on the task",
        reference="Llama 3 (Dubey et al. 2024), section 3.2.1; Bhagia et al. 2024, eq. 3",
        inputs=("X",),
        params=(
            Param("lo", (0.0, 1.0)),
            Param("span", (-7.0, 0.5), log=True),
            Param("k", (-3.0, 5.0), log=True, grid=tuple(np.log([0.5, 1, 2, 4, 8, 16]))),
            Param(
                "X_0",
                (-10.0, 30.0),
                grid=tuple(np.concatenate([np.arange(0.1, 1, 0.2), np.arange(1, 6, 0.5)])),
            ),
        ),
        terms=(Term("span", {}, "rise"),),
        floor="lo",
        derived=lambda values: {"hi": values["lo"] + values["span"]},
        expressions=_parsed(  # 1 / (1 + exp u) without its overflow
            rise="(1 - tanh(k*(X - X_0)/2)) / 2", loss="lo + span*rise"
        ),
        default_objective="mse",
        allows_zero=True,
    ),
)


class Laws(dict[str, Law]):
    """Laws by name. A formula such as "L(N, D) = E + A/N^alpha" is the name of the law that it
    writes.
    """

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or "=" in str(name)

    def __missing__(self, name: str) -> Law:
        if "=" not in name:
            raise KeyError(name)
        return parse_formula(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The law of a name, or the default."""
        return self[name] if name in self else default  # noqa: SIM401


FARSEER_2025 = {  # of the 404 runs that its authors released, in bits a character
    "s": -0.062465473,
    "q": 0.13,
    "S": 0.1284880679442551,
    "B": 230.73437075885855,
    "b": -0.1729,
    "Q": -1.544209554,
    "A": -1.665630816,
    "a": 0.0459,
    "E": 3.133347198805445,
}
_FARSEER = replace(
    parse_formula(
        "L(N, D) = exp(s*N^q + S) + exp(B*N^b + Q)*D^-exp(A*N^a + E)", start=FARSEER_2025
    ),
    name="farseer",
    reference="Li et al. 2025 (Farseer, arXiv:2506.10972)",
)
LAWS = Laws({law.name: law for law in (*_ALL, _FARSEER)})
