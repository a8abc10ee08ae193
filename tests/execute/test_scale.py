"""A few thousand runs go down the whole line in single and merged files, and the listing of them
stays readable.
"""

import contextlib
import json

import pytest

from benchmarks.scale import sweep_file
from scaling.store import compaction, run_files
from tests.execute.sweeping import scaling, status

pytestmark = pytest.mark.slow

LAW = "published:hoffmann2022"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """1,000 simulated runs."""
    made = tmp_path_factory.mktemp("scale")
    sweep_file(made / "scale.toml", 1000)
    done = scaling("run", made / "scale.toml", "--out", made / "out", "--simulate", LAW)
    assert done.returncode in (0, 3), done.stderr
    assert len(done.stdout.splitlines()) < 200  # not a line a run
    return made / "out"


@pytest.mark.exhaustive
def test_thousand_runs_are_compacted_without_change(folder, monkeypatch):
    before = status(folder)
    assert sum(before["counts"].values()) == 1000
    assert before["counts"]["missing"] == before["counts"]["running"] == 0
    monkeypatch.setattr(compaction, "RUNS_PER_FILE", 400)
    done = compaction.compact(folder, contextlib.nullcontext)
    assert (done.runs, done.written) == (1000, 3)
    assert len(run_files.merged_files(folder)) == 3
    assert run_files.run_files(folder) == []
    after = status(folder)
    assert after["runs"] == before["runs"]
    again = json.loads(
        scaling(
            "run", folder.parent / "scale.toml", "--out", folder, "--simulate", LAW, "--json"
        ).stdout
    )
    assert again["counts"] == before["counts"]


def test_many_single_files_are_compacted_on_resume(tmp_path, monkeypatch):
    from scaling.execute.lease import Lease
    from scaling.execute.prepare_folder import prepare
    from scaling.execute.simulated import simulate
    from scaling.execute.sweep_folder import SweepFolder
    from scaling.execute.worker import publish
    from scaling.plan import plan
    from scaling.store.rows import Provenance
    from tests.sweep_files import tiny

    sweep = tiny(seeds=[0, 1, 2])
    planned = plan(sweep, sweep.base.task, 16, LAW)
    for item in planned.runs[:10]:
        publish(
            SweepFolder(tmp_path),
            "tiny",
            item.run,
            simulate(item.run),
            Provenance("x", None, "0"),
            None,
        )
    monkeypatch.setattr(compaction, "COMPACT_ABOVE", 5)
    with Lease(tmp_path) as lease:
        missing = prepare(SweepFolder(tmp_path), planned, lease, print, simulated=LAW)
    assert len(missing) == 2
    assert run_files.run_files(tmp_path) == []
    assert len(run_files.finished_run_ids(tmp_path)) == 10
