"""The document and the table of `scaling count`."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.text import Text

from scaling import accounting
from scaling.cli.tables import table
from scaling.config import ModelConfig
from scaling.errors import unknown
from scaling.quantity import format_bytes, format_count, format_flops

CONVENTIONS: tuple[accounting.FlopsConvention, ...] = ("exact", "6nd", "kaplan", "chinchilla")
N_CONVENTIONS: tuple[accounting.NConvention, ...] = ("with_head", "total", "nonembedding")


def count_document(models: list[ModelConfig], seq_len: int, batch: int, device: str) -> dict[str, Any]:
    """Counts of each model; `attention` holds the KV cache and the decode roofline of its MHA, GQA and MQA forms."""
    if device not in accounting.DEVICES:
        raise unknown("device", device, accounting.DEVICES, where="--device")
    return {
        "seq_len": seq_len,
        "batch": batch,
        "device": device,
        "models": [_counts(model, seq_len, batch, accounting.DEVICES[device]) for model in models],
    }


def _counts(model: ModelConfig, seq_len: int, batch: int, device: accounting.Device) -> dict[str, Any]:
    return {
        "model": model.model_dump(mode="json"),
        "parameters": accounting.parameter_groups(model, seq_len),
        "n_params": {name: accounting.n_params(model, seq_len, name) for name in N_CONVENTIONS},
        "train_flops_per_token": {name: accounting.train_flops(model, seq_len, seq_len, name) / seq_len for name in CONVENTIONS},
        "attention": {name: _decoding(form, seq_len, batch, device) for name, form in accounting.attention_forms(model).items()},
    }


def _decoding(model: ModelConfig, seq_len: int, batch: int, device: accounting.Device) -> dict[str, Any]:
    cache = accounting.kv_cache_bytes(model, seq_len, batch)
    return {
        "n_kv_heads": model.n_kv_heads,
        "kv_cache_bytes": cache,
        "decode_tokens_per_second": accounting.decode_tokens_per_second(model, seq_len, batch, device),
    }


def count_table(document: dict[str, Any]) -> Group:
    """What `scaling count` prints, a block a model."""
    return Group(*(part for counted in document["models"] for part in _model_tables(counted, document)))


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
    flops = table(f"\ntraining FLOPs a token, sequences of {seq_len}", "convention", "count", "over 6 N")
    for name, value in counted["train_flops_per_token"].items():
        flops.add_row(name, format_flops(value), f"{value / (6 * counted['n_params']['with_head']):.3f}")
    title = f"\ndecoding at {seq_len} tokens, batch {document['batch']}, bf16, on {document['device']}"
    decode = table(title, "form", "kv heads", "KV cache", "of MHA", "tokens/s at most")
    whole = counted["attention"]["MHA"]["kv_cache_bytes"]
    for name, form in counted["attention"].items():
        share = f"{form['kv_cache_bytes'] / whole:.2%}"
        decode.add_row(
            name, str(form["n_kv_heads"]), format_bytes(form["kv_cache_bytes"]), share, f"{form['decode_tokens_per_second']:,.0f}"
        )
    return [groups, flops, decode]
