"""Fixtures that all rooms share."""

import os
from pathlib import Path

import pytest

os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)
# tests compile much and compute little: that halves what is left of compilation


@pytest.fixture(autouse=True, scope="session")
def nobodys_account():
    """Trackers log to files of the tests, whoever is logged in on this machine; processes that
    tests start inherit it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def shared_data() -> Path:
    """The published data sets beside the checkout; tests that need them are skipped where they are
    absent.
    """
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("published data sets (../shared/data) are absent")
    return folder
