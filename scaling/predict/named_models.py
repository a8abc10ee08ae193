"""Named models: what they were trained on, and how far that is from the optimum of a law.

Only models whose parameters and training tokens their authors published, and no mixtures of
experts: the laws are of dense models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import Document, Real
from scaling.formatting import format_flops
from scaling.predict.law_source import FittedLaw
from scaling.render.table import Table, record_table
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
    NamedModel("Gopher 280B", 280e9, 300e9, HOFFMANN),
    NamedModel("Chinchilla 70B", 70e9, 1.4e12, HOFFMANN),
    NamedModel("PaLM 540B", 540e9, 780e9, "Chowdhery et al. 2022 (arXiv:2204.02311)"),
    NamedModel("BLOOM 176B", 176e9, 366e9, "BigScience 2022 (arXiv:2211.05100)"),
    NamedModel("LLaMA 7B", 6.7e9, 1.0e12, LLAMA),
    NamedModel("LLaMA 65B", 65.2e9, 1.4e12, LLAMA),
    NamedModel("Pythia 12B", 12e9, 143_000 * 2_097_152, PYTHIA),
    NamedModel("Llama 2 7B", 7e9, 2.0e12, LLAMA_2),
    NamedModel("Llama 2 70B", 70e9, 2.0e12, LLAMA_2),
    NamedModel("Falcon 180B", 180e9, 3.5e12, "Almazrouei et al. 2023 (arXiv:2311.16867)"),
    NamedModel("OLMo 7B", 7e9, 2.46e12, "Groeneveld et al. 2024 (arXiv:2402.00838)"),
    NamedModel("Llama 3 8B", 8e9, 15e12, LLAMA_3),
    NamedModel("Llama 3 70B", 70e9, 15e12, LLAMA_3),
    NamedModel("Llama 3.1 405B", 405e9, 15.6e12, "Dubey et al. 2024 (arXiv:2407.21783), section 3"),
)


class ComparedModel(Document):
    """A named model with the optimum of its own budget under a law. FLOPs are counted as the law
    counts them; losses are those of the law, in its own nats, and null for a law without losses.
    """

    model: str
    n_params: Real
    tokens: Real
    tokens_per_param: Real
    flops: Real
    n_star: Real
    size_ratio: Real
    optimal_tokens_per_param: Real
    tokens_per_param_ratio: Real
    loss: Real | None
    loss_star: Real | None
    excess_loss: Real | None
    source: str


class NamedModels(Document):
    """The named models under a law, and what the law is."""

    comparable: ClassVar[str] = COMPARABLE

    models: list[ComparedModel]
    law: str
    source: str
    ci: Real
    basis: str
    warnings: list[ResultWarning]

    def table(self, source: str | None = None) -> Table | None:
        """Named models against the optimum of their own budgets."""
        columns = {
            "model": "model",
            "n_params": "N",
            "tokens": "D",
            "tokens_per_param": "D/N",
            "optimal_tokens_per_param": "optimal D/N",
            "size_ratio": "N/N*",
            "excess_loss": "excess loss",
        }
        caption = (
            f"N* is the optimum of the model's own FLOPs by the law {self.law} of "
            f"{source or self.source} alone; the excess is in nats of that law, not of the model's "
            "data."
        )
        return record_table(
            "models",
            "Named models against the optimum",
            self.models,
            caption,
            columns=columns,
            rough=("D/N", "optimal D/N", "N/N*"),
            short=("excess loss",),
        )


def compare_named_models(law: FittedLaw) -> NamedModels:
    """Each named model with the optimum of its own budget under a law. Raises ScalingError for a
    law without an optimum.
    """
    if law.optimum is None:
        raise ScalingError(
            f"{law.source} has no compute-optimal N and D",
            where="--models",
            remedy="use a law such as published:besiroglu2024",
        )
    n, d = np.array([(model.n_params, model.tokens) for model in NAMED]).T
    flops = law.cost.flops(n, d)
    n_star, d_star = law.optimum.n_star(flops), law.optimum.d_star(flops)
    columns = {
        "n_params": n,
        "tokens": d,
        "tokens_per_param": d / n,
        "flops": flops,
        "n_star": n_star,
        "size_ratio": n / n_star,
        "optimal_tokens_per_param": d_star / n_star,
        "tokens_per_param_ratio": (d / n) / (d_star / n_star),
        "loss": np.full(len(n), np.nan),
        "loss_star": np.full(len(n), np.nan),
    }
    letters = set(law.formula.inputs) if law.formula is not None else set()
    # Kaplan's own N*(C) is not that of his law
    if {"N", "D"} <= letters <= {"N", "D", "U"} and law.law != "kaplan":
        columns["loss"] = law.outcome({"N": n, "D": d, "U": d})
        columns["loss_star"] = np.asarray(law.optimum.loss(flops))
    columns["excess_loss"] = columns["loss"] - columns["loss_star"]
    warnings = [*law.warnings]
    if "flops" in law.range:
        times = flops / law.range["flops"][1]
        least, most = format_flops(max(1.0, times.min())), format_flops(times.max())
        message = f"the named models took {least} to {most} times the compute of its largest run"
        decades = float(np.log10(times.max()))
        warnings.append(warn(WarningCode.EXTRAPOLATION, message, decades=decades))
    return NamedModels(
        models=[
            ComparedModel(
                model=model.name,
                source=model.source,
                **{name: column[row] for name, column in columns.items()},
            )
            for row, model in enumerate(NAMED)
        ],
        law=law.law,
        source=law.source,
        ci=law.ci,
        basis=law.basis,
        warnings=warnings,
    )
