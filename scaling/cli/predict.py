"""The command `predict`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.cli.options import COUNT, HOURS, MFU, TIME, device_time
from scaling.cli.output import TableOutput, argument, echo_err, flag, option
from scaling.errors import ScalingError
from scaling.formatting import format_flops, format_seconds

if TYPE_CHECKING:
    from scaling.predict.prediction import PredictionResult

QUESTION, MODELS = "Question", "Models and sweeps"
QUANTITIES = ("flops", "n_params", "tokens", "tokens_per_param", "loss", "accuracy")


@dataclass(frozen=True)
class Question:
    """What is asked of the law, in the words of `scaling.predict.predict`."""

    n_params: str | None = option(
        "Model size. With --tokens or --flops: the loss. Alone: the budget it is optimal for. "
        "With --inference-tokens: the training tokens that pay off.",
        QUESTION,
        "N",
    )
    tokens: str | None = option(
        "Training tokens: with --n-params or --flops, or alone.", QUESTION, "D"
    )
    unique_tokens: str | None = option(
        "Unique tokens available (law data-constrained).", QUESTION, "U"
    )
    steps: str | None = option("Steps, of the law kaplan-ns.", QUESTION, "S")
    task_loss: str | None = option("Loss on the task, of the law sigmoid.", QUESTION, "X")
    loss: str | None = option(
        "A loss in nats (or '3.1 bits') to reach: gives the smallest budget, or the one "
        "input left open.",
        QUESTION,
        "L",
    )
    smaller: str | None = option(
        "Fractions of N: tokens and compute of smaller models of equal loss (De Vries).",
        QUESTION,
        "0.5,0.3",
    )
    inference_tokens: str | None = option(
        "Tokens to be served: gives the size of least total cost (Sardana), or with --n-params "
        "alone the training tokens.",
        QUESTION,
        "T",
    )


def predict(
    source: str = argument("FIT.json|published:NAME", "A fit, or a published law."),
    *,
    asked: Question,
    flops: list[str] | None = option(
        'A training budget, "1e21" or "0.5 PF-days": gives N* and D*. Several: one row each.',
        QUESTION,
        "C[,C...]",
    ),
    inputs: list[str] | None = option(
        "Other inputs of a law of your own.", QUESTION, "NAME=VALUE,..."
    ),
    hours: float | None = HOURS,
    count: int | None = COUNT,
    mfu: float | None = MFU,
    device: str | None = option(
        "The hours of training on h100, tpu-v5e, ...",
        TIME,
        "NAME",
    ),
    with_model: bool = flag(
        "Name a model that can be built also where the fit's vocabulary is not known.",
        MODELS,
        names="--model",
    ),
    models: bool = flag(
        "Named models (GPT-3, Chinchilla, Llama 3, ...) and their distance from the optimum.",
        MODELS,
    ),
    emit_to: Path | None = option(
        "With --flops: write the optimum, half and twice its size as a sweep.",
        MODELS,
        "SWEEP.toml",
        names="--emit",
    ),
    base: Path | None = option(
        "With --emit: sweep whose data and recipe the runs take.", MODELS, "SWEEP.toml"
    ),
    output: TableOutput,
) -> None:
    """Turn a fit into N, D, loss and tokens per parameter, with intervals and a buildable model.

    Example: scaling predict results/demo/fits/chinchilla.json --flops 1e21 --smaller 0.5,0.3

    Example: scaling predict published:besiroglu2024 --device h100 --count 8 --hours 72

    Example: scaling predict published:besiroglu2024 --flops 1e22 --inference-tokens 1T

    Example: scaling predict published:besiroglu2024 --n-params 1.3B --inference-tokens 1T

    Example: scaling predict published:besiroglu2024 --models
    """
    from scaling.fit.document import Interval
    from scaling.predict.law_source import load_law
    from scaling.predict.named_models import compare_named_models
    from scaling.predict.predict import predict as run_predict
    from scaling.report.terminal import models_parts, prediction_parts, predictions_parts

    alone = device is not None and hours is None
    times = device_time(device, 1 if count is None and alone else count, mfu, hours)
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
    question: dict[str, Any] = {
        name: value for name, value in vars(asked).items() if value is not None
    }
    for text in (part for texts in inputs or () for part in texts.split(",")):
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ScalingError(
                f"{text!r} is not of the form NAME=VALUE", where="--inputs", remedy='write "E=64"'
            )
        question[name] = value
    questions = [question | {"flops": budget} for budget in budgets]
    if not questions and (question or not models):
        questions = [question]
    predictions = [
        run_predict(source, devices=times, with_model=with_model or emit_to is not None, **each)
        for each in questions
    ]
    if output.as_csv or (len(predictions) > 1 and not output.as_json):
        _check_one_table(
            "--csv" if output.as_csv else "the table of several budgets",
            {
                "--smaller": asked.smaller is not None,
                "--inference-tokens": any(each.inference for each in predictions),
                "--model": with_model,
                "--models next to a prediction": models and bool(predictions),
                "--device": device is not None and not output.as_csv,
            },
        )
    document: dict[str, Any] = predictions[0].to_dict() if len(predictions) == 1 else {}
    if len(predictions) > 1:
        warnings = {each.message: each for one in predictions for each in one.warnings}
        document = {
            "predictions": [each.to_dict() for each in predictions],
            "warnings": [each.model_dump(mode="json") for each in warnings.values()],
        }
    named_models = None
    if models:
        named_models = compare_named_models(load_law(source))
        compared = named_models.to_dict()
        document = {**document, "models": compared["models"]} if document else compared
    next_command = ""
    if emit_to is not None:
        next_command = _write_sweep(source, predictions[0], emit_to, base)

    def parts() -> list[Any]:
        if len(predictions) > 1:
            return predictions_parts(predictions)
        if named_models is not None and not predictions:
            return models_parts(named_models)
        command = next_command or _next_command(source, predictions[0])
        return prediction_parts(predictions[0], named_models, command)

    rows: list[dict[str, Any]] = document["models"] if models else []
    for answer in () if models else predictions:
        entries = {name: getattr(answer, name) for name in QUANTITIES}
        if answer.time is not None:
            entries["hours"] = Interval(value=answer.time.hours, lo=None, hi=None)
        rows += [
            {"budget": answer.flops.value, "quantity": name, **entry.to_dict()}
            for name, entry in entries.items()
            if entry is not None and entry.value is not None
        ]
    output.emit(document, parts, rows=rows)


def _check_one_table(table: str, left_out: dict[str, bool]) -> None:
    """Raise ScalingError where the one table would leave out what was asked for."""
    for asked, is_asked in left_out.items():
        if is_asked:
            raise ScalingError(f"{table} does not show {asked}", remedy="use --json")


def _next_command(source: str, prediction: PredictionResult) -> str:
    """A test of the prediction where there is a sweep to take its recipe from, else a report."""
    from scaling.predict.law_source import PREFIX, load_law

    if source.startswith(PREFIX):
        return ""
    name, flops = shlex.quote(source), prediction.flops.value
    if prediction.question == "budget" and load_law(source).sweep() is not None:
        command = f"scaling predict {name} --flops {format_flops(flops or 0)} --emit test.toml"
        return f"{command}   # runs that test it"
    return f"scaling report {name}"


def _write_sweep(source: str, prediction: PredictionResult, path: Path, base: Path | None) -> str:
    """Write the optimum, half and twice its size as a sweep that holds what is forecast, and say
    what it costs; returns the command that trains it.
    """
    from scaling.config.sweep_file import load_sweep
    from scaling.execute.environment import default_workers
    from scaling.predict.law_source import load_law
    from scaling.predict.verification import cost_of_test, write_verification_sweep
    from scaling.tasks import open_task, resolve

    if prediction.question != "budget":
        raise ScalingError(
            "--emit tests the optimum of a budget, and here N or D is given",
            remedy="give --flops C --emit SWEEP.toml alone",
        )
    sizes = None
    if base is not None:
        task = resolve(load_sweep(base).base.task)
        sizes = {"vocab_size": open_task(task).vocab_size, "seq_len": task.seq_len}
    flops = prediction.flops.value or 0.0
    n_params = prediction.n_params.value
    sweep = write_verification_sweep(source, flops, n_params, path, base, sizes)
    cost, name = cost_of_test(sweep, flops, load_law(source).paths), shlex.quote(str(path))
    text, duration = f"the test costs {format_flops(cost.flops)} FLOPs", ""
    if cost.sweep_flops:
        ratio = cost.flops / cost.sweep_flops
        text += f", {ratio:.2g} times the {format_flops(cost.sweep_flops)} of the sweep"
    if cost.seconds:
        workers = default_workers()
        duration = f"about {format_seconds(cost.wall_seconds(workers))} of training here"
        text += f"; {duration} with {workers} worker(s), at the pace of the sweep's runs"
    echo_err(f"written: {path} ({len(sweep.forecasts)} forecasts)\n{text}")
    return f"scaling run {name}   # {duration}" if duration else f"scaling plan {name}"
