"""`scaling next`: the runs that most reduce the uncertainty of N* at a target budget, for what they cost.

V-optimal design (Fedorov 1972) on the fitted law: every run adds the outer product of its gradient to the information
matrix; by the delta method the variance of log N*(target) follows, and runs are added greedily, most variance a FLOP first.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import load
from scaling.fit.frontier import CLOSED, Cost, frontier
from scaling.fit.laws import LAWS, Law
from scaling.quantity import parse_count

SIZES = 48
RATIOS = 17  # tokens per parameter that are tried, within those of the runs
MOST_RUNS = 64
STEP = 1e-5
RIDGE = 1e-9  # relative; keeps an information matrix that the runs leave nearly singular invertible


def next_runs(source: Path, budget: object, target: object) -> dict[str, Any]:
    """Proposals {n_params, tokens, flops, copies} that spend `budget` FLOPs, with the expected sd of log N*(target) before and after.

    `source` is a fit document or a results folder that holds one. Raises ScalingError.
    """
    path = _fit_path(Path(source))
    spend, goal = (_count(name, value) for name, value in (("--budget", budget), ("--target", target)))
    document = load(path)
    law, theta, n, d, cost = _fitted(path, document)
    sigma = _scatter(law, theta, document, n, d)
    gradient = _gradient(law, theta, cost, goal)
    information = _information(law.jacobian(theta, {"N": n, "D": d}))
    sizes, tokens, price = _candidates(n, d, cost, spend)
    rows = law.jacobian(theta, {"N": sizes, "D": tokens})
    before = _sd(information, gradient, sigma)
    chosen, information = _greedy(information, gradient, rows, price, spend)
    runs = [
        {"n_params": float(sizes[row]), "tokens": float(tokens[row]), "flops": float(price[row]), "copies": copies}
        for row, copies in sorted(chosen.items(), key=lambda item: price[item[0]])
    ]
    return {
        "source": str(path), "law": law.name, "budget": spend, "target": goal, "spent": sum(run["flops"] * run["copies"] for run in runs),
        "noise": sigma, "sd_log_n_star": {"before": before, "after": _sd(information, gradient, sigma)}, "runs": runs,
        "warnings": _warnings(document, before),
    }  # fmt: skip


def _fit_path(source: Path) -> Path:
    if not source.is_dir():
        return source
    found = sorted((source / "fits").glob("*.json"), key=lambda path: (path.stem != "chinchilla", path.stem))
    if not found:
        raise ScalingError("holds no fit", where=str(source), remedy=f"fit it first: scaling fit {source}")
    return found[0]


def _count(name: str, value: object) -> float:
    try:
        return parse_count(value)
    except ValueError as error:
        raise ScalingError(f"{name}: {error}", remedy="give a positive number of FLOPs, such as 1e15") from None


def _fitted(path: Path, document: dict[str, Any]) -> tuple[Law, np.ndarray, np.ndarray, np.ndarray, Cost]:
    """The law, its theta, N and D of the runs, and the cost. Raises ScalingError for a document without such a law."""
    data, law = document["data"], LAWS.get(document["law"])
    if (
        document["approach"] != "parametric"
        or law is None
        or law.name not in CLOSED
        or set(law.inputs) != {"N", "D"}
        or not data.get("tokens")
    ):
        raise ScalingError(f"no parametric law of N and D ({document['law']}, {document['approach']})", where=str(path),
                           remedy="fit with: --law chinchilla --approach parametric")  # fmt: skip
    theta = law.theta({name: np.asarray(entry["value"], float) for name, entry in document["params"].items()})
    n, d = np.array(data["n_params"], float), np.array(data["tokens"], float)
    return law, np.asarray(theta, float), n, d, Cost(float(document["cost"]["c0"]), float(document["cost"]["p"]))


def _scatter(law: Law, theta: np.ndarray, document: dict[str, Any], n: np.ndarray, d: np.ndarray) -> float:
    """The noise of one run's log loss, from the residuals."""
    residual = np.log(np.array(document["data"]["loss"], float)) - law.log_predict(theta, {"N": n, "D": d})
    return float(np.sqrt(np.sum(residual**2) / max(1, len(n) - len(theta))))


def _gradient(law: Law, theta: np.ndarray, cost: Cost, flops: float) -> np.ndarray:
    """The gradient (P,) of log N*(flops) in theta, by central differences."""
    steps = STEP * np.eye(len(theta)) * np.maximum(1.0, np.abs(theta))
    ends = [np.log(frontier(law.name, law.values(theta + sign * steps), cost).n_star(flops)) for sign in (1, -1)]
    return np.asarray((ends[0] - ends[1]) / (2 * np.diag(steps)))


def _information(rows: np.ndarray) -> np.ndarray:
    whole = rows.T @ rows
    return whole + RIDGE * np.diag(np.diag(whole) + 1e-300)


def _sd(information: np.ndarray, gradient: np.ndarray, sigma: float) -> float:
    return float(sigma * np.sqrt(gradient @ np.linalg.solve(information, gradient)))


def _candidates(n: np.ndarray, d: np.ndarray, cost: Cost, spend: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, D and C of runs from the smallest size trained upwards, none so cheap that more than 64 would be needed.

    D/N stays within that of the runs: beyond it the law has not been seen to hold.
    """
    sizes = np.repeat(np.geomspace(n.min(), n.max() * 100, SIZES), RATIOS)
    tokens = sizes * np.tile(np.geomspace((d / n).min(), (d / n).max(), RATIOS), SIZES)
    price = cost.flops(sizes, tokens)
    held = (price <= spend) & (price >= spend / MOST_RUNS)
    if not held.any():
        raise ScalingError(f"no run of a size that was trained costs between {spend / MOST_RUNS:.3g} and {spend:.3g} FLOPs",
                           where="--budget", remedy="give a budget nearer to that of the runs")  # fmt: skip
    return sizes[held], tokens[held], price[held]


def _greedy(
    information: np.ndarray, gradient: np.ndarray, rows: np.ndarray, price: np.ndarray, spend: float
) -> tuple[Counter[int], np.ndarray]:
    """Copies by candidate, and the information with them; (g'M^-1 j)^2 / (1 + j'M^-1 j) is what run j takes off the variance."""
    chosen: Counter[int] = Counter()
    while np.any(price <= spend):
        inverse = np.linalg.inv(information)
        gain = (rows @ inverse @ gradient) ** 2 / (1 + np.einsum("np,pq,nq->n", rows, inverse, rows))
        best = int(np.argmax(np.where(price <= spend, gain / price, -np.inf)))
        information = information + np.outer(rows[best], rows[best])
        chosen[best] += 1
        spend -= price[best]
    return chosen, information


def _warnings(document: dict[str, Any], before: float) -> list[str]:
    found = [f"the fit's status is {document['status']!r}: the proposal rests on it"] if document["status"] != "ok" else []
    if before > 1:
        found.append("N* at the target is unknown by more than a factor of e: the first-order error bars are rough")
    return found
