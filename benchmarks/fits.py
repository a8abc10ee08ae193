"""How long fits take, against a careful scipy loop in the same process: `python benchmarks/fits.py`.

The data are 240 noisy points on Hoffmann's surface, as many as the published fits have.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from scaling.fit.bootstrap import bootstrap, resampled
from scaling.fit.estimate import estimate, problem_of
from scaling.fit.laws import LAWS
from scaling.fit.optimise import Problem
from scaling.results import Points

LAW = LAWS["chinchilla"]
DELTA = 1e-3
PEER_REFITS = 40


def data(seed: int = 0) -> Points:
    """240 runs, noise of 1 % in the loss."""
    random = np.random.default_rng(seed)
    n = np.exp(random.uniform(np.log(5e7), np.log(1.6e10), 240))
    d = n * np.exp(random.uniform(np.log(1.0), np.log(200.0), 240))
    truth = LAW.theta({"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28})
    loss = np.exp(LAW.log_predict(truth, {"N": n, "D": d}) + 0.01 * random.standard_normal(240))
    return Points(loss=loss, n=n, d=d, c=6 * n * d)


def peer(task: Problem, start: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """One careful refit by scipy: L-BFGS-B from the optimum, analytic gradient, centred logs, objective scaled by delta."""
    from scipy.optimize import minimize

    law = task.law.bind(task.logs)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        here = law(theta[None])
        residual = here.value[0] - task.log_loss
        inner = np.clip(residual, -DELTA, DELTA)
        return (weight * inner * (residual - inner / 2)).sum() / DELTA, here.gradient[0] @ (weight * inner) / DELTA

    done = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9})
    return np.asarray(done.x)


def timed(call: Callable[[], object], repeat: int = 5) -> float:
    """The least of some runs, in seconds."""
    found = []
    for _ in range(repeat):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return min(found)


def main() -> None:
    """Print the seconds and their ratios."""
    points = data()
    best = estimate(LAW, points)
    print(f"fit of 240 points, global optimum        {timed(lambda: estimate(LAW, points)):8.3f} s")
    ours = timed(lambda: bootstrap(best, points, 4000), repeat=2) / 4000
    task = problem_of(LAW, points, "huber-log", DELTA)
    weights = resampled(PEER_REFITS, len(points), None, np.random.default_rng(0))
    theirs = timed(lambda: [peer(task, task.centred(best.theta), weight) for weight in weights], repeat=2) / PEER_REFITS
    print(f"a bootstrap refit, ours                  {1e3 * ours:8.3f} ms")
    print(f"a bootstrap refit, scipy L-BFGS-B        {1e3 * theirs:8.3f} ms   ratio {theirs / ours:.0f}")


if __name__ == "__main__":
    main()
