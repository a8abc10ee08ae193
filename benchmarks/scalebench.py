"""Which runs to train, and how well a law then predicts: `make scalebench DATA=folder`.

    python -m benchmarks.scalebench DATA [--task NAME] [--half tuning|reporting|all]

ScaleBench (Li et al. 2026, arXiv:2604.22753): 8 tasks, 65 laws, a pool of runs with costs, and
a target region that costs more. R2 of the prediction of the target (all groups of a task together,
cut at -1) after given shares of the pool's cost. The choice and the fit of `scaling next --pool`
know no chance, so one repeat is the mean of ten. The settings of scaling/predict/design
were chosen on laws 2, 4, 6, ... of each task (`tuning`) alone.
"""

from __future__ import annotations

import argparse
import itertools
import re
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.fit.laws.derivatives import Array, Inputs
from scaling.fit.laws.formula import parse_formula
from scaling.fit.laws.law import Law
from scaling.predict.design import posterior, selection
from scaling.predict.design.posterior import Posterior, Prior, take
from scaling.predict.design.selection import Pick, choose, precisions

BEST = {  # the best figure of any method in their table 2
    "lr_bsz": (-0.65, 0.00, 0.22),
    "domain_mixture": (0.64, 0.91, 0.95),
    "vocab": (0.96, 0.98, 0.98),
    "parallel": (-1.0, 0.77, 0.99),
    "moe": (0.67, 0.80, 0.83),
    "data_constrained": (0.73, 0.85, 0.86),
    "sparsity": (0.31, 0.44, 0.53),
    "farseer": (0.67, 0.88, 0.93),
}


@dataclass(frozen=True)
class Task:
    """A task of the benchmark: the formulas of each law, one for each loss, and the columns."""

    name: str
    laws: list[list[Law]]
    columns: dict[str, str]
    loss: list[str]
    cost: str
    budgets: tuple[float, ...]


def tasks() -> Iterator[Task]:
    """The tasks of scalebench.toml."""
    entries = tomllib.loads((Path(__file__).parent / "scalebench.toml").read_text())
    for name, entry in entries.items():
        inputs = entry["columns"]
        laws = [
            [law_of(expand(text, inputs, i + 1), inputs) for i in range(len(entry["loss"]))]
            for text in entry["laws"]
        ]
        budgets = tuple(entry.get("budgets", (0.01, 0.05, 0.1)))
        yield Task(name, laws, inputs, entry["loss"], entry["cost"], budgets)


def law_of(text: str, inputs: dict[str, str]) -> Law:
    """The law of a right side; all of its inputs that occur in it."""
    names = set(re.findall(r"\b[A-Za-z]\w*\b", text))
    used = ", ".join(name for name in inputs if name in names)
    return replace(parse_formula(f"L({used}) = {text}"), signed=True)


def expand(text: str, inputs: dict[str, str], i: int) -> str:
    """A formula of one loss with its sums written out."""
    others = [name for name in inputs if name != f"p{i}"]

    def polynomial(letter: str, log: str) -> str:
        logs = [f"{log}({name})" for name in inputs]
        pairs = [f"{a}*{b}" for a, b in itertools.combinations_with_replacement(logs, 2)]
        terms = [f"{letter}{k}*{term}" for k, term in enumerate([*logs, *pairs], 1)]
        return " + ".join([f"{letter}0", *terms])

    text = text.replace("{i}", str(i))
    text = text.replace("{sumlog}", " + ".join(f"log(max({name}, 1e-12))" for name in others))
    text = re.sub(r"\{poly:(\w)\}", lambda m: polynomial(m[1], "log"), text)
    text = re.sub(r"\{poly10:(\w)\}", lambda m: polynomial(m[1], "log10"), text)
    return re.sub(
        r"\{sum:(\w)\}", lambda m: " + ".join(f"{m[1]}{name[1:]}*{name}" for name in others), text
    )


@dataclass
class PoolDesign:
    """A pool (n,), its target, and the runs that were trained so far: `losses` holds one array
    (n,) for each law, NaN where not known.
    """

    laws: Sequence[Law]
    pool: Inputs
    cost: Array
    target: Inputs
    losses: Sequence[Array]

    def __post_init__(self) -> None:
        self.priors = [Prior(law, self.pool, self.target) for law in self.laws]
        self.posteriors: list[Posterior] = []
        self.precision = precisions(self.pool, self.target)

    @np.errstate(all="ignore")
    def fit(self, rows: Sequence[int]) -> list[Posterior]:
        """The posteriors given the losses of some runs."""
        x, index = take(self.pool, rows), list(rows)
        starts: list[Array | None] = [None] * len(self.laws)
        if self.posteriors:
            starts = [belief.theta for belief in self.posteriors]
        self.posteriors = [
            posterior.posterior(prior, x, loss[index], self.precision[index], start)
            for prior, loss, start in zip(self.priors, self.losses, starts, strict=True)
        ]
        return self.posteriors

    @np.errstate(all="ignore")
    def choose(self, rows: Sequence[int], budget: float, count: int) -> list[Pick]:
        """At most `count` runs for at most `budget` after those in `rows`."""
        known = self.posteriors or [prior.before_any_run() for prior in self.priors]
        beliefs = [law.belief(self.pool, self.target) for law in known]
        return choose(beliefs, self.precision, lambda _: self.cost, budget, count, rows)


def score(task: Task, laws: list[Law], train: pd.DataFrame, test: pd.DataFrame) -> list[float]:
    """R2 on the target at each budget."""
    predicted: list[list[np.ndarray]] = [[] for _ in task.budgets]
    actual: list[list[np.ndarray]] = [[] for _ in task.budgets]
    for group in sorted(set(train["group"])):
        runs, target = train[train["group"] == group], test[test["group"] == group]
        if not len(target):
            continue
        x, there = (
            {name: part[column].to_numpy(float) for name, column in task.columns.items()}
            for part in (runs, target)
        )
        values = {**{name: runs[name] for name in runs if name != "group"}, **x}
        cost = np.broadcast_to(np.asarray(pd.eval(task.cost, local_dict=values), float), len(runs))
        losses = [runs[name].to_numpy(float) for name in task.loss]
        design = PoolDesign(laws, x, np.array(cost), there, losses)
        rows: list[int] = []
        for k, share in enumerate(task.budgets):
            while True:
                left = share * cost.sum() - cost[rows].sum()
                few = max(1, min(len(rows) // 6, 60)) if design.posteriors else 4
                more = [row for row, *_ in design.choose(rows, left, few)]
                rows += more
                if not more:
                    break
                design.fit(rows)
            if not rows:
                continue
            value = np.stack([belief.predict(there)[0] for belief in design.posteriors], 1)
            if np.isfinite(value).all():
                predicted[k].append(value.ravel())
                actual[k].append(target[task.loss].to_numpy(float).ravel())
    return [r2(p, a) for p, a in zip(predicted, actual, strict=True)]


def r2(predicted: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """R2 over all groups, cut at -1; -1 where nothing was predicted."""
    if not predicted:
        return -1.0
    y = np.concatenate(actual)
    missed = np.sum((np.concatenate(predicted) - y) ** 2)
    return float(max(-1.0, 1 - missed / np.sum((y - y.mean()) ** 2)))


def main() -> None:
    """Print the R2 of each law, and the mean of each task with the best published."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", action="append")
    parser.add_argument("--half", choices=("tuning", "reporting", "all"), default="all")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    for pair in args.set:
        name, _, value = pair.partition("=")
        module = posterior if hasattr(posterior, name) else selection
        setattr(module, name, float(value))
    print(f"{'task':<18}{'laws':>5}   R2 at the three budgets   best published     seconds")
    means = []
    for task in tasks():
        if args.task and task.name not in args.task:
            continue
        parts = (
            pd.read_parquet(args.data / f"{task.name}.{side}.parquet") for side in ("train", "test")
        )
        train, test = parts
        begun, rows = time.perf_counter(), []
        for number, laws in enumerate(task.laws, 1):
            is_tuning = number % 2 == 0
            if args.half != "all" and is_tuning != (args.half == "tuning"):
                continue
            rows.append(score(task, laws, train, test))
            print(
                f"  {task.name} {number:>2}  " + "  ".join(f"{v:6.3f}" for v in rows[-1]),
                flush=True,
            )
        if not rows:
            continue
        mean = np.mean(rows, axis=0)
        means.append(mean)
        texts = ("  ".join(f"{v:5.2f}" for v in row) for row in (mean, BEST[task.name]))
        seconds = time.perf_counter() - begun
        print(f"{task.name:<18}{len(rows):>5}   {'       '.join(texts)}   {seconds:8.0f}")
    if len(means) > 1:
        print("mean".ljust(26) + "  ".join(f"{v:5.2f}" for v in np.mean(means, axis=0)))


if __name__ == "__main__":
    main()
