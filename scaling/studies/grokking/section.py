"""Grokking in a report: accuracy against steps, the laws of the delay, and the network that needs
no training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from scaling.render.figure import Axis, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import number
from scaling.studies.grokking.analysis import (
    ACCURACY,
    GrokkingStudy,
    ModularRun,
    analyze,
    claims,
    describe_fraction_law,
)
from scaling.studies.grokking.closed_form import accuracy_by_width, commutative_overlap
from scaling.studies.grokking.delay_law import DelayLaw
from scaling.studies.study import Study

ACCURACY_AXIS = Axis("accuracy", range=(0.0, 1.04))
DELAY_AXIS = Axis("delay in steps", log=True, unit="count")
DELAY = f"Steps from {ACCURACY:.0%} accuracy on training to {ACCURACY:.0%} on held-out equations."


def notes(study: GrokkingStudy) -> list[str]:
    """Three sentences on what these runs show; one more where some of them are not shown."""
    dated = [run for run in study.baseline if run.delay]
    if dated:
        dates = [(run.train_fit_step, run.generalization_step) for run in dated]
        ratio = np.median([test / train for train, test in dates if train and test])
        n_all = len(study.baseline)
        some = "" if len(dated) == n_all else f" in {len(dated)} of {n_all} runs"
        first = (
            f"The model fits {ACCURACY:.0%} of its training equations (dashed) before it "
            "answers as "
            f"many of those held out (solid), which takes {ratio:.1f} times the steps{some}."
        )
    elif any(run.generalization_step for run in study.baseline):
        first = (
            f"The model answers {ACCURACY:.0%} of the held-out equations (solid) no later than "
            "those trained on (dashed)."
        )
    else:
        first = (
            f"The model does not answer {ACCURACY:.0%} of the held-out equations (solid) within "
            "these steps."
        )
    never = bool(study.control) and all(run.generalization_step is None for run in study.control)
    second = (
        "Weight decay goes on shrinking the weights after the training equations are fitted, until "
        "the solution for all equations is the cheaper one (Varma 2023)"
        + (", and without decay that does not happen within these steps." if never else ".")
    )
    laws = (study.by_fraction, study.by_decay)
    if all(law is not None and law.b.lo > 0 for law in laws):
        third = (
            "The delay is longer where fewer equations are shown and where the decay is "
            "weaker; the "
            "lines are the laws fitted to both."
        )
    elif any(min(accuracies) == 1.0 for _, accuracies in accuracy_by_width(study.task) or ()):
        third = (
            "A network whose weights are given in closed form, not trained, answers all equations, "
            "so it is the learning that is late."
        )
    else:
        third = "These runs do not show how the delay depends on the share and on the decay."
    unused = f"{study.n_unused} runs of further settings are not in these figures."
    return [first, second, third, *([unused] if study.n_unused else [])]


def _accuracy(study: GrokkingStudy) -> Figure:
    """Both accuracies of every baseline run and of the control."""
    first, task = study.baseline[0], study.task
    traces: list[Trace] = [
        ReferenceLine(y=ACCURACY, label=f"{ACCURACY:.0%}"),
        *_curves(study.baseline, f"decay {first.decay:g}", 0),
        *_curves(study.control, "no decay", 1),
    ]
    caption = (
        f"{task.operation} modulo {task.p}, {task.train_fraction:.0%} of the {task.p**2:,} "
        f"equations trained on, learning rate {first.lr:g}. Dashed: accuracy on these; solid: on "
        "those held out. One line per seed."
    )
    overlap = commutative_overlap(task)
    if overlap is not None:
        traces.append(ReferenceLine(y=overlap, label="mirror images"))
        caption += (
            f" {overlap:.0%} of those held out are mirror images of ones trained on: knowing that "
            "the order of a and b does not matter brings accuracy there and no further."
        )
    title, x = "Train and test accuracy", Axis("step", log=True, unit="count")
    return Figure("grokking", title, caption, x, ACCURACY_AXIS, traces, size="wide")


def _curves(runs: Sequence[ModularRun], label: str, colour: int) -> list[Trace]:
    lines: list[Trace] = []
    for index, run in enumerate(runs):
        train, test = ("", "") if index else (f"{label}: train", f"{label}: test")
        tooltip = f"seed {run.seed}"
        lines.append(Line(run.step, run.train, train, colour, "dash", 1.4, tooltip))
        lines.append(Line(run.step, run.test, test, colour, "solid", 2.0, tooltip))
    return lines


def _delays(study: GrokkingStudy) -> Iterator[Figure]:
    """The delay against the share trained on and against the weight decay, with their laws."""
    if (law := study.by_fraction) is not None:
        caption = f"{DELAY} The law is {describe_fraction_law(law)}.{_censored(law)}"
        has_pole = law.pole.lo > 0
        label = f"{number(law.a.value, 3)} {'(f - f_c)' if has_pole else 'f'}^-b"
        pole = (ReferenceLine(x=law.pole.value, label="f_c"),) if has_pole else ()
        title = "Delay against the share of equations trained on"
        x = Axis("share f of equations trained on")
        traces = (*pole, *_law_traces(law, label))
        yield Figure("grokking-fraction", title, caption, x, DELAY_AXIS, traces)
    if (law := study.by_decay) is not None:
        caption = (
            f"{DELAY} The power is b = {law.b:.2f}; at b = 1 the delay times the decay is "
            f"constant.{_censored(law)}"
        )
        traces = _law_traces(law, f"{number(law.a.value, 3)} decay^-b")
        x, title = Axis("weight decay", log=True), "Delay against weight decay"
        yield Figure("grokking-decay", title, caption, x, DELAY_AXIS, traces)


def _censored(law: DelayLaw) -> str:
    if not law.n_censored:
        return ""
    runs, are = ("run", "is") if law.n_censored == 1 else ("runs", "are")
    return f" {law.n_censored} {runs} that did not get there in time {are} not in the law."


def _law_traces(law: DelayLaw, label: str) -> tuple[Trace, ...]:
    """The law, and one marker per run."""
    x = np.geomspace(law.x.min(), law.x.max(), 80)
    tooltips = [f"{at:g}: {delay:,.0f} steps" for at, delay in zip(law.x, law.delay, strict=True)]
    line = Line(x, law.predict(x), label, "ink", "dash")
    return line, Markers(law.x, law.delay, "runs", 0, notes=tooltips)


def _closed_form(study: GrokkingStudy) -> Figure | None:
    """Accuracy of the closed-form network against its width."""
    by_width = accuracy_by_width(study.task)
    if by_width is None:
        return None
    width = [float(width) for width, _ in by_width]
    mean, lo, hi = ([float(of(drawn)) for _, drawn in by_width] for of in (np.mean, np.min, np.max))
    caption = (
        f"Accuracy on all {study.task.p**2:,} equations of the network whose weights are given in "
        "closed form, not trained (Gromov 2023): mean and range of three draws of its phases. "
        "A wide "
        "enough network solves the task exactly."
    )
    traces = (Line(width, mean, "", 2, "dot", 1.4), Markers(width, mean, "", 2, lo=lo, hi=hi))
    x = Axis("width", log=True, unit="count")
    title = "The closed-form network"
    return Figure("grokking-closed-form", title, caption, x, ACCURACY_AXIS, traces)


def figures(study: GrokkingStudy) -> list[Figure | None]:
    """Accuracies, both laws, the closed form."""
    return [_accuracy(study), *_delays(study), _closed_form(study)]


STUDY = Study("grokking", "Grokking", analyze, claims, figures, lambda study: [], notes)
