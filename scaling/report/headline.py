"""The five lines that `scaling fit` and `scaling predict` begin with: the answer, how far to trust
it, what was used, what was left out, and the next command.
"""

from __future__ import annotations

from collections.abc import Sequence

from scaling.errors import ScalingError
from scaling.fit.result import FitResult
from scaling.formatting import format_count, format_flops
from scaling.predict.predict import predict
from scaling.predict.prediction import PredictionResult
from scaling.predict.question import QuestionKind
from scaling.render.table import Column, Kind, estimate, format_cell
from scaling.report import summary
from scaling.warning import ResultWarning, WarningCode

Lines = list[tuple[str, str]]
HEAVY = (  # what makes an answer wrong, before what makes it wide
    WarningCode.MIXED_DATA,
    WarningCode.UNLIKELY_UNIT,
    WarningCode.FLOPS_DISAGREE,
    WarningCode.HYPERPARAMETERS_VARY,
    WarningCode.REPEATED_ROWS,
    WarningCode.RUN_STATE,
    WarningCode.REPEATED_DATA,
    WarningCode.FLAGGED_POINTS_DECIDE,
    WarningCode.APPROACHES_DISAGREE,
    WarningCode.HOLDOUT_COVERAGE,
    WarningCode.HOLDOUT_ONE_SIDED,
)
OUTSIDE = {WarningCode.EXTRAPOLATION, WarningCode.BELOW_DATA, WarningCode.OUTSIDE_DATA}
MAX_PARAMS = 4  # parameters of a law that are listed in a line


def _text(entry: object, kind: Kind = "rough") -> str:
    return format_cell(estimate(entry), Column("", kind, True))


def heaviest(warnings: Sequence[ResultWarning]) -> str:
    """The sentence of the heaviest warning, and how many more there are; "" without one."""
    if not warnings:
        return ""
    order = {code: index for index, code in enumerate(HEAVY)}
    first = min(warnings, key=lambda each: order.get(each.code, len(order)))
    return first.message + (f" (and {len(warnings) - 1} more below)" if len(warnings) > 1 else "")


def fit_lines(fit: FitResult, saved: str | None = None, command: str = "") -> Lines:
    """The five lines of a fit; `saved` is its file, `command` what was typed, for the next one."""
    left_out = "; ".join(f"{each.count} {each.reason}" for each in fit.excluded)
    columns = ", ".join(f"{letter} = {name!r}" for letter, name in fit.source.columns.items())
    rows = fit.n_points + sum(each.count for each in fit.excluded)
    counted = f"N is {fit.source.convention.params or 'as given'}" if fit.approaches else ""
    used = f"{fit.n_points} of {rows} {'rows' if columns else 'runs'}"
    answer = _ten_times(fit)
    light, reason = summary.light(fit, answer)
    grave = [each for each in fit.warnings if each.code in HEAVY]
    lines = [
        ("answer", _fit_answer(fit, answer)),
        ("trust", f"{light}: {heaviest(grave) if grave and light == 'with care' else reason}"),
        ("used", "; ".join(part for part in (used, columns, counted) if part)),
        ("left out", left_out or "nothing"),
    ]
    if saved and "flops" in fit.range and "a" in fit.derived:
        budget = format_flops(10 * fit.range["flops"][1])
        lines.append(("next", f"scaling predict {saved} --flops {budget}"))
    elif saved:
        lines.append(("saved", saved))
    elif command:
        lines.append(("next", f"{command} --out fit.json   (this fit is not saved)"))
    return lines


def _ten_times(fit: FitResult) -> PredictionResult | None:
    """The prediction for ten times the largest budget; None where the law names no size."""
    if "a" not in fit.derived or "flops" not in fit.range:
        return None
    try:
        return predict(fit, flops=10 * fit.range["flops"][1])
    except ScalingError:
        return None


def _fit_answer(fit: FitResult, answer: PredictionResult | None) -> str:
    grows = f"N* grows as C^{_text(fit.derived['a'])}" if "a" in fit.derived else ""
    if answer is not None:
        loss = "" if answer.loss.value is None else f", loss {_text(answer.loss)}"
        return (
            f"at {format_flops(answer.flops.value or 0)} FLOPs (ten times the data) N* = "
            f"{_text(answer.n_params, 'count')}{loss}; {grows}"
        )
    if grows:
        return grows
    if fit.law == "hyper":
        return "; ".join(
            f"{name}* = {_text(fit.params[f'{name}_coef'])}"
            + "".join(
                f" {size}^{_text(fit.params[f'{name}_{size}'])}"
                for size in "ND"
                if f"{name}_{size}" in fit.params
            )
            for name in ("lr", "B")
            if f"{name}_coef" in fit.params
        )
    entries = list(fit.params.items())
    listed = ", ".join(f"{name} = {_text(entry)}" for name, entry in entries[:MAX_PARAMS])
    return listed + (", ..." if len(entries) > MAX_PARAMS else "")


def titles(prediction: PredictionResult) -> tuple[str, str]:
    """What a prediction is about, and the mark of its N, D and L ("*" for an optimum)."""
    n, d = (format_count(each.value or 0) for each in (prediction.n_params, prediction.tokens))
    return {
        QuestionKind.BUDGET: ("Compute-optimal training", "*"),
        QuestionKind.SIZE: (f"The budget that {n} parameters are compute-optimal for", "*"),
        QuestionKind.TOKENS: (f"The budget that {d} tokens are compute-optimal for", "*"),
        QuestionKind.SERVED_SIZE: (
            f"Training tokens at which {n} parameters cost least to train and serve",
            "",
        ),
        QuestionKind.LOSS: ("The least compute that reaches this loss", "*"),
        QuestionKind.INPUT: ("What reaches this loss", ""),
        QuestionKind.INPUTS: ("What the law gives at these inputs", ""),
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
        words.format(_text(entry, kind))
        for entry, words, kind in measures
        if estimate(entry)[0] is not None
    ]
    has_flops = prediction.flops.value is not None
    budget = f"{_text(prediction.flops, 'flops')} FLOPs: " if has_flops else ""
    lines = [("answer", budget + ", ".join(parts))]
    if best := prediction.inference:
        demand, n, d = map(format_count, (best.demand_tokens, best.n_params, best.tokens))
        sentence = f"{demand} tokens: {n} parameters on {d} tokens cost least at the same loss"
        lines.append(("to serve", sentence))
    heavy = heaviest(prediction.warnings)
    lines.append(("trust", f"with care: {heavy}" if heavy else reach(prediction) or ""))
    if time := prediction.time:
        devices = f"{time.count} {time.device} at an MFU of {time.mfu:g}"
        lines.append(("time", f"{time.hours:.3g} hours on {devices}"))
    lines.append(("from", f"{prediction.law}, {prediction.source}; {prediction.basis}"))
    return [*lines, ("next", command)] if command else lines


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
    return "This lies within the budgets, sizes and tokens per parameter that were trained."
