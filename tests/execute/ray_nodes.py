"""A real Ray cluster of several nodes on this machine, and a stand-in for the training process that
speaks the line protocol.
"""

import contextlib
import importlib.util
import json
import sys
import time

import pytest

NEEDS_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason='needs ray: pip install -e ".[ray]"'
)

# It answers the order "work" with ticks until it is told to stop, by SIGTERM or by the end of its
# stdin; then it takes a second to save.
STAND_IN = """
import json, os, pathlib, queue, signal, sys, threading, time

orders, stop = queue.Queue(), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
verb, serve, folder, *rest = sys.argv[1:]

def read():
    for line in sys.stdin:
        orders.put(line.strip())
    orders.put(None)
    stop.set()

def say(**event):
    try:
        print(json.dumps(event), flush=True)
    except BrokenPipeError:
        stop.set()

threading.Thread(target=read, daemon=True).start()
platforms = os.environ.get("JAX_PLATFORMS")
say(event="ready", pid=os.getpid(), rest=rest, threads=os.environ["NPROC"], platforms=platforms)
print("last words", file=sys.stderr, flush=True)
while not stop.is_set() and (order := orders.get()) is not None:
    if order == "exit":
        sys.exit(3)
    while order == "work" and not stop.wait(.05):
        say(event="progress")
    if order == "work":
        time.sleep(1)
        (pathlib.Path(folder) / f"saved-{os.getpid()}").touch()
        say(event="stopped")
    say(event="over", order=order)
"""

# What a coordinator does; run as a process of its own, to be killed.
COORDINATOR = """
import json, pathlib, sys
from scaling.execute.ray import RayLauncher

folder, address, stand_in = sys.argv[1:]
command = [sys.executable, stand_in]
worker = RayLauncher(pathlib.Path(folder), address=address, command=command).start(0)
worker.send("work")
for line in worker.events():
    print(line, end="", flush=True)
"""

# Dead nodes are noticed after 2 seconds; Ray's own settings take 15.
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 400,
    "health_check_failure_threshold": 5,
}


@contextlib.contextmanager
def nodes(count):
    """A cluster whose head takes no workers, and the `count` nodes of one core that do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # clusters have asked for a token since 2.59
        patch.delenv("RAY_ADDRESS", raising=False)
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK},
        )
        try:
            yield (
                cluster,
                [cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(count)],
            )
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core for the tests of a file, that must leave them as they are."""
    with nodes(2) as (found, _):
        yield found


@pytest.fixture
def stand_in(tmp_path):
    """The command of the stand-in."""
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    return [sys.executable, str(path)]


def heard(lines, kind):
    """The next event of a kind."""
    return next(event for event in map(json.loads, lines) if event["event"] == kind)


def wait_for(condition, seconds=30):
    """Until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
