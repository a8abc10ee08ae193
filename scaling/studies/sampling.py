"""Test-time sampling: how many problems are solved when a model may answer each of them k times.

A model that has the right answer among its samples needs a verifier to find it (pass@k). Without one, the most frequent answer (Wang
2023, self-consistency) or the one that the model itself finds likeliest is taken: both tend to the share of problems whose likeliest
answer is right. Here the likelihood of each right answer is known, so the coverage of 10^4 samples is exact, and samples test the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from scaling.config import RunConfig
from scaling.config.sweep_file import load_run
from scaling.errors import ScalingError
from scaling.fit.special.pass_at_k import FORECAST_FROM, MOST_K, Counts, forecast, line, r_squared
from scaling.studies import runs
from scaling.studies.findings import Claim
from scaling.studies.train_or_sample import (
    Choice,
    TrainedModelWithSamples,
    best,
    common_target,
    solvers,
)
from scaling.tasks.answer_metrics import exact_pass_at_k, ks

LEAST_R2, MOST_Z, PLATEAU_WITHIN = 0.98, 3.0, 0.02
DRAWS = 5  # times that a forecast is made from other samples
LEAST_POINTS = 3
QUERIES = tuple(float(10**power) for power in range(10))
FORECASTERS = {
    "beta_binomial": "beta-binomial",
    "logit_normal": "logit-normal",
    "line": "straight line in logs",
}
VOTES = ("pass_at_k", "majority_at_k", "best_of_k")


@dataclass(frozen=True)
class Law:
    """-log pass@k = a k^-b (Brown 2024) over the exact coverage at k = 1 .. 10^4."""

    a: float
    b: float
    r2: float

    def coverage(self, k: np.ndarray) -> np.ndarray:
        """pass@k."""
        return np.exp(-self.a * np.asarray(k, float) ** -self.b)


@dataclass(frozen=True)
class SampledModel:
    """A trained model and its answers to P problems: the NLL of each right one in nats and how many of `samples` were right, (P,).

    `votes` holds (k, share of problems, standard error) of each of VOTES; `mode_is_right` the share whose likeliest answer is right.
    """

    run_id: str
    run: RunConfig
    n_params: int
    tokens: int
    flops: float
    samples: int
    nll: np.ndarray
    correct: np.ndarray
    votes: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    mode_is_right: float

    @cached_property
    def k(self) -> np.ndarray:
        """1 .. 10^4, log-spaced."""
        return ks(MOST_K)

    @cached_property
    def exact(self) -> np.ndarray:
        """pass@k at these k, from likelihoods."""
        return np.asarray(exact_pass_at_k(self.nll, self.k).mean(axis=0))

    @cached_property
    def law(self) -> Law | None:
        """The law of coverage; None where hardly any k leaves problems both solved and unsolved."""
        inside = (self.exact > 0.0) & (self.exact < 1.0)
        if inside.sum() < LEAST_POINTS or np.ptp(self.exact[inside]) == 0.0:
            return None
        a, b = line(self.k[inside], self.exact[inside])
        return Law(float(a), float(b), r_squared(self.k[inside], self.exact[inside]))

    @property
    def once(self) -> float:
        """The share of right samples."""
        return float(self.correct.mean() / self.samples)

    @property
    def z(self) -> float:
        """Sampled minus exact pass@1 in standard errors of drawing `samples` answers to these problems."""
        chance = np.exp(-self.nll)
        error = math.sqrt(float((chance * (1.0 - chance)).sum()) / self.samples) / len(chance)
        difference = self.once - float(chance.mean())
        return difference / error if error > 0 else (0.0 if difference == 0 else math.inf)


@dataclass(frozen=True)
class Forecast:
    """pass@10^4 of a model as each of FORECASTERS tells it from FORECAST_FROM samples of each problem, and the truth.

    `told` are means over DRAWS choices of these samples, `errors` means of |forecast - truth|.
    """

    model: SampledModel
    truth: float
    told: dict[str, float]
    errors: dict[str, float]


def answered(table: pd.DataFrame) -> list[SampledModel]:
    """The models of a table that have answered problems of one task (the one that most runs have), by size and training."""
    if not (table["metric"] == "problem_nll").any():
        return []
    table, _ = runs.of_one_task(table)
    seen, right = (
        dict(list(runs.last(table, name).groupby("run_id")))
        for name in ("problem_nll", "correct_samples")
    )
    told = {
        name: dict(list(runs.last(table, name).groupby("run_id")))
        for name in ("samples", "mode_is_right", *VOTES)
    }
    found = []
    for run_id, problems in seen.items():
        if run_id not in right or any(run_id not in held for held in told.values()):
            continue  # rows are lacking
        first = problems.iloc[0]
        votes = {name: told[name][run_id] for name in VOTES}
        found.append(
            SampledModel(
                str(first["run_id"]),
                load_run(str(first["config"]), f"run {first['run_id']}"),
                int(first["n_params"]),
                int(first["tokens"]),
                float(first["flops"]),
                int(told["samples"][run_id]["value"].iloc[0]),
                problems["value"].to_numpy(float),
                right[run_id]["value"].to_numpy(int),
                {
                    name: tuple(  # type: ignore[misc]
                        vote[column].to_numpy(float) for column in ("at", "value", "stderr")
                    )
                    for name, vote in votes.items()
                },  # type: ignore[misc]
                float(told["mode_is_right"][run_id]["value"].iloc[0]),
            )
        )
    return sorted(found, key=lambda one: (one.n_params, one.tokens, one.run_id))


def longest(models: Sequence[SampledModel]) -> list[SampledModel]:
    """Of each size the one that was trained longest."""
    return list(
        {
            one.n_params: one for one in sorted(models, key=lambda one: (one.n_params, one.tokens))
        }.values()
    )


def forecasts(models: Sequence[SampledModel], draws: int | None = None) -> list[Forecast]:
    """What FORECAST_FROM samples say of pass@10^4; models whose samples say nothing (all or none are right) are left out."""
    made = (_forecast(one, draws or DRAWS) for one in models if one.samples >= FORECAST_FROM)
    return [one for one in made if one is not None]


def _forecast(model: SampledModel, draws: int) -> Forecast | None:
    counts = Counts(model.run_id, np.full(len(model.correct), model.samples), model.correct)
    truth = float(model.exact[-1])
    try:
        made = [forecast(counts, MOST_K, FORECAST_FROM, seed) for seed in range(draws)]
    except ScalingError:  # all problems have the same success rate: no distribution to see
        return None
    told = {name: np.array([one[name] for one in made]) for name in FORECASTERS}
    if not np.isfinite(list(told.values())).all():
        return None
    errors = {name: float(np.abs(each - truth).mean()) for name, each in told.items()}
    return Forecast(model, truth, {name: float(each.mean()) for name, each in told.items()}, errors)


def plateau_gap(models: Sequence[SampledModel]) -> tuple[float, float]:
    """The mean and the largest distance between the majority vote of all samples and the share of problems whose likeliest answer is right."""
    gaps = [abs(float(one.votes["majority_at_k"][1][-1]) - one.mode_is_right) for one in models]
    return float(np.mean(gaps)), float(max(gaps))


def compute_optimal_inference(
    models: Sequence[SampledModel],
) -> tuple[float | None, list[TrainedModelWithSamples]]:
    """The coverage that is asked for, and the models as ways to reach it; None where no level is reached by several."""
    target = common_target([one.nll for one in models])
    return target, [] if target is None else solvers(models, target)


def findings(
    models: Sequence[SampledModel],
    ahead: Sequence[Forecast],
    ways: Sequence[TrainedModelWithSamples],
) -> list[Claim]:
    """The figures that the study of test-time sampling promises, of the models, their `forecasts` and the ways that they are `traded` as."""
    chosen = [best(ways, queries) for queries in QUERIES] if ways else []
    return [
        _lawful(models),
        _decoded(models),
        _forecast_better(ahead, "beta_binomial"),
        _forecast_better(ahead, "logit_normal"),
        _plateau(models),
        _optimum(chosen),
    ]


def _lawful(models: Sequence[SampledModel]) -> Claim:
    laws = [one.law for one in models if one.law]
    figure, target = (
        "R2 of -log pass@k = a k^-b over k = 1 .. 1e4, least of all models",
        f">= {LEAST_R2}",
    )
    if not laws:
        return Claim(figure, target, "no model solves some of the problems and not all", None)
    worst, exponents = min(law.r2 for law in laws), [law.b for law in laws]
    return Claim(
        figure,
        target,
        f"{worst:.3f} ({len(laws)} models, b {min(exponents):.2f} to {max(exponents):.2f})",
        worst >= LEAST_R2,
    )


def _decoded(models: Sequence[SampledModel]) -> Claim:
    worst = max((one.z for one in models), key=abs)
    return Claim(
        "sampled pass@1 minus mean exp(-NLL), the largest of all models",
        f"within {MOST_Z:g} standard errors",
        f"{worst:+.2f} standard errors",
        abs(worst) <= MOST_Z,
    )


def _forecast_better(ahead: Sequence[Forecast], name: str) -> Claim:
    figure = f"mean error of pass@1e4 as forecast from {FORECAST_FROM} samples, {FORECASTERS[name]}"
    if not ahead:
        return Claim(
            figure,
            f"less than by the {FORECASTERS['line']}",
            "no model whose samples say anything",
            None,
        )
    own, straight = (
        float(np.mean([one.errors[which] for one in ahead])) for which in (name, "line")
    )
    won = sum(one.errors[name] < one.errors["line"] for one in ahead)
    target = f"less than by the {FORECASTERS['line']}"
    return Claim(
        figure,
        target,
        f"{own:.3f} against {straight:.3f}; nearer for {won} of {len(ahead)} models",
        own < straight,
    )


def _plateau(models: Sequence[SampledModel]) -> Claim:
    mean, most = plateau_gap(models)
    return Claim(
        "majority vote of all samples minus the share of problems whose likeliest answer is right",
        f"within {PLATEAU_WITHIN}",
        f"{mean:.3f} on average, {most:.3f} at most",
        mean <= PLATEAU_WITHIN,
    )


def _optimum(chosen: Sequence[Choice]) -> Claim:
    figure, target = (
        "cheapest N, D, k at one query and at 1e9",
        "more training and fewer samples for many queries",
    )
    if not chosen:
        return Claim(figure, target, "no coverage that several models reach", None)
    few, many = chosen[0].solver, chosen[-1].solver
    text = " -> ".join(
        f"N {one.n_params / 1e3:.3g}k, D {one.tokens / 1e6:.3g}M, k {one.k}" for one in (few, many)
    )
    return Claim(figure, target, text, many.train_flops > few.train_flops and many.k < few.k)
