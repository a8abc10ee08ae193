"""Sweeps that repeat their data: planned as asked, limited in each run, rejected where the corpus
is too small.
"""

from pathlib import Path

import pytest

from scaling.config.sweep_file import dump_sweep, load_sweep
from scaling.errors import ScalingError
from scaling.execute.planning import plan_sweep
from scaling.tasks import open_task

FILE = Path(__file__).parents[2] / "sweeps" / "epochs.toml"


def planned(tmp_path, **changes):
    """The shipped sweep with other fields of its design, of one seed, planned; what it warns of
    goes to standard error.
    """
    sweep = load_sweep(FILE)
    design = sweep.design.model_copy(update=changes)
    path = tmp_path / "sweep.toml"
    path.write_text(dump_sweep(sweep.model_copy(update={"design": design, "seeds": (0,)})))
    return plan_sweep(path, on_message=print)


def test_shipped_repetition_sweep_has_no_warning(tmp_path, capsys):
    plan = planned(tmp_path)
    limits = {
        (
            run.run.task.unique_tokens,
            round(run.run.tokens / (run.run.task.unique_tokens or run.run.tokens)),
        )
        for run in plan.runs
    }
    assert limits == {
        (unique, epochs) for unique in (65_536, 131_072) for epochs in (2, 4, 8, 16)
    } | {(None, 1)}
    assert not plan.infeasible
    assert "warning" not in capsys.readouterr().err


def test_runs_of_one_limit_share_a_prefix_and_a_corpus(tmp_path):
    plan = planned(tmp_path, sizes=(15e3, 31e3))
    trunks = {
        (family.runs[0].model.d_model, family.runs[0].task.unique_tokens) for family in plan.groups
    }
    assert len(plan.groups) == len(trunks) == 6
    for family in plan.groups:
        assert {run.task for run in family.all_runs()} == {family.runs[0].task}
    read = {
        run.run.task.unique_tokens: open_task(run.run.task).batch("train", 0, 64)
        for run in plan.runs
    }
    assert len({batch.tobytes() for batch in read.values()}) == 1, (
        "for one epoch all runs read what a fresh run reads"
    )


def test_more_unique_tokens_than_there_are_is_an_error_before_training(tmp_path):
    with pytest.raises(ScalingError, match="more than the corpus holds") as caught:
        planned(tmp_path, unique_tokens=(1e9,), epochs=(2,), sizes=(15e3,))
    assert caught.value.where.startswith(str(tmp_path))


def test_fresh_runs_that_repeat_the_corpus_are_reported(tmp_path, capsys):
    planned(tmp_path, unique_tokens=(3e6,), epochs=(8,), sizes=(15e3,))
    said = capsys.readouterr().out
    assert "passes over the training data: not all of their tokens are new" in said


def test_a_design_that_limits_the_corpus_takes_no_limited_task(tmp_path):
    sweep = load_sweep(FILE)
    task = sweep.base.task.model_copy(update={"unique_tokens": 64_000})
    path = tmp_path / "sweep.toml"
    path.write_text(
        dump_sweep(sweep.model_copy(update={"base": sweep.base.model_copy(update={"task": task})}))
    )
    with pytest.raises(ScalingError, match="sets the unique tokens itself"):
        plan_sweep(path, on_message=print)


def test_a_run_without_a_limit_keeps_its_identity(tmp_path):
    fresh = next(run for run in planned(tmp_path).runs if run.run.task.unique_tokens is None)
    assert "unique_tokens" not in fresh.run.canonical()
