"""What a scaling law is: a value that `estimate` fits, `predict` evaluates and the plots draw.

Nearly every law is a sum of powers with an optional floor, L = E + sum_k exp(z_k), where each z_k
is affine in the internal coordinates theta and in the logs of the inputs: log A - alpha log N. With
a root T (Kaplan's L(N,D)) it is log L = T log sum_k exp(z_k / T), and with both (the coupled law) L
= E + (sum_k exp(z_k / T))^T. Values, gradients, second derivatives and the change of units follow
from the terms alone. A law of another kind is written as `expressions` (expression.py); what a user
writes has no terms.

Internal coordinates: a floor and an exponent as they are, a coefficient by its log, a crossing
point X_c by alpha log X_c. Under a root T exponents and log coefficients are multiplied by T. In
units of the data's geometric means they are nearly uncorrelated; `Law.centring` is that change.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.frontier.frontier import Cost, Frontier, PowerSum
from scaling.fit.frontier.numeric import NumericFrontier
from scaling.fit.laws.derivatives import (
    Array,
    Bound,
    Expansion,
    Inputs,
    by_differences,
    sum_of_powers,
)
from scaling.fit.laws.expression import ONE, Slopes, Value, evaluate, value_of

UNIT_OF = {"U": "D"}  # unique tokens are counted in the unit of tokens
FAR = 300.0  # a log loss in the place of one that is not finite: no step goes there


@dataclass(frozen=True)
class Param:
    """A parameter by its reported name. `bounds` and `grid` (where starts are sought) are of the
    internal coordinate in centred units: the value itself, or its log where `log`, times the
    parameter named `scaled_by`. Bounds `of_loss` are counted from the mean log loss.
    """

    name: str
    bounds: tuple[float, float]
    log: bool = False
    grid: tuple[float, ...] = ()
    scaled_by: str = ""
    of_loss: bool = False


@dataclass(frozen=True)
class Term:
    """exp of `coefficient` + sum over exponents of exponent x log of a product of inputs: {"alpha":
    {"N": -1}} is N^-alpha. In a law of `expressions` the coefficient multiplies that of the name
    `factor`.
    """

    coefficient: str
    powers: Mapping[str, Mapping[str, float]]
    factor: str = ""


@dataclass(frozen=True)
class Law:
    """A law of the loss: a sum of `terms`, with a `floor` or under a `root`, or else written as
    `expressions` of inputs and reported parameters: named quantities in order, one of them `loss`.

    `reference` names paper and equation; `inputs` the letters that `Points.inputs` serves;
    `derived` what follows from the reported parameters at C = 6 N D. `linear` names the parameters
    in which a written law is jointly affine, `start` more values from which its fit starts.
    """

    name: str
    formula: str
    reference: str
    inputs: tuple[str, ...]
    params: tuple[Param, ...]
    terms: tuple[Term, ...]
    floor: str = ""
    root: str = ""
    derived: Callable[[Inputs], dict[str, Array]] | None = None
    expressions: Mapping[str, ast.expr] = field(default_factory=dict, repr=False)
    default_objective: str = "huber-log"
    signed: bool = False  # losses may be negative: `bind` gives the loss itself, not its log
    linear: tuple[str, ...] = ()
    start: Mapping[str, float] | None = None

    def from_log(self, value: Array) -> Array:
        """Losses from the scale of `log_predict`: logs, or losses where `signed`."""
        return value if self.signed else np.exp(value)

    def predict(self, theta: Array, x: Inputs) -> Array:
        """The predicted loss (..., n) at theta (..., P) and inputs {letter: (n,)}."""
        if self.terms:
            return np.exp(self.log_predict(theta, x))
        theta = np.asarray(theta, float)  # of either sign
        value, _ = self.gradient(theta.reshape(-1, len(self.params)), x)
        return value.reshape(*theta.shape[:-1], -1)

    @cached_property
    def _powers_of_n_and_d(self) -> dict[str, tuple[str, str]]:
        """Coefficient and exponent by letter, where the law is a sum of one power of N and one of
        D; the data-constrained law is, as long as every token is new (Muennighoff 2023, eq. 5).
        """
        names = {
            "".join(powers): (term.coefficient, exponent)
            for term in self.terms
            for exponent, powers in term.powers.items()
        }
        return names if len(self.terms) == 2 and set(names) == {"N", "D"} else {}

    def power_sum(self, values: Mapping[str, Array | float]) -> PowerSum | None:
        """The sum of a power of N and one of D that the law is at reported parameters, numbers or
        arrays over draws; None for another law.
        """
        if not self._powers_of_n_and_d:
            return None
        theta = self.theta(values)
        root = np.asarray(values[self.root] if self.root else 1.0)
        floor = np.asarray(values[self.floor] if self.floor else np.zeros(theta.shape[:-1]))
        (log_a, alpha), (log_b, beta) = (
            [theta[..., self.index(name)] / root for name in self._powers_of_n_and_d[letter]]
            for letter in "ND"
        )
        return PowerSum(log_a, alpha, log_b, beta, root, floor)

    @property
    def has_frontier(self) -> bool:
        """Whether it has a compute-optimal N and D: in closed form, or, written in N and D alone,
        by minimisation.
        """
        is_written = bool(self.expressions) and set(self.inputs) == {"N", "D"}
        return bool(self._powers_of_n_and_d) or is_written

    def frontier(self, values: Mapping[str, Array | float], cost: Cost) -> Frontier:
        """N*(C), D*(C) and L*(C) at a cost. Raises ScalingError for a law without them."""
        if powers := self.power_sum(values):
            return powers.frontier(cost)
        if not self.has_frontier:
            raise ScalingError(
                f"the law {self.name} has no compute-optimal N and D",
                remedy="fit a law of N and D, for example chinchilla",
            )
        params = {name: np.atleast_1d(np.asarray(values[name], float)) for name in self.names}
        columns = {name: value[:, None] for name, value in params.items()}

        def loss_at(n: Array, d: Array) -> Array:
            return value_of(self.expressions["loss"], {**columns, "N": n, "D": d})

        return NumericFrontier.of(loss_at, cost, np.ndim(values[self.names[0]]) == 0)

    @property
    def names(self) -> tuple[str, ...]:
        """The reported names, in the order of theta."""
        return tuple(param.name for param in self.params)

    def index(self, name: str) -> int:
        """The place of a parameter in theta."""
        return self.names.index(name)

    def bind(self, x: Inputs) -> Bound:
        """The law at fixed inputs {letter: (n,)}, as a function of theta (R, P)."""
        if self.expressions:
            return by_differences(lambda theta: self._log_gradient(theta, x))
        floor, root = (self.index(name) if name else None for name in (self.floor, self.root))
        return sum_of_powers(self._design(x), floor, root)

    def _design(self, x: Inputs, coefficient: float = 1.0) -> Array:
        """The slopes (K, P, n) of each term's log in theta, in its coefficient `coefficient`."""
        design = np.zeros((len(self.terms), len(self.params), len(x[self.inputs[0]])))
        for term, slopes in zip(self.terms, design, strict=True):
            slopes[self.index(term.coefficient)] = coefficient
            for exponent, powers in term.powers.items():
                slopes[self.index(exponent)] = sum(
                    power * np.log(x[letter]) for letter, power in powers.items()
                )
        return design

    def log_columns(self, theta: Array, x: Inputs) -> Array:
        """Logs of the powers (G, K, n) that multiply the coefficients of the terms, before the
        root, at the exponents of theta (G, P).
        """
        columns = np.moveaxis(theta @ self._design(x, 0.0), 0, 1)
        if self.expressions:
            values = self._evaluate(theta, x)
            for i, term in enumerate(self.terms):
                if term.factor:
                    columns[:, i] = np.log(np.maximum(values[term.factor][0], 1e-300))
        return columns

    def _evaluate(self, theta: Array, x: Inputs) -> dict[str, Value]:
        """Inputs, parameters and every quantity of the law's expressions; slopes of a quantity in
        theta go by the quantities that it depends on, `loss` by the parameters alone.
        """
        values: dict[str, Value] = {name: (column, {}) for name, column in x.items()}
        for i, param in enumerate(self.params):
            value = np.exp(theta[:, i, None]) if param.log else theta[:, i, None]
            values[param.name] = value, {param.name: value if param.log else ONE}
        in_params: dict[str, Slopes] = {}
        with np.errstate(all="ignore"):
            for name, tree in self.expressions.items():
                value, slopes = evaluate(tree, values)
                in_params[name] = total = Slopes()
                for each, slope in slopes.items():  # the chain rule
                    for own, inner in in_params.get(each, {each: ONE}).items():
                        outer = slope if inner is ONE else slope * inner
                        total[own] = total[own] + outer if own in total else outer
                values[name] = value, {name: ONE} if total else {}
        return values | {"loss": (value, total)}

    def gradient(self, theta: Array, x: Inputs) -> tuple[Array, Array]:
        """The loss (R, n) of a written law and its derivatives in theta (R, P, n)."""
        value, slopes = self._evaluate(theta, x)["loss"]
        value = np.broadcast_to(value, (len(theta), len(next(iter(x.values())))))
        gradient = np.zeros((len(theta), len(self.params), value.shape[1]))
        for name, slope in slopes.items():
            gradient[:, self.index(name)] = slope
        return value, gradient

    def _log_gradient(self, theta: Array, x: Inputs) -> tuple[Array, Array]:
        """Log L, or L where `signed`, with its derivatives; FAR where it is no number."""
        value, gradient = self.gradient(theta, x)
        with np.errstate(all="ignore"):
            if not self.signed:
                value = np.where(value == 0, 1e-300, value)  # of an accuracy
                value, gradient = np.log(value), gradient / value[:, None]
            usable = np.isfinite(value + gradient.sum(1))
        if usable.all():
            return value, gradient
        return np.where(usable, value, FAR), np.where(usable[:, None], gradient, 0.0)

    def log_predict(self, theta: Array, x: Inputs) -> Array:
        """Natural log of the predicted loss (..., n) at theta (..., P) and inputs
        {letter: (n,)}.
        """
        expansion, lead = self._at(theta, x)
        return expansion.value.reshape(*lead, -1)

    def jacobian(self, theta: Array, x: Inputs) -> Array:
        """Gradient of log_predict in theta (..., n, P)."""
        expansion, lead = self._at(theta, x)
        return np.moveaxis(expansion.gradient, 1, 2).reshape(*lead, -1, len(self.params))

    def _at(self, theta: Array, x: Inputs) -> tuple[Expansion, tuple[int, ...]]:
        theta = np.asarray(theta, float)
        rows = theta.reshape(-1, len(self.params))
        return self.bind(x)(rows), theta.shape[:-1]

    def values(self, theta: Array) -> dict[str, Array]:
        """Reported parameters {name: (...)} of theta (..., P)."""
        theta, values = np.asarray(theta, float), {}
        for i, param in enumerate(self.params):
            value = theta[..., i]
            if param.scaled_by:
                value = np.asarray(value / theta[..., self.index(param.scaled_by)])
            values[param.name] = np.exp(np.minimum(value, 700.0)) if param.log else value
        return values

    def theta(self, values: Mapping[str, Array | float]) -> Array:
        """Internal coordinates (..., P) of reported parameters, the inverse of `values`; further
        names are ignored.
        """
        inner = []
        for param in self.params:
            value = np.asarray(values[param.name], float)
            scale = np.asarray(values[param.scaled_by], float) if param.scaled_by else 1.0
            inner.append(scale * (np.log(value) if param.log else value))
        return np.stack(np.broadcast_arrays(*inner), -1)

    def units(self, x: Inputs) -> dict[str, float]:
        """The geometric mean of each input: the unit in which its coordinates are nearly
        uncorrelated. A formula takes its inputs as they are.
        """
        units = dict.fromkeys(self.inputs, 1.0)
        for letter in self.inputs if self.terms else ():
            units[letter] = float(np.exp(np.mean(np.log(x[UNIT_OF.get(letter, letter)]))))
        return units

    def centring(self, units: Mapping[str, float]) -> Array:
        """The matrix (P, P) that takes theta to the theta of inputs divided by their units."""
        matrix = np.eye(len(self.params))
        for term in self.terms:
            for exponent, powers in term.powers.items():
                shift = sum(power * np.log(units[letter]) for letter, power in powers.items())
                matrix[self.index(term.coefficient), self.index(exponent)] += shift
        return matrix
