"""Evaluations of shared prefixes are fitted as if each were a run that ends there."""

import pandas as pd
import pytest

from scaling.config import ModelConfig, OptimConfig, RunConfig, SyntheticTask
from scaling.errors import ScalingError
from scaling.fit.fit_options import FitOptions
from scaling.points.source import read_source
from scaling.store.rows import Measurement, Provenance, rows
from scaling.store.run_files import write_run

BUDGETS = (100, 200, 400)


def loss_of(run, step):
    return 1.0 + 4.0 / run.model.d_model + 20.0 / step


def trunk(folder, width, averaged):
    model = ModelConfig(
        n_layers=1,
        d_model=width,
        n_heads=1,
        n_kv_heads=1,
        d_head=width,
        d_ff=4 * width,
        vocab_size=16,
    )
    run = RunConfig(
        model=model,
        task=SyntheticTask(kind="synthetic"),
        optim=OptimConfig(lr=1e-3),
        batch_size=8,
        n_steps=800,
    )
    measured = [
        Measurement(800, "val", "loss", loss_of(run, 800)),
        Measurement(640, "val", "averaged_loss", 9.0),
    ]
    for step in BUDGETS:
        measured.append(Measurement(step, "val", "constant_loss", loss_of(run, step) + 0.1))
        measured += (
            [Measurement(step, "val", "averaged_loss", loss_of(run, step) + 0.02)]
            if averaged
            else []
        )
    write_run(folder, rows("sweep", run, measured, Provenance("cpu", None, "0")))
    return run


@pytest.mark.parametrize(("kind", "above"), [("constant", 0.1), ("averaged", 0.02)])
def test_each_budget_of_a_shared_prefix_is_a_point(tmp_path, kind, above):
    runs = [trunk(tmp_path, width, averaged=True) for width in (8, 16, 32)]
    points = read_source([tmp_path], FitOptions(readout=kind).source()).points
    found = pd.DataFrame({"d": points.d, "loss": points.loss}).sort_values(["d", "loss"])
    expected = sorted(
        (step * run.batch_tokens, loss_of(run, step) + above) for run in runs for step in BUDGETS
    )
    assert list(found.itertuples(index=False, name=None)) == [
        pytest.approx(pair) for pair in expected
    ]
    assert len(read_source([tmp_path], FitOptions().source()).points) == 3


def test_missing_metric_is_rejected_with_the_option_that_records_it(tmp_path):
    trunk(tmp_path, 8, averaged=False)
    with pytest.raises(ScalingError, match="holds no averaged-weights read-outs") as caught:
        read_source([tmp_path], FitOptions(readout="averaged").source())
    assert "averaged = true" in caught.value.remedy
    with pytest.raises(ScalingError, match="unknown read-out 'mean'"):
        FitOptions(readout="mean")
