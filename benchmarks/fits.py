"""How long fits take, against scipy and the installable peers in the same run: `OMP_NUM_THREADS=1
python benchmarks/fits.py`.

The data are 240 noisy points on Hoffmann's surface, as many as the published fits have. `--peers
PYTHON` names an
interpreter in which the peers of `fit_peers.py` are installed; without it they are left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scaling.fit.bootstrap import bootstrap, resampled
from scaling.fit.dataset import Dataset
from scaling.fit.estimate import estimate
from scaling.fit.laws.laws import LAWS
from scaling.fit.newton import Problem, problem_of
from scaling.points.points import Points

LAW = LAWS["chinchilla"]
DELTA = 1e-3
PEER_REFITS = 40
STARTS = 64


def data(seed: int = 0) -> Points:
    """240 runs, noise of 1 % in the loss."""
    random = np.random.default_rng(seed)
    n = np.exp(random.uniform(np.log(5e7), np.log(1.6e10), 240))
    d = n * np.exp(random.uniform(np.log(1.0), np.log(200.0), 240))
    truth = LAW.theta({"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28})
    loss = np.exp(LAW.log_predict(truth, {"N": n, "D": d}) + 0.01 * random.standard_normal(240))
    return Points(loss=loss, n=n, d=d, c=6 * n * d)


def peer(task: Problem, start: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """One careful refit by scipy: L-BFGS-B from the optimum, analytic gradient, centred logs,
    objective scaled by delta.
    """
    from scipy.optimize import minimize

    law = task.bound

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        here = law(theta[None])
        residual = here.value[0] - task.log_loss
        inner = np.clip(residual, -DELTA, DELTA)
        return (weight * inner * (residual - inner / 2)).sum() / DELTA, here.gradient[0] @ (
            weight * inner
        ) / DELTA

    done = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9},
    )
    return np.asarray(done.x)


def multi_start(task: Problem, starts: int = STARTS) -> float:
    """The plain way: scipy from random starts over the published ranges; returns the best
    objective.
    """
    random, weight = np.random.default_rng(0), np.ones(len(task.loss))
    low, high = (
        LAW.theta({"E": 0.5, "A": 1.0, "B": 1.0, "alpha": 0.1, "beta": 0.1}),
        np.array([3.0, 25.0, 25.0, 2.0, 2.0]),
    )
    found = [peer(task, task.centred(random.uniform(low, high)), weight) for _ in range(starts)]
    return float(min(task.penalty(np.array(found))))


def timed(call: Callable[[], object], repeat: int = 5) -> float:
    """The least of some runs, in seconds."""
    found = []
    for _ in range(repeat):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return min(found)


def from_shell(command: list[str]) -> float:
    """Seconds from the prompt to the answer."""
    return timed(lambda: subprocess.run(command, check=True, capture_output=True), repeat=3)


def by_peer(python: str, name: str, table: Path) -> float:
    """Seconds that a peer reports for its own fit, imports left out."""
    script = Path(__file__).with_name("fit_peers.py")
    done = [
        subprocess.run(
            [python, str(script), name, str(table)], check=True, capture_output=True, text=True
        )
        for _ in range(3)
    ]
    return min(float(json.loads(each.stdout)["seconds"]) for each in done)


def table_of(points: Points, folder: Path) -> Path:
    """The points as a CSV file."""
    path = folder / "runs.csv"
    columns = [np.asarray(values).tolist() for values in (points.n, points.d, points.loss)]
    path.write_text(
        "N,D,loss\n"
        + "".join(f"{n!r},{d!r},{loss!r}\n" for n, d, loss in zip(*columns, strict=True))
    )
    return path


def line(what: str, seconds: float, ours: float) -> None:
    """One row: what, seconds, ratio to ours."""
    print(f"| {what:<64} | {seconds:9.4f} | {seconds / ours:7.1f} |")


def main() -> None:
    """Print seconds and their ratios to ours, as a Markdown table."""
    python = sys.argv[sys.argv.index("--peers") + 1] if "--peers" in sys.argv else None
    points = data()
    best = estimate(LAW, points)
    task = problem_of(LAW, Dataset(points), "huber-log", DELTA)
    print(
        f"| {'240 runs, Chinchilla law, one thread':<64} | seconds   | ratio   |\n|{'-' * 66}|"
        f"{'-' * 11}|{'-' * 9}|"
    )
    ours = timed(lambda: estimate(LAW, points))
    line("optimum: ours (grid of basins, 16 starts, Newton to 1e-7)", ours, ours)
    line(
        f"optimum: scipy L-BFGS-B, {STARTS} random starts, analytic gradient",
        timed(lambda: multi_start(task), 1),
        ours,
    )
    with tempfile.TemporaryDirectory() as name:
        table = table_of(points, Path(name))
        if python:
            line(
                "optimum: chinchilla 0.2 (BFGS, 32 starts, all cores)",
                by_peer(python, "chinchilla", table),
                ours,
            )
            line(
                "optimum: simple-scaling-laws 0.2",
                by_peer(python, "simple-scaling-laws", table),
                ours,
            )
        ours = timed(lambda: bootstrap(best, 4000), repeat=2) / 4000
        weights = resampled(PEER_REFITS, np.arange(len(points)), np.random.default_rng(0))
        line("one bootstrap refit of 4,000: ours, each converged", ours, ours)
        theirs = (
            timed(
                lambda: [peer(task, task.centred(best.theta), weight) for weight in weights],
                repeat=2,
            )
            / PEER_REFITS
        )
        line("one bootstrap refit: scipy L-BFGS-B from the optimum", theirs, ours)
        if python:
            line(
                "one draw of 1,000: simple-scaling-laws",
                by_peer(python, "draws", table) / 1000,
                ours,
            )
        command = [
            sys.executable,
            "-m",
            "scaling",
            "fit",
            str(table),
            "--bootstrap",
            "1000",
            "--out",
            str(Path(name) / "fit.json"),
        ]
        shell = from_shell(command)
        line("shell to answer: scaling fit, three approaches, 1,000 refits", shell, shell)
        if python:
            script = str(Path(__file__).with_name("fit_peers.py"))
            line(
                "shell to answer: simple-scaling-laws, 1,000 draws",
                from_shell([python, script, "draws", str(table)]),
                shell,
            )


if __name__ == "__main__":
    main()
