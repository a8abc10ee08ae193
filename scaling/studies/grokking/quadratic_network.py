"""A network that adds modulo p without training: two layers, a square between them, weights in
closed form.

Gromov 2023, "Grokking modular arithmetic" (arXiv 2301.02679), the analytic weights for addition. It
shows that the task can be solved by such a network, whatever training reaches. With random phases
the logits are exact only in the limit of infinite width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from scaling.config import ModularTask
from scaling.errors import ScalingError
from scaling.tasks import Scores, open_task

SIGNS = {"add": 1, "subtract": -1}  # of b


@dataclass(frozen=True)
class Quadratic:
    """W hidden units over residues modulo p: `first` (2, p, W) reads a, b; `second` (W, p) gives
    logits of c.
    """

    first: np.ndarray
    second: np.ndarray

    def logits(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Logits of every residue c for operands (n,): (n, p), about 1 at the sum, else 0."""
        return np.square(self.first[0][a] + self.first[1][b]) @ self.second


def make_network(p: int, width: int, operation: str = "add", seed: int = 0) -> Quadratic:
    """The network for a + b or a - b modulo p.

    Unit k has the frequency sigma(k), a permutation of the units taken modulo p, and random phases
    f_a, f_b: it squares cos(2 pi sigma a / p + f_a) + cos(2 pi sigma b / p + f_b), and is read by
    cos(2 pi sigma c / p + f_a + f_b). Of the products only cos(2 pi sigma (a + b - c) / p) is free
    of phases, and adds up over the units; the logits are divided by its sum, W / 2. Raises
    ScalingError for another operation and for a width below 1.
    """
    if operation not in SIGNS:
        raise ScalingError(
            f"no closed form is known here for {operation}",
            where="task.operation",
            remedy="add and subtract have one",
        )
    if width < 1:
        raise ScalingError(
            f"a network {width} units wide has no answer", remedy="give a width from 1 on"
        )
    random = np.random.default_rng(seed)
    waves = 2.0 * np.pi / p * (random.permutation(width) % p)
    phases = random.uniform(0.0, 2.0 * np.pi, (2, 1, width))
    residues = np.arange(p)[:, None]
    turned = np.stack([residues * waves, SIGNS[operation] * residues * waves])
    return Quadratic(
        np.cos(turned + phases), np.cos(residues * waves + phases.sum(axis=0)).T * 2.0 / width
    )


def scores(logits: np.ndarray, targets: np.ndarray) -> Scores:
    """`Scores` (n, 1) of logits (n, V) for targets (n,), as for a trained model."""
    top = logits.max(axis=1, keepdims=True)
    chances = np.exp(logits - top)
    total = chances.sum(axis=1, keepdims=True)
    target = np.take_along_axis(logits, targets[:, None], axis=1)
    square = np.square(chances / total).sum(axis=1, keepdims=True)
    return Scores(np.log(total) - (target - top), target >= top, square, np.zeros_like(square))


def accuracy(task: ModularTask, width: int, seed: int = 0) -> float:
    """The task's metric on all equations, trained on and held out. Raises as `make_network`."""
    opened = open_task(task)
    network = make_network(task.p, width, task.operation, seed)
    windows = np.concatenate(
        [opened.batch(split, 0, opened.n_windows(split)) for split in ("train", "val")]
    )
    sign = np.full(
        (len(windows), 1), -np.inf
    )  # the last token of the vocabulary is never an answer
    logits = np.concatenate([network.logits(windows[:, 0], windows[:, 1]), sign], axis=1)
    return float(opened.metrics(windows, scores(logits, windows[:, -1]))[0].value)


def by_width(
    task: ModularTask, widths: Iterable[int], seeds: Iterable[int] = (0, 1, 2)
) -> list[tuple[int, tuple[float, ...]]]:
    """(width, accuracy of each draw of phases), the widths as given. Raises as `make_network`."""
    drawn = tuple(seeds)
    return [(width, tuple(accuracy(task, width, seed) for seed in drawn)) for width in widths]
