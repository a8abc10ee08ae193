"""The verbs that look: count and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.output import Csv, Json, console, print_csv, print_json, print_pairs
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.config import ModelConfig

VARIANTS = ("MHA", "GQA", "MQA")


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command("count", epilog="Example: scaling count --model d_model=4096,n_layers=32,n_heads=32,d_head=128 --seq-len 8192")(count)
    app.command("doctor", epilog="Example: scaling doctor --json")(doctor)


def count(
    model: Annotated[str, typer.Option(metavar="SWEEP|key=value,...", help="A sweep file, or the fields of a model.")],
    seq_len: Annotated[int, typer.Option(min=1, max=2**24, help="Tokens in a sequence.")] = 2048,
    batch: Annotated[int, typer.Option(min=1, max=2**24, help="Sequences decoded side by side.")] = 1,
    device: Annotated[str, typer.Option(help="Device of the decode roofline.")] = "h100",
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Count parameters by group, FLOPs by convention, KV-cache bytes of MHA, GQA and MQA, and the decode roofline."""
    from scaling.cli.counting import count_document, count_table

    document = count_document(_models(model), seq_len, batch, device)
    if as_json:
        return print_json(document)
    if as_csv:
        return print_csv(document["models"])
    return console().print(count_table(document))


def _models(text: str) -> list[ModelConfig]:
    """The models that an argument names: those of a sweep's plan, or one from its fields."""
    if "=" not in text:
        from scaling.cli.sweeps import planned_sweep

        _, plan = planned_sweep(Path(text))
        return list(dict.fromkeys(item.run.model for item in plan.runs))
    return [model_from_fields(text)]


def model_from_fields(text: str) -> ModelConfig:
    """A model from `key=value,...`; what is left out follows the recipe. Raises ScalingError naming the key."""
    from pydantic import ValidationError

    from scaling.config import ModelConfig, Recipe
    from scaling.recipe import shape
    from scaling.sweepfile import mistakes

    fields: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key.strip() in fields:
            raise ScalingError(f"{part!r} is not key=value, or stands twice", where="--model", remedy="write d_model=512,n_layers=8,...")
        fields[key.strip()] = _value(value.strip())
    try:
        checked = ModelConfig.model_validate({"vocab_size": 256, **_smallest(fields), **fields})
    except ValidationError as error:
        raise mistakes(error, ModelConfig, "--model") from None
    if "d_model" not in fields:
        raise ScalingError("d_model is missing", where="--model", remedy="write d_model=512,n_layers=8,...")
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


def doctor(as_json: Json = False, as_csv: Csv = False) -> None:
    """Say what this machine has: devices, versions, allocator, cache, optional tools, and what is missing."""
    from scaling import doctor as room

    examination = room.examine()
    if as_json:
        return print_json(examination)
    if as_csv:
        return print_pairs(examination)
    return console().print(room.render(examination))
