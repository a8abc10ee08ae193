"""The command `predict`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.csv_rows import PREDICTED, prediction_rows
from scaling.cli.device_time import TIME, Count, Hours, Mfu, device_time
from scaling.cli.output import TableOutput, echo_err, option
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.predict.prediction import PredictionResult

QUESTION, MODELS = "Question", "Models and sweeps"
SERVING = "Serving, in device-seconds"


@dataclass(frozen=True)
class Inputs:
    """The inputs of a law that have options of their own."""

    n_params: Annotated[
        str | None,
        option(
            "Parameters: with --tokens or --flops gives the loss; alone the budget that they are "
            "optimal for; with --inference-tokens the training tokens that pay off.",
            QUESTION,
            "N",
        ),
    ] = None
    tokens: Annotated[
        str | None, option("Training tokens: with --n-params or --flops, or alone.", QUESTION, "D")
    ] = None
    unique_tokens: Annotated[
        str | None,
        option("Distinct tokens there are, of a law that knows of repeats.", QUESTION, "U"),
    ] = None
    steps: Annotated[str | None, option("Steps, of the law kaplan-ns.", QUESTION, "S")] = None
    task_loss: Annotated[
        str | None, option("Loss on the task, of the law sigmoid.", QUESTION, "X")
    ] = None


@dataclass(frozen=True)
class ServingArguments:
    """How answers are served, in the words of `Serving`."""

    mfu_prefill: Annotated[
        float | None, option("Utilisation of prefill; default 0.5.", SERVING, "X")
    ] = None
    mfu_decode: Annotated[
        float | None, option("Utilisation of decoding; default the roofline.", SERVING, "X")
    ] = None
    prompt_tokens: Annotated[
        int | None, option("Tokens of a prompt, among those served; default 512.", SERVING, "P")
    ] = None
    output_tokens: Annotated[
        int | None, option("Tokens of an answer; default 512.", SERVING, "O")
    ] = None
    batch: Annotated[int | None, option("Answers decoded together; default 16.", SERVING, "B")] = (
        None
    )


def predict(
    source: Annotated[
        str, typer.Argument(metavar="FIT.json|published:NAME", help="A fit, or a published law.")
    ],
    named: Inputs,
    served: ServingArguments,
    flops: Annotated[
        list[str] | None,
        option(
            'A training budget, "1e21" or "0.5 PF-days": gives N* and D*. Several: one row each.',
            QUESTION,
            "C[,C...]",
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None, option("Other inputs of a law of your own.", QUESTION, "NAME=VALUE,...")
    ] = None,
    loss: Annotated[
        str | None,
        option(
            "A loss in nats (or '3.1 bits') to reach: gives the smallest budget, or the one "
            "input left open.",
            QUESTION,
            "L",
        ),
    ] = None,
    smaller: Annotated[
        str | None,
        option(
            "Fractions of N: tokens and compute of smaller models of equal loss (De Vries).",
            QUESTION,
            "0.5,0.3",
        ),
    ] = None,
    inference_tokens: Annotated[
        str | None,
        option("Tokens to be served: gives the size of least total cost (Sardana).", QUESTION, "T"),
    ] = None,
    hours: Hours = None,
    count: Count = None,
    mfu: Mfu = None,
    device: Annotated[
        str | None,
        option(
            "h100, tpu-v5e, ...: with --hours or --count the time of training; else (and with "
            "--inference-tokens) device-seconds, caches and rooflines of serving.",
            TIME,
            "NAME",
        ),
    ] = None,
    with_model: Annotated[
        bool,
        option(
            "Name a model that can be built also where the fit's vocabulary is not known.",
            MODELS,
            names="--model",
        ),
    ] = False,
    models: Annotated[
        bool,
        option(
            "Named models (GPT-3, Chinchilla, Llama 3, ...) and their distance from the optimum.",
            MODELS,
        ),
    ] = False,
    emit_to: Annotated[
        Path | None,
        option(
            "With --flops: write the optimum, half and twice its size as a sweep.",
            MODELS,
            "SWEEP.toml",
            names="--emit",
        ),
    ] = None,
    base: Annotated[
        Path | None,
        option("With --emit: sweep whose data and recipe the runs take.", MODELS, "SWEEP.toml"),
    ] = None,
    *,
    output: TableOutput,
) -> None:
    """Turn a fit into N, D, loss and tokens per parameter, with intervals and a buildable model.

    Example: scaling predict results/demo/fits/chinchilla.json --flops 1e21 --smaller 0.5,0.3

    Example: scaling predict published:besiroglu2024 --device h100 --count 8 --hours 72

    Example: scaling predict published:besiroglu2024 --n-params 1.3B --inference-tokens 1T

    Example: scaling predict published:besiroglu2024 --models
    """
    from scaling.predict.law_source import load_law
    from scaling.predict.named_models import compare_named_models
    from scaling.predict.predict import predict as run_predict
    from scaling.predict.serving import Serving
    from scaling.report.terminal import models_text, prediction_text, predictions_text

    times = device_time(device, count, mfu, hours)
    budgets = [part.strip() for text in flops or () for part in text.split(",")]
    if times is not None and hours is not None:
        if budgets:
            raise ScalingError("--flops and --hours both give the budget", remedy="give one")
        budgets = [repr(times.flops_of(hours))]
    if (emit_to is not None and len(budgets) != 1) or (base is not None and emit_to is None):
        raise ScalingError(
            "--emit writes the runs of one budget",
            remedy="give --flops C --emit SWEEP.toml (--base is optional)",
        )
    question = {name: text for name, text in vars(named).items() if text is not None}
    question |= dict(_pair(text) for texts in inputs or () for text in texts.split(","))
    is_served = times is None or inference_tokens is not None
    serving = vars(served) | ({"device": device, "mfu_training": mfu} if is_served else {})
    given = {name: value for name, value in serving.items() if value is not None}
    asked = (loss, smaller, inference_tokens)
    is_question = bool(given or question or budgets) or any(each is not None for each in asked)
    flops_of_each = [{"flops": budget} for budget in budgets] or [{}] * (is_question or not models)
    predictions = [
        run_predict(
            source,
            loss=loss,
            inference_tokens=inference_tokens,
            smaller=smaller,
            serving=Serving(**given) if given else None,
            devices=times,
            with_model=with_model or emit_to is not None,
            **question,
            **one,
        )
        for one in flops_of_each
    ]
    document: dict[str, Any] = predictions[0].to_dict() if len(predictions) == 1 else {}
    if len(predictions) > 1:
        document = {
            "predictions": [each.to_dict() for each in predictions],
            "warnings": _common_warnings(predictions),
        }
    named_models = compare_named_models(load_law(source)) if models else None
    if named_models is not None:
        compared = named_models.to_dict()
        document = {**document, "models": compared["models"]} if document else compared
    if emit_to is not None:
        _write_sweep(source, document, emit_to, base)

    def text() -> Any:
        if len(predictions) > 1:
            return predictions_text(predictions)
        if not predictions and named_models is not None:
            return models_text(named_models)
        table = None if named_models is None else named_models.table()
        return prediction_text(predictions[0], table, _next(source, document, emit_to))

    output.emit(
        document,
        text,
        rows=lambda: prediction_rows(document, smaller is not None, models),
        columns=PREDICTED,
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name and equals and value):
        raise ScalingError(
            f"{text!r} is not of the form NAME=VALUE", where="--inputs", remedy='write "E=64"'
        )
    return name, value


def _next(source: str, document: dict[str, Any], emitted: Path | None) -> str:
    """The next sensible command, which works."""
    from scaling.formatting import format_flops
    from scaling.predict.law_source import PREFIX, load_law

    if emitted is not None:
        return f"scaling run {shlex.quote(str(emitted))}"
    if source.startswith(PREFIX):
        return ""
    name, flops = shlex.quote(source), document["flops"]["value"]
    if document["question"] == "budget" and load_law(source).sweep() is not None:
        command = f"scaling predict {name} --flops {format_flops(flops)} --emit test.toml"
        return f"{command}   (runs that test it)"
    return f"scaling report {name}"


def _common_warnings(predictions: Sequence[PredictionResult]) -> list[dict[str, Any]]:
    """The warnings of all predictions, each sentence once."""
    warnings = {each.message: each for one in predictions for each in one.warnings}
    return [each.model_dump(mode="json") for each in warnings.values()]


def _write_sweep(source: str, document: dict[str, Any], path: Path, base: Path | None) -> None:
    """Write the optimum, half and twice its size as a sweep that holds what is forecast."""
    from scaling.config.sweep_file import load_sweep
    from scaling.predict.verification import write_verification_sweep
    from scaling.tasks import open_task, resolve

    sizes = None
    if base is not None:
        task = resolve(load_sweep(base).base.task)
        sizes = {"vocab_size": open_task(task).vocab_size, "seq_len": task.seq_len}
    flops, n_params = document["flops"]["value"], document["n_params"]["value"]
    sweep = write_verification_sweep(source, flops, n_params, path, base, sizes)
    echo_err(f"written: {path} ({len(sweep.forecasts)} forecasts); next: scaling run {path}")
