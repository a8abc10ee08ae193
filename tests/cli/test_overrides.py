"""`scaling run SWEEP KEY=VALUE`: a folder of its own, taken up again, never mixed with the
unchanged sweep.
"""

import json

import pytest

from scaling.config.sweep_file import dump_sweep, load_sweep
from tests.command_line import scaling
from tests.sweep_files import tiny

REHEARSED = ["--simulate", "published:hoffmann2022"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(dump_sweep(tiny()))
    return tmp_path


def test_overridden_sweep_has_its_own_folder_and_resumes(place):
    scaling("run", "tiny.toml", *REHEARSED, code=0)
    command = ["run", "tiny.toml", "seeds=[0,1]", "optim.lr=[1e-3,2e-3]", *REHEARSED]
    begun = scaling(*command, "--max-runs", 2)
    folder = place / "results" / "tiny-optim.lr-0.001_0.002-seeds-0_1"
    assert begun.stdout.splitlines()[-1] == (
        "next: scaling run tiny.toml 'seeds=[0,1]' 'optim.lr=[1e-3,2e-3]' trains the remaining runs"
    )
    kept = load_sweep(folder / "sweep.toml")
    assert (kept.name, kept.seeds, kept.axes[0].values) == (folder.name, (0, 1), (0.001, 0.002))
    ended = scaling(*command, "--json")
    assert json.loads(ended.stdout)["counts"] == {
        "done": 16,
        "running": 0,
        "failed": 0,
        "missing": 0,
    }
    again = scaling("run", folder / "sweep.toml", *REHEARSED, "--json")
    assert json.loads(again.stdout)["counts"]["done"] == 16
    assert sorted(entry.name for entry in (place / "results").iterdir()) == ["tiny", folder.name]


def test_the_folder_of_the_unchanged_sweep_is_rejected(place):
    scaling("run", "tiny.toml", *REHEARSED)
    mixed = ("seeds=[0,1]", *REHEARSED, "--out", "results/tiny")
    refused = scaling("run", "tiny.toml", *mixed, code=2)
    assert "holds the sweep 'tiny', not 'tiny-seeds-0_1'" in refused.stderr
    assert len(load_sweep(place / "results" / "tiny" / "sweep.toml").seeds) == 1
