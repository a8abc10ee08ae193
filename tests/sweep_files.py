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


def diverging(*rates: float, **changes: object) -> Sweep:
    """A run without clipping at each learning rate, of which 10 diverges."""
    base = TINY["base"] | {
        "optim": {"clip": False, "warmup_steps": 0, "schedule": "constant"},
        "model": {"qk_norm": False},
    }
    axes = [{"field": "optim.lr", "values": list(rates)}]
    design = {"kind": "grid", "sizes": ["3k"], "tokens": ["20k"]}
    return tiny(base=base, axes=axes, design=design, **changes)
