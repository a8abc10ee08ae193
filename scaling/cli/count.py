"""The command `count`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Group
from rich.text import Text

from scaling import accounting
from scaling.cli.output import Csv, Json, choice, emit
from scaling.cli.tables import table
from scaling.errors import ScalingError
from scaling.formatting import format_bytes, format_count, format_flops

if TYPE_CHECKING:
    from scaling.config import ModelConfig


def count(
    model: Annotated[
        str,
        typer.Option(metavar="SWEEP|key=value,...", help="A sweep file, or the fields of a model."),
    ],
    seq_len: Annotated[int, typer.Option(min=1, max=2**24, help="Tokens in a sequence.")] = 2048,
    batch: Annotated[int, typer.Option(min=1, max=2**24, help="Sequences decoded together.")] = 1,
    device: Annotated[
        str, choice("--device", accounting.DEVICES, "Device of the decode roofline.")
    ] = "h100",
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Count parameters by group, FLOPs by convention, KV-cache bytes of MHA, GQA and MQA, and the
    decode roofline.

    Example: scaling count --model d_model=4096,n_layers=32,n_heads=32,d_head=128 --seq-len 8192
    """
    document = count_document(_models(model), seq_len, batch, device)
    emit(
        document,
        lambda: count_table(document),
        as_json=as_json,
        as_csv=as_csv,
        rows=lambda: document["models"],
    )


def _models(text: str) -> list[ModelConfig]:
    """The models that an argument names: those of a sweep's plan, or one from its fields."""
    if "=" not in text:
        from scaling.cli.sweep_options import planned_sweep

        _, plan = planned_sweep(Path(text))
        return list(dict.fromkeys(item.run.model for item in plan.runs))
    return [model_from_fields(text)]


def model_from_fields(text: str) -> ModelConfig:
    """A model from `key=value,...`; what is left out follows the recipe. Raises ScalingError naming
    the key.
    """
    from pydantic import ValidationError

    from scaling.config import ModelConfig, Recipe
    from scaling.config.sweep_file import validation_error
    from scaling.recipe import shape

    fields: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key.strip() in fields:
            raise ScalingError(
                f"{part!r} is a repeated key or not of the form key=value",
                where="--model",
                remedy="write d_model=512,n_layers=8,...",
            )
        fields[key.strip()] = _value(value.strip())
    try:
        checked = ModelConfig.model_validate({"vocab_size": 256, **_smallest(fields), **fields})
    except ValidationError as error:
        raise validation_error(error, ModelConfig, "--model") from None
    if "d_model" not in fields:
        raise ScalingError(
            "d_model is missing", where="--model", remedy="write d_model=512,n_layers=8,..."
        )
    return shape(checked.d_model, fields.get("vocab_size", 256), Recipe(), fields)


def _smallest(fields: dict[str, Any]) -> dict[str, int]:
    """Stand-ins that make a partial model valid while its given fields are checked."""
    heads = fields.get("n_heads", 1)
    return {"n_layers": 1, "d_model": 2, "n_heads": 1, "n_kv_heads": heads, "d_head": 2, "d_ff": 1}


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text.replace("_", ""))
    except ValueError:
        return text


def count_document(
    models: list[ModelConfig], seq_len: int, batch: int, device: str
) -> dict[str, Any]:
    """Counts of each model; `attention` holds the KV cache and the decode roofline of its MHA, GQA
    and MQA forms.
    """
    return {
        "seq_len": seq_len,
        "batch": batch,
        "device": device,
        "models": [_counts(model, seq_len, batch, accounting.DEVICES[device]) for model in models],
    }


def _counts(
    model: ModelConfig, seq_len: int, batch: int, device: accounting.Device
) -> dict[str, Any]:
    from scaling.config import FlopsConvention, NConvention

    return {
        "model": model.model_dump(mode="json"),
        "parameters": accounting.parameter_groups(model, seq_len),
        "n_params": {
            name: accounting.n_params(model, seq_len, name) for name in get_args(NConvention)
        },
        "train_flops_per_token": {
            name: accounting.train_flops(model, seq_len, seq_len, name) / seq_len
            for name in get_args(FlopsConvention)
        },
        "attention": {
            name: _decoding(form, seq_len, batch, device)
            for name, form in accounting.attention_forms(model).items()
        },
    }


def _decoding(
    model: ModelConfig, seq_len: int, batch: int, device: accounting.Device
) -> dict[str, Any]:
    cache = accounting.kv_cache_bytes(model, seq_len, batch)
    return {
        "n_kv_heads": model.n_kv_heads,
        "kv_cache_bytes": cache,
        "decode_tokens_per_second": accounting.decode_tokens_per_second(
            model, seq_len, batch, device
        ),
    }


def count_table(document: dict[str, Any]) -> Group:
    """What `scaling count` prints, a block a model."""
    return Group(
        *(part for counted in document["models"] for part in _model_tables(counted, document))
    )


def _model_tables(counted: dict[str, Any], document: dict[str, Any]) -> list[Any]:
    model, seq_len = counted["model"], document["seq_len"]
    heads = f"{model['n_heads']} heads ({model['n_kv_heads']} kv) of {model['d_head']}"
    shape = f"{model['n_layers']} layers, width {model['d_model']}, {heads}"
    title = f"{shape}\nffn {model['ffn']} {model['d_ff']}, vocabulary {model['vocab_size']}"
    groups = table(title, "parameters", "count", "share")
    total = counted["n_params"]["total"]
    for name, value in counted["parameters"].items():
        groups.add_row(name, f"{value:,}", f"{value / total:.1%}")
    for name, value in counted["n_params"].items():
        groups.add_row(Text(f"N {name}", style="bold"), f"{value:,}", format_count(value))
    flops = table(
        f"\ntraining FLOPs a token, sequences of {seq_len}", "convention", "count", "over 6 N"
    )
    for name, value in counted["train_flops_per_token"].items():
        flops.add_row(
            name, format_flops(value), f"{value / (6 * counted['n_params']['with_head']):.3f}"
        )
    title = (
        f"\ndecoding at {seq_len} tokens, batch {document['batch']}, bf16, on {document['device']}"
    )
    decode = table(title, "form", "kv heads", "KV cache", "of MHA", "tokens/s at most")
    whole = counted["attention"]["MHA"]["kv_cache_bytes"]
    for name, form in counted["attention"].items():
        share = f"{form['kv_cache_bytes'] / whole:.2%}"
        decode.add_row(
            name,
            str(form["n_kv_heads"]),
            format_bytes(form["kv_cache_bytes"]),
            share,
            f"{form['decode_tokens_per_second']:,.0f}",
        )
    return [groups, flops, decode]
