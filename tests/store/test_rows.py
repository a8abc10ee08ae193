"""The row: written whole or not at all, read back as it was, rejected when damaged."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling import files
from scaling.config import TextTask
from scaling.errors import DISK, ScalingError
from scaling.plan import plan
from scaling.points.points import Points
from scaling.points.run_tables import points as points_of
from scaling.store import rows, run_files
from scaling.store.rows import Measurement
from tests.sweep_files import tiny

SOURCE = rows.Provenance("1 x test", None, "0", {"jax": "0"})


def run(seed=0):
    sweep = tiny(seeds=[seed])
    return plan(sweep, sweep.base.task, 16).runs[0].run


def table(chosen, loss=2.0):
    measured = [
        Measurement(1, "val", "loss", 2.7),
        Measurement(chosen.n_steps, "val", "loss", loss, stderr=0.01, seconds=3.0),
    ]
    return rows.rows("tiny", chosen, measured, SOURCE)


def test_round_trip_and_points(tmp_path):
    first, second = run(0), run(1)
    for chosen, loss in ((first, 2.0), (second, 2.2)):
        run_files.write_run(tmp_path, table(chosen, loss))
    loaded = run_files.load(tmp_path)
    assert list(loaded.columns) == rows.SCHEMA.names
    assert len(loaded) == 4
    points = points_of(loaded)
    assert sorted(points.loss) == [2.0, 2.2]
    assert (points.d == first.tokens).all()
    assert points.convention == {"params": "with_head", "flops": "exact"}
    assert [name for name in os.listdir(tmp_path / "runs") if not name.endswith(".parquet")] == []


def test_a_file_without_a_column_is_corrupt_whichever_columns_are_read(tmp_path):
    whole, lacking = run(0), run(1)
    run_files.write_run(tmp_path, table(whole))
    run_files.write_run(tmp_path, table(lacking, 2.2).drop_columns(["weight_decay"]))
    for columns in (None, ["run_id"], ["run_id", "value"]):
        content = run_files.read_folder(tmp_path, columns)
        assert content.table["run_id"].unique().to_pylist() == [whole.run_id]
        (corrupt,) = content.corrupt_files
        assert corrupt.run_ids == (lacking.run_id,)
        assert corrupt.reason.endswith("columns missing or not of their type: weight_decay")


def test_conventions_change_n_and_c(tmp_path):
    run_files.write_run(tmp_path, table(run()))
    loaded = run_files.load(tmp_path)
    by_name = {
        name: points_of(loaded, params=name).n[0] for name in ("with_head", "total", "nonembedding")
    }
    assert by_name["nonembedding"] < by_name["with_head"] < by_name["total"]


def test_diverged_runs_are_counted_not_dropped(tmp_path):
    run_files.write_run(tmp_path, table(run(0)))
    bad = run(1)
    run_files.write_run(
        tmp_path, rows.rows("tiny", bad, [Measurement(7, "train", rows.DIVERGED, 7.0)], SOURCE)
    )
    assert points_of(run_files.load(tmp_path)).excluded == (("diverged", 1),)


def test_points_refuse_mixed_corpora(tmp_path):
    first = run(0)
    other = first.model_copy(update={"task": first.task.model_copy(update={"kind": "text"})})
    frame = rows.rows(
        "tiny", first, [Measurement(first.n_steps, "val", "loss", 2.0)], SOURCE
    ).to_pandas()
    text = '{"kind":"text","seq_len":30,"digest":"other"}'
    changed = frame.assign(
        run_id="x", config=frame.config.str.replace(r'"task":\{.*?\}', f'"task":{text}', regex=True)
    )
    assert other is not first
    with pytest.raises(ScalingError, match="2 different corpora"):
        points_of(pd.concat([frame, changed]))


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b"<html>", lambda b: b"", lambda b: b + b"junk"],
)
def test_corrupt_files_are_rejected_by_name(tmp_path, damage):
    run_files.write_run(tmp_path, table(run()))
    [path] = run_files.run_files(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ScalingError, match="Parquet") as caught:
        run_files.load(tmp_path)
    assert path.name in caught.value.where


def test_a_renamed_run_file_is_rejected(tmp_path):
    run_files.write_run(tmp_path, table(run()))
    [path] = run_files.run_files(tmp_path)
    path.rename(path.with_name("000000000000.parquet"))
    with pytest.raises(ScalingError, match="do not belong"):
        run_files.load(tmp_path)


def test_failed_write_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "kept.txt"
    files.write_text(path, "old")

    def full_disk(target):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ScalingError) as caught:
        files.write_atomically(path, full_disk)
    assert caught.value.exit_code == DISK
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["kept.txt"]


def test_take_counts_what_it_leaves_out():
    points = Points(loss=np.array([1.0, 2.0, 3.0]), n=np.array([1.0, 2.0, 3.0]))
    kept = points.take(points.loss < 3.0, "too high")
    assert (len(kept), kept.excluded) == (2, (("too high", 1),))
    assert points.take(np.array([0, 0, 2])).loss.tolist() == [1.0, 1.0, 3.0]


@pytest.mark.slow
def test_reading_starts_no_thread_that_could_outlive_the_interpreter(shipped):
    code = (
        "import os, sys, pathlib, pandas, pyarrow, pyarrow.parquet\n"
        "from scaling.store import run_files as archive\n"
        "before = len(os.listdir('/proc/self/task')); archive.load(pathlib.Path(sys.argv[1]))\n"
        "assert len(os.listdir('/proc/self/task')) == before"
    )
    subprocess.run([sys.executable, "-c", code, str(shipped)], check=True)


@pytest.fixture
def shipped():
    folder = Path(__file__).parents[2] / "results" / "reference"
    if not Path("/proc/self/task").is_dir():
        pytest.skip("threads are listed on Linux only")
    return folder


def text_run(unique, steps, seed=0, digest="d"):
    """A run on 32 windows of 16 tokens a step; `unique` limits its corpus."""
    task = TextTask(kind="text", digest=digest, seq_len=16, unique_tokens=unique)
    return run(seed).model_copy(update={"task": task, "batch_size": 32, "n_steps": steps})


def frame(*runs_and_losses):
    measured = [
        rows.rows("x", one, [Measurement(one.n_steps, "val", "loss", loss)], SOURCE)
        for one, loss in runs_and_losses
    ]
    return pd.concat([each.to_pandas() for each in measured])


def test_unique_tokens_are_in_the_points_of_a_limited_corpus():
    points = points_of(
        frame((text_run(None, 100), 3.0), (text_run(5003, 100), 3.1), (text_run(10**6, 50), 3.2))
    )
    by_loss = {
        loss: (unique, tokens)
        for loss, unique, tokens in zip(points.loss, points.others["U"], points.d, strict=True)
    }
    assert by_loss == {
        3.0: (51_200, 51_200),
        3.1: (4992, 51_200),
        3.2: (25_600, 25_600),
    }  # whole windows; never more than D
    assert "U" not in points_of(frame((text_run(None, 100), 3.0), (text_run(None, 50), 3.2))).others
    assert points.take(points.loss > 3.05).others["U"].tolist() == [
        u for u, loss in zip(points.others["U"], points.loss, strict=True) if loss > 3.05
    ]


def test_different_languages_do_not_compare():
    one = run()
    other = one.model_copy(update={"task": one.task.model_copy(update={"zipf": 0.7})})
    shorter = one.model_copy(update={"task": one.task.model_copy(update={"seq_len": 15})})
    assert len(points_of(frame((one, 2.0), (shorter, 2.1)))) == 2
    with pytest.raises(ScalingError, match=r"2 different corpora.*zipf 0.7"):
        points_of(frame((one, 2.0), (other, 2.1)))
