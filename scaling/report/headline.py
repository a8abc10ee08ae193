"""The five lines that `scaling fit` and `scaling predict` begin with: the answer, how far to trust
it, what was used, what was left out, and the next command.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from scaling.errors import ScalingError
from scaling.fit.result import FitResult
from scaling.formatting import format_count, format_flops
from scaling.predict.predict import predict
from scaling.predict.prediction import COMBINATION, PredictionResult
from scaling.predict.question import QuestionKind
from scaling.render.table import Kind, estimate, format_estimate
from scaling.report import summary
from scaling.report.parts.drawing import answer_budget
from scaling.warning import ResultWarning, WarningCode

Lines = list[tuple[str, str]]
BY_ROWS = {WarningCode.FAR_OFF_LAW, WarningCode.FLAGGED_POINTS_DECIDE}
OUTSIDE = {WarningCode.EXTRAPOLATION, WarningCode.BELOW_DATA, WarningCode.OUTSIDE_DATA}
MAX_PARAMS = 4  # parameters of a law that are listed in a line


def most_severe(warnings: Sequence[ResultWarning]) -> str:
    """The sentence of the heaviest warning, and how many more there are; "" without one."""
    if not warnings:
        return ""
    more = f" (and {len(warnings) - 1} more below)" if len(warnings) > 1 else ""
    return summary.heaviest(warnings).message + more


def fit_lines(fit: FitResult, saved: str | None = None, command: str = "") -> Lines:
    """The five lines of a fit; `saved` is its file, `command` what was typed, for the next one."""
    columns = ", ".join(f"{letter} = {name!r}" for letter, name in fit.source.columns.items())
    rows = fit.n_points + sum(each.count for each in fit.excluded)
    used = [f"{fit.n_points} of {rows} {'rows' if columns else 'runs'}", columns]
    has_n = "N" in fit.source.columns or not columns
    used += (
        [f"N is {fit.source.convention.params or 'as given'}"] if fit.approaches and has_n else []
    )
    if fit.law != "hyper":  # what was converted and derived; of hyper the notes are its answer
        used += fit.source.notes[bool(columns) :]
    has_frontier = "flops" in fit.range and "a" in fit.derived
    budget = answer_budget(fit) if has_frontier else 0.0
    answer = None
    with suppress(ScalingError):
        answer = predict(fit, flops=budget) if has_frontier else None
    light, reason = summary.light(fit, answer)
    severe = summary.severe(fit.warnings)
    if severe and light is summary.Light.CARE:
        reason = most_severe(severe)
    elif by_rows := [each for each in severe if each.code in BY_ROWS]:
        reason += f"; {most_severe(by_rows)}"
    lines = [
        ("answer", fit_answer(fit, answer)),
        ("trust", f"{light}: {reason}"),
        ("used", "; ".join(filter(None, used))),
        (
            "left out",
            "; ".join(f"{each.count} {each.reason}" for each in fit.excluded) or "nothing",
        ),
    ]
    if saved and has_frontier:
        lines.append(("next", f"scaling predict {saved} --flops {format_flops(budget)}"))
    elif saved:
        lines.append(("saved", saved))
    elif command:
        lines.append(("next", f"{command} --out fit.json   # this fit is not saved"))
    return lines


def fit_answer(fit: FitResult, answer: PredictionResult | None) -> str:
    """What a fit comes to: N* and the loss at the budget of the `answer`, or else how N* grows, or
    the first parameters of its law.
    """
    grows = ""
    if "a" in fit.derived and not summary.has_one_ratio(fit):
        grows = f"N* grows as C^{format_estimate(fit.derived['a'])}"
    if answer is not None:
        loss = "" if answer.loss.value is None else f", loss {format_estimate(answer.loss)}"
        return (
            f"at {format_flops(answer.flops.value or 0)} FLOPs (ten times the data) N* = "
            f"{format_estimate(answer.n_params, 'count')}{loss}{grows and '; '}{grows}"
        )
    if grows:
        return grows
    params = {name: format_estimate(entry) for name, entry in fit.params.items()}
    if fit.law == "hyper":
        return "; ".join(
            " ".join(
                [
                    f"{name}* = {params[f'{name}_coef']}",
                    *(f"{n}^{params[f'{name}_{n}']}" for n in "ND" if f"{name}_{n}" in params),
                ]
            )
            for name in ("lr", "B")
            if f"{name}_coef" in params
        )
    listed = ", ".join(f"{name} = {text}" for name, text in list(params.items())[:MAX_PARAMS])
    return listed + (", ..." if len(params) > MAX_PARAMS else "")


def title(prediction: PredictionResult) -> str:
    """What a prediction is about."""
    n, d = (format_count(each.value or 0) for each in (prediction.n_params, prediction.tokens))
    return {
        QuestionKind.BUDGET: "Compute-optimal training",
        QuestionKind.SIZE: f"The budget that {n} parameters are compute-optimal for",
        QuestionKind.TOKENS: f"The budget that {d} tokens are compute-optimal for",
        QuestionKind.SERVED_SIZE: f"Tokens at which {n} parameters cost least to train and serve",
        QuestionKind.LOSS: "The least compute that reaches this loss",
        QuestionKind.INPUT: "What reaches this loss",
        QuestionKind.INPUTS: "What the law gives at these inputs",
    }[prediction.question]


def prediction_lines(prediction: PredictionResult, command: str = "") -> Lines:
    """The lines of a prediction; `command` is the next one."""
    measures: tuple[tuple[object, str, Kind], ...] = (
        (prediction.n_params, "{} parameters", "count"),
        (prediction.tokens, "{} tokens", "count"),
        (prediction.loss, "loss {}", "rough"),
        *((each, f"{name} {{}}", "count") for name, each in (prediction.inputs or {}).items()),
        (prediction.accuracy, "accuracy {}", "rough"),
    )
    parts = [
        words.format(format_estimate(entry, kind))
        for entry, words, kind in measures
        if estimate(entry)[0] is not None
    ]
    has_flops = prediction.flops.value is not None
    budget = f"{format_estimate(prediction.flops, 'flops')} FLOPs: " if has_flops else ""
    lines = [("answer", budget + ", ".join(parts))]
    if prediction.question is not QuestionKind.BUDGET:
        lines.append(("question", title(prediction)))
    if best := prediction.inference:
        demand, n, d = map(format_count, (best.demand_tokens, best.n_params, best.tokens))
        sentence = f"{demand} tokens: {n} parameters on {d} tokens cost least at the same loss"
        lines.append(("to serve", sentence))
    lines.append(("trust", _trust(prediction)))
    if time := prediction.time:
        devices = f"{time.count} {time.device} at an MFU of {time.mfu:g}"
        lines.append(("time", f"{time.hours:.3g} hours on {devices}"))
    lines.append(("from", f"{prediction.law}, {prediction.source}; {prediction.basis}"))
    return [*lines, ("next", command)] if command else lines


def _trust(prediction: PredictionResult) -> str:
    severe = most_severe(prediction.warnings)
    codes = {warning.code for warning in prediction.warnings}
    if too_wide := summary.width_reason(prediction):
        why = f"; {severe}" if WarningCode.APPROACHES_DISAGREE in codes else ""
        return f"{summary.Light.NOT_YET}: {too_wide}{why}"
    if codes == {WarningCode.EXTRAPOLATION} and prediction.law == COMBINATION:
        return f"{severe}; these runs test forecasts as far as this"
    return f"with care: {severe}" if severe else reach(prediction) or ""


def reach(prediction: PredictionResult) -> str | None:
    """Whether the data reach this far; how far they do not is among the prediction's warnings."""
    decades = prediction.extrapolation_decades
    if decades is None:
        return (
            "The range of the data behind this law is not known, so how far this extrapolates "
            "is unknown."
        )
    if decades > 0 or any(each.code in OUTSIDE for each in prediction.warnings):
        return None
    if prediction.flops.value is None:
        return "This lies within the data."
    return "This lies within the budgets, sizes and tokens per parameter that were trained."
