"""Variants in a report: attention against its cache, positions, and norms, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from scaling.formatting import format_count
from scaling.render.figure import Axis, Figure, Line, Markers, Text, Trace
from scaling.render.table import Cell, Table
from scaling.studies.study import Study, record_table
from scaling.studies.variants import analysis
from scaling.studies.variants.analysis import (
    MAX_IMBALANCE,
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
ERRORS = ("standard error", "unpaired", "p")


def _forms(comparison: VariantComparison) -> Table | None:
    mha = comparison.get("MHA")
    reference = mha or comparison.variants[0]
    records = [
        {
            "form": variant.name,
            "key-value heads": variant.model.n_kv_heads,
            "d_ff": variant.model.d_ff,
            "N": variant.n_params,
            "cache bytes per token": variant.cache_bytes,
            "of MHA's": f"{100 * variant.cache_bytes / mha.cache_bytes:.4g} %" if mha else None,
            "loss": variant.mean,
            "standard error": variant.stderr,
            f"minus {reference.name}": comparison.relative_to(reference, variant),
            "seeds": len(variant.losses),
        }
        for variant in comparison.by_cache
    ]
    caption = (
        f"D = {format_count(comparison.tokens)}; N counts all parameters, the cache is in "
        "bfloat16. " + PAIRED
    )
    title, text = "Loss and cache of each form", ("of MHA's",)
    return record_table("attention", title, records, caption, short=ERRORS, count="N", text=text)


def _ranking(name: str, title: str, noun: str, comparison: VariantComparison) -> Table | None:
    best = comparison.variants[0]
    alike = [{pair.better, pair.worse} for pair in comparison.not_significant]
    names = [variant.name for variant in comparison.variants]
    records = [
        {
            noun: variant.name,
            "N": variant.n_params,
            "loss": variant.mean,
            "standard error": variant.stderr,
            f"minus {best.name}": comparison.relative_to(best, variant),
            "not significantly different from": "; ".join(
                name for name in names if {variant.name, name} in alike
            ),
            "seeds": len(variant.losses),
        }
        for variant in comparison.variants
    ]
    caption = f"D = {format_count(comparison.tokens)}; N counts all parameters. {PAIRED}"
    return record_table(name, f"{title} by loss", records, caption, short=ERRORS, count="N")


def pairs_table(name: str, comparison: VariantComparison) -> Table | None:
    """Every pair of variants: the difference, its errors, its p."""
    records: list[dict[str, Cell]] = [
        {
            "lower loss": pair.better,
            "higher loss": pair.worse,
            "difference": (pair.mean, pair.lo, pair.hi),
            "standard error": pair.stderr,
            "unpaired": pair.unpaired,
            "p": pair.p,
            "significant": "yes" if pair.is_significant else "no",
        }
        for pair in comparison.differences
    ]
    gain = comparison.pairing_gain
    caption = (
        "By seed: Student's intervals of 95 %. Significant at 5 % after Holm's correction for all "
        "pairs (Holm 1979). Unpaired is the standard error that independent seeds would have"
    )
    if gain is not None:
        caption += f": pairing by seed changes it by a factor of {gain:.2f} (median over pairs)"
    return record_table(f"{name}-pairs", "Pairs", records, f"{caption}.", short=ERRORS)


def _against_cache(comparison: VariantComparison) -> Figure:
    variants = comparison.by_cache[::-1]
    x = [float(variant.cache_bytes) for variant in variants]
    notes = [f"{v.name}: loss {v.mean:.4f}, {v.cache_bytes} bytes per token" for v in variants]
    x_range = (x[0] / 1.3, x[-1] * 1.3)
    x_axis = Axis("KV-cache bytes per token (bfloat16)", log=True, range=x_range)
    caption = (
        "Final held-out loss against the bytes that the cache takes per token. A thin line "
        "joins the runs of one seed."
    )
    traces = _variant_traces(variants, x, notes, [0.06] * len(x))
    return Figure("attention", "Loss against KV cache", caption, x_axis, LOSS_AXIS, traces)


def _ranking_figure(name: str, title: str, noun: str, comparison: VariantComparison) -> Figure:
    variants = comparison.variants
    x = [float(rank) for rank in range(1, len(variants) + 1)]
    notes = [f"{variant.name}: loss {variant.mean:.4f}" for variant in variants]
    heights = [0.06 + 0.06 * (at % 2) for at in x]  # long names alternate
    caption = (
        f"Final held-out loss of the {noun}s, the lowest first. A thin line joins the runs of one "
        "seed: where lines do not cross, pairing helps."
    )
    x_axis = Axis("rank", range=(0.5, len(variants) + 0.5))
    traces = _variant_traces(variants, x, notes, heights)
    return Figure(name, f"{title} by loss", caption, x_axis, LOSS_AXIS, traces, size="wide")


def _variant_traces(
    variants: Sequence[Variant], x: Sequence[float], notes: list[str], heights: Sequence[float]
) -> tuple[Trace, ...]:
    """A thin line per seed, the mean with one standard error, and the names above."""
    top = max(loss for variant in variants for loss in variant.losses.values())
    height = top - min(loss for variant in variants for loss in variant.losses.values()) or 1.0
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
        Text(at, top + share * height, variant.name)
        for at, share, variant in zip(x, heights, variants, strict=True)
    ]
    return (*lines, Markers(x, means, label, 0, "circle", 9, ends[0], ends[1], notes), *names)


def _attention_notes(comparison: VariantComparison) -> list[str]:
    """Three sentences: what was trained, what the smallest cache costs, which differences are
    significant.
    """
    by_cache = comparison.by_cache
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
    return [first, second, significance_note(comparison)]


def significance_note(comparison: VariantComparison) -> str:
    """Which pairs differ significantly, or which do not."""
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


def _ranking_notes(noun: str, comparison: VariantComparison) -> list[str]:
    """Three sentences: the order, how far the ends are apart, which differences are significant."""
    variants = comparison.variants
    n_seeds = min(len(variant.losses) for variant in variants)
    seeds = f"{n_seeds} seeds" if n_seeds > 1 else "one seed"
    order = ", ".join(variant.name for variant in variants)
    difference = _size(comparison.between(variants[0].name, variants[-1].name))
    return [
        f"These {len(variants)} {noun}s, with {seeds} each, rank by mean loss: {order}.",
        f"The first and the last differ by {difference}.",
        significance_note(comparison),
    ]


def variant_study(name: str, title: str, kind: VariantKind, noun: str) -> Study[VariantComparison]:
    """The study of one kind of variant; a `noun` ranks them, without one they are set against their
    key-value cache.
    """

    def notes(comparison: VariantComparison) -> list[str]:
        said = _ranking_notes(noun, comparison) if noun else _attention_notes(comparison)
        if comparison.n_unfinished:
            said.append(f"Runs without a final loss, left out: {comparison.n_unfinished}.")
        if comparison.n_other_cells:
            said.append(
                f"Shown is the cell with the most variants; {comparison.n_other_cells} further "
                "ones are in the rows."
            )
        return said

    figure = partial(_ranking_figure, name, title, noun) if noun else _against_cache
    table = partial(_ranking, name, title, noun) if noun else _forms
    return Study(
        name,
        title,
        lambda rows: compare(rows, kind),
        lambda comparison: claims(comparison, kind),
        lambda comparison: [figure(comparison)],
        lambda comparison: [table(comparison), pairs_table(name, comparison)],
        notes,
    )


ATTENTION = variant_study("attention", "Forms of attention", analysis.ATTENTION, "")
POSITIONS = variant_study("positions", "Positions", analysis.POSITION, "position encoding")
NORMS = variant_study("norms", "Norms", analysis.NORM, "norm")
