"""`scaling run SWEEP KEY=VALUE`: a folder of its own, taken up again, never mixed with the
unchanged sweep.
"""

import json

import pytest
from typer.testing import CliRunner

from scaling.cli import with_commands
from scaling.config.sweep_file import dump_sweep, load_sweep
from tests.sweep_files import tiny

REHEARSED = ["--simulate", "published:hoffmann2022"]


def scaling(*args):
    return CliRunner().invoke(with_commands(), list(map(str, args)))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(dump_sweep(tiny()))
    return tmp_path


def test_overridden_sweep_has_its_own_folder_and_resumes(place):
    assert scaling("run", "tiny.toml", *REHEARSED).exit_code == 0
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
    refused = scaling("run", "tiny.toml", "seeds=[0,1]", *REHEARSED, "--out", "results/tiny")
    assert refused.exit_code == 2
    assert "holds the sweep 'tiny', not 'tiny-seeds-0_1'" in refused.stderr
    assert len(load_sweep(place / "results" / "tiny" / "sweep.toml").seeds) == 1


@pytest.mark.parametrize("verb", ["plan", "run", "tune"])
def test_wrong_override_exits_2_and_writes_nothing(place, verb):
    refused = scaling(verb, "tiny.toml", "optim.lrr=3e-4")
    assert refused.exit_code == 2
    assert refused.stderr == (
        "error: tiny.toml optim.lrr=3e-4: base.optim.lrr is not a known key (did you mean lr?)\n"
        "  fix these values; docs/sweep-files.md lists every key with its range\n"
    )
    assert [entry.name for entry in place.iterdir()] == ["tiny.toml"]


@pytest.mark.parametrize("args", [["--out", ""], ["--out="], [""]])
def test_an_empty_argument_is_a_variable_that_was_not_set(place, args):
    done = scaling("run", "tiny.toml", *args, *REHEARSED)
    assert done.exit_code == 2
    assert "an argument is empty" in done.stderr
    assert [path.name for path in place.iterdir()] == ["tiny.toml"]
