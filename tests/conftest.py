"""Fixtures and markers for all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)
# tests compile much and compute little: that halves what is left of compilation

# the same examples every time, however long they take
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

STARTS_PROCESSES = {"cluster", "slurm_up", "chromium"}  # fixtures: Slurm, Ray, a browser


def pytest_collection_modifyitems(items):
    """A test that uses one of these fixtures is slow."""
    for item in items:
        if STARTS_PROCESSES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


@pytest.fixture(autouse=True, scope="session")
def trackers_offline():
    """Trackers log to files of the tests, also with an account on this machine; processes that
    tests start inherit it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def shared_data() -> Path:
    """The published data sets next to the checkout; tests that need them are skipped where they are
    absent.
    """
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("published data sets (../shared/data) are absent")
    return folder
