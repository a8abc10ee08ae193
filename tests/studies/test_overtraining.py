"""A ladder of tokens per parameter: which runs are one, what the laws see, and what they say of the
rest.
"""

import numpy as np
import pytest

from scaling import accounting
from scaling.config import OptimConfig, RunConfig, TextTask
from scaling.render.figure import Line, Markers
from scaling.store.rows import Measurement
from scaling.studies import overtraining
from scaling.studies.overtraining import STUDY
from tests.models import small_model
from tests.studies.tables import table_of

pytestmark = pytest.mark.slow

WIDTHS, RATIOS = (32, 48, 64, 96), (10, 20, 40, 80, 320)


def simulated(n, d, c, bend=0.0):
    """Gadre's law with E 1.4, A 30, B 60, eta .17; `bend` adds to the loss where D/N is large."""
    m = d / n
    return 1.4 + (30 * m**0.17 + 60 * m**-0.17) * c**-0.17 + bend * (m > 100)


def runs(ratios=RATIOS, widths=WIDTHS, seeds=(0,), unique=None):
    for width in widths:
        model = small_model(width)
        task = TextTask(
            kind="text", corpus="stdlib", seq_len=64, digest="0" * 64, unique_tokens=unique
        )
        n = accounting.n_params(model, 64)
        for ratio in ratios:
            for seed in seeds:
                yield (
                    n,
                    RunConfig(
                        model=model,
                        task=task,
                        optim=OptimConfig(lr=0.01),
                        batch_size=8,
                        n_steps=round(ratio * n / 512),
                        seed=seed,
                    ),
                )


def table(bend=0.0, noise=0.0, **kind):
    """The rows of a simulated ladder."""
    rng, measured = np.random.default_rng(0), []
    for n, run in runs(**kind):
        c = accounting.train_flops(run.model, 64, run.tokens)
        value = simulated(n, run.tokens, c, bend) * np.exp(noise * rng.normal())
        measured.append((run, [Measurement(run.n_steps, "val", "loss", float(value))]))
    return table_of(measured, "ladder")


@pytest.fixture(scope="module")
def straight():
    """A ladder that follows the law, with the noise of two seeds."""
    return table(noise=0.002, seeds=(0, 1))


@pytest.fixture(scope="module")
def bent():
    """The same runs, but those above 100 tokens per parameter are worse than the law."""
    return table(noise=0.002, seeds=(0, 1), bend=0.2)


@pytest.fixture(scope="module")
def findings(straight, bent):
    return overtraining.analyze(straight), overtraining.analyze(bent)


def curves(findings, dash):
    """The lines of the law `overtraining` in its figure."""
    traces = findings.figures[0].traces
    return [trace for trace in traces if isinstance(trace, Line) and trace.dash == dash]


def test_true_law_extrapolates_from_few_tokens_per_parameter(findings):
    claim, labels = findings[0].claims[0], [t.label for t in findings[0].figures[0].traces]
    shown = [f"D/N = {ratio}" for ratio in RATIOS[:-1]] + ["D/N = 320, held out"]
    assert [label for label in labels if label] == shown
    assert claim.holds
    assert "4x more tokens per parameter" in claim.quantity
    assert "on average over 8 runs" in claim.measured
    worst = float(claim.measured.split(", ")[-1].partition("%")[0])
    assert worst < 1


def test_claim_fails_where_losses_bend_beyond_the_fitted_ratios(findings):
    claim = findings[1].claims[0]
    assert claim.holds is False
    assert float(claim.measured.partition("%")[0]) > 2


def test_held_out_runs_do_not_change_the_fitted_laws(findings):
    for dash in ("solid", "dash"):
        for one, two in zip(*(curves(each, dash) for each in findings), strict=True):
            np.testing.assert_array_equal(one.y, two.y)


@pytest.mark.parametrize(
    "kind",
    [
        {"ratios": (10, 20, 40)},  # three ratios
        {"ratios": (10, 15, 22, 33)},  # the largest is no four times the least
        {"widths": (32, 48)},
        {"unique": 64_000},  # repeated tokens
    ],
)
def test_runs_that_form_no_ladder_have_no_section(kind):
    assert STUDY.section(table(**kind)) is None


def test_isoflop_runs_form_no_ladder():
    measured = []
    for n, run in runs(ratios=(1,)):
        for budget in (1e10, 3e10, 1e11, 3e11, 1e12):
            steps = max(20, round(budget / 6 / n / 512))
            longer = run.model_copy(update={"n_steps": steps})
            measured.append((longer, [Measurement(steps, "val", "loss", 2.0)]))
    assert overtraining.analyze(table_of(measured)) is None


def test_the_section_shows_what_was_measured_and_predicted(straight):
    shown = STUDY.section(straight)
    assert [table.name for table in shown.tables] == ["expected-overtraining"]
    figure = shown.figures[0]
    open_marks = [
        trace for trace in figure.traces if isinstance(trace, Markers) and trace.symbol == "open"
    ]
    assert sum(len(trace.x) for trace in open_marks) == 2 * len(WIDTHS)
    assert [trace.dash for trace in figure.traces if isinstance(trace, Line)] == ["solid"] * 4 + [
        "dash"
    ]


def test_ladder_too_short_for_the_laws_is_reported():
    claims = overtraining.analyze(table(ratios=(10, 60, 120, 240), widths=WIDTHS[:3])).claims
    assert len(claims) == len(overtraining.LAW_NAMES)
    for claim in claims:
        assert "was fitted to (60)" in claim.quantity
        assert claim.holds is not None or "not fitted" in claim.measured
