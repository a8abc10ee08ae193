"""A starter sweep for a budget, a device and data: isoFLOP curves about the expected optimum, as a
commented file that plans as it says.
"""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from scaling.config import Sweep
from scaling.config.sweep_file import parse_sweep
from scaling.errors import ScalingError
from scaling.formatting import format_count, format_flops
from scaling.plan import Plan
from scaling.recipe.rules import PUBLISHED

SPREAD = math.sqrt(10.0)  # sizes reach from the expected optimum / SPREAD to the optimum x SPREAD
SIZE_STEP = 1.5  # from one size to the next
MIN_SIZES = 5  # of every isoFLOP curve
MIN_SPREAD = 3.0  # of D/N on both sides of the optimum
MAX_SHARE = 0.98  # of the budget that the sweep may plan to spend
GOOD_SHARE = 0.78  # of the budget: a grid that spends this much is taken at once
FAIR_SHARE = 0.6  # of the budget: with less, fewer or closer curves are tried too
PRECISION = {"cpu": "float32", "gpu": "bfloat16", "tpu": "bfloat16"}
CPU_FLOPS_PER_SECOND = 2.8e10  # of one core, small models: sweeps/demo.toml, 6.7e12 in 120 s on two
ASSUMED_MFU = 0.3  # of an accelerator
Planner = Callable[[Sweep], Plan]


@dataclass(frozen=True)
class StarterRequest:
    """FLOPs for the whole sweep, cpu, gpu or tpu, the corpus, its vocabulary, and the file."""

    budget: float
    device: str
    corpus: str
    vocab_size: int
    path: Path

    @property
    def name(self) -> str:
        """The file's stem, as far as it can name a folder."""
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", self.path.stem).strip("-._")
        return stem[:64].rstrip("-._") or "sweep"


@dataclass(frozen=True)
class StarterSweep:
    """The text of a sweep file and its plan."""

    text: str
    plan: Plan


@dataclass(frozen=True)
class _Grid:
    """Budgets and sizes about the expected optimum: C = 6 N D and D = `ratio` x N.

    Sizes reach from below the smallest budget's optimum to above the largest's, even in ln N. Depth
    and batch are those of the middle size, for all sizes.
    """

    ratio: float
    budgets: list[float]
    optima: list[float]
    sizes: list[float]
    seq_len: int
    n_layers: int
    width_multiple: int
    batch_size: int
    is_tiny: bool


def _grid(top: float, n_budgets: int, apart: float, is_minimal: bool, vocab_size: int) -> _Grid:
    """The grid of `n_budgets` budgets, each `apart` times the one before, up to `top` FLOPs.

    `is_minimal`: the smallest models and windows, for budgets of seconds.
    """
    is_tiny = top < 1e14  # as small as the runs of sweeps/demo.toml
    # 20 tokens per parameter (Hoffmann 2022); 40 to 60 for small models on bytes (sweeps/demo.toml)
    ratio = 40.0 if top < 1e15 else 20.0
    budgets = [two_digits(top / apart**power) for power in reversed(range(n_budgets))]
    optima = [math.sqrt(budget / (6.0 * ratio)) for budget in budgets]
    low, high = optima[0] / SPREAD, optima[-1] * SPREAD
    count = math.ceil(math.log(high / low) / math.log(SIZE_STEP))
    even = (two_digits(low * (high / low) ** (index / count)) for index in range(count + 1))
    sizes = list(dict.fromkeys(even))
    middle = math.sqrt(sizes[0] * sizes[-1])
    limits = ((1e14, 64), (1e17, 256), (1e20, 1024))  # longer windows for larger budgets
    seq_len = next((length for limit, length in limits if top < limit), 2048)
    # d_model = 64 per layer, and N = 12 n_layers d_model^2
    n_layers = max(2, round((middle / (12.0 * 64.0**2)) ** (1 / 3)))
    if is_minimal:
        seq_len, n_layers = 32, 1
    # the largest step of d_model, liked by devices, that is small for the smallest width
    layers = 12.0 * n_layers
    width = (math.sqrt(vocab_size**2 + 4.0 * layers * sizes[0]) - vocab_size) / (2.0 * layers)
    smallest = 2 if is_minimal else 4
    width_multiple = next((step for step in (64, 32, 16, 8) if step <= width / 8.0), smallest)
    batch_size = 8
    if not is_tiny:  # the rule of Porian 2024, section 3.4
        tokens = PUBLISHED["porian"].batch_tokens(middle, 0.0)
        batch_size = int(max(8, 2 ** round(math.log2(tokens / seq_len))))
    return _Grid(
        ratio, budgets, optima, sizes, seq_len, n_layers, width_multiple, batch_size, is_tiny
    )


def flops_of_minutes(minutes: float, cores: int, peak_flops: float | None) -> float:
    """FLOPs that a device trains in some minutes, roughly: `peak_flops` is None for a CPU."""
    rate = CPU_FLOPS_PER_SECOND * cores if peak_flops is None else ASSUMED_MFU * peak_flops
    return 60.0 * minutes * rate


def draft(request: StarterRequest, planned: Planner) -> StarterSweep:
    """The sweep of a request: at most its budget, every isoFLOP curve with sizes on both sides.

    Within a family of grids the spending falls with the largest budget, though not evenly: cells
    come and go at the limits. So every candidate is planned, and the first good one taken. Raises
    ScalingError, with a budget that suffices, for one that is too small.
    """
    # the budget at whose optimum the narrowest model has its output matrix and nothing else; at 64
    # times this, sizes on both sides of the smallest curve's optimum can be built
    matrix_only = 4.0 * 240.0 * (2.0 * max(request.vocab_size, 256)) ** 2
    reason, best_share = "no five models about the optimum of a curve can be built", 0.0
    best: tuple[_Grid, Plan] | None = None
    families = itertools.product((False, True), ((4, 3.0), (4, 2.0), (3, 2.0)))
    for is_minimal, (n_budgets, apart) in families:
        top = request.budget / 3.0
        if best_share >= FAIR_SHARE or request.budget < 16.0 * matrix_only:
            break
        while top > request.budget / 60.0 and best_share < GOOD_SHARE:
            grid = _grid(two_digits(top), n_budgets, apart, is_minimal, request.vocab_size)
            top /= 1.06
            try:
                plan = planned(parse_sweep(_text(request, grid), str(request.path)))
            except ScalingError:
                continue
            share, gap = plan.flops / request.budget, _undersampled_budget(plan, grid)
            if share > MAX_SHARE:
                continue
            if gap:
                reason = gap
            elif share > best_share:
                best_share, best = share, (grid, plan)
    if best is not None:
        return StarterSweep(_text(request, *best), best[1])
    enough = format_flops(max(64.0 * matrix_only, 2.0 * request.budget))
    raise ScalingError(
        f"{format_flops(request.budget)} FLOPs are too few for isoFLOP curves: {reason}",
        where="--budget",
        remedy=f"about {enough} FLOPs are enough for a vocabulary of {request.vocab_size}",
    )


def _undersampled_budget(plan: Plan, grid: _Grid) -> str:
    """Which isoFLOP curve has too few sizes or lacks one side; empty when all are good."""
    for budget in grid.budgets:
        ratios = sorted(
            item.run.tokens / item.n_params["with_head"]
            for item in plan.runs
            if 0.8 < item.flops / budget < 1.25  # C is met up to whole steps
        )
        has_both_sides = (
            ratios
            and ratios[0] <= grid.ratio / MIN_SPREAD
            and ratios[-1] >= grid.ratio * MIN_SPREAD
        )
        if not has_both_sides or len(ratios) < MIN_SIZES:
            return (
                f"at {format_flops(budget)} FLOPs only {len(ratios)} models about the expected "
                "optimum can be built and trained"
            )
    return ""


def _text(request: StarterRequest, grid: _Grid, plan: Plan | None = None) -> str:
    """The sweep file; with its plan in its head where there is one."""
    path, results = shlex.quote(str(request.path)), shlex.quote(f"results/{request.name}")
    budgets = [format_flops(budget) for budget in grid.budgets]
    optima = [format_count(optimum, 2) for optimum in (grid.optima[0], grid.optima[-1])]
    planned = (
        f"# {len(plan.runs)} runs, {format_flops(plan.flops)} of {format_flops(request.budget)} "
        "FLOPs.\n"
        if plan
        else ""
    )
    one_head = """
[base.model]
n_heads = 1  # for all sizes: one head more from one size to the next makes a small curve uneven
"""
    low, high = grid.ratio / SPREAD**2, grid.ratio * SPREAD**2
    return f"""# How large a model for a budget?
# {len(budgets)} isoFLOP curves, on {request.device}.
# Written by `scaling init`.
#
#   scaling plan {path}      every run, with its cost and the seconds it will take here
#   scaling run {path}       run it again after an interruption: it continues
#   scaling fit {results}
#   scaling report {results}
#
{planned}# Expected, not measured: minima from {optima[0]} to {optima[1]} parameters,
# at {grid.ratio:g} tokens per parameter.
# docs/sweep-files.md lists every key; `scaling plan {path} KEY=VALUE` tries a change.
name = "{request.name}"
question = "How should {budgets[0]} to {budgets[-1]} FLOPs be split between model size and tokens?"
seeds = [0]  # more seeds tell noise from effect: [0, 1, 2]

[design]
kind = "isoflop"  # every size at every budget
params = "with_head"  # what counts as N: with_head, total, nonembedding or active
flops = "exact"  # how C is counted: exact, 6nd, kaplan or chinchilla
budgets = [{", ".join(f'"{budget}"' for budget in budgets)}]  # FLOPs of one run
sizes = [{", ".join(f'"{format_count(size)}"' for size in grid.sizes)}]  # parameters
tokens_per_param_range = [{low:g}, {high:g}]  # cells outside are left out: too far from the minimum

[recipe]
n_layers = {grid.n_layers}  # one depth for all sizes: a smooth curve needs one shape rule
width_multiple = {grid.width_multiple}

[base]
precision = "{PRECISION[request.device]}"
batch_size = {grid.batch_size}  # sequences per step, for all sizes
{one_head if grid.is_tiny else ""}
[base.task]
kind = "text"
# "stdlib", or a folder of `scaling data prepare`:
{tomli_w.dumps({"corpus": request.corpus}).strip()}
seq_len = {grid.seq_len}  # tokens of a window

[evals]
points = 8  # evaluations along a run
tokens = 65536  # held out, for each

# The learning rate follows the recipe's rule. To measure it first at a small, a middle and the
# largest size (this costs more):
# [[tuning]]
# field = "optim.lr"
"""


def two_digits(value: float) -> float:
    """A budget or a size, rounded."""
    return float(f"{value:.1e}")
