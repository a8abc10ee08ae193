"""Time left and counts of a sweep in training, from the events of its workers."""

from types import SimpleNamespace

import pytest

from scaling.execute import progress
from scaling.execute.events import RunProgress
from scaling.execute.progress import SweepProgress
from scaling.plan import plan
from tests.sweep_files import tiny


def progress_event(planned, step, flops):
    return RunProgress(
        run_id=planned.run_id,
        step=step,
        n_steps=planned.run.n_steps,
        loss=1.0,
        tokens_per_second=1.0,
        flops_per_second=1.0,
        flops=flops,
    )


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def runs_of_one_size():
    sweep = tiny()
    return plan(sweep, sweep.base.task, 16).runs[:1]


def test_time_left_counts_neither_start_up_nor_earlier_sessions(clock):
    (run,) = runs_of_one_size()
    tracked = SweepProgress([run])
    steps, per_step = run.run.n_steps, run.flops / run.run.n_steps
    clock[0] += 600.0  # ten minutes of start-up and compilation
    resumed = round(0.5 * steps)  # an earlier session trained half of the run
    tracked.handle(progress_event(run, resumed, 0.0))
    assert tracked.eta_seconds is None
    clock[0] += 10.0
    taken = round(0.25 * steps)
    tracked.handle(progress_event(run, resumed + taken, taken * per_step))
    left = steps - resumed - taken
    assert tracked.eta_seconds == pytest.approx(10.0 * left / taken)
    assert tracked.share == pytest.approx((resumed + taken) / steps)
