"""The probe of a plan: seconds of a step."""

import time
from types import SimpleNamespace

import pytest

from scaling.config import Execution
from scaling.train import step_timing
from tests.train.test_answer_sampling import run

pytestmark = pytest.mark.slow


def test_what_else_a_machine_does_is_not_taken_for_slowness(monkeypatch):
    clock = SimpleNamespace(
        process_time=time.process_time, perf_counter=lambda: 100 * time.process_time()
    )
    monkeypatch.setattr(step_timing, "time", clock)
    monkeypatch.setattr(step_timing, "TIMED_SECONDS", 0.05)
    began = time.process_time()
    compile_seconds, step_seconds = step_timing.seconds_per_step(run(points=3), Execution())
    assert 0 < compile_seconds + 0.05 <= time.process_time() - began
    assert 0 < step_seconds <= 0.05 + compile_seconds
