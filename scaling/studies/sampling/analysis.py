"""How many problems are solved when a model may answer each of them k times.

A model that has the right answer among its samples needs a verifier to find it (pass@k). Without
one, the most frequent answer (Wang 2023, self-consistency) or the most likely sample is taken: both
tend to the share of problems whose most likely answer is right. Here the likelihood of each right
answer is known, so the coverage of 10^4 samples is exact, and samples test the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from scaling.config import RunConfig
from scaling.config.sweep_file import load_run
from scaling.errors import ScalingError
from scaling.fit.special.pass_at_k import FORECAST_FROM, MOST_K, Counts, forecast, line, r_squared
from scaling.studies import runs
from scaling.studies.sampling.train_or_sample import (
    TrainedModelWithSamples,
    answer_costs,
    cheapest,
    common_target,
    samples_needed,
)
from scaling.studies.study import Claim
from scaling.tasks.answer_metrics import exact_pass_at_k, ks

MIN_R2, MAX_Z, MAX_PLATEAU_GAP = 0.98, 3.0, 0.02
DRAWS = 5  # forecasts, each from other samples
MIN_POINTS = 3
QUERIES = tuple(float(10**power) for power in range(10))
FORECASTERS = {
    "beta_binomial": "beta-binomial",
    "logit_normal": "logit-normal",
    "line": "straight line in logs",
}
VOTES = ("pass_at_k", "majority_at_k", "best_of_k")


class CoverageLaw(NamedTuple):
    """-log pass@k = a k^-b (Brown 2024) over the exact coverage at k = 1 .. 10^4."""

    a: float
    b: float
    r2: float


@dataclass(frozen=True)
class SampledModel:
    """A trained model and its answers to P problems: the NLL of each right answer in nats, how many
    of `samples` were right, (P,).

    `votes` has k, share of problems and standard error (3, K) of each of VOTES; `mode_is_right` is
    the share of problems whose most likely answer is right.
    """

    run_id: str
    run: RunConfig
    n_params: int
    tokens: int
    flops: float
    samples: int
    nll: np.ndarray
    correct: np.ndarray
    votes: dict[str, np.ndarray]
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
    def law(self) -> CoverageLaw | None:
        """None where hardly any k leaves problems both solved and unsolved."""
        inside = (self.exact > 0.0) & (self.exact < 1.0)
        if inside.sum() < MIN_POINTS or np.ptp(self.exact[inside]) == 0.0:
            return None
        a, b = line(self.k[inside], self.exact[inside])
        return CoverageLaw(float(a), float(b), r_squared(self.k[inside], self.exact[inside]))

    @property
    def sampled_pass_at_1(self) -> float:
        """The share of right samples."""
        return float(self.correct.mean() / self.samples)

    @property
    def z(self) -> float:
        """Sampled minus exact pass@1 in standard errors of drawing `samples` answers to these
        problems.
        """
        chance = np.exp(-self.nll)
        error = math.sqrt(float((chance * (1.0 - chance)).sum()) / self.samples) / len(chance)
        difference = self.sampled_pass_at_1 - float(chance.mean())
        return difference / error if error > 0 else (0.0 if difference == 0 else math.inf)

    def final_vote(self, name: str) -> float:
        """The share of problems that a vote of all samples solves."""
        return float(self.votes[name][1][-1])


@dataclass(frozen=True)
class CoverageForecast:
    """pass@10^4 of a model: exact, and as each of FORECASTERS predicts it from FORECAST_FROM
    samples of each problem.

    `predicted` are means over DRAWS choices of samples, `errors` means of |forecast - exact|.
    """

    model: SampledModel
    exact: float
    predicted: dict[str, float]
    errors: dict[str, float]


@dataclass(frozen=True)
class SamplingStudy:
    """The models by size and training, forecasts of their coverage, and those that reach the
    `target` coverage, each with the samples that it needs.

    `target` is None, and no model a candidate, where no coverage is reached by several; `n_other`
    runs are of another task, or lack rows.
    """

    models: list[SampledModel]
    forecasts: list[CoverageForecast]
    target: float | None
    candidates: list[TrainedModelWithSamples]
    n_other: int


def analyze(rows: pd.DataFrame) -> SamplingStudy | None:
    """The models that answered problems of one task (the one that most runs have); None without."""
    models = sampled_models(rows)
    if not models:
        return None
    target = common_target([model.nll for model in models])
    n_other = rows.loc[rows["metric"] == "problem_nll", "run_id"].nunique() - len(models)
    candidates = [] if target is None else models_that_reach(models, target)
    return SamplingStudy(models, forecasts(models), target, candidates, n_other)


def sampled_models(rows: pd.DataFrame) -> list[SampledModel]:
    """The models that answered problems of one task (the one that most runs have), by size and
    training.
    """
    if not (rows["metric"] == "problem_nll").any():
        return []
    rows, _ = runs.of_one_task(rows)
    nll, correct, samples, mode_is_right, *votes = (
        dict(list(runs.final_rows(rows, name).groupby("run_id")))
        for name in ("problem_nll", "correct_samples", "samples", "mode_is_right", *VOTES)
    )
    made = []
    for run_id, problems in nll.items():
        if any(run_id not in by_run for by_run in (correct, samples, mode_is_right, *votes)):
            continue  # rows are missing
        first = problems.iloc[0]
        curves = (by_run[run_id][["at", "value", "stderr"]].to_numpy(float).T for by_run in votes)
        made.append(
            SampledModel(
                run_id=str(first["run_id"]),
                run=load_run(str(first["config"]), f"run {first['run_id']}"),
                n_params=int(first["n_params"]),
                tokens=int(first["tokens"]),
                flops=float(first["flops"]),
                samples=int(samples[run_id]["value"].iloc[0]),
                nll=problems["value"].to_numpy(float),
                correct=correct[run_id]["value"].to_numpy(int),
                votes=dict(zip(VOTES, curves, strict=True)),
                mode_is_right=float(mode_is_right[run_id]["value"].iloc[0]),
            )
        )
    return sorted(made, key=lambda model: (model.n_params, model.tokens, model.run_id))


def longest_trained(models: Sequence[SampledModel]) -> list[SampledModel]:
    """Of each size the model trained on the most tokens."""
    ordered = sorted(models, key=lambda model: (model.n_params, model.tokens))
    return list({model.n_params: model for model in ordered}.values())


def forecasts(models: Sequence[SampledModel], draws: int = DRAWS) -> list[CoverageForecast]:
    """pass@10^4 from FORECAST_FROM samples; models whose samples are all right or all wrong are
    left out.
    """
    made = []
    for model in models:
        if model.samples < FORECAST_FROM:
            continue
        counts = Counts(model.run_id, np.full(len(model.correct), model.samples), model.correct)
        try:
            drawn = [forecast(counts, MOST_K, FORECAST_FROM, seed) for seed in range(draws)]
        except ScalingError:  # all problems have the same success rate: no distribution to fit
            continue
        by_name = {name: np.array([getattr(draw, name) for draw in drawn]) for name in FORECASTERS}
        if not np.isfinite(list(by_name.values())).all():
            continue
        exact = float(model.exact[-1])
        predicted = {name: float(values.mean()) for name, values in by_name.items()}
        errors = {name: float(np.abs(values - exact).mean()) for name, values in by_name.items()}
        made.append(CoverageForecast(model, exact, predicted, errors))
    return made


def models_that_reach(
    models: Sequence[SampledModel], target: float
) -> list[TrainedModelWithSamples]:
    """The models that reach the target, each with the samples that it needs."""
    needed = [(model, samples_needed(model.nll, target)) for model in models]
    return [
        TrainedModelWithSamples(
            model.n_params, model.tokens, k, model.flops, *answer_costs(model.run)
        )
        for model, k in needed
        if k is not None
    ]


def claims(study: SamplingStudy) -> list[Claim]:
    """The law, the decoder, the forecasts, the plateau of votes, and training against sampling."""
    models = study.models
    worst_z = max((model.z for model in models), key=abs)
    gaps = [abs(model.final_vote("majority_at_k") - model.mode_is_right) for model in models]
    return [
        _law_claim(models),
        Claim(
            "sampled pass@1 minus mean exp(-NLL), the largest of all models",
            f"within {MAX_Z:g} standard errors",
            f"{worst_z:+.2f} standard errors",
            abs(worst_z) <= MAX_Z,
        ),
        _forecast_claim(study.forecasts, "beta_binomial"),
        _forecast_claim(study.forecasts, "logit_normal"),
        Claim(
            "majority vote of all samples minus the share of problems whose most likely answer is "
            "right",
            f"within {MAX_PLATEAU_GAP}",
            f"{np.mean(gaps):.3f} on average, {max(gaps):.3f} at most",
            bool(np.mean(gaps) <= MAX_PLATEAU_GAP),
        ),
        _optimum_claim(study.candidates),
    ]


def _law_claim(models: Sequence[SampledModel]) -> Claim:
    laws = [model.law for model in models if model.law]
    quantity = "R2 of -log pass@k = a k^-b over k = 1 .. 1e4, lowest of all models"
    expected = f">= {MIN_R2}"
    if not laws:
        none = "no model solves some of the problems and not all"
        return Claim(quantity, expected, none, None)
    worst, b = min(law.r2 for law in laws), [law.b for law in laws]
    measured = f"{worst:.3f} ({len(laws)} models, b {min(b):.2f} to {max(b):.2f})"
    return Claim(quantity, expected, measured, worst >= MIN_R2)


def _forecast_claim(forecasts: Sequence[CoverageForecast], name: str) -> Claim:
    quantity = (
        f"mean error of pass@1e4 as forecast from {FORECAST_FROM} samples, {FORECASTERS[name]}"
    )
    expected = f"less than by the {FORECASTERS['line']}"
    if not forecasts:
        return Claim(quantity, expected, "no model has both right and wrong samples", None)
    error, line_error = (float(np.mean([f.errors[by] for f in forecasts])) for by in (name, "line"))
    n_better = sum(f.errors[name] < f.errors["line"] for f in forecasts)
    measured = (
        f"{error:.3f} against {line_error:.3f}; nearer for {n_better} of {len(forecasts)} models"
    )
    return Claim(quantity, expected, measured, error < line_error)


def _optimum_claim(candidates: Sequence[TrainedModelWithSamples]) -> Claim:
    quantity = "cheapest N, D, k at one query and at 1e9"
    expected = "more training and fewer samples for many queries"
    if not candidates:
        return Claim(quantity, expected, "no coverage that several models reach", None)
    few, many = (cheapest(candidates, queries) for queries in (QUERIES[0], QUERIES[-1]))
    measured = " -> ".join(
        f"N {model.n_params / 1e3:.3g}k, D {model.tokens / 1e6:.3g}M, k {model.k}"
        for model in (few, many)
    )
    holds = many.train_flops > few.train_flops and many.k < few.k
    return Claim(quantity, expected, measured, holds)
