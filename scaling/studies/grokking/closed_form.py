"""What is known of modular arithmetic without training: a network in closed form, and how far
commutativity alone leads.
"""

from __future__ import annotations

import functools

import numpy as np

from scaling.config import ModularTask
from scaling.tasks import open_task
from scaling.tasks.corpus.token_store import SPLITS

WIDTHS = (16, 32, 64, 128, 256, 512)
MAX_P = 257  # p^3 logits: larger p take over a GB of memory, and minutes
SIGNS = {"add": 1, "subtract": -1}  # of b
SEEDS = (0, 1, 2)


def network_logits(p: int, width: int, operation: str = "add", seed: int = 0) -> np.ndarray:
    """Logits (p, p, p) of every c for every a and b: about 1 at the answer, else 0.

    The network of Gromov 2023, "Grokking modular arithmetic" (arXiv 2301.02679): two layers with a
    square between them. Unit k has the frequency sigma(k), a permutation of the units taken modulo
    p, and random phases f_a, f_b: it squares cos(2 pi sigma a / p + f_a) + cos(2 pi sigma b / p +
    f_b), and is read by cos(2 pi sigma c / p + f_a + f_b). Of the products only
    cos(2 pi sigma (a + b - c) / p) is free of phases, and adds up over the units; the logits are
    divided by its sum, W / 2, and exact in the limit of infinite width W.
    """
    random = np.random.default_rng(seed)
    waves = 2.0 * np.pi / p * (random.permutation(width) % p)
    phases = random.uniform(0.0, 2.0 * np.pi, (2, 1, width))
    angles = np.arange(p)[:, None] * waves
    first_a, first_b = np.cos(angles + phases[0]), np.cos(SIGNS[operation] * angles + phases[1])
    second = np.cos(angles + phases.sum(axis=0)).T * 2.0 / width
    return np.asarray(np.square(first_a[:, None] + first_b) @ second)


def network_accuracy(p: int, width: int, operation: str = "add", seed: int = 0) -> float:
    """The share of all p^2 equations that the network answers."""
    a, b = np.mgrid[:p, :p]
    logits = network_logits(p, width, operation, seed)
    return float((logits.argmax(axis=-1) == (a + SIGNS[operation] * b) % p).mean())


@functools.lru_cache(maxsize=8)
def accuracy_by_width(task: ModularTask) -> tuple[tuple[int, tuple[float, ...]], ...] | None:
    """(width, accuracy of each draw of phases) of the network; None where no closed form is known,
    or p exceeds `MAX_P`.
    """
    p, operation = task.p, task.operation
    if p > MAX_P or operation not in SIGNS:
        return None
    return tuple(
        (width, tuple(network_accuracy(p, width, operation, seed) for seed in SEEDS))
        for width in WIDTHS
    )


def commutative_overlap(task: ModularTask) -> float | None:
    """The share of held-out equations a o b whose mirror image b o a is trained on; None where the
    two differ.

    It is the accuracy of knowing that the order does not matter, and no more.
    """
    if task.operation == "subtract":
        return None
    opened = open_task(task)
    train, val = (opened.batch(split, 0, opened.n_windows(split)) for split in SPLITS)
    is_trained = np.zeros((task.p, task.p), bool)
    is_trained[train[:, 0], train[:, 1]] = True
    return float(is_trained[val[:, 1], val[:, 0]].mean())
