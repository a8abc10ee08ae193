"""Tracker files become tables: W&B's log framing, real offline runs and event files where the
packages are installed; units too.
"""

import math
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

from scaling.errors import ScalingError
from scaling.points.source import SourceOptions, read_source
from scaling.points.tracker_logs import BLOCK, FIRST, FULL, LAST, MIDDLE, _records


def framed(payloads):
    """A log in the framing of W&B's files."""
    data = bytearray(b":W&B\xe1\xbe\x00")
    for payload in payloads:
        rest, first = payload, True
        while first or rest:
            left = BLOCK - len(data) % BLOCK
            if left < 7:
                data += bytes(left)
                continue
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = (FIRST if rest else FULL) if first else (MIDDLE if rest else LAST)
            data += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
    return bytes(data)


def test_records_span_blocks_and_end_where_the_run_was_cut_off(tmp_path):
    payloads = [b"a" * 10, b"b" * 100_000, b"", b"c" * (BLOCK - 7), b"d"]
    data = framed(payloads)
    assert list(_records(data, tmp_path)) == payloads
    assert list(_records(data[:-3], tmp_path)) == payloads[:-1]
    with pytest.raises(ScalingError, match="not a W&B file"):
        list(_records(b"<html>", tmp_path))


def test_a_missing_package_is_named(tmp_path):
    (tmp_path / "run-x.wandb").write_bytes(framed([b""]))
    try:
        import wandb  # noqa: F401
    except ImportError:
        with pytest.raises(ScalingError, match="needs the package wandb"):
            read_source([tmp_path], SourceOptions())


@pytest.mark.slow
def test_offline_wandb_runs(tmp_path):
    pytest.importorskip("wandb")
    code = (
        "import wandb, sys\n"
        "for i in range(8):\n"
        "    run = wandb.init(mode='offline', dir=sys.argv[1], config={'n_params': 1e6 * 2 ** (i "
        "% 4), 'data': {'tokens': 2e7 * 3 ** (i // 2)}})\n"
        "    for step in range(4): run.log({'val/loss': 4.0 - 0.1 * step - 0.1 * i})\n"
        "    run.finish()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True,
        env={**os.environ, "WANDB_SILENT": "true"},
    )
    points = read_source(
        [tmp_path], SourceOptions(columns={"N": "n_params", "D": "data.tokens", "L": "val/loss"})
    ).points
    np.testing.assert_allclose(sorted(points.loss), 3.7 - 0.1 * np.arange(8)[::-1])
    assert set(points.n) == {1e6, 2e6, 4e6, 8e6}


def test_tensorboard_event_files(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for i in range(6):
        writer = EventFileWriter(str(tmp_path / f"run{i}"))
        for step, values in (
            (0, {"n_params": 1e6 * (i + 1), "tokens": 2e7}),
            (5, {"eval/loss": 4.0}),
            (9, {"eval/loss": 3.0 - 0.1 * i}),
        ):
            held = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            writer.add_event(Event(step=step, summary=Summary(value=held)))
        writer.close()
    points = read_source([tmp_path], SourceOptions()).points
    np.testing.assert_allclose(points.loss, 3.0 - 0.1 * np.arange(6), rtol=1e-6)
    np.testing.assert_allclose(points.n, 1e6 * np.arange(1, 7))


def test_a_table_with_units_is_read_and_noted(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(
        "params (M),tokens_B,loss (bits)\n"
        + "".join(f"{10 * i},{i},{5 - 0.1 * i}\n" for i in range(1, 9))
    )
    source = read_source([path], SourceOptions())
    np.testing.assert_allclose(source.points.n[0], 1e7)
    np.testing.assert_allclose(source.points.d[0], 1e9)
    np.testing.assert_allclose(source.points.loss[0], 4.9 * math.log(2))
    assert sum("is read in" in note for note in source.notes) == 3


def test_integers_that_wrapped_round_are_named(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("N,C,loss\n1e9,57600000000000000000000,2.0\n2e9,-5270711576516316368,1.9\n")
    with pytest.raises(ScalingError, match="row 2: '-5270711576516316368'"):
        read_source([path], SourceOptions(columns={"N": "N", "C": "C", "L": "loss"}))
    path.write_text("N,C,loss\n1e9,57600000000000000000000,2.0\n2e9,9300000000000000000,1.9\n")
    np.testing.assert_allclose(read_source([path], SourceOptions()).points.c, [5.76e22, 9.3e18])


def test_runs_that_did_not_finish_are_counted(tmp_path):
    path = tmp_path / "export.csv"
    path.write_text(
        "Name,State,config.n_params,summary.tokens,val/loss\na,finished,1e6,2e7,3.0\n"
        "b,crashed,1e6,2e7,9.0\nc,finished,2e6,2e7,2.9\n"
    )
    points = read_source([path], SourceOptions()).points
    assert len(points) == 2
    assert ("not finished by column 'State'", 1) in points.excluded
