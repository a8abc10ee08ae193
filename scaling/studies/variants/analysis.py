"""Variants of one model, compared seed by seed: forms of attention, positions, and norms.

Runs that differ in nothing but the variant are one cell. In a cell the same seed has the same
training sequences in every variant, so differences are taken seed by seed: what a seed does to all
variants alike cancels.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scaling import accounting
from scaling.config import ModelConfig
from scaling.fit.significance import holm
from scaling.render.table import Estimate
from scaling.studies import runs
from scaling.studies.study import Claim

CI = 0.95
MAX_IMBALANCE = 0.01  # of parameters, for variants to count as equal
CACHE_BYTES_PER_VALUE = accounting.BYTES["bfloat16"]
POSITIONS = {"rope": "RoPE", "alibi": "ALiBi"}  # others are called by their word
NORMS = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}


def attention_form(model: Mapping[str, Any]) -> str:
    """MHA, MQA, or GQA with its number of key-value heads (Ainslie 2023)."""
    n_kv_heads = model["n_kv_heads"]
    if n_kv_heads == model["n_heads"]:
        return "MHA"
    return "MQA" if n_kv_heads == 1 else f"GQA-{n_kv_heads}"


def norm_name(model: Mapping[str, Any]) -> str:
    """The norm, and which of QK-norm and gains is left out."""
    off = [name for name, key in (("QK-norm", "qk_norm"), ("gains", "gains")) if not model[key]]
    return NORMS[model["norm"]] + (f" without {' and '.join(off)}" if off else "")


@dataclass(frozen=True)
class VariantKind:
    """What a study compares: `label` names the variant of a model's configuration, `fields` may
    differ between variants.
    """

    label: Callable[[Mapping[str, Any]], str]
    fields: tuple[str, ...]


ATTENTION = VariantKind(attention_form, ("n_kv_heads", "d_ff"))
POSITION = VariantKind(lambda model: POSITIONS.get(model["pos"], model["pos"]), ("pos",))
NORM = VariantKind(norm_name, ("norm", "qk_norm", "gains"))


@dataclass(frozen=True)
class Variant:
    """A variant in its cell: its model, N (all parameters), and the final held-out loss in nats per
    token by seed.
    """

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
        losses = list(self.losses.values())
        return float(np.std(losses, ddof=1) / math.sqrt(len(losses))) if len(losses) > 1 else None

    @property
    def cache_bytes(self) -> int:
        """Bytes of key-value cache per token of context, in bfloat16."""
        return accounting.kv_cache_bytes(self.model, tokens=1, value_bytes=CACHE_BYTES_PER_VALUE)


@dataclass(frozen=True)
class Difference:
    """Loss of variant `worse` minus that of `better`, nats, over the `count` seeds that both have.

    `stderr`, `lo`, `hi` (95 %) and `p` (two-sided) are Student's, of the differences seed by seed;
    `unpaired` is the standard error that two independent samples would have. `is_significant` at 5
    % after Holm's correction for all pairs (Holm 1979).
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
    is_significant: bool = False

    def signed(self, other: str) -> Estimate:
        """(mean, lo, hi) of the loss of `other`, one of the two, minus that of the second one."""
        if other == self.worse:
            return self.mean, self.lo, self.hi
        lo, hi = (None if end is None else -end for end in (self.hi, self.lo))
        return -self.mean, lo, hi


@dataclass(frozen=True)
class VariantComparison:
    """The variants of a cell, the lowest mean loss first, and the difference of each pair.

    `tokens` is D, the same for all; `n_unfinished` runs have no final loss; `n_other_cells` counts
    further cells in which the variants could be compared.
    """

    variants: tuple[Variant, ...]
    differences: tuple[Difference, ...]
    tokens: int
    n_unfinished: int = 0
    n_other_cells: int = 0

    def between(self, first: str, second: str) -> Difference:
        """The difference of two variants, whichever is better."""
        return next(d for d in self.differences if {d.better, d.worse} == {first, second})

    def get(self, name: str) -> Variant | None:
        """The variant of a name, where there is one."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def relative_to(self, reference: Variant, variant: Variant) -> Estimate | None:
        """Loss of `variant` minus that of `reference` with its interval; None of itself."""
        if variant is reference:
            return None
        return self.between(reference.name, variant.name).signed(variant.name)

    @property
    def by_cache(self) -> list[Variant]:
        """The variants, the largest key-value cache first."""
        return sorted(self.variants, key=lambda variant: -variant.cache_bytes)

    @property
    def not_significant(self) -> tuple[Difference, ...]:
        """The pairs that do not differ significantly."""
        return tuple(pair for pair in self.differences if not pair.is_significant)

    @property
    def imbalance(self) -> float:
        """Largest over smallest number of parameters, minus 1."""
        counts = [variant.n_params for variant in self.variants]
        return max(counts) / min(counts) - 1

    @property
    def pairing_gain(self) -> float | None:
        """Standard error of a difference seed by seed over that of independent samples: the median
        over pairs.
        """
        ratios = [
            pair.stderr / pair.unpaired
            for pair in self.differences
            if pair.stderr is not None and pair.unpaired
        ]
        return float(np.median(ratios)) if ratios else None


def compare(rows: pd.DataFrame, kind: VariantKind) -> VariantComparison | None:
    """The cell with the most variants (then the most training); None where no runs differ in the
    variant alone.
    """
    configs = runs.configs(rows)
    if len({kind.label(config["model"]) for config in configs.values()}) < 2:
        return None
    # an ambiguous cell has two models of one variant, as where an axis of d_ff crosses one of heads
    cells = [
        cell
        for _, cell in _run_table(rows, kind, configs).groupby("cell", sort=True)
        if cell["variant"].nunique() > 1 and not cell.duplicated(["variant", "seed"]).any()
    ]
    if not cells:
        return None
    chosen = max(cells, key=lambda c: (c["variant"].nunique(), c["tokens"].iloc[0], len(c)))
    finished = chosen[np.isfinite(chosen["loss"].astype(float))]
    variants = sorted(
        (
            Variant(
                str(name),
                ModelConfig.model_validate(of_variant["model"].iloc[0]),
                int(of_variant["n_params"].iloc[0]),
                dict(zip(of_variant["seed"], of_variant["loss"], strict=True)),
            )
            for name, of_variant in finished.groupby("variant")
        ),
        key=lambda variant: variant.mean,
    )
    if len(variants) < 2:
        return None
    return VariantComparison(
        variants=tuple(variants),
        differences=mark_significant(
            [_difference(*two) for two in itertools.combinations(variants, 2)]
        ),
        tokens=int(chosen["tokens"].iloc[0]),
        n_unfinished=len(chosen) - len(finished),
        n_other_cells=len(cells) - 1,
    )


def _run_table(
    rows: pd.DataFrame, kind: VariantKind, configs: Mapping[str, dict[str, Any]]
) -> pd.DataFrame:
    """Each run with its variant, its cell, and its final loss (NaN where it has none)."""
    losses = runs.metric_rows(rows, "loss")
    keys = zip(losses["run_id"].astype(str), losses["step"], strict=True)
    loss_at = dict(zip(keys, losses["value"], strict=True))
    of_run = rows.drop_duplicates("run_id").set_index("run_id")
    seq_len, n_params = of_run["seq_len"], of_run["n_params"]
    records = []
    for run_id, config in configs.items():
        model, n_steps = config["model"], config["n_steps"]
        shared = {name: value for name, value in model.items() if name not in kind.fields}
        records.append(
            {
                "variant": kind.label(model),
                "cell": json.dumps({**config, "model": shared, "seed": None}, sort_keys=True),
                "seed": config["seed"],
                "tokens": n_steps * config["batch_size"] * int(seq_len[run_id]),
                "loss": loss_at.get((run_id, n_steps)),
                "model": model,
                "n_params": n_params[run_id],
            }
        )
    return pd.DataFrame(records)


def _difference(better: Variant, worse: Variant) -> Difference:
    names = better.name, worse.name
    seeds = sorted(set(better.losses) & set(worse.losses))
    low, high = (np.array([variant.losses[seed] for seed in seeds]) for variant in (better, worse))
    by_seed, count = high - low, len(seeds)
    mean = float(by_seed.mean()) if count else worse.mean - better.mean
    if count < 2:
        return Difference(*names, count, mean)
    stderr = float(by_seed.std(ddof=1) / math.sqrt(count))
    p, lo, hi = float(mean == 0.0), mean, mean  # where all seeds say the same
    if stderr:
        test = stats.ttest_rel(high, low)
        p, (lo, hi) = float(test.pvalue), map(float, test.confidence_interval(CI))
    unpaired = math.sqrt((low.var(ddof=1) + high.var(ddof=1)) / count)
    return Difference(*names, count, mean, stderr, lo, hi, p, unpaired)


def mark_significant(pairs: Sequence[Difference]) -> tuple[Difference, ...]:
    """The pairs with `is_significant` set: p, adjusted for all pairs (Holm), is at most 5 %."""
    adjusted = holm([1.0 if pair.p is None else pair.p for pair in pairs])
    return tuple(
        replace(pair, is_significant=pair.p is not None and p <= 1 - CI)
        for pair, p in zip(pairs, adjusted, strict=True)
    )


def claims(comparison: VariantComparison, kind: VariantKind) -> list[Claim]:
    """Equal parameters and cache bytes (of attention), and each difference to the reference."""
    mha = comparison.get("MHA") if kind is ATTENTION else None
    made = list(_cache_claims(comparison, mha)) if kind is ATTENTION else []
    first = mha or comparison.variants[0]
    for variant in comparison.variants:
        if variant is first:
            continue
        pair = comparison.between(first.name, variant.name)
        mean, lo, hi = pair.signed(variant.name)
        if lo is None:
            seeds = "one seed" if pair.count else "no seed in common"
            measured, holds = f"{mean:+.4f}, {seeds}", None
        else:
            verdict = "significant" if pair.is_significant else "not significant"
            interval = f"{mean:+.4f} [{lo:+.4f}, {hi:+.4f}]"
            measured, holds = f"{interval}, {pair.count} seeds: {verdict}", True
        quantity = f"loss of {variant.name} minus {first.name}, nats"
        made.append(Claim(quantity, "with its 95 % interval over seeds", measured, holds))
    return made


def _cache_claims(comparison: VariantComparison, mha: Variant | None) -> Iterator[Claim]:
    yield Claim(
        "parameters of the forms, largest over smallest",
        "within 1 %",
        f"{100 * comparison.imbalance:.2f} % apart",
        comparison.imbalance <= MAX_IMBALANCE,
    )
    if mha is None:
        return
    for variant in comparison.by_cache:
        if variant is mha:
            continue
        share = variant.cache_bytes / mha.cache_bytes
        n_kv_heads, n_heads = variant.model.n_kv_heads, mha.model.n_kv_heads
        yield Claim(
            f"KV cache of {variant.name} per token, bfloat16",
            f"{100 * n_kv_heads / n_heads:.4g} % of {mha.cache_bytes} bytes "
            f"({n_kv_heads} of {n_heads} heads)",
            f"{variant.cache_bytes} bytes, {100 * share:.4g} %",
            share == n_kv_heads / n_heads,
        )
