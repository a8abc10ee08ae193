"""Do forecasts come true? `make backtest DATA=... [RESULTS=results]` cuts every table of real runs
at several budgets and predicts the rest.

    python -m benchmarks.backtest DATA [--results DIR] [--half tuning|reporting|all] [--only NAME]
    python -m benchmarks.backtest --tables FILE...    # your own, read as `scaling fit` reads them

Each table is cut at up to CUTS of its budgets; what costs 2 to 30 times the cut is predicted from
what costs no more than the cut: the loss of every later run at its own N and D, and N*(C) and L*(C)
against the minima of the later isoFLOP curves (parabolas through all runs; of cs336, which was
simulated, the true optimum). Methods: each law alone with the intervals that `scaling fit --law`
gives (bootstrap, and for a run's loss a residual each), isoFLOP and envelope, the combination, and
the combination with one part taken away.

The constants of scaling/fit/law_weights.py were chosen on the tables of TUNING; every other table
is for reporting. TUNING was settled before any was looked at: in order of the SHA-256 of the name
every second table, within Porian's 15 sweeps and within the others. Tables that are not there are
left out and named.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.fit import law_weights
from scaling.fit.bootstrap import bootstrap
from scaling.fit.combination import Combination, Quantity
from scaling.fit.dataset import Dataset
from scaling.fit.document import evenly
from scaling.fit.estimate import estimate
from scaling.fit.frontier.envelope import envelope
from scaling.fit.frontier.frontier import Cost, Frontier, fit_cost
from scaling.fit.frontier.isoflop import isoflop
from scaling.fit.law_weights import CANDIDATE_LAWS, split_budgets, weigh_laws
from scaling.fit.laws.laws import LAWS
from scaling.fit.result import BudgetMinimum
from scaling.points.points import Points
from scaling.points.source import SourceOptions, read_source

Array = np.ndarray
LEVELS = (0.5, 0.9, 0.95)
NEAR, FAR = 2.0, 31.0  # what is predicted costs this many times the cut
CUTS, MIN_RUNS, MIN_SPAN = 6, 12, 0.6
RESAMPLES = 60
QUANTITIES: dict[Quantity, str] = {
    "loss": "loss of each later run at its own N and D",
    "loss_star": "L*(C), against the minima of later isoFLOP curves",
    "n_star": "N*(C), against the minima of later isoFLOP curves",
}
WITHOUT = "combination without "
TUNING = frozenset({
    "epoch", "muennighoff", "openeurollm", "results/honest",
    "porian/owt2-base-long-kaplan-kaplan-train", "porian/owt2-base-long-kaplan-standard-val",
    "porian/owt2-base-short-kaplan-standard-val", "porian/owt2-tuned-short-const-standard-val",
    "porian/rw-base-short-chinchilla-attention-train",
    "porian/rw-base-short-kaplan-attention-train",
    "porian/rw-tuned-short-const-attention-train", "porian/rw-tuned-short-const-standard-val",
})  # fmt: skip


def tables(data: Path, results: Path) -> Iterator[tuple[str, Points]]:
    """(name, points) of every table that is there; the missing ones are named."""
    readers: dict[str, Callable[[], Points]] = {
        "epoch": lambda: _epoch(data / "epoch_chinchilla/svg_extracted_data.csv"),
        "takano": lambda: _frame(pd.read_csv(data / "kyo_takano/df.csv"), "N", "D", "loss"),
        "muennighoff": lambda: _one_epoch(data / "muennighoff2023/runs_all.csv"),
        "cs336": lambda: _cs336(data / "cs336/isoflops_curves.json"),
        "farseer": lambda: _frame(
            pd.concat(
                pd.read_parquet(data / f"scalebench/farseer.{part}.parquet")
                for part in ("train", "test")
            ),
            "N",
            "D",
            "loss",
        ),
        "openeurollm": lambda: _frame(
            pd.read_csv(data / "openeurollm/lr_gbsz_min_smooth.csv"), "N", "D", "L"
        ),
    }
    for name, read in readers.items():
        try:
            yield name, read()
        except FileNotFoundError as error:
            print(f"not there: {name} ({error.filename})")
    sweeps = data / "porian2024/isoflop_points.csv"
    if sweeps.exists():
        for config, runs in pd.read_csv(sweeps).groupby("config"):
            yield f"porian/{config}", _frame(runs, "params", "tokens", "loss", "flops")
    for folder in sorted(path.parent for path in results.glob("*/runs")):
        try:
            yield f"results/{folder.name}", read_source([folder], SourceOptions()).points
        except ScalingError as error:
            print(f"left out: results/{folder.name} ({error.what})")


def _frame(table: pd.DataFrame, n: str, d: str, loss: str, c: str = "") -> Points:
    columns = table[[n, d, loss]].to_numpy(float).T
    flops = table[c].to_numpy(float) if c else 6 * columns[0] * columns[1]
    kept = np.isfinite(columns).all(0) & np.isfinite(flops)
    return Points(loss=columns[2, kept], n=columns[0, kept], d=columns[1, kept], c=flops[kept])


def _epoch(path: Path) -> Points:
    runs = pd.read_csv(path).sort_values("loss").iloc[:-5]
    runs["tokens"] = runs["Training FLOP"] / (6 * runs["Model Size"])
    return _frame(runs, "Model Size", "tokens", "loss", "Training FLOP")


def _one_epoch(path: Path) -> Points:
    runs = pd.read_csv(path)
    return _frame(runs[runs.tokens <= 1.001 * runs.unique_tokens], "params", "tokens", "val_loss")


def _cs336(path: Path) -> Points:
    runs = pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
    runs["tokens"] = runs.compute_budget / (6 * runs.parameters)
    return _frame(runs, "parameters", "tokens", "final_loss", "compute_budget")


def cuts(points: Points) -> list[float]:
    """Up to CUTS budgets with enough runs up to them and at least one at 2 to 30 times as much."""
    flops = np.asarray(points.c)
    usable = []
    for cut in split_budgets(Dataset(points)):
        before = flops[flops <= cut * (1 + 1e-4)]
        after = (flops >= NEAR * cut) & (flops <= FAR * cut)
        if len(before) >= MIN_RUNS and np.ptp(np.log10(before)) >= MIN_SPAN and after.any():
            usable.append(cut)
    return [usable[i] for i in evenly(len(usable), CUTS)]


@dataclass(frozen=True)
class Answer:
    """Logs of a prediction (n,) and of its interval's ends at each level (levels, 2, n)."""

    value: Array
    ends: Array


def from_draws(value: Array, draws: Array) -> Answer:
    """The interval that holds the central share of draws (R, n), and the value itself."""
    ends = np.array([np.nanquantile(draws, [(1 - ci) / 2, (1 + ci) / 2], axis=0) for ci in LEVELS])
    ends[:, 0], ends[:, 1] = np.minimum(ends[:, 0], value), np.maximum(ends[:, 1], value)
    return Answer(value, ends)


def law_answers(
    name: str, train: Points, test: Points, minima: list[BudgetMinimum]
) -> dict[Quantity, Answer]:
    """What a law alone says, as `scaling fit --law NAME` fits it."""
    fit = estimate(LAWS[name], train)
    draws = bootstrap(fit, RESAMPLES, 0).theta
    theta = draws if len(draws) > 1 else np.repeat(fit.theta[None], 2, 0)
    inputs = test.inputs(fit.law.inputs)
    residuals = np.log(train.loss) - fit.law.log_predict(fit.theta, train.inputs(fit.law.inputs))
    residuals *= np.sqrt(len(train) / max(1, len(train) - len(fit.theta)))
    drawn = fit.law.log_predict(theta, inputs)
    drawn = drawn + np.random.default_rng(0).choice(residuals, drawn.shape)
    answers: dict[Quantity, Answer] = {
        "loss": from_draws(fit.law.log_predict(fit.theta, inputs), drawn)
    }
    cost = fit_cost(train)
    best = LAWS[name].frontier(fit.law.values(fit.theta), cost)
    return answers | frontier_answers(
        best, LAWS[name].frontier(fit.law.values(theta), cost), minima
    )


def frontier_answers(
    best: Frontier, draws: Frontier, minima: list[BudgetMinimum]
) -> dict[Quantity, Answer]:
    """N* and L* of a frontier and its draws at the budgets of the minima."""
    flops = np.array([one.flops for one in minima])
    if not len(flops):
        return {}
    result: dict[Quantity, Answer] = {}
    powers = {name: values for name, values in draws.columns.items() if values is not None}
    drawn = replace(draws, **{name: np.asarray(each)[:, None] for name, each in powers.items()})
    result["n_star"] = from_draws(np.log(best.n_star(flops)), np.log(drawn.n_star(flops)))
    loss, losses = best.loss(flops), drawn.loss(flops)
    if loss is not None and losses is not None:
        result["loss_star"] = from_draws(np.log(loss), np.log(losses))
    return result


def combination_answers(
    combination: Combination, test: Points, minima: list[BudgetMinimum]
) -> dict[Quantity, Answer]:
    """What the combination says of the later runs and minima."""

    def answer(ask: Callable[[float], tuple[Array, Array, Array]]) -> Answer:
        logs = np.log([ask(ci) for ci in LEVELS])
        return Answer(logs[0, 0], logs[:, 1:])

    n, d = np.asarray(test.n), np.asarray(test.d)
    result: dict[Quantity, Answer] = {"loss": answer(lambda ci: combination.losses(n, d).ends(ci))}
    if minima:
        flops = np.array([one.flops for one in minima])
        result["n_star"] = answer(lambda ci: combination.optima(flops, "n_star").ends(ci))
        result["loss_star"] = answer(lambda ci: combination.optima(flops, "loss_star").ends(ci))
    return result


def widen_to_include(
    answer: Answer, approaches: Mapping[str, Answer], combination: Combination
) -> Answer:
    """N* as `scaling predict` gives it: where the intervals of the approaches do not all overlap,
    its interval holds what each says, unless the later budgets contradict it.
    """
    lo, hi = np.array([each.ends for each in approaches.values()]).transpose(2, 0, 1, 3)
    apart = lo.max(0) > hi.min(0)  # (levels, n)
    heard = [
        each.value for name, each in approaches.items() if combination.is_not_contradicted(name)
    ]
    said = np.array([answer.value, *heard])
    ends = np.stack(
        [
            np.where(apart, np.minimum(answer.ends[:, 0], said.min(0)), answer.ends[:, 0]),
            np.where(apart, np.maximum(answer.ends[:, 1], said.max(0)), answer.ends[:, 1]),
        ],
        1,
    )
    return Answer(answer.value, ends)


def methods(
    train: Points, test: Points, minima: list[BudgetMinimum]
) -> dict[str, dict[Quantity, Answer]]:
    """The answers of every method that the runs up to a cut allow."""
    result: dict[str, dict[Quantity, Answer]] = {}
    for name in CANDIDATE_LAWS:
        try:
            result[name] = law_answers(name, train, test, minima)
        except ScalingError:
            continue
    approaches = {
        "isoflop": isoflop(train, resamples=RESAMPLES),
        "envelope": envelope(train, None, RESAMPLES, 0),
    }
    for name, approach in approaches.items():
        if approach.frontier is not None and approach.draws is not None:
            result[name] = frontier_answers(approach.frontier, approach.draws, minima)
    sizes = {
        name: result[name]["n_star"]
        for name in ("chinchilla", "isoflop", "envelope")
        if minima and name in result
    }
    for name, combination in combinations(train).items():
        if combination is not None:
            answers = combination_answers(combination, test, minima)
            if sizes:
                if name == "combination":
                    result[f"{WITHOUT}disagreements"] = {"n_star": answers["n_star"]}
                answers["n_star"] = widen_to_include(answers["n_star"], sizes, combination)
            result[name] = answers
    return result


def combinations(train: Points) -> dict[str, Combination | None]:
    """The combination, and what is left of it without one of its parts."""
    whole = weigh_laws(train)
    result = {"combination": whole}
    if whole is not None:
        equal = tuple(
            one.model_copy(update={"weights": dict.fromkeys(one.weights, 1.0)})
            for one in whole.candidates
        )
        result[f"{WITHOUT}weights"] = whole.model_copy(update={"candidates": equal})
        result[f"{WITHOUT}distance"] = whole.model_copy(update={"growth": {}})
    uncoupled = tuple(law for law in CANDIDATE_LAWS if not law.startswith("skaling"))
    with mock.patch.object(law_weights, "CANDIDATE_LAWS", uncoupled):
        result[f"{WITHOUT}coupled laws"] = weigh_laws(train)
    with mock.patch.object(law_weights, "weighted_by_compute", _unweighted):
        result[f"{WITHOUT}weighting by C"] = weigh_laws(train)
    return result


def _unweighted(points: Points) -> Points:
    return replace(points, weight=np.ones(len(points)))


@dataclass(frozen=True)
class Score:
    """Errors (n,) in logs of one method for one cut, and the interval's ends relative to the truth
    (levels, 2, n).
    """

    error: Array
    ends: Array

    def inside(self) -> Array:
        """The share of truths inside the interval of each level (levels,)."""
        return ((self.ends[:, 0] <= 0) & (self.ends[:, 1] >= 0)).mean(1)

    def width(self) -> Array:
        """The width of the 90 % interval (n,), in per cent."""
        return 100 * (self.ends[1, 1] - self.ends[1, 0])

    def winkler(self) -> float:
        """Mean interval score of the 90 % interval, in per cent (Gneiting and Raftery 2007, eq.
        43).
        """
        lo, hi = self.ends[1]
        return float(np.mean(100 * (hi - lo + 20 * (np.maximum(lo, 0) + np.maximum(-hi, 0)))))


def _known_minimum(flops: float) -> BudgetMinimum:
    """The optimum of cs336's runs, which are those of a known law: a parabola through them is off
    by more than exact laws are.
    """
    values = {"E": 2.69, "A": 1606.4, "B": 3210.7, "alpha": 0.34, "beta": 0.36}
    best = LAWS["chinchilla"].frontier(values, Cost())
    return BudgetMinimum(
        flops=flops,
        n_star=float(best.n_star(flops)),
        d_star=float(best.d_star(flops)),
        loss_star=float(best.loss(flops)),  # type: ignore[arg-type]
    )


Scores = dict[Quantity, dict[str, dict[str, list[Score]]]]  # quantity, method, table


def backtest(named: Mapping[str, Points]) -> Scores:
    """Every method on every table."""
    scores: Scores = {quantity: {} for quantity in QUANTITIES}
    for name, points in named.items():
        began, flops = time.perf_counter(), np.asarray(points.c)
        minima = [one for one in isoflop(points, resamples=0).minima if one.unavailable is None]
        if name == "cs336":
            minima = [_known_minimum(one.flops) for one in minima]
        for cut in cuts(points):
            train = points.take(flops <= cut * (1 + 1e-4))
            test = points.take((flops >= NEAR * cut) & (flops <= FAR * cut))
            after = [one for one in minima if NEAR * cut <= one.flops <= FAR * cut]
            truths: dict[Quantity, Array] = {
                "loss": np.log(test.loss),
                "n_star": np.log([one.n_star for one in after]),
                "loss_star": np.log([one.loss_star for one in after]),
            }
            for method, answers in methods(train, test, after).items():
                for quantity, answer in answers.items():
                    truth = truths[quantity]
                    score = Score(answer.value - truth, answer.ends - truth)
                    by_table = scores[quantity].setdefault(method, {})
                    by_table.setdefault(name, []).append(score)
        print(f"{name}: {len(points)} runs, {time.perf_counter() - began:.0f} s", flush=True)
    return scores


def summary(scores: Scores) -> Iterator[str]:
    """A Markdown table for each quantity: means over cuts, then over tables."""
    for quantity, title in QUANTITIES.items():
        yield f"\n### {title}\n"
        yield (
            "| method | tables | error % | bias % | inside 50 % | 90 % | 95 % | worst table, 90 "
            "% | score | width / error |"
        )
        yield "|---|---|---|---|---|---|---|---|---|---|"
        for method, by_table in scores[quantity].items():
            yield _row(method, by_table)
    yield "\n### 90 % intervals of the combination, by table\n"
    yield "| table | cuts | loss: error % | inside | L*: error % | inside | N*: error % | inside |"
    yield "|---|---|---|---|---|---|---|---|"
    for table, cut_scores in scores["loss"].get("combination", {}).items():
        cells = [table, str(len(cut_scores))]
        for quantity in QUANTITIES:
            rows = scores[quantity]["combination"].get(table)
            if rows:
                inside = np.mean([each.inside()[1] for each in rows])
                cells += [f"{_error(rows):.2f}", f"{inside:.0%}"]
            else:
                cells += ["", ""]
        yield f"| {' | '.join(cells)} |"


def _error(scores: list[Score]) -> float:
    return float(np.mean([100 * np.abs(np.expm1(each.error)).mean() for each in scores]))


def _bias(scores: list[Score]) -> float:
    return float(np.mean([100 * np.expm1(each.error).mean() for each in scores]))


def _row(method: str, by_table: Mapping[str, list[Score]]) -> str:
    inside = {
        table: np.mean([each.inside() for each in scores], 0) for table, scores in by_table.items()
    }
    error = np.mean([_error(scores) for scores in by_table.values()])
    bias = np.mean([_bias(scores) for scores in by_table.values()])
    share = np.mean(list(inside.values()), 0)
    worst = min(each[1] for each in inside.values())
    winkler = np.mean([np.mean([s.winkler() for s in scores]) for scores in by_table.values()])
    every = [each for scores in by_table.values() for each in scores]
    ratio = np.median(np.concatenate([each.width() for each in every])) / np.mean(
        np.concatenate([100 * np.abs(each.error) for each in every])
    )
    shares = " | ".join(f"{each:.0%}" for each in share)
    return (
        f"| {method} | {len(by_table)} | {error:.2f} | {bias:+.2f} | {shares} | {worst:.0%} | "
        f"{winkler:.1f} | {ratio:.1f} |"
    )


def main() -> None:
    """Read the tables, score every method, print the tables of docs/forecasts.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--tables", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--half", choices=("tuning", "reporting", "all"), default="reporting")
    parser.add_argument("--only", default="", help="tables whose name contains this")
    args = parser.parse_args()
    if (args.data is None) != bool(args.tables):
        parser.error("give DATA, or tables of your own")
    options = SourceOptions(inputs=("N", "D"))
    kept = {path.stem: read_source([path], options).points for path in args.tables}
    for name, points in tables(args.data, args.results) if args.data else ():
        wanted = args.half == "all" or (name in TUNING) == (args.half == "tuning")
        if wanted and args.only in name:
            kept[name] = points
    began = time.perf_counter()
    with np.errstate(all="ignore"):
        scores = backtest(kept)
    print("\n".join(summary(scores)))
    print(f"\n{len(kept)} tables, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
