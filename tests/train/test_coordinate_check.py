"""The coordinate check.

With transfer activations are flat over widths and depths, without it they grow.
"""

import math

import numpy as np
import pytest

from scaling.config import MuP, OptimConfig, RunConfig, SyntheticTask
from scaling.tasks import open_task
from scaling.train.coordinate_check import ACTIVATIONS, Curve, curves, slope
from tests.train.model.variants import tiny_model

pytestmark = pytest.mark.slow

TASK = SyntheticTask(kind="synthetic", n_facts=64, n_symbols=16, seq_len=30)
BASE = MuP(base_width=32, base_head=8, base_depth=2)


def run_at(width, depth, transfer, optimizer="adamw", **changes):
    """At one learning rate; the heads grow with the width, so that their scale is checked too."""
    sizes = {
        "d_model": width,
        "n_layers": depth,
        "d_head": width // 4,
        "n_kv_heads": 4,
        "d_ff": 4 * width,
        "vocab_size": 16,
    }
    model = tiny_model(**sizes, gains=False, transfer=transfer, **changes)
    return RunConfig(
        model=model,
        task=TASK,
        optim=OptimConfig(name=optimizer, lr=5e-3, schedule="constant"),
        batch_size=16,
        n_steps=5,
    )


def slopes(runs):
    return {curve.name: curve for curve in curves(runs, open_task(TASK), steps=5, seeds=2)}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("tied", [False, True])
def test_transfer_is_flat_over_widths(tied, optimizer):
    found = slopes(
        {width: run_at(width, 2, BASE, optimizer, tie_embeddings=tied) for width in (32, 128)}
    )
    assert len(found) == 2 * len(ACTIVATIONS)
    assert [(name, curve.slope) for name, curve in found.items() if not curve.flat] == []


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_standard_parametrisation_grows_with_the_width(optimizer):
    found = slopes({width: run_at(width, 2, None, optimizer) for width in (32, 128)})
    least = 0.5 if optimizer == "adamw" else 0.2  # width, and its root
    assert min(found[f"change of {kind}"].slope for kind in ("feed-forward", "residual")) > least
    assert not found["change of residual"].flat


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_transfer_is_flat_over_depths_and_the_standard_parametrisation_is_not(optimizer):
    flat, grown = (
        slopes({depth: run_at(32, depth, transfer, optimizer) for depth in (2, 6)})
        for transfer in (BASE, None)
    )
    assert [(name, curve.slope) for name, curve in flat.items() if not curve.flat] == []
    assert grown["change of residual"].slope > 0.3


def test_slopes():
    assert slope((1, 2, 4), (3.0, 6.0, 12.0)) == pytest.approx(1.0)
    assert slope((1, 2, 4), (3.0, 3.0, 3.0)) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(slope((1, 2), (0.0, 1.0)))
    assert math.isnan(slope((1, 2), (np.inf, 1.0)))
    assert not Curve("residual", True, (0.0, 1.0), math.nan).flat
    assert Curve("logits", False, (2.0, 1.4), -0.5).flat
    assert not Curve("residual", False, (2.0, 1.4), -0.5).flat
