"""A first sweep for a budget, a device and data: isoFLOP valleys about the optimum to expect, as a commented file that plans as it says."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import tomli_w

from scaling.config import Sweep
from scaling.config.sweep_file import parse_sweep
from scaling.errors import ScalingError
from scaling.formatting import format_count, format_flops
from scaling.plan import Plan
from scaling.recipe.rules import PUBLISHED

VALLEYS, APART = 4, 3.0  # budgets, each so many times the one before
SPREAD = math.sqrt(10.0)  # sizes reach from the expected optimum / SPREAD to the optimum x SPREAD
STEP = 1.5  # from one size to the next
LEAST_SIZES, LEAST_SPREAD = (
    5,
    3.0,
)  # of every valley, in sizes and in D/N on both sides: else its minimum lies at its edge
SHARE = 0.98  # of the budget that a draft may plan to spend
PRECISION = {"cpu": "float32", "gpu": "bfloat16", "tpu": "bfloat16"}
Planner = Callable[[Sweep], Plan]


@dataclass(frozen=True)
class StarterRequest:
    """What is asked: FLOPs for the whole sweep, cpu, gpu or tpu, the corpus, its vocabulary, and where the file will lie."""

    budget: float
    device: str
    corpus: str
    vocab_size: int
    path: Path
    name: str


@dataclass(frozen=True)
class StarterSweep:
    """The text of a sweep file, and what it plans."""

    text: str
    plan: Plan


@dataclass(frozen=True)
class _Grid:
    """Budgets and sizes about an optimum at `ratio` tokens per parameter, for a largest budget of `top` FLOPs."""

    top: float

    @property
    def ratio(self) -> float:
        """Tokens per parameter: 20 (Hoffmann 2022); 40 for small models, which sweeps/demo.toml measured at 40 to 60 on bytes."""
        return 40.0 if self.top < 1e15 else 20.0

    @property
    def budgets(self) -> list[float]:
        """Ascending."""
        return [_two_digits(self.top / APART**place) for place in reversed(range(VALLEYS))]

    def optimum(self, budget: float) -> float:
        """N with C = 6 N D and D = ratio x N."""
        return math.sqrt(budget / (6.0 * self.ratio))

    @property
    def sizes(self) -> list[float]:
        """From below the optimum of the least budget to above that of the largest, in even steps of ln N."""
        low, high = self.optimum(self.budgets[0]) / SPREAD, self.optimum(self.top) * SPREAD
        count = math.ceil(math.log(high / low) / math.log(STEP))
        return list(
            dict.fromkeys(
                _two_digits(low * (high / low) ** (place / count)) for place in range(count + 1)
            )
        )

    @property
    def seq_len(self) -> int:
        """Longer windows for larger budgets."""
        return (
            64 if self.top < 1e14 else 256 if self.top < 1e17 else 1024 if self.top < 1e20 else 2048
        )

    @property
    def n_layers(self) -> int:
        """One depth for the whole valley: that of its middle, with d_model = 64 a layer and N = 12 n_layers d_model^2, at least two."""
        return max(
            2, round((math.sqrt(self.sizes[0] * self.sizes[-1]) / (12.0 * 64.0**2)) ** (1 / 3))
        )

    def width_multiple(self, vocab_size: int) -> int:
        """Steps of d_model that are small beside the smallest width, so that sizes are hit, and as large as devices like them."""
        layers = 12.0 * self.n_layers
        width = (math.sqrt(vocab_size**2 + 4.0 * layers * self.sizes[0]) - vocab_size) / (
            2.0 * layers
        )
        return next((step for step in (64, 32, 16, 8) if step <= width / 8.0), 4)

    @property
    def batch_size(self) -> int:
        """One for all sizes: the rule's (Porian 2024, section 3.4) at the middle size; 8, as sweeps/demo.toml has it, where runs are tiny."""
        if self.is_tiny:
            return 8
        tokens = PUBLISHED["porian"].batch_tokens(math.sqrt(self.sizes[0] * self.sizes[-1]), 0.0)
        return int(max(8, 2 ** round(math.log2(tokens / self.seq_len))))

    @property
    def is_tiny(self) -> bool:
        """Whether runs are as small as those of sweeps/demo.toml, whose choices then serve."""
        return self.top < 1e14


def draft(question: StarterRequest, planned: Planner) -> StarterSweep:
    """The sweep for a question, planned by `planned`: no more FLOPs than the budget, and every valley with sizes on both sides.

    Raises ScalingError for a budget too small to show a valley, with one that is not.
    """
    found = _fitted(question, planned)
    if isinstance(found, StarterSweep):
        return found
    enough = question.budget
    while enough < 1e29 and not isinstance(
        _fitted(replace(question, budget=enough), planned), StarterSweep
    ):
        enough *= 2.0
    what = f"{format_flops(question.budget)} FLOPs are too few for isoFLOP valleys: {found}"
    raise ScalingError(
        what,
        where="--budget",
        remedy=f"{format_flops(enough)} are enough, for a vocabulary of {question.vocab_size}",
    )


def _fitted(question: StarterRequest, planned: Planner) -> StarterSweep | str:
    """The draft that spends the budget, or why there is none."""
    top = question.budget / 10.0
    for _ in range(6):
        grid = _Grid(_two_digits(top))
        sweep = parse_sweep(_text(question, grid), str(question.path))
        try:
            plan = planned(sweep)
        except ScalingError as error:
            return error.what
        if SHARE / 1.25 <= plan.flops / question.budget <= SHARE:
            break
        top *= 0.9 * question.budget / plan.flops
    if plan.flops > question.budget:
        return f"the least that can be planned is {format_flops(plan.flops)}"
    thin = _undersampled_budget(plan, grid)
    return thin or StarterSweep(_text(question, grid, plan), plan)


def _undersampled_budget(plan: Plan, grid: _Grid) -> str:
    """Which valley has too few sizes, or has them on one side only; empty when all are good."""
    for budget in grid.budgets:
        ratios = sorted(
            item.run.tokens / item.n_params["with_head"]
            for item in plan.runs
            if 0.8 < item.flops / budget < 1.25
        )  # C is met up to whole steps
        sides = (
            ratios
            and ratios[0] <= grid.ratio / LEAST_SPREAD
            and ratios[-1] >= grid.ratio * LEAST_SPREAD
        )
        if not sides or len(ratios) < LEAST_SIZES:
            return f"at {format_flops(budget)} FLOPs only {len(ratios)} models can be built and trained about the expected optimum"
    return ""


def _text(question: StarterRequest, grid: _Grid, plan: Plan | None = None) -> str:
    """The file; with its plan in its head where there is one."""
    here, results = shlex.quote(str(question.path)), shlex.quote(f"results/{question.name}")
    optima = [format_count(grid.optimum(budget), 2) for budget in (grid.budgets[0], grid.top)]
    told = (
        f"# {len(plan.runs)} runs, {format_flops(plan.flops)} of {format_flops(question.budget)} FLOPs.\n"
        if plan
        else ""
    )
    heads = "\n[base.model]\nn_heads = 1  # one head for all sizes: a head more from one size to the next makes a small valley uneven\n"
    return f"""# How large a model for a budget? {VALLEYS} isoFLOP valleys, on {question.device}. Written by `scaling init`.
#
#   scaling plan {here}      every run, with its cost and the seconds it will take here
#   scaling run {here}       again after an interruption: it goes on
#   scaling fit {results}
#   scaling report {results}
#
{told}# Expected, not measured: minima from {optima[0]} to {optima[1]} parameters, at {grid.ratio:g} tokens per parameter.
# docs/sweep-files.md lists every key; `scaling plan {here} KEY=VALUE` tries a change.
name = "{question.name}"
question = "How should a budget of {format_flops(grid.budgets[0])} to {format_flops(grid.top)} FLOPs be split between model size and tokens?"
seeds = [0]  # more seeds tell noise from effect: [0, 1, 2]

[design]
kind = "isoflop"  # every size at every budget
params = "with_head"  # what counts as N: with_head, total or nonembedding
flops = "exact"  # how C is counted: exact, 6nd, kaplan or chinchilla
budgets = [{", ".join(f'"{format_flops(value)}"' for value in grid.budgets)}]  # FLOPs of one run
sizes = [{", ".join(f'"{format_count(value)}"' for value in grid.sizes)}]  # parameters
tokens_per_param_range = [{grid.ratio / SPREAD**2:g}, {grid.ratio * SPREAD**2:g}]  # cells outside are refused: they say nothing of the minimum

[recipe]
n_layers = {grid.n_layers}  # one depth for all sizes: a smooth valley needs one shape rule
width_multiple = {grid.width_multiple(question.vocab_size)}

[base]
precision = "{PRECISION[question.device]}"
batch_size = {grid.batch_size}  # sequences a step, for all sizes
{heads if grid.is_tiny else ""}
[base.task]
kind = "text"
{tomli_w.dumps({"corpus": question.corpus}).strip()}  # "stdlib", or a folder that `scaling data prepare` wrote
seq_len = {grid.seq_len}  # tokens of a window

[evals]
points = 8  # evaluations along a run
tokens = 65536  # held out, for each

# The learning rate follows the recipe's rule. To measure it first at a small, a middle and the largest size (this costs more):
# [[tuning]]
# field = "optim.lr"
"""


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")
