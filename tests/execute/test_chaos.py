"""The short form of the chaos figures (python -m benchmarks.chaos), and proof that the harness sees
what it is to see.
"""

import os
import random
import shutil
import sys

import pytest

from benchmarks.chaos import kills, points, sweeps
from benchmarks.chaos.verdict import Verdict

pytestmark = pytest.mark.slow

NEEDS_STRACE = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace: run .ci/engines"
)
LINUX = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="processes are found in /proc"
)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """(sweep file, scratch folder, the numbers of an undisturbed run)."""
    scratch = tmp_path_factory.mktemp("points")
    path = scratch / "sweep.toml"
    path.write_text(sweeps.POINTS_SWEEP)
    return path, scratch, points.reference(path, scratch)


def tried(simulated, chosen, prepare=lambda: None):
    path, scratch, want = simulated
    verdict = Verdict()
    for point in chosen:
        verdict.add(points.try_point(path, scratch, point, want, prepare))
    return verdict


@NEEDS_STRACE
@LINUX
def test_kill_at_any_point_loses_and_changes_no_result(simulated):
    path, scratch, _ = simulated
    by_call = {}
    for point in points.enumerate_points(path, scratch):
        by_call.setdefault(point.call, []).append(point)
    assert set(by_call) >= {
        *("rename", "fsync", "unlink", "openat", "write", "close", "mkdir", "link"),
    }
    chance = random.Random(0)
    chosen = [chance.choice(of_call) for of_call in by_call.values() for _ in range(2)]
    verdict = tried(simulated, chosen)
    assert verdict.notes == []
    assert verdict.kills == len(chosen)


def append_twice():
    """A writer that adds a run's rows to what is there, as a list of results would."""
    from scaling.store import rows as row_schema
    from scaling.store import run_files

    as_table = row_schema.rows

    def doubled(*arguments):
        table = as_table(*arguments)
        return run_files.pa.concat_tables([table, table]).replace_schema_metadata(
            table.schema.metadata
        )

    row_schema.rows = doubled


def mark_before_write():
    """A run that counts as finished before its rows are on the disk."""
    from scaling.store import run_files

    write, finished = run_files.write_run, run_files.finished_run_ids
    alone = run_files.is_finished

    def marked(folder, table):
        marks = folder / "marks"
        marks.mkdir(exist_ok=True)
        (marks / table.column("run_id")[0].as_py()).touch()
        return write(folder, table)

    def counted(folder):
        return finished(folder) | (
            {path.name for path in (folder / "marks").iterdir()}
            if (folder / "marks").exists()
            else set()
        )

    run_files.write_run, run_files.finished_run_ids = marked, counted
    run_files.is_finished = lambda folder, run_id: (
        alone(folder, run_id) or (folder / "marks" / run_id).exists()
    )


@NEEDS_STRACE
@LINUX
@pytest.mark.parametrize(
    ("defect", "kind", "call"),
    [(append_twice, "duplicated", "link"), (mark_before_write, "lost", "link")],
)
def test_injected_disk_faults_are_detected(simulated, defect, kind, call):
    path, scratch, _ = simulated
    chosen = [point for point in points.enumerate_points(path, scratch) if point.call == call][:2]
    assert chosen
    assert getattr(tried(simulated, chosen, defect), kind) > 0


# Put into every process by Python itself, at its start. The worker dies once, at its second
# checkpoint: in the middle of
# one that is written in place, or right after one from which something will be missing.
DIES_ONCE = """
import os
if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    import itertools, signal
    import numpy as np
    import scaling.train.local_checkpoint as checkpoint
    saves, restore, save = itertools.count(1), checkpoint.restore, checkpoint.save
    def die_once(path):
        mark = path.parent.parent / "died"
        if next(saves) == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""
DEFECTS = {
    "torn checkpoint": """
    def in_place(path, state, progress):
        import jax, json
        path.parent.mkdir(parents=True, exist_ok=True)
        leaves = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        half = {
            name: leaf * 0.5 if leaf.dtype == np.float32 else leaf for name, leaf in leaves.items()
        }
        text = np.frombuffer(json.dumps(progress | {"format": 1}).encode(), np.uint8)
        for arrays in (half, leaves):  # in two parts; a kill leaves the first
            with open(path, "wb") as handle:
                np.savez(handle, **arrays, progress=text)
            if arrays is half:
                die_once(path)
    checkpoint.save = in_place
""",
    "state left out": """
    def forgetful(path, like):
        import jax
        state, progress = restore(path, like)
        leaves = jax.tree.leaves(state)
        kept = [
            leaf * 0 if leaf.dtype == "float32" and i >= len(leaves) // 2 else leaf
            for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(jax.tree.structure(state), kept), progress
    def saved(path, state, progress):
        save(path, state, progress)
        die_once(path)
    checkpoint.restore, checkpoint.save = forgetful, saved
""",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(sweep file, scratch folder, the numbers of an undisturbed run), really trained."""
    scratch = tmp_path_factory.mktemp("kills")
    path = scratch / "sweep.toml"
    path.write_text(sweeps.SHORT_SWEEP)
    return path, scratch, kills.undisturbed(path, scratch / "undisturbed", environment())


def environment(**more):
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | more


@LINUX
def test_random_kills_lose_and_change_no_result(trained):
    path, scratch, want = trained
    verdict = kills.torments(path, scratch, want, 7, 6, environment())
    assert verdict.notes == []
    assert verdict.kills >= 6


@pytest.mark.exhaustive
@LINUX
@pytest.mark.parametrize(
    "defect",
    [
        pytest.param(defect, marks=pytest.mark.exhaustive) if place else defect
        for place, defect in enumerate(DEFECTS)
    ],
)
def test_injected_state_faults_are_detected(trained, tmp_path, defect):
    path, _, want = trained
    (tmp_path / "sitecustomize.py").write_text(DIES_ONCE + DEFECTS[defect])
    found = kills.torment(
        path, tmp_path / "sweep", want, random.Random(0), 0, environment(PYTHONPATH=str(tmp_path))
    )
    assert (tmp_path / "sweep" / "died").exists()
    assert found.different > 0
