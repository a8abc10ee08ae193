"""Variants of one model, compared seed by seed: forms of attention, positions, and norms.

Runs that differ in nothing but the variant are one cell. In a cell the same seed meets the same training sequences in every
variant, so differences are taken seed by seed: what a seed does to all variants alike drops out.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scaling import accounting
from scaling.config import ModelConfig
from scaling.fit.significance import holm
from scaling.studies import runs
from scaling.studies.findings import Claim

LEVEL = 0.95
EQUAL = 0.01  # how far the parameters of variants may lie apart
CACHE_WIDTH = accounting.BYTES["bfloat16"]
POSITIONS = {
    "none": "none",
    "learned": "learned",
    "sinusoidal": "sinusoidal",
    "rope": "RoPE",
    "alibi": "ALiBi",
}
NORMS = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}


def form(model: Mapping[str, Any]) -> str:
    """MHA, MQA, or GQA with its number of key-value heads (Ainslie 2023)."""
    heads, shared = model["n_heads"], model["n_kv_heads"]
    return "MHA" if shared == heads else "MQA" if shared == 1 else f"GQA-{shared}"


def norm(model: Mapping[str, Any]) -> str:
    """The norm, and what is left out of the usual: QK-norm, gains."""
    left = [
        name
        for name, held in (("QK-norm", model["qk_norm"]), ("gains", model["gains"]))
        if not held
    ]
    return NORMS[model["norm"]] + "".join(
        f" {word} {name}" for word, name in zip(("without", "and"), left, strict=False)
    )


@dataclass(frozen=True)
class Kind:
    """What a study compares: `label` names the variant of a model's configuration, `fields` are what may differ between variants."""

    label: Callable[[Mapping[str, Any]], str]
    fields: tuple[str, ...]


ATTENTION = Kind(form, ("n_kv_heads", "d_ff"))
POSITION = Kind(lambda model: POSITIONS[model["pos"]], ("pos",))
NORM = Kind(norm, ("norm", "qk_norm", "gains"))


@dataclass(frozen=True)
class Variant:
    """A variant in its cell: its model, N (all parameters), and the final held-out loss in nats per token by seed."""

    name: str
    model: ModelConfig
    n_params: int
    losses: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(list(self.losses.values())))

    @property
    def stderr(self) -> float | None:
        """Of the mean, from the spread over seeds; None for one seed."""
        count = len(self.losses)
        return (
            float(np.std(list(self.losses.values()), ddof=1) / math.sqrt(count))
            if count > 1
            else None
        )

    @property
    def cache_bytes(self) -> int:
        """Bytes of key-value cache for each token of context, in bfloat16."""
        return accounting.kv_cache_bytes(self.model, tokens=1, value_bytes=CACHE_WIDTH)


@dataclass(frozen=True)
class Difference:
    """Loss of variant `worse` minus that of `better`, nats, over the `count` seeds that both have.

    `stderr`, `lo`, `hi` (95 %) and `p` (two-sided) are Student's, of the differences seed by seed; `unpaired` is the standard error
    that two independent samples would have. `apart`: they differ at 5 % when all pairs are looked at (Holm 1979).
    """

    better: str
    worse: str
    count: int
    mean: float
    stderr: float | None = None
    lo: float | None = None
    hi: float | None = None
    p: float | None = None
    unpaired: float | None = None
    apart: bool = False


@dataclass(frozen=True)
class Comparison:
    """The variants of a cell, the lowest mean loss first, and the difference of each pair; `left_out` runs have no final loss.

    `others` counts further cells in which the variants could be compared; `tokens` is D, the same for all.
    """

    variants: tuple[Variant, ...]
    differences: tuple[Difference, ...]
    tokens: int
    left_out: int = 0
    others: int = 0

    def between(self, one: str, other: str) -> Difference:
        """The difference of two variants, whichever is better."""
        return next(pair for pair in self.differences if {pair.better, pair.worse} == {one, other})

    def named(self, name: str) -> Variant | None:
        """The variant of a name, where there is one."""
        return next((variant for variant in self.variants if variant.name == name), None)

    @property
    def alike(self) -> tuple[Difference, ...]:
        """The pairs that the seeds do not tell apart."""
        return tuple(pair for pair in self.differences if not pair.apart)

    @property
    def imbalance(self) -> float:
        """How far the parameters of the variants lie apart, relative to the fewest."""
        counted = [variant.n_params for variant in self.variants]
        return max(counted) / min(counted) - 1

    @property
    def pairing(self) -> float | None:
        """Standard error of a difference seed by seed over that of independent samples: the median over pairs."""
        ratios = [
            pair.stderr / pair.unpaired
            for pair in self.differences
            if pair.stderr is not None and pair.unpaired
        ]
        return float(np.median(ratios)) if ratios else None


def compare(table: pd.DataFrame, kind: Kind) -> Comparison | None:
    """The cell with the most variants (then the most training), or None where no runs differ in the variant alone."""
    known = runs.configs(table)
    if len({kind.label(config["model"]) for config in known.values()}) < 2:
        return None
    held = _runs(table, kind, known)
    cells = [
        cell
        for _, cell in held.groupby("cell", sort=True)
        if cell["variant"].nunique() > 1 and not _ambiguous(cell)
    ]
    if not cells:
        return None
    chosen = max(
        cells, key=lambda cell: (cell["variant"].nunique(), cell["tokens"].iloc[0], len(cell))
    )
    finished = chosen[np.isfinite(chosen["loss"].astype(float))]
    variants = sorted(
        (_variant(str(name), part) for name, part in finished.groupby("variant")),
        key=lambda one: one.mean,
    )
    if len(variants) < 2:
        return None
    pairs = _holm([_difference(*two) for two in itertools.combinations(variants, 2)])
    return Comparison(
        tuple(variants),
        pairs,
        int(chosen["tokens"].iloc[0]),
        len(chosen) - len(finished),
        len(cells) - 1,
    )


def _ambiguous(cell: pd.DataFrame) -> bool:
    """Whether a variant has two models, as where an axis of d_ff stands beside one of heads: which to compare is not known."""
    return bool(cell.duplicated(["variant", "seed"]).any())


def _runs(table: pd.DataFrame, kind: Kind, known: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """Each run with its variant, its cell, and its final loss (NaN where it has none)."""
    seen = runs.trail(table, "loss")
    final = {
        (str(run_id), step): value
        for run_id, step, value in zip(seen["run_id"], seen["step"], seen["value"], strict=True)
    }
    found = []
    lengths = {
        str(run_id): int(length)
        for run_id, length in table.drop_duplicates("run_id")[["run_id", "seq_len"]].itertuples(
            index=False
        )
    }
    for run_id, config in known.items():
        model, steps, seq_len = (
            config["model"],
            config["n_steps"],
            lengths[run_id],
        )  # not every task's configuration says its length
        rest = {name: value for name, value in model.items() if name not in kind.fields}
        cell = {**config, "model": rest, "seed": None}
        tokens = steps * config["batch_size"] * seq_len
        text = json.dumps(cell, sort_keys=True)
        found.append(
            (
                run_id,
                kind.label(model),
                text,
                config["seed"],
                tokens,
                final.get((run_id, steps)),
                config,
                seq_len,
            )
        )
    return pd.DataFrame(
        found, columns=["run_id", "variant", "cell", "seed", "tokens", "loss", "config", "seq_len"]
    )


def _variant(name: str, part: pd.DataFrame) -> Variant:
    config = part["config"].iloc[0]
    model = ModelConfig.model_validate(config["model"])
    losses = {int(seed): float(loss) for seed, loss in zip(part["seed"], part["loss"], strict=True)}
    return Variant(
        name, model, accounting.n_params(model, int(part["seq_len"].iloc[0]), "total"), losses
    )


def _difference(better: Variant, worse: Variant) -> Difference:
    seeds = sorted(set(better.losses) & set(worse.losses))
    one, other = (np.array([variant.losses[seed] for seed in seeds]) for variant in (better, worse))
    by_seed = other - one
    if len(seeds) < 2:
        return Difference(
            better.name,
            worse.name,
            len(seeds),
            float(by_seed.mean()) if seeds else worse.mean - better.mean,
        )
    mean, stderr = float(by_seed.mean()), float(by_seed.std(ddof=1) / math.sqrt(len(seeds)))
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, len(seeds) - 1)) * stderr
    p = float(2 * stats.t.sf(abs(mean) / stderr, len(seeds) - 1)) if stderr else float(mean == 0.0)
    unpaired = math.sqrt((one.var(ddof=1) + other.var(ddof=1)) / len(seeds))
    return Difference(
        better.name, worse.name, len(seeds), mean, stderr, mean - reach, mean + reach, p, unpaired
    )


def _holm(pairs: Sequence[Difference]) -> tuple[Difference, ...]:
    """The pairs with `apart` set where p, adjusted for all pairs (Holm 1979), is at most 5 %."""
    adjusted = holm([1.0 if pair.p is None else pair.p for pair in pairs])
    return tuple(
        replace(pair, apart=pair.p is not None and p <= 1 - LEVEL)
        for pair, p in zip(pairs, adjusted, strict=True)
    )


def findings(found: Comparison, kind: Kind) -> list[Claim]:
    """The figures of a comparison: equal parameters and cache bytes (of attention), each difference to the reference."""
    told = [_equal(found)] if kind is ATTENTION else []
    whole = found.named("MHA") if kind is ATTENTION else None
    first = whole or found.variants[0]
    others = [variant for variant in found.variants if variant is not first]
    if whole:
        told += [
            _cache(variant, whole)
            for variant in sorted(others, key=lambda variant: -variant.cache_bytes)
        ]
    told += [
        _apart(found.between(first.name, variant.name), first.name, variant.name)
        for variant in others
    ]
    return told


def _equal(found: Comparison) -> Claim:
    return Claim(
        "parameters of the forms, largest over smallest",
        "within 1 %",
        f"{100 * found.imbalance:.2f} % apart",
        found.imbalance <= EQUAL,
    )


def _cache(variant: Variant, whole: Variant) -> Claim:
    share, asked = (
        variant.cache_bytes / whole.cache_bytes,
        variant.model.n_kv_heads / whole.model.n_kv_heads,
    )
    target = f"{100 * asked:.4g} % of {whole.cache_bytes} bytes ({variant.model.n_kv_heads} of {whole.model.n_kv_heads} heads)"
    reached = f"{variant.cache_bytes} bytes, {100 * share:.4g} %"
    return Claim(
        f"KV cache of {variant.name} for a token, bfloat16", target, reached, share == asked
    )


def _apart(pair: Difference, first: str, other: str) -> Claim:
    figure = f"loss of {other} minus {first}, nats"
    sign = 1.0 if pair.worse == other else -1.0
    if pair.lo is None or pair.hi is None:
        paired = "one seed" if pair.count else "no seed in common"
        return Claim(
            figure, "with its 95 % interval over seeds", f"{sign * pair.mean:+.4f}, {paired}", None
        )
    low, high = sorted((sign * pair.lo, sign * pair.hi))
    verdict = "told apart" if pair.apart else "not told apart"
    reached = f"{sign * pair.mean:+.4f} [{low:+.4f}, {high:+.4f}], {pair.count} seeds: {verdict}"
    return Claim(figure, "with its 95 % interval over seeds", reached, True)
