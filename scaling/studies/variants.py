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
from scipy import stats

from scaling import accounting
from scaling.config import ModelConfig
from scaling.formatting import format_count
from scaling.render.figure import Axis, Figure, Line, Markers, Text, Trace
from scaling.render.table import Cell, Table
from scaling.studies import runs
from scaling.studies.paired import ERRORS, Difference, paired_differences, pairs_table
from scaling.studies.study import Claim, Study, record_table

MAX_IMBALANCE = 0.01  # of parameters, for variants to count as equal
CACHE_BYTES_PER_VALUE = accounting.BYTES["bfloat16"]
POSITION_NAMES = {"rope": "RoPE", "alibi": "ALiBi"}  # others are called by their word
NORM_NAMES = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}
MAX_LISTED = 6  # pairs named in a sentence
PAIRED = "One learning rate for all. Differences are paired by seed, with 95 % intervals."


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
    """What a study compares: `label` names the variant of a model's configuration, `fields` may
    differ between variants; `noun` is what one of them is called.
    """

    label: Callable[[Mapping[str, Any]], str]
    fields: tuple[str, ...]
    noun: str


ATTENTION = VariantKind(attention_form, ("n_kv_heads", "d_ff"), "form")
POSITION = VariantKind(
    lambda model: POSITION_NAMES.get(model["pos"], model["pos"]), ("pos",), "position encoding"
)
NORM = VariantKind(norm_name, ("norm", "qk_norm", "gains"), "norm")


@dataclass(frozen=True)
class Variant:
    """A variant in its cell: its model, N (all parameters), and the final held-out loss in nats per
    token by seed, with its mean and the standard error of that (None for one seed).
    """

    name: str
    model: ModelConfig
    n_params: int
    losses: pd.Series

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(self.losses.to_numpy().mean())

    @property
    def stderr(self) -> float | None:
        """Of the mean, from the spread over seeds; None for one seed."""
        return float(stats.sem(self.losses)) if len(self.losses) > 1 else None

    @property
    def cache_bytes(self) -> int:
        """Bytes of key-value cache per token of context, in bfloat16."""
        return accounting.kv_cache_bytes(self.model, tokens=1, value_bytes=CACHE_BYTES_PER_VALUE)


@dataclass(frozen=True)
class VariantComparison:
    """The variants of a cell, the lowest mean loss first, and the difference of each pair.

    `tokens` is D, the same for all; `n_unfinished` runs have no final loss; `n_other_cells` counts
    further cells in which the variants could be compared.
    """

    variants: tuple[Variant, ...]
    differences: tuple[Difference, ...]
    tokens: int
    n_unfinished: int
    n_other_cells: int

    def between(self, first: str, second: str) -> Difference:
        """The difference of two variants, whichever is better."""
        return next(d for d in self.differences if {d.better, d.worse} == {first, second})

    def get(self, name: str) -> Variant | None:
        """The variant of a name, where there is one."""
        return next((variant for variant in self.variants if variant.name == name), None)

    @property
    def reference(self) -> Variant:
        """What the others are compared to: MHA, or the variant of the lowest loss."""
        return self.get("MHA") or self.variants[0]

    @property
    def by_cache(self) -> list[Variant]:
        """The variants, the largest key-value cache first."""
        return sorted(self.variants, key=lambda variant: -variant.cache_bytes)

    @property
    def not_significant(self) -> list[Difference]:
        """The pairs that do not differ significantly."""
        return [pair for pair in self.differences if not pair.is_significant]

    @property
    def imbalance(self) -> float:
        """Largest over smallest number of parameters, minus 1."""
        counts = [variant.n_params for variant in self.variants]
        return max(counts) / min(counts) - 1


def compare(rows: pd.DataFrame, kind: VariantKind) -> VariantComparison | None:
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
    variants = [
        Variant(
            str(name),
            ModelConfig.model_validate(configs[of_variant.index[0]]["model"]),
            int(of_variant["n_params"].iloc[0]),
            of_variant.set_index("seed")["loss"],
        )
        for name, of_variant in finished.groupby("variant")
    ]
    if len(variants) < 2:
        return None
    variants.sort(key=lambda variant: variant.mean)
    return VariantComparison(
        variants=tuple(variants),
        differences=paired_differences({variant.name: variant.losses for variant in variants}),
        tokens=int(chosen["tokens"].iloc[0]),
        n_unfinished=len(chosen) - len(finished),
        n_other_cells=len(cells) - 1,
    )


def claims(comparison: VariantComparison, kind: VariantKind) -> Iterator[Claim]:
    """Equal parameters and cache bytes (of attention), and each difference to the reference."""
    reference = comparison.reference
    others = [variant for variant in comparison.variants if variant is not reference]
    if kind is ATTENTION:
        yield Claim(
            "parameters of the forms, largest over smallest",
            "within 1 %",
            f"{100 * comparison.imbalance:.2f} % apart",
            comparison.imbalance <= MAX_IMBALANCE,
        )
        for variant in comparison.by_cache if reference.name == "MHA" else ():
            if variant is reference:
                continue
            n_kv_heads, n_heads = variant.model.n_kv_heads, reference.model.n_heads
            share = variant.cache_bytes / reference.cache_bytes
            yield Claim(
                f"KV cache of {variant.name} per token, bfloat16",
                f"{100 * n_kv_heads / n_heads:.4g} % of {reference.cache_bytes} bytes "
                f"({n_kv_heads} of {n_heads} heads)",
                f"{variant.cache_bytes} bytes, {100 * share:.4g} %",
                share == n_kv_heads / n_heads,
            )
    for variant in others:
        pair = comparison.between(reference.name, variant.name)
        mean, lo, hi = pair.signed(variant.name)
        measured = f"{mean:+.4f}, {'one seed' if pair.count else 'no seed in common'}"
        if lo is not None:
            verdict = "significant" if pair.is_significant else "not significant"
            measured = f"{mean:+.4f} [{lo:+.4f}, {hi:+.4f}], {pair.count} seeds: {verdict}"
        quantity = f"loss of {variant.name} minus {reference.name}, nats"
        holds = None if lo is None else True
        yield Claim(quantity, "with its 95 % interval over seeds", measured, holds)


def variants_table(name: str, comparison: VariantComparison, kind: VariantKind) -> Table | None:
    """Every variant: its size, loss, difference to the reference, and of attention its cache."""
    reference, records = comparison.reference, []
    alike = [{pair.better, pair.worse} for pair in comparison.not_significant]
    for variant in comparison.by_cache if kind is ATTENTION else comparison.variants:
        record: dict[str, Cell] = {kind.noun: variant.name}
        if kind is ATTENTION:
            record["key-value heads"] = variant.model.n_kv_heads
            record["d_ff"] = variant.model.d_ff
        record["N"] = variant.n_params
        if kind is ATTENTION:
            share = f"{100 * variant.cache_bytes / reference.cache_bytes:.4g} %"
            record["cache bytes per token"] = variant.cache_bytes
            record["of MHA's"] = share if reference.name == "MHA" else None
        record |= {"loss": variant.mean, "standard error": variant.stderr}
        is_other = variant is not reference
        pair = comparison.between(reference.name, variant.name) if is_other else None
        record[f"minus {reference.name}"] = pair.signed(variant.name) if pair else None
        if kind is not ATTENTION:
            names = [v.name for v in comparison.variants if {variant.name, v.name} in alike]
            record["not significantly different from"] = "; ".join(names)
        record["seeds"] = len(variant.losses)
        records.append(record)
    title, caption = f"{name.capitalize()} by loss", f"D = {format_count(comparison.tokens)}; N "
    caption += "counts all parameters"
    if kind is ATTENTION:
        title, caption = "Loss and cache of each form", f"{caption}, the cache is in bfloat16"
    text = ("of MHA's",)
    return record_table(name, title, records, f"{caption}. {PAIRED}", short=ERRORS, text=text)


def figure(name: str, comparison: VariantComparison, kind: VariantKind) -> Figure:
    """Loss against the cache or the rank: a thin line per seed, the mean with one standard error,
    and the names above.
    """
    is_attention = kind is ATTENTION
    if is_attention:
        variants, title = comparison.by_cache[::-1], "Loss against KV cache"
        x = [float(variant.cache_bytes) for variant in variants]
        label, limits = "KV-cache bytes per token (bfloat16)", (x[0] / 1.3, x[-1] * 1.3)
        caption = (
            "Final held-out loss against the bytes that the cache takes per token. A thin line "
            "joins the runs of one seed."
        )
    else:
        variants, title = list(comparison.variants), f"{name.capitalize()} by loss"
        x = [float(rank) for rank in range(1, len(variants) + 1)]
        label, limits = "rank", (0.5, len(variants) + 0.5)
        caption = (
            f"Final held-out loss of the {kind.noun}s, the lowest first. A thin line joins the "
            "runs of one seed: where lines do not cross, pairing helps."
        )
    by_seed = pd.DataFrame([variant.losses for variant in variants]).sort_index(axis=1).to_numpy()
    lines = [
        Line(x, loss, "" if index else "one seed", "muted", width=0.8)
        for index, loss in enumerate(by_seed.T)
    ]
    means, errors = np.nanmean(by_seed, axis=1), [variant.stderr for variant in variants]
    has_errors = None not in errors
    lo, hi = (means + sign * np.array(errors) if has_errors else None for sign in (-1, 1))
    top, height = np.nanmax(by_seed), float(np.nanmax(by_seed) - np.nanmin(by_seed)) or 1.0
    names = [
        Text(at, top + height * (0.06 if is_attention else 0.06 + 0.06 * (at % 2)), variant.name)
        for at, variant in zip(x, variants, strict=True)  # long names alternate
    ]
    markers = Markers(x, means, "mean, one standard error", 0, "circle", 9, lo, hi)
    axes = Axis(label, log=is_attention, range=limits), Axis("loss, nats")
    traces: tuple[Trace, ...] = (*lines, markers, *names)
    return Figure(name, title, caption, *axes, traces)


def notes(comparison: VariantComparison, kind: VariantKind) -> list[str]:
    """Three sentences: what was trained, how far the ends are apart, which differences are
    significant; then what is not shown.
    """
    variants, by_cache = comparison.variants, comparison.by_cache
    if kind is ATTENTION:
        large, small = by_cache[0], by_cache[-1]
        pair = comparison.between(small.name, large.name)
        names = ", ".join(variant.name for variant in by_cache)
        first = (
            f"{names} differ in their parameters by {100 * comparison.imbalance:.1f} %, so their "
            "losses do not compare forms of attention alone."
        )
        if comparison.imbalance <= MAX_IMBALANCE:
            first = (
                f"{names} have equal parameters ({format_count(variants[0].n_params)}): what fewer "
                "key-value heads save is in the feed-forward."
            )
        second = (
            f"{small.name} keeps {small.cache_bytes} bytes of cache per token, "
            f"{100 * small.cache_bytes / large.cache_bytes:.4g} % of {large.name}'s, and its loss "
            f"is {pair} {'higher' if pair.worse == small.name else 'lower'}."
        )
    else:
        n_seeds = min(len(variant.losses) for variant in variants)
        seeds = f"{n_seeds} seeds" if n_seeds > 1 else "one seed"
        order = ", ".join(variant.name for variant in variants)
        first = (
            f"These {len(variants)} {kind.noun}s, with {seeds} each, rank by mean loss: {order}."
        )
        pair = comparison.between(variants[0].name, variants[-1].name)
        second = f"The first and the last differ by {pair}."
    said = [first, second, significance_note(comparison)]
    if comparison.n_unfinished:
        said.append(f"Runs without a final loss, left out: {comparison.n_unfinished}.")
    if comparison.n_other_cells:
        said.append(
            f"Shown is the cell with the most variants; {comparison.n_other_cells} further "
            "ones are in the rows."
        )
    return said


def significance_note(comparison: VariantComparison) -> str:
    """Which pairs differ significantly, or which do not."""
    alike, n_pairs = comparison.not_significant, len(comparison.differences)
    if n_pairs == 1:
        return f"The two {'do not differ' if alike else 'differ'} significantly."
    if len(alike) in (0, n_pairs):
        return f"{'No' if alike else 'Every'} pair differs significantly."
    listed = "; ".join(f"{pair.better} and {pair.worse}" for pair in alike[:MAX_LISTED])
    n_more = len(alike) - MAX_LISTED
    more = f"; and {n_more} further pairs" if n_more > 0 else ""
    return f"Not significantly different are {len(alike)} of {n_pairs} pairs: {listed}{more}."


def variant_study(name: str, title: str, kind: VariantKind) -> Study[VariantComparison]:
    """The study of one kind of variant."""
    return Study(
        name,
        title,
        lambda rows: compare(rows, kind),
        lambda comparison: claims(comparison, kind),
        lambda comparison: [figure(name, comparison, kind)],
        lambda comparison: [
            variants_table(name, comparison, kind),
            pairs_table(name, comparison.differences),
        ],
        lambda comparison: notes(comparison, kind),
    )


ATTENTION_STUDY = variant_study("attention", "Forms of attention", ATTENTION)
POSITION_STUDY = variant_study("positions", "Positions", POSITION)
NORM_STUDY = variant_study("norms", "Norms", NORM)
