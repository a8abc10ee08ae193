"""Variants of one model, compared seed by seed: forms of attention, positions, and norms.

Runs that differ in nothing but the variant are one cell. In a cell the same seed has the same
training sequences in every variant, so differences are taken seed by seed: what a seed does to all
variants alike cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from scaling import accounting
from scaling.config import ModelConfig
from scaling.formatting import format_count
from scaling.render.figure import Axis, Figure, Line, Markers, Text, Trace
from scaling.render.table import Table
from scaling.studies import runs
from scaling.studies.paired import Difference, paired_differences
from scaling.studies.study import Claim, Study, left_out_note, record_table

POSITION_NAMES = {"rope": "RoPE", "alibi": "ALiBi"}  # others are called by their word
MAX_IMBALANCE = 0.01  # of parameters, for forms of attention to count as equal
MAX_LISTED = 6  # pairs named in a sentence
NORM_NAMES = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}


def attention_form(model: Mapping[str, Any]) -> str:
    """MHA, MQA, or GQA with its number of key-value heads (Ainslie 2023)."""
    n_kv_heads = model["n_kv_heads"]
    if n_kv_heads == model["n_heads"]:
        return "MHA"
    return "MQA" if n_kv_heads == 1 else f"GQA-{n_kv_heads}"


def norm_name(model: Mapping[str, Any]) -> str:
    """The norm, and which of QK-norm and gains is left out."""
    off = [name for name, key in (("QK-norm", "qk_norm"), ("gains", "gains")) if not model[key]]
    return NORM_NAMES[model["norm"]] + (f" without {' and '.join(off)}" if off else "")


@dataclass(frozen=True)
class VariantKind:
    """What a study compares: `label` names a model's variant, which differ in `fields` alone."""

    label: Callable[[Mapping[str, Any]], str]
    fields: tuple[str, ...]
    noun: str


ATTENTION = VariantKind(attention_form, ("n_kv_heads", "d_ff"), "form")
POSITION = VariantKind(
    lambda model: POSITION_NAMES.get(model["pos"], model["pos"]), ("pos",), "position encoding"
)
NORM = VariantKind(norm_name, ("norm", "qk_norm", "gains"), "norm")


@dataclass(frozen=True)
class VariantComparison:
    """The variants of a cell, the lowest mean loss first: their final held-out `losses` in nats per
    token (a column each, a row for each seed), and a table row of each.

    The others are compared to the `reference`, MHA or the variant of the lowest loss. `tokens` is
    D, the same for all; `n_left_out` runs have no final loss, or belong to other cells in which
    variants could be compared.
    """

    losses: DataFrame
    variants: list[dict[str, Any]]
    reference: str
    differences: list[Difference]
    tokens: int
    n_left_out: int


def compare(rows: DataFrame, kind: VariantKind) -> VariantComparison | None:
    """The cell with the most variants (then the most training); None where no runs differ in the
    variant alone.
    """
    configs = pd.Series(runs.configs(rows))
    table = rows.drop_duplicates("run_id").set_index("run_id")
    variant = configs.map(lambda config: kind.label(config["model"]))
    if variant.nunique() < 2:
        return None
    n_steps = configs.map(lambda config: config["n_steps"])
    losses = runs.metric_rows(rows, "loss").set_index("run_id")
    table = table[["seed", "n_params"]].assign(
        variant=variant,
        cell=configs.map(lambda config: runs.config_without(config, "seed", *kind.fields)),
        tokens=n_steps * table["batch_tokens"],
        loss=losses.loc[losses["step"] == n_steps.reindex(losses.index), "value"],
    )
    # an ambiguous cell has two models of one variant, as where an axis of d_ff crosses one of heads
    cells = [
        cell
        for _, cell in table.groupby("cell")
        if cell["variant"].nunique() > 1 and not cell.duplicated(["variant", "seed"]).any()
    ]
    if not cells:
        return None
    chosen = max(cells, key=lambda c: (c["variant"].nunique(), c["tokens"].iloc[0], len(c)))
    finished = chosen[np.isfinite(chosen["loss"])]
    losses = finished.pivot(index="seed", columns="variant", values="loss")
    losses = losses[losses.mean().sort_values().index]
    if losses.shape[1] < 2:
        return None
    reference = "MHA" if "MHA" in losses else str(losses.columns[0])
    variants = []
    for name, of_variant in losses.items():
        run = finished[finished["variant"] == name].iloc[0]
        model = ModelConfig.model_validate(configs[run.name]["model"])
        record = {kind.noun: name, "key-value heads": model.n_kv_heads, "N": int(run["n_params"])}
        record["cache bytes per token"] = accounting.kv_cache_bytes(model, tokens=1)
        record |= {"loss": of_variant.mean(), "standard error": of_variant.sem()}
        variants.append(record | {"seeds": int(of_variant.count())})
    return VariantComparison(
        losses,
        variants,
        reference,
        paired_differences(losses, last=reference),
        int(chosen["tokens"].iloc[0]),
        sum(map(len, cells)) - len(finished),
    )


def claims(comparison: VariantComparison, kind: VariantKind) -> Iterator[Claim]:
    """Equal parameters of forms of attention, and each difference to the reference."""
    if kind is ATTENTION:
        counts = [variant["N"] for variant in comparison.variants]
        apart, quantity = max(counts) / min(counts) - 1, "parameters, largest over smallest"
        yield Claim(quantity, "within 1 %", f"{100 * apart:.2f} % apart", apart <= MAX_IMBALANCE)
    for pair in comparison.differences:
        if pair.second == comparison.reference:
            quantity = f"loss of {pair.first} minus {pair.second}, nats"
            holds = None if np.isnan(pair.p) else True
            yield Claim(quantity, "with its 95 % interval over seeds", str(pair), holds)


def table(name: str, comparison: VariantComparison) -> Table | None:
    """Every variant: its size, loss and key-value cache."""
    caption = f"D = {format_count(comparison.tokens)}; N counts all parameters, the cache is in "
    caption += "bfloat16. One learning rate for all."
    title, short = f"{name.capitalize()} by loss", ("standard error",)
    return record_table(name, title, comparison.variants, caption, short=short)


def figure(name: str, comparison: VariantComparison, kind: VariantKind) -> Figure:
    """Loss by rank: a thin line per seed, the mean with one standard error, and the names above."""
    losses = comparison.losses
    by_seed, rank = losses.to_numpy(float), np.arange(1.0, losses.shape[1] + 1)
    top, height = np.nanmax(by_seed), float(np.nanmax(by_seed) - np.nanmin(by_seed)) or 1.0
    traces: list[Trace] = [
        Line(rank, loss, "" if index else "one seed", "muted", width=0.8)
        for index, loss in enumerate(by_seed)
    ]
    mean, stderr = losses.mean().to_numpy(), losses.sem().to_numpy()
    lo, hi = (None, None) if np.isnan(stderr).any() else (mean - stderr, mean + stderr)
    traces.append(Markers(rank, mean, "mean, one standard error", 0, "circle", 9, lo, hi))
    for at, variant in zip(rank, losses, strict=True):  # long names alternate
        traces.append(Text(at, top + height * (0.06 + 0.06 * (at % 2)), str(variant)))
    caption = (
        f"Final held-out loss of the {kind.noun}s, the lowest first. A thin line joins the "
        "runs of one seed: where lines do not cross, pairing helps."
    )
    axes = Axis("rank", range=(0.5, len(rank) + 0.5)), Axis("loss, nats")
    return Figure(name, f"{name.capitalize()} by loss", caption, *axes, traces)


def notes(comparison: VariantComparison) -> list[str]:
    """Which pairs differ significantly; what is not shown."""
    pairs = comparison.differences
    alike = [pair for pair in pairs if not pair.is_significant]
    listed = "; ".join(f"{pair.first} and {pair.second}" for pair in alike[:MAX_LISTED])
    said = f"{len(pairs) - len(alike)} of {len(pairs)} pairs differ significantly (by seed, 5 % "
    said += f"after Holm's correction){'; not ' + listed if alike else ''}."
    return [said, *left_out_note(comparison.n_left_out)]


def variant_study(name: str, title: str, kind: VariantKind) -> Study[VariantComparison]:
    """The study of one kind of variant."""
    return Study(
        name,
        title,
        analyze=lambda rows: compare(rows, kind),
        claims=lambda comparison: claims(comparison, kind),
        figures=lambda comparison: [figure(name, comparison, kind)],
        table=lambda comparison: table(name, comparison),
        notes=notes,
    )


ATTENTION_STUDY = variant_study("attention", "Forms of attention", ATTENTION)
POSITION_STUDY = variant_study("positions", "Positions", POSITION)
NORM_STUDY = variant_study("norms", "Norms", NORM)
