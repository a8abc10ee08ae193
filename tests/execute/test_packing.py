"""Packs are made where a trial says that they pay, the choice is kept, and it
is said in the rows.
"""

import json

import pyarrow.parquet as pq
import pytest

from scaling.config import Execution, MeshShape
from scaling.config.run_groups import group_runs
from scaling.config.sweep_file import dump_sweep
from scaling.errors import ScalingError
from scaling.execute import packing
from scaling.execute.packing import PackDecision, Packing
from scaling.plan import plan
from scaling.tasks import open_task
from tests.execute.test_local import scaling
from tests.sweep_files import tiny


def runs(**changes):
    sweep = tiny(seeds=[0, 1, 2, 3, 4, 5, 6, 7], **changes)
    return [
        item.run
        for item in plan(sweep, sweep.base.task, open_task(sweep.base.task).vocab_size).runs
    ]


@pytest.fixture
def machine(monkeypatch):
    """A machine on which a pack of k takes `cost(k)` seconds a step; small models only gain."""
    asked = []

    def install(cost):
        def timed(trials, workers):
            asked.extend((trial.run.model.d_model, trial.pack) for trial in trials)
            return [(1.0, cost(trial.pack, trial.run.model.d_model)) for trial in trials]

        monkeypatch.setattr(packing, "timed", timed)
        monkeypatch.setattr(packing, "WORTH_TIMING", 0.0)
        return asked

    return install


def measured(how=None):
    return packing.measure_packs(runs(), 2, how or Execution(), lambda text: None)


def test_a_pack_doubles_while_it_pays(machine):
    machine(
        lambda pack, width: max(1.0, pack / 4)
    )  # an accelerator that runs four for the price of one
    chosen = [measured().of(family) for family in group_runs(runs())]
    assert {(choice.size, choice.gain) for choice in chosen} == {(4, 4.0)}
    assert "8 train 4.00 times" in chosen[0].reason


def test_larger_shapes_are_not_timed_where_packs_gain_nothing(machine):
    asked = machine(lambda pack, width: float(pack))  # a busy core
    found = measured()
    assert {choice.size for choice in found.choices.values()} == {1}
    assert [pack for _, pack in asked] == [1, 2]
    reasons = sorted(choice.reason for choice in found.choices.values())
    assert reasons[0] == "a smaller shape gained nothing"
    assert reasons[1].startswith("measured: 1 train 1.00 times")


def test_a_pack_that_does_not_fit_ends_the_search(machine, monkeypatch):
    machine(lambda pack, width: 1.0)
    quick = packing.timed

    def timed(trials, workers):
        if trials[0].pack > 2:
            raise ScalingError("the speed probe failed: RESOURCE_EXHAUSTED: Out of memory")
        return quick(trials, workers)

    monkeypatch.setattr(packing, "timed", timed)
    assert {
        (choice.size, "do not fit" in choice.reason) for choice in measured().choices.values()
    } == {(2, True)}


def test_a_mesh_or_little_work_is_not_timed(machine, monkeypatch):
    asked = machine(lambda pack, width: 1.0)
    assert measured(Execution(mesh=MeshShape(data=2))).choices == {}
    monkeypatch.setattr(packing, "WORTH_TIMING", 1e30)
    assert {choice.reason for choice in measured().choices.values()} == {
        "not measured: too little work"
    }
    assert asked == []


def test_pack_choices_round_trip_and_corruption_is_named(tmp_path):
    path = tmp_path / "packing.json"
    found = Packing({"a": PackDecision(4, 2.5, "measured"), "b": PackDecision()})
    found.write(path)
    assert packing.read(path) == found
    path.write_text("{nonsense")
    with pytest.raises(ScalingError, match="is corrupt") as caught:
        packing.read(path)
    assert str(path) in str(caught.value)


def test_a_packed_sweep_says_so_in_its_rows_and_shares_programs(tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(
        dump_sweep(tiny(seeds=[0, 1], design={"kind": "grid", "sizes": ["2k"], "tokens": ["20k"]}))
    )
    done = scaling("run", path, "--out", out, "--workers", 1, "--pack", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["done"] == 2
    for file in (out / "runs").iterdir():
        metadata = pq.read_metadata(file).metadata
        notes = json.loads(metadata[b"scaling.execution"])
        assert (notes["pack"], notes["pack_reason"]) == (2, "asked for with --pack")
        assert json.loads(metadata[b"scaling.fingerprint"])["pack"] == 2
    assert list((out / "checkpoints").glob("*")) == []


@pytest.mark.parametrize("text", ["0", "-1", "two", "99999", "1.5", ""])
def test_a_pack_that_is_no_number_is_rejected(tmp_path, text):
    path = tmp_path / "tiny.toml"
    path.write_text(dump_sweep(tiny()))
    done = scaling("run", path, "--out", tmp_path / "out", "--pack", text)
    assert done.returncode == 2
    assert "--pack" in done.stderr
