"""The verb predict: a fit and one question become the model to train, and what over-training and serving it cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.csv_rows import PREDICTED, prediction_rows
from scaling.cli.output import Csv, Json, console, echo_err, note_warnings, print_csv, print_json
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.predict.serving import Serving

FitOrName = Annotated[
    str, typer.Argument(metavar="FIT.json|published:NAME", help="A fit, or a published law.")
]
SERVED = "Serving, in device-seconds"
EPILOG = """Example: scaling predict results/demo/fits/chinchilla.json --flops 1e21 --smaller 0.5,0.3

Example: scaling predict published:besiroglu2024 --flops 1e23 --inference-tokens 2T --device h100

Example: scaling predict published:besiroglu2024 --models"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("predict", epilog=EPILOG)(predict)


def predict(
    source: FitOrName,
    flops: Annotated[
        str | None,
        typer.Option(metavar="C", help="A training budget: the compute-optimal N and D."),
    ] = None,
    n_params: Annotated[
        str | None, typer.Option(metavar="N", help="Parameters, with --tokens: the loss.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="D", help="Tokens, with --n-params: the loss.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(metavar="L", help="A loss in nats: the smallest budget that reaches it."),
    ] = None,
    smaller: Annotated[
        str | None,
        typer.Option(
            metavar="0.5,0.3",
            help="Shares of N: the tokens and compute of smaller models of the same loss (De Vries).",
        ),
    ] = None,
    inference_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="T", help="Tokens to be served: the size that costs least with them (Sardana)."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=SERVED,
            help="h100, tpu-v5e, ...: the same in device-seconds, with caches and rooflines.",
        ),
    ] = None,
    mfu_training: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            rich_help_panel=SERVED,
            help="Model FLOPs utilisation of training; default 0.4.",
        ),
    ] = None,
    mfu_prefill: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            rich_help_panel=SERVED,
            help="Utilisation when prompts are read; default 0.5.",
        ),
    ] = None,
    mfu_decode: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            rich_help_panel=SERVED,
            help="Utilisation when answers are written; default the roofline.",
        ),
    ] = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="P",
            rich_help_panel=SERVED,
            help="Tokens of a prompt, among those served; default 512.",
        ),
    ] = None,
    output_tokens: Annotated[
        int | None,
        typer.Option(metavar="O", rich_help_panel=SERVED, help="Tokens of an answer; default 512."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="B", rich_help_panel=SERVED, help="Answers written side by side; default 16."
        ),
    ] = None,
    models: Annotated[
        bool,
        typer.Option(
            "--models",
            help="Named models (GPT-3, Chinchilla, Llama 3, ...): how far from the optimum of this law.",
        ),
    ] = False,
    emit: Annotated[
        Path | None,
        typer.Option(
            metavar="SWEEP.toml",
            help="With --flops: write the optimum, half and twice its size as a sweep.",
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="SWEEP.toml", help="With --emit: whose data and recipe the runs take over."
        ),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Turn a fit into N, D, loss and tokens per parameter, with intervals, a buildable model, and how far this is from the data."""
    if (emit is not None and flops is None) or (base is not None and emit is None):
        raise ScalingError(
            "--emit writes the runs of one budget",
            remedy="give --flops C --emit SWEEP.toml (and --base, if wished)",
        )
    question = {
        "flops": flops,
        "n_params": n_params,
        "tokens": tokens,
        "loss": loss,
        "smaller": smaller,
        "inference_tokens": inference_tokens,
    }
    served = {
        "device": device,
        "mfu_training": mfu_training,
        "mfu_prefill": mfu_prefill,
        "mfu_decode": mfu_decode,
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        "batch": batch,
    }
    document = _document(source, question, _serving(served), models)
    if emit is not None:
        _emit(source, document, emit, base)
    if as_json:
        return print_json(document)
    if as_csv:
        note_warnings(document)
        return print_csv(prediction_rows(document, smaller is not None, models), PREDICTED)
    from scaling.report.terminal import models_text, prediction_text

    return console().print(
        prediction_text(document) if "flops" in document else models_text(document)
    )


def _serving(given: dict[str, Any]) -> Serving | None:
    """How a model is served, where any option speaks of it."""
    from scaling.predict.serving import Serving

    chosen = {name: value for name, value in given.items() if value is not None}
    return Serving(**chosen) if chosen else None


def _document(
    source: str, question: dict[str, str | None], serving: Serving | None, models: bool
) -> dict[str, Any]:
    """The prediction, with the named models where they are asked for; these alone need no question."""
    from scaling.predict.predict import predict as run_predict

    asked = serving is not None or any(value is not None for value in question.values())
    document = run_predict(source, **question, serving=serving) if asked or not models else {}
    return {**document, **(_named(source, bare=not document) if models else {})}


def _named(source: str, bare: bool) -> dict[str, Any]:
    from scaling.fit.fit_document import to_jsonable
    from scaling.predict.law_source import load_law
    from scaling.predict.named_models import compare_named_models, extrapolation_warnings

    known = load_law(source)
    doubts = [*known.warnings, *extrapolation_warnings(known)]
    about = {
        "law": known.law,
        "source": known.source,
        "ci": known.ci,
        "basis": known.basis,
        "warnings": doubts,
    }
    found: dict[str, Any] = to_jsonable(
        {"models": compare_named_models(known), **(about if bare else {})}
    )
    return found


def _emit(source: str, document: dict[str, Any], path: Path, base: Path | None) -> None:
    """Write the optimum, half and twice its size as a sweep that holds what is forecast."""
    from scaling.predict.verification import write_verification_sweep as write_sweep

    sweep = write_sweep(
        source,
        document["flops"]["value"],
        document["n_params"]["value"],
        path,
        base,
        _task_of(base) if base else None,
    )
    echo_err(f"written: {path} ({len(sweep.forecasts)} forecasts); next: scaling run {path}")


def _task_of(base: Path) -> dict[str, int]:
    """The vocabulary and sequence length of a sweep's task."""
    from scaling.config.sweep_file import load_sweep
    from scaling.tasks import open_task, resolve

    task = resolve(load_sweep(base).base.task)
    return {"vocab_size": open_task(task).vocab_size, "seq_len": task.seq_len}
