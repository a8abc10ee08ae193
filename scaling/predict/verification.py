"""The loop closes: a prediction becomes the runs that test it, with what was said of them before
they were trained.

`emit` writes the compute-optimal model at a budget and models half and twice as large as a sweep
whose `forecasts` are the fit's own, each with the interval for one run; `verdicts` sets them
against what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling import accounting
from scaling.config import Forecast, ListDesign, ListedCell, Sweep
from scaling.config.run_groups import group_runs
from scaling.config.sweep_file import load_run, load_sweep, write_sweep
from scaling.errors import ScalingError
from scaling.formatting import format_flops
from scaling.points.run_tables import points
from scaling.predict.answers import laws_of
from scaling.predict.law_source import PREFIX, FittedLaw, load_law
from scaling.recipe import model_for
from scaling.store import run_files

ROLES = (("half", 0.5), ("optimum", 1.0), ("twice", 2.0))
SEED = 0  # of the noise that an interval for one run adds
NEAR = 0.02  # of log N and log D: the run that a forecast is about


@dataclass(frozen=True)
class CheckedForecast:
    """A forecast and the runs that it was about: losses (seeds,), its error relative to their mean,
    and how many lie inside.
    """

    forecast: Forecast
    n_params: float
    tokens: float
    losses: tuple[float, ...]

    @property
    def measured(self) -> float:
        """The mean loss of the seeds."""
        return float(np.mean(self.losses))

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.forecast.loss / self.measured - 1

    @property
    def inside(self) -> int | None:
        """How many of the runs lie in the interval; None without one."""
        lo, hi = self.forecast.lo, self.forecast.hi
        return None if lo is None or hi is None else sum(lo <= loss <= hi for loss in self.losses)


@np.errstate(all="ignore")  # what is no number is refused by name
def write_verification_sweep(
    source: str,
    flops: float,
    n_star: float | None,
    out: Path,
    base: Path | None = None,
    task: Mapping[str, int] | None = None,
) -> Sweep:
    """Write the sweep that tests a prediction of N* at a budget. Raises ScalingError where the
    source names no sweep, or `out` is there.

    Data, recipe and settings are those of `base`, or of the sweep that the fit was made from;
    `task` holds the vocab_size and seq_len of `base`, where the fit has none.
    """
    law = load_law(source)
    if n_star is None or not 0 < n_star < math.inf:
        raise ScalingError(
            f"the law {law.law} names no compute-optimal size at {format_flops(flops)} FLOPs",
            where=source,
            remedy="emit from a parametric fit of N and D, such as fits/chinchilla.json",
        )
    parent = _parent(law, source, base)
    vocab_size, seq_len = (
        (task or {}).get(name, getattr(law.model, name)) for name in ("vocab_size", "seq_len")
    )
    if vocab_size is None or seq_len is None:
        raise ScalingError(
            "the fit does not say which vocabulary and sequence length its runs had",
            where=source,
            remedy="fit a results folder of this program, or name a sweep file: --base SWEEP.toml",
        )
    params, counted = law.counting()
    overrides: Any = parent.base.model
    first = parent.seeds[0]
    # one run cannot tell an error of the law from the noise of a seed: the optimum has two
    seeds = {"optimum": tuple(dict.fromkeys([*parent.seeds, first, (first + 1) % 2**32]))}
    cells, forecasts = [], []
    for role, share in ROLES:
        model = model_for(
            share * n_star,
            parent.recipe,
            vocab_size=vocab_size,
            seq_len=seq_len,
            params=params,
            overrides=overrides.model_dump(exclude_none=True),
        )
        n = float(accounting.n_params(model, seq_len, params))
        tokens = float(round(flops / accounting.train_flops(model, seq_len, 1, counted)))
        cells.append(ListedCell(size=n, tokens=tokens, seeds=seeds.get(role)))
        forecasts.append(_forecast(law, role, n, tokens, flops, source))
    question = (
        f"Does the law fitted to {parent.name} predict the loss at {format_flops(flops)} FLOPs?"
    )
    changes = {
        "name": f"{parent.name[:44]}-at-{flops:.3g}".replace("+", ""),
        "question": question,
        "design": ListDesign(kind="list", cells=tuple(cells), params=params, flops=counted),
        "forecasts": tuple(forecasts),
        "replicates": (),
        "tuning": (),
    }
    sweep = parent.model_copy(update=changes)
    head = (
        f"{question}\n\n  scaling run {out}\n  scaling report results/{sweep.name}\n\n"
        f"Written by `scaling predict {source} --flops {flops:.6g} --emit {out}`; "
        "the forecasts stood here before anything was trained."
    )
    write_sweep(sweep, out, head)
    return sweep


@dataclass(frozen=True)
class CostOfTest:
    """What the runs of a test cost: FLOPs of all and of the sweep that it tests (exact, each shared
    prefix once; 0 where its runs are not here), and the seconds of each run at the pace of those
    runs; none where that is not known.
    """

    flops: float
    sweep_flops: float
    seconds: tuple[float, ...]

    def wall_seconds(self, workers: int) -> float:
        """Of all runs in so many processes."""
        return max(sum(self.seconds) / workers, *self.seconds)


def cost_of_test(sweep: Sweep, flops: float, folders: Sequence[str]) -> CostOfTest:
    """The cost of a test whose runs have `flops` each, and of the sweep in some results folders."""
    paths = [Path(folder) for folder in dict.fromkeys(folders)]
    tables = [run_files.load(path, planned_only=True) for path in paths if run_files.has_runs(path)]
    runs = [load_run(text, "config") for table in tables for text in table["config"].unique()]
    sweep_flops = sum(
        accounting.train_flops(run.model, run.task.seq_len, steps * (run.tokens // run.n_steps))
        for group in group_runs(runs)
        for run, steps in group.incremental_steps()
    )
    assert isinstance(sweep.design, ListDesign)
    cells = sweep.design.cells
    tokens = [cell.tokens for cell in cells for _ in cell.seeds or sweep.seeds]
    paces = [table[table["metric"] == "tokens_per_second"] for table in tables]
    seconds = np.empty(0)
    if any(map(len, paces)):  # the model's FLOPs of a token decide the FLOPs of a second
        rows = pd.concat(paces)
        pace = rows["value"].groupby((rows["flops"] / rows["tokens"]).round(3)).median()
        a_token = pace.index.to_numpy(float)
        per_second = np.interp(flops / np.array(tokens), a_token, pace.to_numpy(float) * a_token)
        seconds = flops / per_second
    return CostOfTest(flops * len(tokens), float(sweep_flops), tuple(seconds.tolist()))


def _parent(law: FittedLaw, source: str, base: Path | None) -> Sweep:
    """The sweep whose data and recipe the runs take. Raises ScalingError for one that varies
    something: which value should the forecast be trained with?
    """
    parent = load_sweep(base) if base else law.sweep()
    if parent is None:
        kind = "a published law" if source.startswith(PREFIX) else "the fit"
        raise ScalingError(
            f"{kind} has no sweep here to take data and recipe from",
            where=source,
            remedy="name a sweep file: --base SWEEP.toml",
        )
    if parent.axes:
        fields = ", ".join(axis.field for axis in parent.axes)
        raise ScalingError(
            f"the sweep {parent.name} varies {fields}, and a forecast is of one recipe",
            where="--emit",
            remedy=(
                "name a sweep without axes (--base); a learning rate is tuned by [[tuning]] instead"
            ),
        )
    return parent


def _forecast(
    fitted: FittedLaw, role: str, n: float, tokens: float, flops: float, source: str
) -> Forecast:
    """The loss that the law gives at N and D, with the interval for one run: its parameters' spread
    and the noise of a run.
    """
    seen = fitted.range["flops"][1] if "flops" in fitted.range else None
    about: dict[str, Any] = {
        "size": n,
        "tokens": tokens,
        "flops": flops,
        "ci": fitted.ci,
        "seen": seen,
        "role": role,
        "source": source[-4096:],
    }
    inputs = {"N": np.array([n]), "D": np.array([tokens])}
    if fitted.combination is not None:
        loss, lo, hi = laws_of(fitted).losses(inputs)[:, 0]
        return Forecast(loss=loss, lo=lo, hi=hi, **about)
    if fitted.formula is None or set(fitted.formula.inputs) != {"N", "D"}:
        raise ScalingError(
            f"the fit holds no law of the loss in N and D ({fitted.law})",
            where=source,
            remedy="emit from a parametric fit, such as fits/chinchilla.json",
        )
    loss, *drawn = fitted.outcomes(inputs)[:, 0].tolist()
    if not 0 < loss < math.inf:
        raise ScalingError(
            f"the law {fitted.law} gives no loss at N = {n:.3g} and D = {tokens:.3g}",
            where=source,
            remedy="fit again, with more runs",
        )
    if not drawn:
        return Forecast(**about, loss=loss)
    logs = np.log(drawn)
    logs = logs[np.isfinite(logs)]
    random, freedom = np.random.default_rng(SEED), fitted.noise_degrees_of_freedom
    # of few replicates the size of the noise is uncertain too, as Student's t knows
    noise = random.standard_t(freedom, len(logs)) if freedom else random.standard_normal(len(logs))
    ends = [(1 - fitted.ci) / 2, (1 + fitted.ci) / 2]
    lo, hi = np.exp(np.quantile(logs + (fitted.noise or 0.0) * noise, ends))
    return Forecast(**about, loss=loss, lo=float(min(lo, loss)), hi=float(max(hi, loss)))


def check_forecasts(sweep: Sweep, table: pd.DataFrame) -> list[CheckedForecast]:
    """Each forecast of a sweep with the finished runs that it was about; forecasts without any are
    left out.
    """
    if not sweep.forecasts:
        return []
    runs = points(table, sweep.design.params, sweep.design.flops)
    n, d = (np.log(np.asarray(values, float)) for values in (runs.n, runs.d))
    checked = []
    for forecast in sweep.forecasts:
        near = (abs(n - math.log(forecast.size)) < NEAR) & (
            abs(d - math.log(forecast.tokens)) < NEAR
        )
        if near.any():
            first, losses = np.flatnonzero(near)[0], tuple(map(float, runs.loss[near]))
            ends = float(np.exp(n[first])), float(np.exp(d[first]))
            checked.append(CheckedForecast(forecast, *ends, losses))
    return checked


def sentence(checked: Sequence[CheckedForecast]) -> str:
    """What came of the forecasts, in two sentences."""
    best = next((each for each in checked if each.forecast.role == "optimum"), checked[0])
    about, judged = best.forecast, [each for each in checked if each.inside is not None]
    covered, beyond, neighbours = "It came without an interval.", "", ""
    if judged:
        inside, runs = (
            sum(each.inside or 0 for each in judged),
            sum(len(each.losses) for each in judged),
        )
        covered = f"{inside} of {runs} runs lie in their {100 * about.ci:g} % intervals."
    if about.seen:
        beyond = f", {about.flops / about.seen:.1f} times the largest budget that the law had seen,"
    if others := [each for each in checked if each is not best]:
        listed = ", ".join(f"{each.forecast.role} the size {each.measured:.4f}" for each in others)
        beaten = [each.forecast.role for each in others if each.measured < best.measured]
        better = f"; {' and '.join(beaten)} the size is better." if beaten else "."
        neighbours = f" Its neighbours at the same cost: {listed}{better}"
    return (
        f"At {format_flops(about.flops)} FLOPs{beyond} the law said "
        f"{about.loss:.4f} for the compute-optimal model, "
        f"and {best.measured:.4f} was measured: an error of {100 * best.error:+.2f} %. "
        f"{covered}{neighbours}"
    )
