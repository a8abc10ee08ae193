"""Named models: what they were trained on, and how far that is from the optimum of a law.

Only models whose parameters and training tokens their authors published, and no mixtures of
experts: the laws are of dense models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.predict.law_source import FittedLaw
from scaling.render.table import Column, Document, Table
from scaling.warning import ResultWarning, WarningCode, warn


@dataclass(frozen=True)
class NamedModel:
    """A model with its parameters N and training tokens D, as `source` gives them."""

    name: str
    n_params: float
    tokens: float
    source: str


COMPARABLE = (
    "What compares: sizes and tokens for a budget, and the exponents, whose counting of N and C "
    "differs by source. What does not: losses, which are nats per token of each one's own "
    "tokeniser and text; no source gives the bytes per token that bits per byte would need."
)
BROWN = "Brown et al. 2020 (arXiv:2005.14165), table 2.1"
HOFFMANN = "Hoffmann et al. 2022 (arXiv:2203.15556), table 1"
LLAMA = "Touvron et al. 2023 (arXiv:2302.13971), table 2"
LLAMA_2 = "Touvron et al. 2023 (arXiv:2307.09288), table 1"
LLAMA_3 = "Meta's model card of Llama 3 (2024): over 15T tokens"
PYTHIA = "Biderman et al. 2023 (arXiv:2304.01373): 143,000 steps of 2,097,152 tokens"
NAMED = (
    NamedModel("GPT-3 175B", 175e9, 300e9, BROWN),
    NamedModel("LaMDA 137B", 137e9, 168e9, HOFFMANN),
    NamedModel("Jurassic-1 178B", 178e9, 300e9, HOFFMANN),
    NamedModel("Gopher 280B", 280e9, 300e9, HOFFMANN),
    NamedModel("MT-NLG 530B", 530e9, 270e9, HOFFMANN),
    NamedModel("Chinchilla 70B", 70e9, 1.4e12, HOFFMANN),
    NamedModel("PaLM 540B", 540e9, 780e9, "Chowdhery et al. 2022 (arXiv:2204.02311)"),
    NamedModel("BLOOM 176B", 176e9, 366e9, "BigScience 2022 (arXiv:2211.05100)"),
    NamedModel("LLaMA 7B", 6.7e9, 1.0e12, LLAMA),
    NamedModel("LLaMA 13B", 13.0e9, 1.0e12, LLAMA),
    NamedModel("LLaMA 33B", 32.5e9, 1.4e12, LLAMA),
    NamedModel("LLaMA 65B", 65.2e9, 1.4e12, LLAMA),
    NamedModel("Pythia 1B", 1.0e9, 143_000 * 2_097_152, PYTHIA),
    NamedModel("Pythia 12B", 12e9, 143_000 * 2_097_152, PYTHIA),
    NamedModel("Llama 2 7B", 7e9, 2.0e12, LLAMA_2),
    NamedModel("Llama 2 13B", 13e9, 2.0e12, LLAMA_2),
    NamedModel("Llama 2 70B", 70e9, 2.0e12, LLAMA_2),
    NamedModel("Falcon 40B", 40e9, 1.0e12, "Almazrouei et al. 2023 (arXiv:2311.16867)"),
    NamedModel("Falcon 180B", 180e9, 3.5e12, "Almazrouei et al. 2023 (arXiv:2311.16867)"),
    NamedModel("OLMo 7B", 7e9, 2.46e12, "Groeneveld et al. 2024 (arXiv:2402.00838)"),
    NamedModel("TinyLlama 1.1B", 1.1e9, 3.0e12, "Zhang et al. 2024 (arXiv:2401.02385)"),
    NamedModel("Llama 3 8B", 8e9, 15e12, LLAMA_3),
    NamedModel("Llama 3 70B", 70e9, 15e12, LLAMA_3),
    NamedModel("Llama 3.1 405B", 405e9, 15.6e12, "Dubey et al. 2024 (arXiv:2407.21783), section 3"),
)


def compare_named_models(law: FittedLaw) -> list[dict[str, Any]]:
    """Each named model with the optimum of its own budget under a law: {model, n_params, tokens,
    tokens_per_param, flops, n_star, size_ratio (N / N*), optimal_tokens_per_param,
    tokens_per_param_ratio, loss, loss_star, excess_loss, source}.

    FLOPs are counted as the law counts them. Losses are those of the law, in its own nats; None for
    a law without losses. Raises ScalingError for a law without an optimum.
    """
    if law.optimum is None:
        raise ScalingError(
            f"{law.source} has no compute-optimal N and D",
            where="--models",
            remedy="use a law such as published:besiroglu2024",
        )
    return [_row(law, model) for model in NAMED]


def extrapolation_warnings(law: FittedLaw) -> list[ResultWarning]:
    """How far the named models lie beyond the budgets that the law was fitted to."""
    flops_range = law.range.get("flops")
    if flops_range is None:
        return []
    decades = [
        np.log10(law.cost.flops(model.n_params, model.tokens) / flops_range[1]) for model in NAMED
    ]
    message = (
        f"the named models lie {max(0.0, min(decades)):.1f} to {max(decades):.1f} decades of "
        "compute "
        "beyond the data of this law"
    )
    return [warn(WarningCode.EXTRAPOLATION, message, decades=float(max(decades)))]


def _row(law: FittedLaw, model: NamedModel) -> dict[str, Any]:
    optimum = law.optimum
    assert optimum is not None
    n, d = model.n_params, model.tokens
    flops = float(law.cost.flops(n, d))
    n_star, d_star = float(optimum.n_star(flops)), float(optimum.d_star(flops))
    loss, loss_star = _loss(law, n, d), optimum.loss(flops)
    best = None if loss is None or loss_star is None else float(loss_star)
    return {
        "model": model.name,
        "n_params": n,
        "tokens": d,
        "tokens_per_param": d / n,
        "flops": flops,
        "n_star": n_star,
        "size_ratio": n / n_star,
        "optimal_tokens_per_param": d_star / n_star,
        "tokens_per_param_ratio": (d / n) / (d_star / n_star),
        "loss": loss,
        "loss_star": best,
        "excess_loss": None if loss is None or best is None else loss - best,
        "source": model.source,
    }


def _loss(law: FittedLaw, n: float, d: float) -> float | None:
    """The law's loss at N and D fresh tokens; None for a frontier without a law, and for Kaplan's
    own N*(C), which is not that of his law.
    """
    letters = set(law.formula.inputs) if law.formula is not None else set()
    if not {"N", "D"} <= letters <= {"N", "D", "U"} or law.law == "kaplan":
        return None
    return float(law.outcome({"N": np.array([n]), "D": np.array([d]), "U": np.array([d])})[0])


def named_models_table(document: Document) -> Table | None:
    """Named models against the optimum of their own budgets; None where a prediction has none."""
    models: Sequence[Mapping[str, Any]] = document.get("models") or []
    if not models:
        return None
    names = (
        "model",
        "n_params",
        "tokens",
        "tokens_per_param",
        "optimal_tokens_per_param",
        "size_ratio",
        "excess_loss",
    )
    columns = (
        Column("model"),
        Column("N", "count"),
        Column("D", "count"),
        Column("D/N", "rough"),
        Column("optimal D/N", "rough"),
        Column("N/N*", "rough"),
        Column("excess loss", "short"),
    )
    caption = (
        f"N* is the optimum of the model's own FLOPs by {document.get('source')}; the excess "
        "is in nats of that law, not of the model's data."
    )
    return Table(
        "models",
        "Named models against the optimum",
        columns,
        tuple(tuple(row[name] for name in names) for row in models),
        caption,
    )
