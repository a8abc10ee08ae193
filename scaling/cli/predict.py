"""The command `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scaling.cli.csv_rows import PREDICTED, prediction_rows
from scaling.cli.output import Csv, Json, echo_err, emit
from scaling.errors import ScalingError

QUESTION, SERVING, MODELS = "Question", "Serving, in device-seconds", "Models and sweeps"


def predict(
    source: Annotated[
        str, typer.Argument(metavar="FIT.json|published:NAME", help="A fit, or a published law.")
    ],
    flops: Annotated[
        str | None,
        typer.Option(
            metavar="C",
            rich_help_panel=QUESTION,
            help="A training budget: gives the compute-optimal N and D.",
        ),
    ] = None,
    n_params: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            rich_help_panel=QUESTION,
            help="Parameters, with --tokens: gives the loss.",
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="D",
            rich_help_panel=QUESTION,
            help="Tokens, with --n-params: gives the loss.",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="L",
            rich_help_panel=QUESTION,
            help="A loss in nats: gives the smallest budget that reaches it.",
        ),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=VALUE,...",
            rich_help_panel=QUESTION,
            help="Inputs of a law of your own: gives the loss.",
        ),
    ] = None,
    smaller: Annotated[
        str | None,
        typer.Option(
            metavar="0.5,0.3",
            rich_help_panel=QUESTION,
            help="Fractions of N: tokens and compute of smaller models of equal loss (De Vries).",
        ),
    ] = None,
    inference_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            rich_help_panel=QUESTION,
            help="Tokens to be served: gives the size of least total cost (Sardana).",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=SERVING,
            help="h100, tpu-v5e, ...: costs in device-seconds, with caches and rooflines.",
        ),
    ] = None,
    mfu_training: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            rich_help_panel=SERVING,
            help="Model FLOPs utilisation of training; default 0.4.",
        ),
    ] = None,
    mfu_prefill: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            rich_help_panel=SERVING,
            help="Utilisation of prefill; default 0.5.",
        ),
    ] = None,
    mfu_decode: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            rich_help_panel=SERVING,
            help="Utilisation of decoding; default the roofline.",
        ),
    ] = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="P",
            rich_help_panel=SERVING,
            help="Tokens of a prompt, among those served; default 512.",
        ),
    ] = None,
    output_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="O",
            rich_help_panel=SERVING,
            help="Tokens of an answer; default 512.",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="B",
            rich_help_panel=SERVING,
            help="Answers decoded together; default 16.",
        ),
    ] = None,
    models: Annotated[
        bool,
        typer.Option(
            "--models",
            rich_help_panel=MODELS,
            help="Named models (GPT-3, Chinchilla, Llama 3, ...) and their distance from the "
            "optimum.",
        ),
    ] = False,
    emit_to: Annotated[
        Path | None,
        typer.Option(
            "--emit",
            metavar="SWEEP.toml",
            rich_help_panel=MODELS,
            help="With --flops: write the optimum, half and twice its size as a sweep.",
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="SWEEP.toml",
            rich_help_panel=MODELS,
            help="With --emit: sweep whose data and recipe the runs take over.",
        ),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Turn a fit into N, D, loss and tokens per parameter, with intervals and a buildable model.

    Example: scaling predict results/demo/fits/chinchilla.json --flops 1e21 --smaller 0.5,0.3

    Example: scaling predict published:besiroglu2024 --flops 1e23 --inference-tokens 2T --device
    h100

    Example: scaling predict published:besiroglu2024 --models
    """
    from scaling.predict.predict import predict as run_predict
    from scaling.predict.serving import Serving
    from scaling.report.terminal import models_text, prediction_text

    if (emit_to is not None and flops is None) or (base is not None and emit_to is None):
        raise ScalingError(
            "--emit writes the runs of one budget",
            remedy="give --flops C --emit SWEEP.toml (--base is optional)",
        )
    question = {
        "flops": flops,
        "n_params": n_params,
        "tokens": tokens,
        "loss": loss,
        "smaller": smaller,
        "inference_tokens": inference_tokens,
        "inputs": inputs,
    }
    serving_options: dict[str, Any] = {
        "device": device,
        "mfu_training": mfu_training,
        "mfu_prefill": mfu_prefill,
        "mfu_decode": mfu_decode,
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        "batch": batch,
    }
    given = {name: value for name, value in serving_options.items() if value is not None}
    is_question = bool(given) or any(value is not None for value in question.values())
    document: dict[str, Any] = {}
    if is_question or not models:
        served = Serving(**given) if given else None
        document = run_predict(source, **question, serving=served).to_dict()
    if models:
        named = _named_models(source)
        document = {**document, "models": named["models"]} if document else named
    if emit_to is not None:
        _write_sweep(source, document, emit_to, base)
    emit(
        document,
        lambda: prediction_text(document) if is_question else models_text(document),
        as_json=as_json,
        as_csv=as_csv,
        rows=lambda: prediction_rows(document, smaller is not None, models),
        columns=PREDICTED,
    )


def _named_models(source: str) -> dict[str, Any]:
    """Named models against the optimum of a law, with what the law is."""
    from scaling.fit.document import to_jsonable
    from scaling.predict.law_source import load_law
    from scaling.predict.named_models import compare_named_models, extrapolation_warnings

    law = load_law(source)
    return to_jsonable(
        {
            "models": compare_named_models(law),
            "law": law.law,
            "source": law.source,
            "ci": law.ci,
            "basis": law.basis,
            "warnings": [
                warning.model_dump(mode="json")
                for warning in (*law.warnings, *extrapolation_warnings(law))
            ],
        }
    )


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
