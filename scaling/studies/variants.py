"""Variants of one model, compared seed by seed: forms of attention, positions, and norms.

Runs that differ in nothing but the variant are one cell. In a cell the same seed has the same
sequences in every variant, so differences are taken seed by seed: what a seed does to all cancels.
Significance is at 5 % after the correction for all pairs (Holm 1979).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas import DataFrame
from scipy import stats

from scaling import accounting
from scaling.config import ModelConfig
from scaling.fit.significance import holm
from scaling.formatting import format_count
from scaling.render.figure import Axis, Figure, Line, Markers, Text, Trace
from scaling.studies import runs
from scaling.studies.study import CI, Claim, Findings, Interval, Study, record_table

MAX_IMBALANCE = 0.01  # of parameters, for forms of attention to count as equal


def attention_form(model: Mapping[str, Any]) -> str:
    """MHA, MQA, or GQA with its number of key-value heads (Ainslie 2023)."""
    n_kv_heads = model["n_kv_heads"]
    if n_kv_heads == model["n_heads"]:
        return "MHA"
    return "MQA" if n_kv_heads == 1 else f"GQA-{n_kv_heads}"


def position_name(model: Mapping[str, Any]) -> str:
    """The position encoding."""
    return {"rope": "RoPE", "alibi": "ALiBi"}.get(model["pos"], model["pos"])


def norm_name(model: Mapping[str, Any]) -> str:
    """The norm, and which of QK-norm and gains is left out."""
    name = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}[model["norm"]]
    off = [word for word, key in (("QK-norm", "qk_norm"), ("gains", "gains")) if not model[key]]
    return name + (f" without {' and '.join(off)}" if off else "")


class VariantKind(NamedTuple):
    """What a study compares: `label` names a model's variant, which differ in `fields` alone."""

    name: str
    label: Callable[[Mapping[str, Any]], str]
    fields: tuple[str, ...]


ATTENTION = VariantKind("attention", attention_form, ("n_kv_heads", "d_ff"))
POSITION = VariantKind("positions", position_name, ("pos",))
NORM = VariantKind("norms", norm_name, ("norm", "qk_norm", "gains"))


def comparable_runs(rows: DataFrame, kind: VariantKind) -> tuple[DataFrame, int] | None:
    """The finished runs of the cell with the most variants (then the most training): `variant`,
    `seed`, N, D and final `loss`. Also how many runs have no final loss, or belong to other cells
    in which variants could be compared. None where no runs differ in the variant alone.
    """
    configs = pd.Series(runs.configs(rows))
    variant = configs.map(lambda config: kind.label(config["model"]))
    if variant.nunique() < 2:
        return None
    n_steps = configs.map(lambda config: config["n_steps"])
    losses = runs.metric_rows(rows, "loss").set_index("run_id")
    table = rows.drop_duplicates("run_id").set_index("run_id")
    table = table[["seed", "n_params", "batch_tokens"]].assign(
        variant=variant,
        config=configs,
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
    chosen = max(
        cells,
        key=lambda cell: (cell["variant"].nunique(), cell["tokens"].iloc[0], len(cell)),
        default=table.iloc[:0],
    )
    finished = chosen[np.isfinite(chosen["loss"])]
    n_left_out = sum(map(len, cells)) - len(finished)
    return None if finished["variant"].nunique() < 2 else (finished, n_left_out)


class Difference(NamedTuple):
    """The mean of `first` minus `second`, nats, over the seeds that both have, with Student's
    interval and p, adjusted for all pairs; nan from fewer than two seeds, or without spread.
    """

    first: str
    second: str
    seeds: int
    interval: Interval
    p: float


def paired_differences(losses: DataFrame, last: str) -> list[Difference]:
    """Of each pair of variants, the columns of `losses` (a row for each seed, nan where one is
    missing); `last` is the second of its pairs.
    """
    pairs = []
    names = sorted(map(str, losses), key=lambda name: name == last)
    for first, second in itertools.combinations(names, 2):
        by_seed = (losses[first] - losses[second]).dropna()
        mean = losses[first].mean() - losses[second].mean() if by_seed.empty else by_seed.mean()
        p, interval = math.nan, Interval(float(mean), math.nan, math.nan)
        if by_seed.nunique() > 1:
            test = stats.ttest_1samp(by_seed, 0.0)
            p = float(test.pvalue)
            interval = Interval(float(mean), *map(float, test.confidence_interval(CI)))
        pairs.append(Difference(first, second, len(by_seed), interval, p))
    adjusted = holm([1.0 if math.isnan(pair.p) else pair.p for pair in pairs])
    known = zip(pairs, adjusted, strict=True)
    return [pair if math.isnan(pair.p) else pair._replace(p=p) for pair, p in known]


def compare(rows: DataFrame, kind: VariantKind) -> Findings | None:
    """The variants, the lowest mean loss first; the others are compared to MHA, or to the variant
    of the lowest loss.
    """
    compared = comparable_runs(rows, kind)
    if compared is None:
        return None
    finished, n_left_out = compared
    losses = finished.pivot(index="seed", columns="variant", values="loss")
    losses = losses[losses.mean().sort_values().index]
    reference = "MHA" if "MHA" in losses else str(losses.columns[0])
    variants = []
    for name, of_variant in losses.items():
        run = finished[finished["variant"] == name].iloc[0]
        model = ModelConfig.model_validate(run["config"]["model"])
        record = {"variant": name, "key-value heads": model.n_kv_heads, "N": int(run["n_params"])}
        record["cache bytes per token"] = accounting.kv_cache_bytes(model, tokens=1)
        record |= {"loss": of_variant.mean(), "standard error": of_variant.sem()}
        variants.append(record | {"seeds": int(of_variant.count())})
    pairs = paired_differences(losses, last=reference)
    claims = [_difference_claim(pair) for pair in pairs if pair.second == reference]
    if kind is ATTENTION:
        apart = float(finished["n_params"].max() / finished["n_params"].min() - 1)
        quantity, equal = "parameters, largest over smallest", apart <= MAX_IMBALANCE
        claims.insert(0, Claim(quantity, "within 1 %", f"{100 * apart:.2f} % apart", equal))
    alike = [f"{pair.first} and {pair.second}" for pair in pairs if not pair.p <= 1 - CI]
    note = f"{len(pairs) - len(alike)} of {len(pairs)} pairs differ significantly (by seed, 5 % "
    listed = f"; not {'; '.join(alike)}" if alike else ""
    note += f"after Holm's correction){listed}."
    d = format_count(finished["tokens"].iloc[0])
    caption = f"D = {d}; N counts all, the cache is in bfloat16. One learning rate for all."
    title, short = f"{kind.name.capitalize()} by loss", ("standard error",)
    table = record_table(kind.name, title, variants, caption, short=short)
    return Findings(claims, [_figure(kind, losses)], table, [note], n_left_out)


def _difference_claim(pair: Difference) -> Claim:
    quantity = f"loss of {pair.first} minus {pair.second}, nats"
    expected = "with its 95 % interval over seeds"
    if math.isnan(pair.p):
        said = f"seeds: {pair.seeds}, no interval" if pair.seeds else "no seed in common"
        return Claim(quantity, expected, f"{pair.interval.value:+.4f}, {said}", None)
    verdict = "significant" if pair.p <= 1 - CI else "not significant"
    measured = f"{pair.interval:+.4f}, {pair.seeds} seeds: {verdict}"
    return Claim(quantity, expected, measured, True)


def _figure(kind: VariantKind, losses: DataFrame) -> Figure:
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
        "Final held-out loss of the variants, the lowest first. A thin line joins the runs of one "
        "seed: where lines do not cross, pairing helps."
    )
    axes = Axis("rank", range=(0.5, len(rank) + 0.5)), Axis("loss, nats")
    return Figure(kind.name, f"{kind.name.capitalize()} by loss", caption, *axes, traces)


ATTENTION_STUDY = Study("attention", "Forms of attention", lambda rows: compare(rows, ATTENTION))
POSITION_STUDY = Study("positions", "Positions", lambda rows: compare(rows, POSITION))
NORM_STUDY = Study("norms", "Norms", lambda rows: compare(rows, NORM))
