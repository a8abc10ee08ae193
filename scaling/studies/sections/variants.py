"""Variants of one model, seed by seed: attention against its cache, positions, and norms."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from scaling.formatting import format_count
from scaling.render.figure import Axis, Figure, Line, Markers, Text, Trace
from scaling.render.section import Section
from scaling.render.table import Cell, Column, Estimate, Table
from scaling.studies import findings, variants
from scaling.studies.variants import (
    ATTENTION,
    NORM,
    POSITION,
    Comparison,
    Difference,
    Kind,
    Variant,
)

LISTED = 6  # pairs named in a sentence


def attention(table: pd.DataFrame) -> Section | None:
    """MHA, GQA and MQA: loss against bytes of cache; None where no runs differ in their key-value heads alone."""
    found = variants.compare(table, ATTENTION)
    if found is None:
        return None
    tables = [
        _forms(found),
        _pairs("attention", found),
        findings.table("attention", variants.findings(found, ATTENTION)),
    ]
    return Section(
        "attention",
        "Forms of attention",
        [_against_cache(found)],
        tables,
        [*_attention_notes(found), *_asides(found)],
    )


def positions(table: pd.DataFrame) -> Section | None:
    """The ways to know positions, ranked; None where no runs differ in it alone."""
    return _ranked(
        table, POSITION, "positions", "Positions", "way to know positions", "ways to know positions"
    )


def norms(table: pd.DataFrame) -> Section | None:
    """The norms, ranked; None where no runs differ in them alone."""
    return _ranked(table, NORM, "norms", "Norms", "norm", "norms")


def _ranked(
    table: pd.DataFrame, kind: Kind, name: str, title: str, one: str, many: str
) -> Section | None:
    found = variants.compare(table, kind)
    if found is None:
        return None
    tables = [
        _ranking(name, title, one, found),
        _pairs(name, found),
        findings.table(name, variants.findings(found, kind)),
    ]
    notes = [_said_of_ranking(found, many), _said_of_best(found), _said_of_pairs(found)]
    return Section(
        name, title, [_ladder(name, title, many, found)], tables, [*notes, *_asides(found)]
    )


def _forms(found: Comparison) -> Table:
    whole = found.named("MHA")
    first = whole or found.variants[0]
    held = sorted(found.variants, key=lambda variant: -variant.cache_bytes)
    rows = tuple(
        (
            variant.name,
            variant.model.n_kv_heads,
            variant.model.d_ff,
            variant.n_params,
            variant.cache_bytes,
            f"{100 * variant.cache_bytes / whole.cache_bytes:.4g} %" if whole else None,
            variant.mean,
            variant.stderr,
            _from(found, first, variant),
            len(variant.losses),
        )
        for variant in held
    )
    columns = (
        Column("form"),
        Column("key-value heads", "integer"),
        Column("d_ff", "integer"),
        Column("N", "count"),
        Column("cache bytes a token", "integer"),
        Column("of MHA's"),
        Column("loss", "number"),
        Column("standard error", "short"),
        Column(f"minus {first.name}", "number", True),
        Column("seeds", "integer"),
    )
    caption = f"D = {format_count(found.tokens)}; N counts all parameters, the cache is in bfloat16. One learning rate for all. Differences are paired by seed, with 95 % intervals."
    return Table("attention", "Loss and cache of each form", columns, rows, caption)


def _ranking(name: str, title: str, one: str, found: Comparison) -> Table:
    best = found.variants[0]
    rows = tuple(
        (
            variant.name,
            variant.n_params,
            variant.mean,
            variant.stderr,
            _from(found, best, variant),
            _alike(found, variant),
            len(variant.losses),
        )
        for variant in found.variants
    )
    columns = (
        Column(one),
        Column("N", "count"),
        Column("loss", "number"),
        Column("standard error", "short"),
        Column(f"minus {best.name}", "number", True),
        Column("not told apart from"),
        Column("seeds", "integer"),
    )
    caption = f"D = {format_count(found.tokens)}; N counts all parameters. One learning rate for all. Differences are paired by seed, with 95 % intervals."
    return Table(name, f"{title} by loss", columns, rows, caption)


def _from(found: Comparison, first: Variant, other: Variant) -> Estimate | None:
    """Loss of `other` minus that of `first`, with its interval."""
    if other is first:
        return None
    pair = found.between(first.name, other.name)
    if pair.worse == other.name:
        return pair.mean, pair.lo, pair.hi
    return -pair.mean, None if pair.hi is None else -pair.hi, None if pair.lo is None else -pair.lo


def _alike(found: Comparison, variant: Variant) -> str:
    pairs = [{pair.better, pair.worse} for pair in found.alike]
    return "; ".join(other.name for other in found.variants if {variant.name, other.name} in pairs)


def _pairs(name: str, found: Comparison) -> Table:
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            pair.better,
            pair.worse,
            (pair.mean, pair.lo, pair.hi),
            pair.stderr,
            pair.unpaired,
            pair.p,
            "yes" if pair.apart else "no",
        )
        for pair in found.differences
    )
    columns = (
        Column("lower loss"),
        Column("higher loss"),
        Column("difference", "number", True),
        Column("standard error", "short"),
        Column("unpaired", "short"),
        Column("p", "short"),
        Column("told apart"),
    )
    caption = (
        "By seed: Student's intervals of 95 %. A pair is told apart at 5 % when all pairs are looked at (Holm 1979). "
        "Unpaired is the standard error that independent seeds would have" + _pairing(found)
    )
    return Table(f"{name}-pairs", "Pairs", columns, rows, caption)


def _pairing(found: Comparison) -> str:
    if found.pairing is None:
        return "."
    return f": pairing by seed changes it by a factor of {found.pairing:.2f} (median over pairs)."


def _against_cache(found: Comparison) -> Figure:
    held = sorted(found.variants, key=lambda variant: variant.cache_bytes)
    x = [float(variant.cache_bytes) for variant in held]
    notes = [
        f"{variant.name}: loss {variant.mean:.4f}, {variant.cache_bytes} bytes a token"
        for variant in held
    ]
    top = max(max(variant.losses.values()) for variant in held)
    names = [
        Text(at, top + 0.06 * _height(found), variant.name)
        for at, variant in zip(x, held, strict=True)
    ]
    traces = (
        *_seed_lines(held, x),
        Markers(
            x,
            [v.mean for v in held],
            "mean, one standard error",
            0,
            "circle",
            9,
            *_reach(held),
            notes,
        ),
        *names,
    )
    room = Axis("KV-cache bytes a token (bfloat16)", log=True, range=(x[0] / 1.3, x[-1] * 1.3))
    caption = "Final held-out loss against the bytes that the cache takes for a token. A thin line joins the runs of one seed."
    return Figure("attention", "Loss against KV cache", caption, room, Axis("loss, nats"), traces)


def _ladder(name: str, title: str, many: str, found: Comparison) -> Figure:
    held = found.variants
    x = [float(rank) for rank in range(1, len(held) + 1)]
    notes = [f"{variant.name}: loss {variant.mean:.4f}" for variant in held]
    top = max(max(variant.losses.values()) for variant in held)
    names = [
        Text(at, top + (0.06 + 0.06 * (at % 2)) * _height(found), variant.name)
        for at, variant in zip(x, held, strict=True)
    ]  # long names take turns
    traces = (
        *_seed_lines(held, x),
        Markers(
            x,
            [v.mean for v in held],
            "mean, one standard error",
            0,
            "circle",
            9,
            *_reach(held),
            notes,
        ),
        *names,
    )
    caption = f"Final held-out loss of the {many}, the lowest first. A thin line joins the runs of one seed: where lines keep apart, pairing helps."
    room = Axis("rank", range=(0.5, len(held) + 0.5))
    return Figure(name, f"{title} by loss", caption, room, Axis("loss, nats"), traces, size="wide")


def _height(found: Comparison) -> float:
    losses = [loss for variant in found.variants for loss in variant.losses.values()]
    return max(losses) - min(losses) or 1.0


def _reach(held: Sequence[Variant]) -> tuple[list[float] | None, list[float] | None]:
    """One standard error below and above each mean."""
    errors = [variant.stderr for variant in held]
    if None in errors:
        return None, None
    return [v.mean - (v.stderr or 0.0) for v in held], [v.mean + (v.stderr or 0.0) for v in held]


def _seed_lines(held: Sequence[Variant], x: Sequence[float]) -> list[Trace]:
    seeds = sorted({seed for variant in held for seed in variant.losses})
    lines: list[Trace] = []
    for place, seed in enumerate(seeds):
        own = [variant for variant in held if seed in variant.losses]
        places = [at for at, variant in zip(x, held, strict=True) if seed in variant.losses]
        lines.append(
            Line(
                places,
                [variant.losses[seed] for variant in own],
                "" if place else "one seed",
                "muted",
                width=0.8,
            )
        )
    return lines


def _attention_notes(found: Comparison) -> list[str]:
    """Three sentences: what was trained, what the smallest cache costs, what the seeds tell apart."""
    names = ", ".join(
        variant.name for variant in sorted(found.variants, key=lambda variant: -variant.cache_bytes)
    )
    if found.imbalance <= variants.EQUAL:
        first = f"{names} have equal parameters ({format_count(found.variants[0].n_params)}): what fewer key-value heads save is in the feed-forward."
    else:
        first = f"{names} differ in their parameters by {100 * found.imbalance:.1f} %, so their losses do not compare forms of attention alone."
    small, large = (
        pick(found.variants, key=lambda variant: variant.cache_bytes) for pick in (min, max)
    )
    pair = found.between(small.name, large.name)
    sign = "above" if pair.worse == small.name else "below"
    second = (
        f"{small.name} keeps {small.cache_bytes} bytes of cache a token, {100 * small.cache_bytes / large.cache_bytes:.4g} % of {large.name}'s, "
        f"and its loss lies {_size(pair)} {sign}."
    )
    return [first, second, _said_of_pairs(found)]


def _said_of_ranking(found: Comparison, many: str) -> str:
    seeds = min(len(variant.losses) for variant in found.variants)
    order = ", ".join(variant.name for variant in found.variants)
    return f"These {len(found.variants)} {many}, with {_seeds(seeds)} each, rank by mean loss: {order}."


def _said_of_best(found: Comparison) -> str:
    pair = found.between(found.variants[0].name, found.variants[-1].name)
    return f"The first and the last lie {_size(pair)} apart."


def _said_of_pairs(found: Comparison) -> str:
    if len(found.alike) == len(found.differences):
        return (
            "The seeds tell none of them apart."
            if len(found.variants) > 2
            else "The seeds do not tell the two apart."
        )
    if not found.alike:
        return (
            "The seeds tell every pair apart."
            if len(found.variants) > 2
            else "The seeds tell the two apart."
        )
    listed = "; ".join(f"{pair.better} and {pair.worse}" for pair in found.alike[:LISTED])
    more = f"; and {len(found.alike) - LISTED} further pairs" if len(found.alike) > LISTED else ""
    return f"The seeds cannot tell apart {len(found.alike)} of {len(found.differences)} pairs: {listed}{more}."


def _size(pair: Difference) -> str:
    """A difference in words, with its interval where seeds give one."""
    span = "" if pair.lo is None else f" [{pair.lo:.3f}, {pair.hi:.3f}]"
    return f"{pair.mean:.3f} nats{span}"


def _asides(found: Comparison) -> list[str]:
    """What the three sentences leave out, where there is something: runs without a final loss, further cells."""
    told = [f"Runs without a final loss, left out: {found.left_out}."] if found.left_out else []
    return told + (
        [f"Shown is the cell with the most variants; {found.others} further ones are in the rows."]
        if found.others
        else []
    )


def _seeds(count: int) -> str:
    return f"{count} seeds" if count > 1 else "one seed"
