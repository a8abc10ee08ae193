"""Evaluation sets: further corpora on which the loss of every run is measured."""

import dataclasses
import json

import pytest

from scaling import plan
from scaling.config.sweep_file import load_sweep
from scaling.errors import ScalingError
from scaling.execute.simulated import simulate
from scaling.execute.status import read_status
from scaling.execute.sweep_folder import SweepFolder
from scaling.plan import plan as expand
from scaling.points.comparability import comparable
from scaling.points.run_tables import losses_of_eval_set
from scaling.points.source import SourceOptions, read_source
from scaling.report.inputs import load_fits
from scaling.store import run_files
from scaling.store.rows import Provenance
from scaling.store.rows import rows as measurement_rows
from tests.execute.sweeping import scaling
from tests.sweep_files import tiny

pytestmark = pytest.mark.slow

SWEEP = """
name = "sets"
[design]
kind = "grid"
sizes = ["3k"]
tokens = ["10k", "20k"]
[recipe]
n_layers = 1
width_multiple = 4
size_tolerance = 1.0
[base]
batch_size = 4
[base.task]
kind = "text"
corpus = "one"
seq_len = 32
[evals]
points = 2
tokens = 2048
"""
SETS = """
[[evals.sets]]
name = "same"
corpus = "one"
[[evals.sets]]
name = "other"
corpus = "two"
"""


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    """Two prepared corpora of one vocabulary and different text."""
    monkeypatch.chdir(tmp_path)
    for name, words in (("one", "the cat sat on a mat"), ("two", "seven small birds sang of rain")):
        lines = [f"{words} {i} {' '.join(words.split()[::-1])} {i * i}" for i in range(400)]
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps({"text": line}) + "\n" for line in lines)
        )
        done = scaling("data", "prepare", f"{name}.jsonl", "--out", name)
        assert done.returncode == 0, done.stderr
    return tmp_path


def test_run_ids_without_sets_do_not_change_and_sets_are_identified_by_their_tokens(corpora):
    (corpora / "plain.toml").write_text(SWEEP)
    (corpora / "sets.toml").write_text(SWEEP + SETS)
    plain, with_sets = plan("plain.toml"), plan("sets.toml")
    assert '"sets"' not in plain.runs[0].run.canonical()
    assert {item.run_id for item in plain.runs}.isdisjoint(item.run_id for item in with_sets.runs)
    (corpora / "two").rename(corpora / "moved")
    (corpora / "sets.toml").write_text((SWEEP + SETS).replace('"two"', '"moved"'))
    moved = plan("sets.toml")
    assert [item.run_id for item in moved.runs] == [item.run_id for item in with_sets.runs]


def test_the_loss_is_measured_on_every_set_and_fit_takes_the_named_one(corpora):
    (corpora / "sets.toml").write_text(SWEEP + SETS)
    done = scaling("run", "sets.toml", "--out", "out", "--workers", 1)
    assert done.returncode == 0, done.stderr
    rows = run_files.load(corpora / "out")
    losses = rows[rows["metric"] == "loss"].set_index(["run_id", "step"])
    by_split = {split: part["value"] for split, part in losses.groupby("split")}
    assert by_split["val:same"].equals(by_split["val"])
    assert (by_split["val:other"] > by_split["val"]).all()
    chosen = losses_of_eval_set(rows, "other")
    chosen = chosen[(chosen["split"] == "val") & (chosen["metric"] == "loss")]
    assert chosen["value"].tolist() == by_split["val:other"].tolist()
    chosen = read_source([corpora / "out"], SourceOptions(eval_set="other"))
    last = by_split["val:other"].groupby("run_id").last()
    assert sorted(chosen.points.loss) == pytest.approx(sorted(last))
    assert chosen.notes == ("losses on the evaluation set other",)
    with pytest.raises(ScalingError, match="evaluation set"):
        losses_of_eval_set(rows, "others")
    shown = {run.run_id: run.loss for run in read_status(SweepFolder(corpora / "out")).runs}
    assert all(by_split["val"][run_id].iloc[-1] == loss for run_id, loss in shown.items())


def test_two_sets_of_one_name_are_rejected(corpora):
    (corpora / "sets.toml").write_text(SWEEP + SETS.replace('"other"', '"same"'))
    with pytest.raises(ScalingError, match="one name"):
        load_sweep(corpora / "sets.toml")


def test_sweeps_on_different_text_are_compared_on_the_evaluation_set_that_both_measured(tmp_path):
    sets = [{"name": "web", "corpus": "web", "digest": "c" * 64}]
    for name in ("one", "two"):
        task = {"kind": "text", "corpus": name, "digest": name * 8, "seq_len": 32}
        design = {"kind": "grid", "sizes": ["8k", "16k", "32k"], "tokens": ["100k", "200k", "400k"]}
        sweep = tiny(
            name=name,
            design=design,
            base={"task": task, "batch_size": 8},
            evals={"points": 2, "sets": sets},
        )
        planned = expand(sweep, sweep.base.task, 256)
        for item in planned.runs:
            law = {"simulated": "published:hoffmann2022"}
            measured = simulate(item.run.model_copy(update=law)).measured
            other = [
                dataclasses.replace(row, split="val:web", value=row.value + 0.5)
                for row in measured
                if row.split == "val"
            ]
            source = Provenance("here", None, "0")
            rows = measurement_rows(name, item.run, [*measured, *other], source)
            run_files.write_run(tmp_path / name, rows)
    folders = [tmp_path / "one", tmp_path / "two"]
    fits, notes = load_fits(folders, tmp_path / "out")
    assert "the evaluation set web, which all of them measured" in notes[0]
    for fit in fits.values():
        assert fit.source.evaluation["corpus"] == "c" * 64
        assert fit.source.filters["eval_set"] == "web"
    one, two = (fit.to_dict() for fit in fits.values())
    assert comparable(one, two).compare
    plain, _ = load_fits([tmp_path / "one", tmp_path / "out" / "fit-2.json"], tmp_path / "again")
    assert not comparable(*(fit.to_dict() for fit in plain.values())).compare
