"""The fitted E and the true floor of a synthetic language."""

import numpy as np
import pandas as pd
import pytest

from scaling.config import Execution, SyntheticTask
from scaling.fit.diagnostics.synthetic_floor import known_entropy
from scaling.fit.document import Estimate
from scaling.fit.pipeline import FitOptions
from scaling.plan import plan
from scaling.store import rows
from scaling.store.rows import Measurement
from scaling.store.run_files import write_run
from scaling.tasks import open_task
from tests.documents import fit
from tests.sweep_files import tiny

SOURCE = rows.Provenance("1 x test", None, "0")
DESIGN = {
    "kind": "grid",
    "sizes": ["2k", "4k", "8k", "16k"],
    "tokens": ["20k", "40k", "80k", "160k"],
}


def planned(**changes):
    sweep = tiny(design=DESIGN, **changes)
    return [item.run for item in plan(sweep, sweep.base.task, 16).runs]


def written(folder, runs, floor):
    """A results folder whose losses approach `floor`, with a little noise."""
    noise = np.random.default_rng(0)
    for run in runs:
        n = rows.accounting.n_params(run.model, run.task.seq_len)
        loss = (floor + 40 / n**0.6 + 300 / run.tokens**0.6) * np.exp(noise.normal(0, 0.001))
        write_run(
            folder, rows.rows("x", run, [Measurement(run.n_steps, "val", "loss", loss)], SOURCE)
        )
    return folder


@pytest.fixture(scope="module")
def known():
    """The language of the tiny sweep and its floor on the 64 windows that 3,000 tokens ask for."""
    task = open_task(planned()[0].task)
    return task, float(task.ideal_loss(task.batch("val", 0, 64)).mean())


@pytest.mark.slow
def test_fit_document_has_the_known_entropy(tmp_path, known):
    task, floor = known
    document = fit([written(tmp_path / "x", planned(), floor)], FitOptions(bootstrap=100))
    entropy = document["known_entropy"]
    assert entropy["entropy"] == pytest.approx(task.entropy)
    assert entropy["floor"] == pytest.approx(floor)
    assert entropy["entropy"] != entropy["floor"]
    assert entropy["fitted_E"] == document["params"]["E"]["value"]
    assert entropy["floor_difference_percent"] == pytest.approx(
        100 * (entropy["fitted_E"] / floor - 1)
    )
    assert abs(entropy["floor_difference_percent"]) < 2
    assert entropy["difference_percent"] == pytest.approx(
        100 * (entropy["fitted_E"] / task.entropy - 1)
    )
    assert entropy["covers"] is (entropy["lo"] <= floor <= entropy["hi"])


@pytest.mark.slow
def test_a_wrong_floor_is_not_hidden(tmp_path, known):
    document = fit([written(tmp_path / "x", planned(), 0.9 * known[1])], FitOptions(bootstrap=100))
    assert document["known_entropy"]["floor_difference_percent"] == pytest.approx(-10, abs=2)
    assert document["known_entropy"]["covers"] is False


def test_law_without_a_floor_has_no_known_entropy(tmp_path, known):
    assert "known_entropy" not in fit(
        [written(tmp_path / "x", planned(), known[1])], FitOptions(law="kaplan", bootstrap=0)
    )


E = Estimate(value=0.5, se=None, lo=0.4, hi=1.2)


def frame(*runs):
    return pd.DataFrame({"config": [run.model_dump() for run in runs]})


def test_other_tasks_have_no_known_entropy():
    run = planned()[0]
    simulated = run.model_copy(update={"simulated": "published:hoffmann2022"})
    assert known_entropy(frame(run), E) is not None
    assert known_entropy(frame(simulated), E) is None
    assert known_entropy(frame(run), None) is None
    assert known_entropy(None, E) is None
    text = run.model_dump() | {"task": {"kind": "text", "seq_len": 30}}
    assert known_entropy(pd.DataFrame({"config": [text]}), E) is None


def test_runs_measured_on_different_windows_share_the_entropy_alone():
    run = planned()[0]
    longer = run.model_copy(update={"evals": run.evals.model_copy(update={"tokens": 6000})})
    entropy = open_task(run.task).entropy
    E = Estimate(value=0.5 * entropy, se=None, lo=0.4 * entropy, hi=1.2 * entropy)
    known = known_entropy(frame(run, longer), E)
    assert (known.floor, known.floor_difference_percent, known.covers) == (None, None, True)
    assert (known.entropy, known.difference_percent) == pytest.approx((entropy, -50))


def test_the_floor_is_that_of_the_windows_which_training_measures():
    from scaling.config.resolve_execution import resolve
    from scaling.train.evaluate import Evaluator

    run = planned()[0]
    task = open_task(run.task)
    windows = np.asarray(Evaluator(run, task, resolve(run, Execution(), "cpu"))._held_out)
    measured = task.ideal_loss(windows.reshape(-1, run.task.seq_len + 1)).mean()
    assert known_entropy(frame(run), E).floor == pytest.approx(float(measured))


def test_floor_and_entropy_meet_on_many_windows():
    task = open_task(SyntheticTask(kind="synthetic", n_facts=500, n_symbols=8, seq_len=60))
    losses = task.ideal_loss(task.batch("val", 0, 20_000))
    assert abs(losses.mean() - task.entropy) < 4 * losses.std() / np.sqrt(len(losses))
