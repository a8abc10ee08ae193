"""The command `count`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from scaling import accounting
from scaling.cli.output import Output, choice, echo_err, option
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.config import ModelConfig
    from scaling.render.table import Table

_FORM = "write d_model=512,n_layers=8,..."


def count(
    model: str = option(
        "A sweep file, or the fields of a model.", metavar="SWEEP|key=value,...", default=...
    ),
    seq_len: int = option("Tokens in a sequence.", min=1, max=2**24, default=2048),
    batch: int = option("Sequences decoded together.", min=1, max=2**24, default=1),
    device: str = choice(
        " ".join(accounting.DEVICES),
        "Device of the decode roofline.",
        kind="device",
        default="h100",
    ),
    *,
    output: Output,
) -> None:
    """Count parameters by group, FLOPs by convention, KV-cache bytes of MHA, GQA and MQA, and the
    decode roofline.

    Example: scaling count --model d_model=4096,n_layers=32,n_heads=32,d_head=128 --seq-len 8192
    """
    from scaling.execute.planning import plan_sweep

    is_sweep = "=" not in model
    if is_sweep:
        runs = plan_sweep(Path(model), on_message=echo_err).runs
        models = list(dict.fromkeys(item.run.model for item in runs))
    else:
        models = [model_from_fields(model)]
    peak = accounting.DEVICES[device]
    document: dict[str, Any] = {
        "seq_len": seq_len,
        "batch": batch,
        "device": device,
        "models": [_counts(item, seq_len, batch, peak) for item in models],
    }
    output.emit(
        document,
        lambda: [
            table
            for counted in document["models"]
            for table in _tables(counted, seq_len, f"batch {batch}, bf16, on {device}")
        ],
        f"scaling plan {shlex.quote(model)}" if is_sweep else None,
    )


def model_from_fields(text: str) -> ModelConfig:
    """A model from `key=value,...`; what is left out follows the recipe. Raises ScalingError naming
    the key.
    """
    from pydantic import ValidationError

    from scaling.config import ModelConfig, Recipe
    from scaling.config.overrides import parse
    from scaling.config.sweep_file import validation_error
    from scaling.recipe import InfeasibleCell, shape

    fields: dict[str, Any] = {}
    for given in filter(None, text.split(",")):
        override = parse(given, "--model", _FORM)
        if override.field in fields:
            raise ScalingError(f"{given!r} is a repeated key", where="--model", remedy=_FORM)
        fields[override.field] = override.value
    stand_ins = {"vocab_size": 256, "n_layers": 1, "d_model": 2, "n_heads": 1, "d_head": 2}
    stand_ins |= {"n_kv_heads": fields.get("n_heads", 1), "d_ff": 1}  # for what is left out
    try:
        checked = ModelConfig.model_validate(stand_ins | fields)
    except ValidationError as error:
        raise validation_error(error, ModelConfig, "--model") from None
    if "d_model" not in fields:
        raise ScalingError("d_model is missing", where="--model", remedy=_FORM)
    try:
        return shape(checked.d_model, fields.get("vocab_size", 256), Recipe(), fields)
    except InfeasibleCell as error:
        raise ScalingError(f"{error.where}: {error.what}", where="--model", remedy=_FORM) from None


def _counts(
    model: ModelConfig, seq_len: int, batch: int, device: accounting.Device
) -> dict[str, Any]:
    """Counts of a model; `attention` holds the KV cache and the decode roofline of its MHA, GQA
    and MQA forms.
    """
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
            name: {
                "n_kv_heads": form.n_kv_heads,
                "kv_cache_bytes": accounting.kv_cache_bytes(form, seq_len, batch),
                "decode_tokens_per_second": accounting.decode_tokens_per_second(
                    form, seq_len, batch, device
                ),
            }
            for name, form in accounting.attention_forms(model).items()
        },
    }


def _tables(counted: dict[str, Any], seq_len: int, conditions: str) -> list[Table | None]:
    from scaling.render.table import record_table

    model, flops = counted["model"], counted["train_flops_per_token"]
    heads = f"{model['n_heads']} heads ({model['n_kv_heads']} kv) of {model['d_head']}"
    shape = f"{model['n_layers']} layers, width {model['d_model']}, {heads}"
    title = f"{shape}, ffn {model['ffn']} {model['d_ff']}, vocabulary {model['vocab_size']}"
    forms = [{"form": name} | form for name, form in counted["attention"].items()]
    groups, counts = (
        {name: f"{n:,}" for name, n in counted[key].items()} for key in ("parameters", "n_params")
    )
    return [
        record_table("groups", f"{title}\nparameters by group", [groups], integer=tuple(groups)),
        record_table("n_params", "N by convention", [counts], integer=tuple(counts)),
        record_table(
            "flops",
            f"training FLOPs a token by convention, sequences of {seq_len}",
            [flops],
            flops=tuple(flops),
        ),
        record_table(
            "decoding",
            f"decoding at {seq_len} tokens, {conditions}, at most",
            forms,
            bytes=("kv_cache_bytes",),
            integer=("decode_tokens_per_second",),
        ),
    ]
