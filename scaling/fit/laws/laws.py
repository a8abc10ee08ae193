"""The laws of the literature that a table can be fitted with: one literal each, by name."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from scaling.fit.laws.derivatives import Array, Inputs
from scaling.fit.laws.expression import PRODUCT, SUM, flatten, parse
from scaling.fit.laws.formula import AS_WRITTEN, parse_formula
from scaling.fit.laws.law import Law, Param, Term

GENTLE = tuple(np.geomspace(0.03, 1.6, 18))
SLOW = tuple(np.geomspace(0.01, 1.2, 18))
COARSE = tuple(np.geomspace(0.03, 1.0, 10))
POSITIVE = (0.0, np.inf)
MOST_EXPONENTS = 2  # of a grid of starts
COUPLINGS = (0.2, 0.35, 0.5, 0.7, 1.0, 1.6)  # where k of the coupled law is sought


def _coefficient(name: str) -> Param:
    return Param(name, (-30.0, 30.0), log=True, of_loss=True)


def _ratio(name: str, exponent: str) -> Param:
    return Param(name, (-30.0, 30.0), log=True, scaled_by=exponent, of_loss=True)


def _gain(values: Inputs) -> dict[str, Array]:
    """G of N* = G (C/6)^a, D* = (C/6)^b / G (Hoffmann 2022, eq. 4)."""
    alpha, beta = values["alpha"], values.get("beta", values["alpha"])
    log_g = (np.log(alpha * values["A"]) - np.log(beta * values["B"])) / (alpha + beta)
    return {"G": np.exp(log_g)}


def sum_of_powers(law: Law, slow: str = "") -> Law | None:
    """A written law as the sum of powers that its formula says: of a floor E, coefficients
    (A/N^alpha, A*N^-alpha) or ratios ((N_c/N)^alpha), and under a root k the same with exponents
    and coefficients times k; all of them positive. None for another shape.

    Exponents that are `slow` are sought from 0.01 on.
    """
    if law.name.partition("(")[0] == AS_WRITTEN:
        return None
    signed_parts = flatten(law.expressions["loss"], SUM)
    floors = [part.id for part, _ in signed_parts if isinstance(part, ast.Name)]
    parts, root = [part for part, _ in signed_parts if not isinstance(part, ast.Name)], ""
    match parts:
        case [ast.BinOp(inside, ast.Pow(), ast.Name(outer))] if len(flatten(inside, SUM)) > 1:
            signed_parts += flatten(inside, SUM)
            parts, root = [part for part, _ in flatten(inside, SUM)], outer
    params, exponents, terms = [Param(name, POSITIVE) for name in floors], dict[str, Param](), []
    ratios = []
    for part in parts:
        is_scaled, power = bool(root), ast.expr()
        match part:
            case ast.BinOp(ast.BinOp(ast.Name(each), ast.Div(), base), ast.Pow(), power):
                match power:
                    case ast.BinOp(power, ast.Div(), ast.Name(outer)) if outer == root:
                        is_scaled = False
                exponent = power.id if isinstance(power, ast.Name) else ""
                ratios.append(_ratio(each, exponent))
            case ast.BinOp(
                ast.Name(each), ast.Div(), ast.BinOp(base, ast.Pow(), ast.Name(exponent))
            ) | ast.BinOp(
                ast.Name(each),
                ast.Mult(),
                ast.BinOp(base, ast.Pow(), ast.UnaryOp(ast.USub(), ast.Name(exponent))),
            ):
                params.append(_ratio(each, root) if root else _coefficient(each))
            case ast.BinOp(ast.Name(each), ast.Div(), base) if root:  # to the power of the root
                exponent, is_scaled = root, False
                ratios.append(_ratio(each, root))
            case _:
                return None
        grid = SLOW if exponent in slow.split() else COARSE if is_scaled else GENTLE
        scale = root if is_scaled else ""
        param = Param(exponent, (1e-3, 4.0), grid=grid, scaled_by=scale)
        if exponent == scale or exponents.setdefault(exponent, param) != param:
            return None
        factors = flatten(base, PRODUCT)
        powers = {x.id: -sign for x, sign in factors if isinstance(x, ast.Name)}
        if len(powers) < len(factors) or not set(powers) <= set(law.inputs):
            return None
        terms.append(Term(each, {exponent: powers}))
    params += [*exponents.values(), *ratios]
    if root and root not in exponents:
        params.append(Param(root, (0.05, 5.0), grid=COUPLINGS))
    if (
        len(exponents) > MOST_EXPONENTS
        or len(floors) > 1
        or any(sign < 0 for _, sign in signed_parts)
    ):
        return None
    if sorted(param.name for param in params) != sorted(law.names):
        return None  # something else, such as one coefficient of two terms
    powers_of = replace(
        law,
        params=tuple(params),
        terms=tuple(terms),
        floor="".join(floors),
        root=root,
        expressions={},
        linear=(),
    )
    return powers_of if powers_of.has_frontier or not law.has_frontier else None


def _law(
    name: str,
    text: str,
    reference: str,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    slow: str = "",
    **fields: Any,
) -> Law:
    """A law of the literature, as its formula says it."""
    written = parse_formula(text, bounds=bounds)
    law = sum_of_powers(written, slow) or written
    return replace(law, **{"name": name, "formula": text, "reference": reference, **fields})


def _broken_law(name: str, letter: str) -> Law:
    return _law(
        name,
        f"L({letter}) = E + b*{letter}^-c0*(1 + ({letter}/d)^(1/f))^(-c1*f)",
        "Caballero et al. 2023 (Broken Neural Scaling Laws), eq. 1, one break",
        {
            "E": POSITIVE,
            "b": POSITIVE,
            "c0": (-2, 4),
            "c1": (-4, 4),
            "d": POSITIVE,
            "f": (0.05, 20),
        },
        floor="E",
    )


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
VIDEAU = "Videau et al. 2026 (arXiv:2608.07222)"
_ALL = (
    _law(
        "chinchilla",
        "L(N,D) = E + A/N^alpha + B/D^beta",
        "Hoffmann et al. 2022, eq. 2",
        derived=_gain,
    ),
    _law(
        "chinchilla-tied",
        "L(N,D) = E + A/N^alpha + B/D^alpha",
        "Hoffmann et al. 2022, eq. 2, with alpha = beta (Muennighoff et al. 2023, section 3)",
        derived=_gain,
    ),
    _law(
        "skaling",
        "L(N,D) = E + (A/N^alpha + B/D^beta)^k",
        f"{VIDEAU}; k = 1 is Hoffmann et al. 2022, eq. 2",
        derived=_gain,
    ),
    _law(
        "skaling-tied",
        "L(N,D) = E + (A/N^alpha + B/D^alpha)^k",
        f"{VIDEAU}, with alpha = beta",
        derived=_gain,
    ),
    _law(
        "kaplan",
        "L(N,D) = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D",
        "Kaplan et al. 2020, eq. 1.5",
        slow="alpha_N alpha_D",
    ),
    _law("kaplan-n", "L(N) = (N_c/N)^alpha_N", "Kaplan et al. 2020, eq. 1.1", slow="alpha_N"),
    _law("kaplan-d", "L(D) = (D_c/D)^alpha_D", "Kaplan et al. 2020, eq. 1.2", slow="alpha_D"),
    _law("kaplan-c", "L(C) = (C_c/C)^alpha_C", "Kaplan et al. 2020, eq. 1.3", slow="alpha_C"),
    _law(
        "kaplan-ns",
        "L(N,S) = (N_c/N)^alpha_N + (S_c/S)^alpha_S",
        "Kaplan et al. 2020, eq. 1.6; S is the least number of steps, far above the critical batch",
        slow="alpha_N",
    ),
    _law(
        "power", "L(C) = E + A/C^alpha", "Henighan et al. 2020, eq. 1.1, in compute", slow="alpha"
    ),
    _law(
        "overtraining",
        "L(N,D,C) = E + A/(N*C/D)^eta + B/(D*C/N)^eta",
        "Gadre et al. 2024, eq. 4: E + (A M^eta + B M^-eta) C^-eta, M = D/N",
        slow="eta",
    ),
    Law(
        name="data-constrained",
        formula=(
            "L(N,D,U) = E + A/N'^alpha + B/D'^beta, N' and D' discounting repeats by R_N and R_D"
        ),
        reference="Muennighoff et al. 2023, eq. 5 to 7",
        inputs=("N", "D", "U"),
        params=(
            Param("E", POSITIVE),
            _coefficient("A"),
            _coefficient("B"),
            Param("alpha", (1e-3, 4.0), grid=GENTLE[::3]),
            Param("beta", (1e-3, 4.0), grid=GENTLE[::3]),
            Param("R_D", (-7.0, 12.0), log=True, grid=(0.5, 2.5, 4.0, 6.0)),
            Param("R_N", (-7.0, 12.0), log=True, grid=(-0.5, 0.5, 1.5, 4.0)),
        ),
        terms=(Term("A", {"alpha": {"N": -1}}), Term("B", {"beta": {"D": -1}}, "of_d")),
        floor="E",
        derived=_gain,
        expressions={
            name: parse(text)
            for name, text in {  # a fit begins where N' = N
                "unique": "min(U, D)",
                "of_d": "exp(-beta*log(unique * (1 - R_D*expm1((1 - D/unique)/R_D))))",
                "log_n": "min((log(alpha*A/(beta*B)) + beta*log(unique))/alpha, log(N))",
                "of_n": "exp(-alpha*(log_n + log(1 - R_N*expm1((1 - N*exp(-log_n))/R_N))))",
                "loss": "E + A*of_n + B*of_d",
            }.items()
        },
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
    _law(
        "sigmoid",
        "accuracy(X) = lo + span*(1 - tanh(k*(X - X_0)/2))/2",  # without the overflow of exp
        "Llama 3 (Dubey et al. 2024), section 3.2.1; Bhagia et al. 2024, eq. 3",
        {"lo": (0, 1), "span": (1e-3, 1.65), "k": (0.05, 150), "X_0": (-10, 30)},
        formula="accuracy(X) = lo + span / (1 + exp(k (X - X_0))), X the loss on the task",
        floor="lo",
        derived=lambda values: {"hi": values["lo"] + values["span"]},
        default_objective="mse",
    ),
    _law(
        "farseer",
        "L(N, D) = exp(s*N^q + S) + exp(B*N^b + Q)*D^-exp(A*N^a + E)",
        "Li et al. 2025 (Farseer, arXiv:2506.10972)",
        start=FARSEER_2025,
    ),
)


class Laws(dict[str, Law]):
    """Laws by name. A formula such as "L(N, D) = E + A/N^alpha" is the name of the law that it
    writes: a sum of powers, or what else it says.
    """

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or "=" in str(name)

    def __missing__(self, name: str) -> Law:
        if "=" not in name:
            raise KeyError(name)
        law = parse_formula(name)
        return sum_of_powers(law) or law

    def get(self, name: str, default: Any = None) -> Any:
        """The law of a name, or the default."""
        return self[name] if name in self else default  # noqa: SIM401


LAWS = Laws({law.name: law for law in _ALL})
