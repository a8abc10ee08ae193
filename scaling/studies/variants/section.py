"""Variants in a report: attention against its cache, positions, and norms, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from scaling.formatting import format_count
from scaling.render.figure import Axis, Figure, Line, Markers, Text, Trace
from scaling.render.section import Section
from scaling.render.table import Cell, Column, Estimate, Table
from scaling.studies.claims import study_section
from scaling.studies.variants.analysis import (
    ATTENTION,
    MAX_IMBALANCE,
    NORM,
    POSITION,
    Difference,
    Variant,
    VariantComparison,
    VariantKind,
    claims,
    compare,
)

MAX_LISTED = 6  # pairs named in a sentence
LOSS_AXIS = Axis("loss, nats")
PAIRED = "One learning rate for all. Differences are paired by seed, with 95 % intervals."


def attention(rows: pd.DataFrame) -> Section | None:
    """MHA, GQA and MQA: loss against bytes of cache; None where no runs differ in their key-value
    heads alone.
    """
    comparison = compare(rows, ATTENTION)
    if comparison is None:
        return None
    return study_section(
        "attention",
        "Forms of attention",
        claims(comparison, ATTENTION),
        [_against_cache(comparison)],
        [_forms(comparison), _pairs("attention", comparison)],
        [*_attention_notes(comparison), *_left_out(comparison)],
    )


def positions(rows: pd.DataFrame) -> Section | None:
    """Position encodings, ranked; None where no runs differ in it alone."""
    return _ranked(rows, POSITION, "positions", "Positions", "position encoding")


def norms(rows: pd.DataFrame) -> Section | None:
    """The norms, ranked; None where no runs differ in them alone."""
    return _ranked(rows, NORM, "norms", "Norms", "norm")


def _ranked(
    rows: pd.DataFrame, kind: VariantKind, name: str, title: str, noun: str
) -> Section | None:
    comparison = compare(rows, kind)
    if comparison is None:
        return None
    variants = comparison.variants
    n_seeds = min(len(variant.losses) for variant in variants)
    seeds = f"{n_seeds} seeds" if n_seeds > 1 else "one seed"
    order = ", ".join(variant.name for variant in variants)
    difference = _size(comparison.between(variants[0].name, variants[-1].name))
    notes = [
        f"These {len(variants)} {noun}s, with {seeds} each, rank by mean loss: {order}.",
        f"The first and the last differ by {difference}.",
        _significance_note(comparison),
    ]
    return study_section(
        name,
        title,
        claims(comparison, kind),
        [_ranking_figure(name, title, f"{noun}s", comparison)],
        [_ranking(name, title, noun, comparison), _pairs(name, comparison)],
        [*notes, *_left_out(comparison)],
    )


def _forms(comparison: VariantComparison) -> Table:
    mha = comparison.get("MHA")
    reference = mha or comparison.variants[0]
    rows = tuple(
        (
            variant.name,
            variant.model.n_kv_heads,
            variant.model.d_ff,
            variant.n_params,
            variant.cache_bytes,
            f"{100 * variant.cache_bytes / mha.cache_bytes:.4g} %" if mha else None,
            variant.mean,
            variant.stderr,
            _relative_to(comparison, reference, variant),
            len(variant.losses),
        )
        for variant in sorted(comparison.variants, key=lambda variant: -variant.cache_bytes)
    )
    columns = (
        Column("form"),
        Column("key-value heads", "integer"),
        Column("d_ff", "integer"),
        Column("N", "count"),
        Column("cache bytes per token", "integer"),
        Column("of MHA's"),
        Column("loss", "number"),
        Column("standard error", "short"),
        Column(f"minus {reference.name}", "number", True),
        Column("seeds", "integer"),
    )
    caption = (
        f"D = {format_count(comparison.tokens)}; N counts all parameters, the cache is in "
        "bfloat16. " + PAIRED
    )
    return Table("attention", "Loss and cache of each form", columns, rows, caption)


def _ranking(name: str, title: str, noun: str, comparison: VariantComparison) -> Table:
    best = comparison.variants[0]
    rows = tuple(
        (
            variant.name,
            variant.n_params,
            variant.mean,
            variant.stderr,
            _relative_to(comparison, best, variant),
            _indistinguishable(comparison, variant),
            len(variant.losses),
        )
        for variant in comparison.variants
    )
    columns = (
        Column(noun),
        Column("N", "count"),
        Column("loss", "number"),
        Column("standard error", "short"),
        Column(f"minus {best.name}", "number", True),
        Column("not significantly different from"),
        Column("seeds", "integer"),
    )
    caption = f"D = {format_count(comparison.tokens)}; N counts all parameters. {PAIRED}"
    return Table(name, f"{title} by loss", columns, rows, caption)


def _relative_to(
    comparison: VariantComparison, reference: Variant, variant: Variant
) -> Estimate | None:
    """Loss of `variant` minus that of `reference`, with its interval."""
    if variant is reference:
        return None
    return comparison.between(reference.name, variant.name).signed(variant.name)


def _indistinguishable(comparison: VariantComparison, variant: Variant) -> str:
    pairs = [{pair.better, pair.worse} for pair in comparison.not_significant]
    names = (other.name for other in comparison.variants)
    return "; ".join(name for name in names if {variant.name, name} in pairs)


def _pairs(name: str, comparison: VariantComparison) -> Table:
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            pair.better,
            pair.worse,
            (pair.mean, pair.lo, pair.hi),
            pair.stderr,
            pair.unpaired,
            pair.p,
            "yes" if pair.is_significant else "no",
        )
        for pair in comparison.differences
    )
    columns = (
        Column("lower loss"),
        Column("higher loss"),
        Column("difference", "number", True),
        Column("standard error", "short"),
        Column("unpaired", "short"),
        Column("p", "short"),
        Column("significant"),
    )
    gain = comparison.pairing_gain
    caption = (
        "By seed: Student's intervals of 95 %. Significant at 5 % after Holm's correction for all "
        "pairs (Holm 1979). Unpaired is the standard error that independent seeds would have"
    )
    if gain is not None:
        caption += f": pairing by seed changes it by a factor of {gain:.2f} (median over pairs)"
    return Table(f"{name}-pairs", "Pairs", columns, rows, f"{caption}.")


def _against_cache(comparison: VariantComparison) -> Figure:
    variants = sorted(comparison.variants, key=lambda variant: variant.cache_bytes)
    x = [float(variant.cache_bytes) for variant in variants]
    notes = [f"{v.name}: loss {v.mean:.4f}, {v.cache_bytes} bytes per token" for v in variants]
    x_range = (x[0] / 1.3, x[-1] * 1.3)
    x_axis = Axis("KV-cache bytes per token (bfloat16)", log=True, range=x_range)
    caption = (
        "Final held-out loss against the bytes that the cache takes per token. A thin line "
        "joins the "
        "runs of one seed."
    )
    traces = _variant_traces(variants, x, notes, [0.06] * len(x))
    return Figure("attention", "Loss against KV cache", caption, x_axis, LOSS_AXIS, traces)


def _ranking_figure(name: str, title: str, noun: str, comparison: VariantComparison) -> Figure:
    variants = comparison.variants
    x = [float(rank) for rank in range(1, len(variants) + 1)]
    notes = [f"{variant.name}: loss {variant.mean:.4f}" for variant in variants]
    heights = [0.06 + 0.06 * (at % 2) for at in x]  # long names alternate
    caption = (
        f"Final held-out loss of the {noun}, the lowest first. A thin line joins the runs of one "
        "seed: where lines do not cross, pairing helps."
    )
    x_axis = Axis("rank", range=(0.5, len(variants) + 0.5))
    traces = _variant_traces(variants, x, notes, heights)
    return Figure(name, f"{title} by loss", caption, x_axis, LOSS_AXIS, traces, size="wide")


def _variant_traces(
    variants: Sequence[Variant], x: Sequence[float], notes: list[str], heights: Sequence[float]
) -> tuple[Trace, ...]:
    """A thin line per seed, the mean with one standard error, and the names above."""
    losses = [loss for variant in variants for loss in variant.losses.values()]
    height = max(losses) - min(losses) or 1.0
    lines = []
    for index, seed in enumerate(sorted({seed for v in variants for seed in v.losses})):
        with_seed = [
            (at, v.losses[seed]) for at, v in zip(x, variants, strict=True) if seed in v.losses
        ]
        line_x, line_y = zip(*with_seed, strict=True)
        lines.append(Line(line_x, line_y, "" if index else "one seed", "muted", width=0.8))
    means, errors = [v.mean for v in variants], [v.stderr for v in variants]
    ends: list[list[float] | None] = [None, None]
    if None not in errors:
        ends = [
            [mean + sign * (error or 0.0) for mean, error in zip(means, errors, strict=True)]
            for sign in (-1, 1)
        ]
    label = "mean, one standard error"
    names = [
        Text(at, max(losses) + share * height, variant.name)
        for at, share, variant in zip(x, heights, variants, strict=True)
    ]
    return (*lines, Markers(x, means, label, 0, "circle", 9, ends[0], ends[1], notes), *names)


def _attention_notes(comparison: VariantComparison) -> list[str]:
    """Three sentences: what was trained, what the smallest cache costs, which differences are
    significant.
    """
    by_cache = sorted(comparison.variants, key=lambda variant: -variant.cache_bytes)
    names = ", ".join(variant.name for variant in by_cache)
    if comparison.imbalance <= MAX_IMBALANCE:
        size = format_count(comparison.variants[0].n_params)
        first = (
            f"{names} have equal parameters ({size}): what fewer key-value heads save is in the "
            "feed-forward."
        )
    else:
        first = (
            f"{names} differ in their parameters by {100 * comparison.imbalance:.1f} %, so their "
            "losses do not compare forms of attention alone."
        )
    large, small = by_cache[0], by_cache[-1]
    pair = comparison.between(small.name, large.name)
    sign = "higher" if pair.worse == small.name else "lower"
    share = 100 * small.cache_bytes / large.cache_bytes
    second = (
        f"{small.name} keeps {small.cache_bytes} bytes of cache per token, {share:.4g} % of "
        f"{large.name}'s, and its loss is {_size(pair)} {sign}."
    )
    return [first, second, _significance_note(comparison)]


def _significance_note(comparison: VariantComparison) -> str:
    alike, n_pairs = comparison.not_significant, len(comparison.differences)
    is_pair = len(comparison.variants) == 2
    if len(alike) == n_pairs:
        return (
            "The two do not differ significantly." if is_pair else "No pair differs significantly."
        )
    if not alike:
        return "The two differ significantly." if is_pair else "Every pair differs significantly."
    listed = "; ".join(f"{pair.better} and {pair.worse}" for pair in alike[:MAX_LISTED])
    n_more = len(alike) - MAX_LISTED
    more = f"; and {n_more} further pairs" if n_more > 0 else ""
    return f"Not significantly different are {len(alike)} of {n_pairs} pairs: {listed}{more}."


def _size(pair: Difference) -> str:
    """A difference in words, with its interval where seeds give one."""
    interval = "" if pair.lo is None else f" [{pair.lo:.3f}, {pair.hi:.3f}]"
    return f"{pair.mean:.3f} nats{interval}"


def _left_out(comparison: VariantComparison) -> list[str]:
    """Runs without a final loss and further cells, where there are any."""
    notes = []
    if comparison.n_unfinished:
        notes.append(f"Runs without a final loss, left out: {comparison.n_unfinished}.")
    if comparison.n_other_cells:
        notes.append(
            f"Shown is the cell with the most variants; {comparison.n_other_cells} further "
            "ones are "
            "in the rows."
        )
    return notes
