"""The tables of a prediction: the model to build, each approach and law, over-training."""

from __future__ import annotations

from collections.abc import Sequence

from scaling.formatting import format_count, format_flops, format_percent
from scaling.predict.prediction import PredictionResult, SmallerModel
from scaling.render.table import Table, number, pairs, record_table
from scaling.report.parts.fit_tables import OPTIMUM


def prediction_tables(prediction: PredictionResult) -> list[Table | None]:
    """What follows from the answer, without the answer itself."""
    return [
        predicted_approaches(prediction),
        model(prediction),
        demand(prediction),
        smaller(prediction.smaller),
    ]


def predicted_approaches(prediction: PredictionResult) -> Table | None:
    """The optimum at the budget asked for by each approach."""
    rows = [
        {"approach": name, "N*": item.n_params, "D*": item.tokens, "L*": item.loss}
        for name, item in (prediction.approaches or {}).items()
    ]
    title = "The same budget by each approach"
    return record_table("predicted-approaches", title, rows)


def error_parts(prediction: PredictionResult) -> Table | None:
    """How much of each interval is the noise of a run, the parameters of a law, its form."""
    rows = []
    for name, answer in (prediction.combination or {}).items():
        largest = sorted(answer.weights.items(), key=lambda item: -item[1])[:3]
        parts = answer.parts.to_dict().items()
        rows.append(
            {
                "standard error": "N*" if name == "n_params" else "loss",
                **{f"{key} %": None if part is None else 100 * part for key, part in parts},
                "largest weights": ", ".join(f"{law} {weight:.2f}" for law, weight in largest),
            }
        )
    caption = (
        "Form is what the candidates differ by beyond the bootstrap of one law's parameters; "
        "distance is what they err by together, so far beyond the data. The parts add in squares."
    )
    rough = ("noise %", "parameters %", "form %", "distance %", "total %")
    return record_table("breakdown", "Where the interval comes from", rows, caption, rough=rough)


def predictions(forecasts: Sequence[PredictionResult]) -> Table | None:
    """The compute-optimal model at each budget."""
    columns = {"flops.value": "FLOPs", **{name: label for name, label, _ in OPTIMUM}}
    return record_table("predictions", "Compute-optimal models", forecasts, columns=columns)


def model(prediction: PredictionResult) -> Table | None:
    """The model that can be built for a prediction, and how to train it."""
    buildable = prediction.model
    if not buildable:
        return None
    heads = "1 head" if buildable["n_heads"] == 1 else f"{buildable['n_heads']} heads"
    shape = (
        f"{{n_layers}} layers, width {{d_model}}, {heads} of {{d_head}} ({{n_kv_heads}} for keys), "
        "d_ff {d_ff}, vocabulary {vocab_size}"
    )
    steps = "{n_steps:,} of {batch_size} x {seq_len} tokens, warm-up {warmup_steps}, {schedule}"
    counted = buildable["params"].replace("_", " ")
    rows = (
        ("parameters", f"{format_count(buildable['n_params'])} ({counted})"),
        ("shape", shape.format_map(buildable)),
        ("steps", steps.format_map(buildable)),
        ("learning rate", number(buildable["lr"], 3)),
    )
    return pairs("model", "A model that can be built", rows)


def demand(prediction: PredictionResult) -> Table | None:
    """The size that is cheapest when it is also served, at the loss of the compute-optimal model
    (Sardana 2024).
    """
    served = prediction.inference
    if not served:
        return None
    in_all = (
        f"{format_flops(served.flops_total)}, {format_percent(served.saved_fraction)} less than "
        "with the compute-optimal size"
    )
    rows = (
        ("tokens served", format_count(served.demand_tokens)),
        ("parameters", format_count(served.n_params)),
        ("training tokens", format_count(served.tokens)),
        ("FLOPs in all", in_all),
    )
    return pairs("inference", "With inference demand", rows)


def smaller(models: Sequence[SmallerModel] | None) -> Table | None:
    """The price of smaller models at the same loss (De Vries 2023)."""
    if not models:
        return None
    columns = {
        "fraction": "of N",
        "n_params": "parameters",
        "tokens": "tokens",
        "tokens_per_param": "D/N",
        "extra_compute_percent": "extra compute, %",
    }
    caption = (
        "Tokens that bring each size to the same loss. No number of tokens does it at or "
        f"below {models[0].critical_fraction:.3g} of N."
    )
    if any(row.tokens.lo is not None and row.tokens.hi is None for row in models):
        caption += " An interval without an end holds draws that never reach the loss."
    return record_table(
        "smaller",
        "The price of a smaller model",
        models,
        caption,
        columns=columns,
        short=("of N",),
        count=("parameters", "tokens"),
        rough=("D/N", "extra compute, %"),
    )
