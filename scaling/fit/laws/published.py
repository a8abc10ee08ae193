"""Laws from the literature, for `published:NAME`: the numbers as their authors published them, with
convention and caveat.

None carries draws, so predictions from them have no intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scaling.accounting import NConvention
from scaling.errors import unknown_choice
from scaling.fit.frontier.frontier import Cost, Frontier, frontier_of_powers
from scaling.fit.laws.laws import FARSEER_2025, LAWS

PF_DAY = 8.64e19


@dataclass(frozen=True)
class Published:
    """A law (a name in LAWS) with its parameters. `optimum` holds the authors' own N*(C), D*(C),
    L*(C) as powers where these do not follow from the law; `flops_range` is
    what they trained, `params` how N is counted.
    """

    law: str
    values: Mapping[str, float]
    reference: str
    convention: str
    notes: tuple[str, ...] = ()
    optimum: Mapping[str, float] = field(default_factory=dict)
    flops_range: tuple[float, float] | None = None
    params: NConvention = "total"

    def frontier(self) -> Frontier:
        """N*(C), D*(C) and L*(C): the authors' own, or from the law at C = 6 N D. Raises
        ScalingError when there is none.
        """
        if not self.optimum:
            return LAWS[self.law].frontier(self.values, Cost())
        return frontier_of_powers(self.optimum, Cost())


KAPLAN = "Kaplan et al. 2020, Scaling Laws for Neural Language Models (arXiv:2001.08361)"
NONEMBEDDING = "N without embeddings; C = C_min, in FLOPs"
PUBLISHED: dict[str, Published] = {
    "kaplan2020": Published(
        "kaplan",
        {"alpha_N": 0.076, "alpha_D": 0.103, "N_c": 6.4e13, "D_c": 1.8e13},
        f"{KAPLAN}, table 2 (L(N,D)), tables 5 and 6 (optimum)",
        NONEMBEDDING,
        (
            "nats per token of their own tokeniser; later work puts the exponent of N "
            "near 0.5, not 0.73",
        ),
        {
            "a": 0.73,
            "n_coef": 1.3e9 * PF_DAY**-0.73,
            "b": 0.27,
            "d_coef": 2e10 * PF_DAY**-0.27,
            "E": 0.0,
            "K": math.exp(0.050 * math.log(3.1e8 * PF_DAY)),
            "gamma": 0.050,
        },
        params="nonembedding",
    ),
    "kaplan2020-n": Published(
        "kaplan-n",
        {"alpha_N": 0.076, "N_c": 8.8e13},
        f"{KAPLAN}, eq. 1.1",
        NONEMBEDDING,
        params="nonembedding",
    ),
    "kaplan2020-d": Published(
        "kaplan-d",
        {"alpha_D": 0.095, "D_c": 5.4e13},
        f"{KAPLAN}, eq. 1.2",
        "tokens, with early stopping",
    ),
    "kaplan2020-c": Published(
        "kaplan-c",
        {"alpha_C": 0.050, "C_c": 3.1e8 * PF_DAY},
        f"{KAPLAN}, eq. 1.3",
        NONEMBEDDING,
        params="nonembedding",
    ),
    "kaplan2020-ns": Published(
        "kaplan-ns",
        {"alpha_N": 0.077, "alpha_S": 0.76, "N_c": 6.5e13, "S_c": 2.1e3},
        f"{KAPLAN}, eq. 1.6 and table 3",
        NONEMBEDDING,
        (
            "S is S_min, the least steps: S / (1 + B_crit / B) with B_crit = 2e8 / "
            "L^(1/0.21) tokens",
        ),
        params="nonembedding",
    ),
    "farseer2025": Published(
        "farseer",
        FARSEER_2025,
        "Li et al. 2025, Farseer (arXiv:2506.10972), as the released fit has them",
        "N without embeddings; C = 6 N D",
        ("bits per character of the authors' text",),
        params="nonembedding",
    ),
    "hoffmann2022": Published(
        "chinchilla",
        {
            "E": math.exp(0.5267228),
            "A": math.exp(6.0073404),
            "B": math.exp(6.0179186),
            "alpha": 0.33917084,
            "beta": 0.2849083,
        },
        (
            "Hoffmann et al. 2022, Training Compute-Optimal Large Language Models "
            "(arXiv:2203.15556), approach 3, unrounded (its TeX source)"
        ),
        "total N; C = 6 N D",
        (
            "the optimiser stopped early: Besiroglu 2024 fit the same data better, with "
            "20 tokens per parameter instead of 59 at 5.76e23",
        ),
        flops_range=(6e18, 3e21),
    ),
    "besiroglu2024": Published(
        "chinchilla",
        {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
        "Besiroglu et al. 2024, Chinchilla Scaling: A Replication Attempt (arXiv:2404.10102)",
        "total N; C = 6 N D",
        (
            "fitted to 240 points read off a figure; standard errors A 124.6, B 1293, "
            "alpha 0.02, beta 0.02",
        ),
        flops_range=(6e18, 3e21),
    ),
    "devries2023": Published(
        "chinchilla",
        {"E": 1.62, "A": 406.4, "B": 410.7, "alpha": 0.336, "beta": 0.283},
        "De Vries 2023, Go smol or go home",
        "total N; C = 6 N D",
        (
            "made to ask what a model smaller than optimal costs in compute; E does not "
            "enter the answer",
        ),
    ),
    "muennighoff2023": Published(
        "data-constrained",
        {
            "E": math.exp(0.6254804),
            "A": math.exp(6.255414),
            "B": math.exp(7.3049974),
            "alpha": 0.3526596,
            "beta": 0.3526596,
            "R_D": 15.3878,
            "R_N": 5.3097,
        },
        "Muennighoff et al. 2023, Scaling Data-Constrained Language Models (arXiv:2305.16264)",
        "total N; C = 6 N D; U unique tokens",
        (
            "without unique tokens all are taken as new; (R_D, R_N) is one of several "
            "minima, not identified by their runs",
        ),
    ),
    "porian2024": Published(
        "frontier",
        {"a": 0.4969, "b": 0.5031},
        (
            "Porian et al. 2024, Resolving Discrepancies in Compute-Optimal Scaling "
            "(arXiv:2406.19146), RefinedWeb, tuned hyper-parameters"
        ),
        "N with the head, without the embedding; C = 6 N D",
        ("powers through the minima of isoFLOP curves; no loss law",),
        {"a": 0.49689508, "n_coef": 0.11892648, "b": 0.50310492, "d_coef": 1.401426},
        (1.25e16, 2.56e19),
        params="with_head",
    ),
}


def published(name: str) -> Published:
    """The entry of a name. Raises ScalingError that lists the known ones."""
    if name not in PUBLISHED:
        raise unknown_choice("published law", name, PUBLISHED)
    return PUBLISHED[name]
