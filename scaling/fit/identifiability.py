"""What a table must hold before a law is fitted to it: a fit always answers, so what cannot be
known is refused here.

Optimisers report success on all of these: one size only, fewer points than parameters, copies of
one point.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.dataset import Dataset
from scaling.fit.laws.law import Law
from scaling.fit.laws.objectives import objective as objective_named
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray
NEARLY = 1e-3  # two values this close in log count as one
MIN_DISTINCT = 3
COUPLED = 0.02  # spread of log(D/N) below which N and D vary together
MIN_POINTS_PER_PARAM = 4  # before a warning
CONDITION = 1e4  # of the Jacobian with columns of unit length; a good grid has about 100


def check(
    law: Law,
    data: Dataset,
    objective: str = "huber-log",
    fixed: Collection[str] = (),
    where: str = "",
) -> tuple[ResultWarning, ...]:
    """Warnings about the data. Raises ScalingError (with `where`) for points that cannot identify
    the free parameters of the law: not finite and positive (a loss of 0 is allowed where the law
    allows it and the objective takes no logs), too few, copies of each other, an input
    that does not vary, no repeated data.
    """
    inputs, weight = data.points.inputs(law.inputs), data.weight
    free = [name for name in law.names if name not in fixed]
    if not law.terms:
        return _check_formula(inputs, data.points.loss, len(free), law.name, where)
    for name, column in inputs.items():
        _check_positive(name, column, where)
    loss = np.asarray(data.points.loss, float)
    allows_zero = law.allows_zero and not objective_named(objective).log
    _check_positive("loss", np.where(loss == 0, 1.0, loss) if allows_zero else loss, where)
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise ScalingError(
            "a weight is negative or not finite",
            where=where,
            remedy="weights are relative and at least 0",
        )
    counted = {name: column[weight > 0] for name, column in inputs.items()}
    _check_count(law, counted, len(free), where)
    for letter in law.inputs:
        if letter != "U" and set(_params_involving(law, letter)) & set(free):
            _check_varies(law, letter, counted[letter], where)
    if "U" in law.inputs and not (np.log(counted["D"] / counted["U"]) > NEARLY).any():
        raise ScalingError(
            "no run repeats its data (D <= U everywhere): R_D and R_N cannot be known",
            where=where,
            remedy="fit --law chinchilla, or add runs of several epochs",
        )
    return tuple(_warnings({name: np.log(column) for name, column in counted.items()}, len(free)))


def _check_formula(
    inputs: Mapping[str, Array], loss: Array, free: int, law: str, where: str
) -> tuple[ResultWarning, ...]:
    """What can be known of a formula whose inputs may be of either sign."""
    for name, column in {**inputs, "loss": np.asarray(loss, float)}.items():
        if not np.isfinite(column).all():
            raise ScalingError(
                f"{name} is not finite in {int((~np.isfinite(column)).sum())} points",
                where=where,
                remedy="fix or leave out these rows (--where)",
            )
    distinct = len(np.unique(np.stack(list(inputs.values()), 1), axis=0))
    if distinct < free:
        raise ScalingError(
            f"{distinct} distinct points, and {law} has {free} parameters",
            where=where,
            remedy="add runs, or fit a law with fewer parameters",
        )
    if distinct < MIN_POINTS_PER_PARAM * free:
        message = f"{distinct} distinct points for {free} parameters: intervals are rough"
        return (warn(WarningCode.FEW_POINTS, message, points=distinct, params=free),)
    return ()


def _check_positive(name: str, column: Array, where: str) -> None:
    bad = np.flatnonzero(~(np.isfinite(column) & (column > 0)))
    if len(bad):
        first = f"the first is {column[bad[0]]:g}, point {bad[0] + 1}"
        raise ScalingError(
            f"{name} is not finite and positive in {len(bad)} of {len(column)} points ({first})",
            where=where,
            remedy="fix or leave out these rows (--where)",
        )


def _check_count(law: Law, inputs: Mapping[str, Array], free: int, where: str) -> None:
    rows = np.round(np.log(np.stack(list(inputs.values()), 1)) / NEARLY)
    for count, what in ((len(rows), "points"), (len(np.unique(rows, axis=0)), "distinct points")):
        if count < free + 1:
            raise ScalingError(
                (
                    f"{count} {what}, and the law {law.name} has {free} parameters: at least "
                    f"{free + 1} are needed"
                ),
                where=where,
                remedy=(
                    "add runs, or fit a law with fewer parameters (chinchilla-tied, kaplan-n, "
                    "power)"
                ),
            )


def _params_involving(law: Law, letter: str) -> list[str]:
    """The parameters of the terms in which a letter stands: they cannot be known when it does not
    vary.
    """
    terms = [term for term in law.terms if any(letter in powers for powers in term.powers.values())]
    return list(dict.fromkeys(name for term in terms for name in (term.coefficient, *term.powers)))


def _check_varies(law: Law, letter: str, column: Array, where: str) -> None:
    distinct = count_distinct(column)
    if distinct < MIN_DISTINCT:
        lost = " and ".join(_params_involving(law, letter))
        raise ScalingError(
            (
                f"{letter} takes {distinct} distinct value{'s' * (distinct > 1)}: {lost} of "
                f"the law {law.name} cannot be identified"
            ),
            where=where,
            remedy=(
                f"add runs at {MIN_DISTINCT} or more values of {letter}, or fit a law without it"
            ),
        )


def count_distinct(column: Array) -> int:
    """How many values differ by more than about a thousandth."""
    return len(np.unique(np.round(np.log(column) / NEARLY)))


def collinear(logs: Mapping[str, Array]) -> bool:
    """Whether N and D vary together, at one ratio, so that their powers cannot be separated."""
    return {"N", "D"} <= set(logs) and float(np.std(logs["D"] - logs["N"])) < COUPLED


def _warnings(logs: Mapping[str, Array], free: int) -> list[ResultWarning]:
    count, warnings = len(next(iter(logs.values()))), []
    if collinear(logs):
        message = (
            "one ratio D/N only: the two powers cannot be separated, and a does not follow from "
            "these data"
        )
        warnings.append(warn(WarningCode.ONE_RATIO, message))
    if count < MIN_POINTS_PER_PARAM * free:
        message = f"{count} points for {free} parameters: intervals are rough"
        warnings.append(warn(WarningCode.FEW_POINTS, message, points=count, params=free))
    return warnings


def condition(jacobian: Array, weight: Array) -> float:
    """The condition number of a Jacobian (n, P) with its columns scaled to unit length; infinite
    where one vanishes.
    """
    columns = jacobian * np.sqrt(weight)[:, None]
    lengths = np.linalg.norm(columns, axis=0)
    if not columns.shape[1] or not (np.isfinite(lengths).all() and (lengths > 0).all()):
        return float("inf") if columns.shape[1] else 1.0
    singular = np.linalg.svd(columns / lengths, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else float("inf")
