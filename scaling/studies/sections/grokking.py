"""Grokking as a section: accuracy against steps, the laws of the delay, and the network that needs no training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scaling.render.figure import Axis, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.section import Section
from scaling.render.table import number
from scaling.studies import grokking
from scaling.studies.findings import table
from scaling.studies.grokking import LEVEL, Power, Run, Study

TITLE = "Grokking"
SHOWN = (0.0, 1.04)  # accuracies


def section(rows: pd.DataFrame) -> Section | None:
    """The section of modular runs; None where there are none with weight decay."""
    found = grokking.study(rows)
    if found is None:
        return None
    figures = [_accuracy(found), _fraction(found.by_fraction), _decay(found), _closed_form(found)]
    findings = table("grokking", grokking.findings(found))
    return Section(
        "grokking",
        TITLE,
        [figure for figure in figures if figure is not None],
        [findings],
        _notes(found),
    )


def _notes(found: Study) -> list[str]:
    """Three sentences on what these runs show; one more where some of them are not shown."""
    dated = [run for run in found.typical if run.delay]
    if dated:
        when = f"{np.median([run.understood / run.learned for run in dated if run.understood and run.learned]):.1f}"
        some = (
            ""
            if len(dated) == len(found.typical)
            else f" in {len(dated)} of {len(found.typical)} runs"
        )
        first = f"The model knows {LEVEL:.0%} of its training equations by heart (dashed) before it answers as many of those held out (solid): that takes {when} times the steps{some}."
    elif any(run.understood for run in found.typical):
        first = f"The model answers {LEVEL:.0%} of the equations held out (solid) no later than those trained on (dashed)."
    else:
        first = f"The model does not answer {LEVEL:.0%} of the equations held out (solid) within these steps."
    second = "Weight decay goes on shrinking the weights after the training equations are known, until the solution that serves all equations is the cheaper one (Varma 2023)"
    second += (
        ", and without decay that time does not come within these steps."
        if _stays_low(found)
        else "."
    )
    third = (
        "These runs do not tell how the delay depends on both the share of equations and the decay."
    )
    if 1.0 in (min(drawn) for _, drawn in grokking.closed_form(found.task) or ()):
        third = "A network whose weights are written down, not trained, answers all equations, so it is the learning that is late."
    if (
        found.by_fraction
        and found.by_decay
        and found.by_fraction.b[1] > 0
        and found.by_decay.b[1] > 0
    ):
        third = "The delay is longer where fewer equations are shown and where the decay is weaker, and the lines are the laws fitted to both."
    return [
        first,
        second,
        third,
        *(
            [f"{found.others} runs of further settings are not in these figures."]
            if found.others
            else []
        ),
    ]


def _stays_low(found: Study) -> bool:
    return bool(found.control) and all(run.understood is None for run in found.control)


def _accuracy(found: Study) -> Figure:
    """Both accuracies of every typical run and of the control."""
    traces: list[Trace] = [ReferenceLine(y=LEVEL, label=f"{LEVEL:.0%}")]
    decay = found.typical[0].decay
    traces += _curves(found.typical, f"decay {decay:g}", 0)
    traces += _curves(found.control, "no decay", 1)
    first = found.typical[0]
    caption = f"{first.operation} modulo {first.p}, {first.fraction:.0%} of the {first.p**2:,} equations trained on, learning rate {first.lr:g}. "
    caption += "Dashed: accuracy on these; solid: on those held out. One line a seed."
    mirrored = grokking.commutative_overlap(found.task)
    if mirrored is not None:
        traces.append(ReferenceLine(y=mirrored, label="mirror images"))
        caption += f" {mirrored:.0%} of those held out are mirror images of ones trained on: to know that the order of a and b does not matter"
        caption += " brings accuracy there and no further."
    return Figure(
        "grokking",
        "Known by heart, and understood",
        caption,
        Axis("step", log=True, unit="count"),
        Axis("accuracy", range=SHOWN),
        tuple(traces),
        size="wide",
    )


def _curves(runs: Sequence[Run], label: str, colour: int) -> list[Trace]:
    lines: list[Trace] = []
    for index, run in enumerate(runs):
        told = label if index == 0 else ""
        lines.append(
            Line(
                run.step,
                run.train,
                f"{told}: train" if told else "",
                colour,
                "dash",
                1.4,
                f"seed {run.seed}",
            )
        )
        lines.append(
            Line(
                run.step,
                run.test,
                f"{told}: test" if told else "",
                colour,
                "solid",
                2.0,
                f"seed {run.seed}",
            )
        )
    return lines


def _fraction(law: Power | None) -> Figure | None:
    if law is None:
        return None
    caption = f"Steps from {LEVEL:.0%} on train to {LEVEL:.0%} on test. The law is {grokking.share_law(law)}.{_left_out(law)}"
    known = law.pole[1] > 0
    label = f"{number(law.a[0], 3)} (f - f_c)^-b" if known else f"{number(law.a[0], 3)} f^-b"
    traces = (*([ReferenceLine(x=law.pole[0], label="f_c")] if known else []), *_drawn(law, label))
    return Figure(
        "grokking-fraction",
        "Delay against the share of equations trained on",
        caption,
        Axis("share f of equations trained on"),
        Axis("delay in steps", log=True, unit="count"),
        traces,
    )


def _decay(found: Study) -> Figure | None:
    law = found.by_decay
    if law is None:
        return None
    caption = f"Steps from {LEVEL:.0%} on train to {LEVEL:.0%} on test. The power is b = {grokking.interval(law.b)}; at b = 1 the delay "
    caption += f"times the decay is constant.{_left_out(law)}"
    traces = _drawn(law, f"{number(law.a[0], 3)} decay^-b")
    return Figure(
        "grokking-decay",
        "Delay against weight decay",
        caption,
        Axis("weight decay", log=True),
        Axis("delay in steps", log=True, unit="count"),
        traces,
    )


def _left_out(law: Power) -> str:
    if not law.left_out:
        return ""
    return f" {law.left_out} {'run' if law.left_out == 1 else 'runs'} that did not get there in time {'is' if law.left_out == 1 else 'are'} not in the law."


def _drawn(law: Power, label: str) -> tuple[Trace, ...]:
    """The runs, one marker each, and the law through them."""
    x = np.geomspace(law.x.min(), law.x.max(), 80)
    notes = [f"{at:g}: {delay:,.0f} steps" for at, delay in zip(law.x, law.delay, strict=True)]
    return Line(x, law.at(x), label, "ink", "dash"), Markers(
        law.x, law.delay, "runs", 0, notes=notes
    )


def _closed_form(found: Study) -> Figure | None:
    """Accuracy of the closed-form network against its width."""
    held = grokking.closed_form(found.task)
    if held is None:
        return None
    width = [float(width) for width, _ in held]
    middle, lo, hi = ([float(of(drawn)) for _, drawn in held] for of in (np.mean, np.min, np.max))
    caption = f"Accuracy on all {found.task.p**2:,} equations of the network whose weights are written down, not trained (Gromov 2023): "
    caption += "mean and range of three draws of its phases. Enough width solves the task exactly."
    traces = (Line(width, middle, "", 2, "dot", 1.4), Markers(width, middle, "", 2, lo=lo, hi=hi))
    return Figure(
        "grokking-closed-form",
        "The answer in closed form",
        caption,
        Axis("width", log=True, unit="count"),
        Axis("accuracy", range=SHOWN),
        traces,
    )
