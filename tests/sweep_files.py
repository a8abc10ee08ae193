"""Sweeps small enough to train in a test: a few steps of tiny models on the synthetic language."""

from scaling.config import Sweep

TINY = {
    "name": "tiny",
    "design": {"kind": "grid", "sizes": ["2k", "6k"], "tokens": ["20k", "40k"]},
    "recipe": {"n_layers": 1, "size_tolerance": 1.0},
    "base": {
        "batch_size": 8,
        "task": {"kind": "synthetic", "n_facts": 64, "n_symbols": 16, "seq_len": 30},
    },
    "evals": {"points": 3, "tokens": 3000},
}


def tiny(**changes: object) -> Sweep:
    """The tiny sweep with some of its top-level keys replaced."""
    return Sweep.model_validate(TINY | changes)
