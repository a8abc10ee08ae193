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
LEAST_POINTS = {"chinchilla-tied": 5, "power": 4, "kaplan-n": 3}  # of laws of few parameters
LAW_WITHOUT = {"N": "kaplan-d", "D": "kaplan-n"}
CONDITION = 1e4  # of the Jacobian with columns of unit length; a good grid has about 100


def check(
    law: Law, data: Dataset, objective: str = "huber-log", fixed: Collection[str] = ()
) -> tuple[ResultWarning, ...]:
    """Warnings about the data. Raises ScalingError for points that cannot identify the free
    parameters of the law: not finite and positive (of a written law only the loss, where its log
    is fitted), too few, copies of each other, an input that does not vary, no repeated data.
    """
    inputs, weight = data.points.inputs(law.inputs), data.weight
    free = {name for name in law.names if name not in fixed}
    for name, column in {**inputs, "loss": data.points.loss}.items():
        bad, what = ~np.isfinite(column), "finite"
        has_logs = name == "loss" and objective_named(objective).log and not law.signed
        if law.terms or has_logs:  # a formula's inputs may be of either sign
            bad, what = bad | (column <= 0), "finite and positive"
        if bad.any():
            first = int(np.argmax(bad))
            raise ScalingError(
                f"{name} is not {what} in {int(bad.sum())} of {len(column)} points "
                f"(the first is {column[first]:g}, point {first + 1})",
                remedy="fix or leave out these rows (--where)",
            )
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise ScalingError(
            "a weight is negative or not finite", remedy="weights are relative and at least 0"
        )
    counted = {name: column[weight > 0] for name, column in inputs.items()}
    table = np.stack(list(counted.values()), 1)
    rows = np.round(np.log(table) / NEARLY) if law.terms else np.unique(table, axis=0)
    needed = len(free) + bool(law.terms)
    for count, what in ((len(rows), "points"), (len(np.unique(rows, axis=0)), "distinct points")):
        if count < needed:
            smaller = [name for name, least in LEAST_POINTS.items() if least <= count]
            smaller = smaller if set(law.inputs) <= set("NDCUS") else []
            other = (
                f", or fit a law with fewer parameters ({', '.join(smaller)})" if smaller else ""
            )
            raise ScalingError(
                f"{count} {what[:-1] if count == 1 else what}, and the law {law.name} has "
                f"{len(free)} parameters: at least {needed} are needed",
                remedy=f"add runs{other}",
            )
    _check_spread(law, counted, free)
    warnings = []
    is_of_both = law.terms and {"N", "D"} <= set(counted)
    if is_of_both and float(np.std(np.log(counted["D"] / counted["N"]))) < COUPLED:
        message = (
            "one ratio D/N only: the two powers cannot be separated, and a does not follow from "
            "these data"
        )
        warnings.append(warn(WarningCode.ONE_RATIO, message))
    if len(rows) < MIN_POINTS_PER_PARAM * len(free):
        message = f"{len(rows)} points for {len(free)} parameters: intervals are rough"
        counts = {"points": len(rows), "params": len(free)}
        warnings.append(warn(WarningCode.FEW_POINTS, message, **counts))
    return tuple(warnings)


def _check_spread(law: Law, columns: Mapping[str, Array], free: Collection[str]) -> None:
    """Whether each input of a law varies, and some run repeats its data where that counts."""
    for letter in law.inputs:
        involved = [term for term in law.terms if any(letter in p for p in term.powers.values())]
        names = dict.fromkeys(n for term in involved for n in (term.coefficient, *term.powers))
        if letter == "U" or not set(free) & set(names):
            continue
        distinct = len(np.unique(np.round(np.log(columns[letter]) / NEARLY)))
        if distinct < MIN_DISTINCT:
            raise ScalingError(
                f"{letter} takes {distinct} distinct value{'s' * (distinct > 1)}: "
                f"{' and '.join(names)} of the law {law.name} cannot be identified",
                remedy=f"add runs at {MIN_DISTINCT} or more values of {letter}"
                + (f", or fit --law {LAW_WITHOUT[letter]}" if letter in LAW_WITHOUT else ""),
            )
    if law.terms and "U" in law.inputs and not (np.log(columns["D"] / columns["U"]) > NEARLY).any():
        raise ScalingError(
            "no run repeats its data (D <= U everywhere): R_D and R_N cannot be known",
            remedy="fit --law chinchilla, or add runs of several epochs",
        )


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
