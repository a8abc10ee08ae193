"""A real Ray cluster of several nodes on this machine."""

import contextlib
import importlib.util
import time
from types import SimpleNamespace

import pytest

NEEDS_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason='needs ray: pip install -e ".[ray]"'
)

# Dead nodes are noticed after 2 seconds (Ray's own settings take 15), or never: a machine that is
# busy for a while has lost none.
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 400,
    "health_check_failure_threshold": 5,
}
PATIENT = {"health_check_failure_threshold": 1000}


@contextlib.contextmanager
def nodes(count, settings=PATIENT):
    """A cluster whose head takes no workers, and the `count` nodes of one core that do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # clusters have asked for a token since 2.59
        patch.setenv("RAY_worker_register_timeout_seconds", "600")
        patch.setenv("RAY_gcs_server_request_timeout_seconds", "600")
        patch.delenv("RAY_ADDRESS", raising=False)
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        try:
            with pytest.MonkeyPatch.context() as start:
                # a node that takes over 30 s to start is given up (2.60); no setting changes that
                slow_clock = SimpleNamespace(
                    time=time.time, sleep=time.sleep, monotonic=lambda: time.monotonic() / 20
                )
                start.setattr("ray._private.node.time", slow_clock)
                options = {"include_dashboard": False, "wait": False}
                cluster.add_node(num_cpus=0, _system_config=settings, **options)
                workers = [cluster.add_node(num_cpus=1, **options) for _ in range(count)]
                cluster.wait_for_nodes(timeout=600)
            yield cluster, workers
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core for the tests of a file, that must leave them as they are."""
    with nodes(2) as (found, _):
        yield found
