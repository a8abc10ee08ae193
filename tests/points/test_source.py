"""Any table becomes points, or is rejected by file, column and row; what is left out is counted."""

import json
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaling.config import OptimConfig, RunConfig, TextTask
from scaling.errors import ScalingError
from scaling.files import write_json
from scaling.points.json_tables import read_json
from scaling.points.letters import parse_columns
from scaling.points.run_tables import curves
from scaling.points.source import SourceOptions, read_source
from scaling.store.rows import DIVERGED, Measurement, Provenance, rows
from scaling.store.run_files import load, write_run
from scaling.warning import WarningCode
from tests.models import small_model

GOOD = "params,tokens,loss\n1e6,2e7,3.5\n2e6,2e7,3.4\n4e6,8e7,3.1\n"


def read(folder, name, text, **options):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_source([path], SourceOptions(**options))


def refused(folder, name, text, **options):
    with pytest.raises(ScalingError) as caught:
        read(folder, name, text, **options)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert len(message.splitlines()) <= 2
    return message


def test_guessed_columns_are_noted(tmp_path):
    source = read(tmp_path, "runs.csv", GOOD)
    assert source.columns == {"N": "params", "D": "tokens", "L": "loss"}
    assert "N = 'params'" in source.notes[0]
    np.testing.assert_allclose(source.points.c, 6 * source.points.n * source.points.d)
    assert source.points.convention["flops"] == "6nd"


def test_same_numbers_from_every_form(tmp_path):
    table = pd.DataFrame({"N": [1e6, 2e6], "D": [2e7, 4e7], "loss": [3.5, 3.2]})
    texts = {
        "a.csv": "N,D,loss\n1M,20M,3.5\n2e6,4e7,3.2\n",
        "a.tsv": "N\tD\tloss\n1e6\t2e7\t3.5\n2e6\t4e7\t3.2\n",
        "b.csv": "\ufeffN;D;loss\r\n1_000_000;2e7;3.5\r\n\r\n2000000;4e7;3.2",
        "a.json": json.dumps(table.to_dict("records")),
        "b.json": json.dumps(table.to_dict("list")),
        "a.jsonl": "\n".join(json.dumps(row) for row in table.to_dict("records")),
    }
    table.to_parquet(tmp_path / "a.parquet")
    found = [read(tmp_path, name, text).points for name, text in texts.items()] + [
        read_source([tmp_path / "a.parquet"], SourceOptions()).points
    ]
    for points in found:
        np.testing.assert_array_equal(points.n, table["N"])
        np.testing.assert_array_equal(points.d, table["D"])
        np.testing.assert_array_equal(points.loss, table["loss"])


def test_tokens_follow_from_flops(tmp_path):
    text = "Model Size,Training FLOP,loss\n1e6,1.2e14,3.5\n2e6,1.2e14,3.4\n"
    source = read(
        tmp_path, "runs.csv", text, columns=parse_columns("N=Model Size,C=Training FLOP,L=loss")
    )
    np.testing.assert_allclose(source.points.d, [2e7, 1e7])
    assert "tokens derived: D = C / (6 N)" in source.notes


def test_flops_that_disagree_with_6nd_warn_or_are_rejected(tmp_path):
    text = "N,D,C,loss\n1e6,2e7,1e3,3.5\n2e6,2e7,2.4e14,3.4\n"
    source = read(tmp_path, "runs.csv", text)
    np.testing.assert_allclose(source.points.c, [1.2e14, 2.4e14])
    assert source.warnings[0].code is WarningCode.FLOPS_DISAGREE
    assert "leave C out" in refused(
        tmp_path, "runs.csv", text, columns=parse_columns("N=N,D=D,C=C,L=loss")
    )


def test_excluded_rows_are_counted(tmp_path):
    text = "N,D,loss,outlier\n" + "".join(
        f"{n}e6,2e7,{loss},{flag}\n"
        for n, loss, flag in [
            (1, 9.0, 0),
            (2, 4.0, 0),
            (3, "nan", 0),
            (4, "diverged", 0),
            (5, 3.0, 1),
            (6, 2.9, 0),
            (70, 2.0, 0),
        ]
    )
    source = read(
        tmp_path, "runs.csv", text, where="N < 6.5e7 and not (loss == 77)", drop_highest=1
    )
    assert dict(source.points.excluded) == {
        "--where N < 6.5e7 and not (loss == 77)": 1,
        "marked in column 'outlier'": 1,
        "loss missing or not finite": 2,
        "among the 1 highest losses": 1,
    }
    assert sorted(source.points.loss) == [2.9, 4.0]


def test_chinchilla_figure_keeps_240(shared_data):
    columns = parse_columns("N=Model Size,C=Training FLOP,L=loss")
    source = read_source(
        [shared_data / "epoch_chinchilla" / "svg_extracted_data.csv"],
        SourceOptions(columns=columns, drop_highest=5),
    )
    assert len(source.points) == 240
    assert source.points.excluded == (("among the 5 highest losses", 5),)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("empty.csv", "", "empty"),
        ("header.csv", "N,D,loss\n", "no rows"),
        ("header2.csv", "N,D,loss", "no rows"),
        ("twice.csv", "N,D,loss,loss\n1,2,3,3\n", "'loss' stands twice"),
        ("lots.csv", "N,D,loss\n1e6,1e7,3\n1e6,1e7,lots\n", "row 2: 'lots'"),
        ("minus.csv", "N,D,loss\n1e6,1e7,3\n-1e6,1e7,3\n", "row 2: '-1e6'"),
        ("zero.csv", "N,D,loss\n1e6,0,3\n", "column 'D'"),
        ("losszero.csv", "N,D,loss\n1e6,1e7,0\n", "column 'loss'"),
        ("comma.csv", 'N,D,loss\n1e6,1e7,"3,5,1"\n', "is not a unit of loss"),
        ("mixed.csv", "N;D;loss\n1e6;1e7;3,5\n1e6;1e7;3.5\n", "decimal points"),
        ("ragged.csv", "N,D,loss\n1,000,1e7,3\n", "Expected 3 columns, got 4"),
        ("spaces.txt", "N D loss\n10 000 1e7 3\n20 000 1e7 3\n", "Expected 3 columns, got 4"),
        ("short.csv", "N,D,loss\n1e6,1e7\n", "Expected 3 columns, got 2"),
        ("nan.csv", "N,D,loss\n1e6,1e7,nan\n", "no row holds"),
        ("xy.csv", "x,y\n1,2\n", "columns: x, y"),
        ("two.csv", "N,D,loss,val_loss\n1e6,1e7,3,2\n", "'loss' and 'val_loss' may all be L"),
        ("huge.csv", "N,D,loss\n1e31,1e7,3\n", "'1e31'"),
        ("tiny.csv", "N,D,loss\n1e-200,1e-200,3\n", "C = 6 N D would be 0 in 1 rows"),
        ("bool.json", '[{"N": true, "D": 1e7, "loss": 3}]', "'True'"),
        ("keys.json", '[{"N": 1, "N": 2}]', "twice"),
        ("deep.json", "[" * 100_000, "not a table in JSON"),
        ("list.json", "[1, 2]", "list of objects"),
        ("torn.jsonl", '{"N": 1}\n{"N": ', "line 2"),
        ("cut.jsonl", '{"N": 1, "D": 2\n{"N": 1, "D": 2, "loss": 3}\n', "line 1"),
        ("cut.json", '{"N": 1, "D\n{"N": 1, "D": 2, "loss": 3}\n', "line 1"),
        ("pretty.json", '[{"N": 1,\n"D": 2\n"loss": 3}]\n', ": line 3 column 1"),
        ("not.parquet", b"PAR1 and then nothing", "not a readable Parquet"),
        ("page.parquet", b"<html>404</html>", "<html>"),
        ("runs.xlsx", "PK", "a .xlsx file is a workbook: export the sheet as CSV"),
        ("weights.pkl", pickle.dumps({"N": [1]}), "run code"),
        ("run.csv", "run_id,N,D,loss\na,1e6,1e7,3\nb,2e6,1e7,3\na,1e6,1e7,4\n", "rows 1 and 3"),
    ],
)
def test_bad_tables_are_rejected_by_name(tmp_path, name, text, words):
    message = refused(tmp_path, name, text)
    assert name in message
    assert words in message


def test_corrupt_parquet_is_rejected(tmp_path):
    path = tmp_path / "runs.parquet"
    table = pa.table(
        {
            "N": np.arange(1, 20000, dtype=float),
            "D": np.ones(19999),
            "loss": np.random.default_rng(0).random(19999) + 1,
        }
    )
    pq.write_table(table, path, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    assert "runs.parquet" in refused(tmp_path, "runs.parquet", bytes(data))


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "N.values",
        "@N > 1",
        "N",
        "N > f(1)",
        "1 < 2",
        "N[0] > 1",
        "(lambda: 1) > N",
        "N > ",
        "N + 1 > 2",
    ],
)
def test_where_expression_executes_no_code(tmp_path, expression):
    assert "--where" in refused(tmp_path, "runs.csv", GOOD, where=expression)


def test_where_compares_columns(tmp_path):
    text = "model size,D,loss,task\n1e6,2e7,3.5,text\n2e6,2e7,3.4,code\n4e6,8e7,3.1,text\n"
    chosen = {"N": "model size", "D": "D", "L": "loss"}
    source = read(
        tmp_path,
        "runs.csv",
        text,
        columns=chosen,
        where="`model size` >= 2e6 and task in ['text', 'math'] or 3.45 < L <= 9",
    )
    assert source.points.loss.tolist() == [3.5, 3.1]
    assert "did you mean task?" in refused(
        tmp_path, "runs.csv", text, columns=chosen, where="tsk == 'text'"
    )


def test_where_compares_nullable_columns():
    frame = pd.DataFrame(
        {"params": [1e6, 2e6, 4e6], "tokens": [2e7, 2e7, 8e7], "loss": [3.5, 3.4, 3.1]}
    )
    frame = frame.convert_dtypes()
    assert str(frame.dtypes["params"]) == "Int64"
    for where in ("params > 1e6", "N > 1e6"):
        source = read_source([frame], SourceOptions(where=where))
        assert source.points.loss.tolist() == [3.4, 3.1]


def test_where_compares_letters_in_plain_units(tmp_path):
    text = "params (M),D,GFLOPs,loss\n1,2e7,2e5,3.5\n2,2e7,3e5,3.4\n4,8e7,2e6,3.1\n"
    source = read(tmp_path, "runs.csv", text, where="N >= 2e6 and C < 1e15")
    assert source.points.loss.tolist() == [3.4]
    source = read(tmp_path, "runs.csv", text, where="GFLOPs < 2.5e5")
    assert source.points.loss.tolist() == [3.5]


def test_columns_are_checked(tmp_path):
    assert "did you mean params?" in refused(
        tmp_path, "runs.csv", GOOD, columns=parse_columns("N=parms,D=tokens,L=loss")
    )
    for text in ("N", "Q=x", "N=a,N=b", "N="):
        with pytest.raises(ScalingError):
            parse_columns(text)
    assert parse_columns("N=Model Size, big,L=loss") == {"N": "Model Size, big", "L": "loss"}


def test_a_folder_of_tables_is_one_source(tmp_path):
    (tmp_path / "a.csv").write_text("N,D,loss,team\n1e6,2e7,3.5,x\n")
    (tmp_path / "b.json").write_text('[{"N": 2e6, "D": 2e7, "loss": 3.4, "team": "y"}]')
    source = read_source([tmp_path], SourceOptions(cluster="team"))
    assert source.points.loss.tolist() == [3.5, 3.4]
    assert source.points.group.tolist() == ["x", "y"]


def run_config(width, steps, lr=1e-2, seed=0):
    return RunConfig(
        model=small_model(width),
        task=TextTask(kind="text", digest="d"),
        optim=OptimConfig(lr=lr),
        batch_size=8,
        n_steps=steps,
        seed=seed,
    )


def publish(folder, run, losses, diverged=False):
    measured = [Measurement(step, "val", "loss", loss) for step, loss in losses.items()]
    measured += [Measurement(run.n_steps, "train", DIVERGED, 1.0)] if diverged else []
    write_run(folder, rows("s", run, measured, Provenance("cpu", "c", "0")))


def test_results_folder_gives_points_and_curves(tmp_path):
    publish(tmp_path, run_config(16, 100), {10: 4.0, 100: 3.0})
    publish(tmp_path, run_config(16, 200), {10: 4.0, 200: 2.8})
    publish(tmp_path, run_config(32, 100), {10: 3.9, 100: 2.7})
    publish(tmp_path, run_config(48, 100), {10: 9.0}, diverged=True)
    source = read_source([tmp_path], SourceOptions())
    assert sorted(source.points.loss) == [2.7, 2.8, 3.0]
    assert source.points.excluded == (("diverged", 1),)
    assert source.points.group is None
    assert source.warnings[0].code is WarningCode.FEW_PREFIXES
    assert source.warnings[0].data["prefixes"] == 2
    clustered = read_source([tmp_path], SourceOptions(cluster="prefix")).points
    assert len(set(clustered.group)) == 2  # 100 and 200 steps of one wsd prefix share their noise
    assert (
        source.curves is None
    )  # with wsd a run before its cooldown does not compete with finished ones
    every = curves(load(tmp_path))
    assert len(every) == 7
    last = np.isclose(every.loss[:, None], source.points.loss).any(1)
    np.testing.assert_allclose(np.sort(every.c[last]), np.sort(source.points.c))
    again = read_source([tmp_path], SourceOptions(where="d_model > 16"))
    assert again.points.excluded == (("--where d_model > 16", 2), ("diverged", 1))


def test_nuisance_axis_is_minimised_with_a_warning_at_its_edge(tmp_path):
    for index, lr in enumerate((1e-3, 2e-3, 4e-3)):
        publish(tmp_path, run_config(16, 100, lr), {100: 3.0 - 0.1 * index})
        publish(tmp_path, run_config(32, 100, lr), {100: 2.9 + 0.1 * abs(index - 1)})
    (tmp_path / "sweep.toml").write_text(
        'name = "s"\n[design]\nkind = "grid"\nsizes = [1e4]\ntokens = [1e5]\n[base.task]\nkind = '
        '"text"\n'
        '[[axes]]\nfield = "optim.lr"\nvalues = [1e-3, 2e-3, 4e-3]\nrole = "nuisance"\n'
    )
    source = read_source([tmp_path], SourceOptions())
    assert sorted(source.points.loss) == [2.8, 2.9]
    assert source.points.excluded == (("not the best of its nuisance axes", 4),)
    edge = {"field": "optim.lr", "at_edge": 1, "cells": 2}
    assert edge in [w.data for w in source.warnings if w.code is WarningCode.GRID_EDGE]


def test_seeds_that_prefer_different_rates_are_still_replicates(tmp_path):
    for seed, best in enumerate((1e-3, 2e-3, 2e-3)):
        for lr in (1e-3, 2e-3):
            run = run_config(16, 100, lr).model_copy(update={"seed": seed})
            publish(tmp_path, run, {100: 3.0 + 0.01 * seed + 0.1 * (lr != best)})
    (tmp_path / "sweep.toml").write_text(
        'name = "s"\n[design]\nkind = "grid"\nsizes = [1e4]\ntokens = [1e5]\n[base.task]\nkind = '
        '"text"\n'
        '[[axes]]\nfield = "optim.lr"\nvalues = [1e-3, 2e-3]\nrole = "nuisance"\n'
    )
    points = read_source([tmp_path], SourceOptions()).points
    assert sorted(points.loss) == pytest.approx([3.0, 3.01, 3.02])
    assert len(set(points.cell)) == 1


def test_one_run_in_two_folders_must_agree(tmp_path):
    publish(tmp_path / "a", run_config(16, 100), {100: 3.0})
    publish(tmp_path / "b", run_config(16, 100), {100: 3.5})
    with pytest.raises(ScalingError, match="twice with different losses"):
        read_source([tmp_path / "a", tmp_path / "b"], SourceOptions())


@pytest.mark.parametrize("as_text", [True, False])
def test_an_lm_eval_result_of_an_exported_model_has_its_n_d_and_loss(as_text, tmp_path):
    described = {
        "run_id": "0123456789ab",
        "n_params": {"with_head": 12_000, "total": 20_000},
        "tokens": 400_000,
        "loss": {"value": 1.75, "stderr": 0.01},
    }
    (tmp_path / "scaling.json").write_text(json.dumps(described))
    arguments = {"pretrained": str(tmp_path), "dtype": "float32"}
    text = ",".join(f"{name}={value}" for name, value in arguments.items())
    result = {
        "results": {
            "next_bytes": {"alias": "next_bytes", "acc,none": 0.5, "acc_stderr,none": 0.03},
            "perplexity": {"word_perplexity,none": 9.0},
        },
        "versions": {"next_bytes": "Yaml"},
        "n-shot": {"next_bytes": 0},
        "config": {"model": "hf", "model_args": text if as_text else arguments},
    }
    assert read_json(json.dumps(result)).to_dict("records") == [
        {
            "model": "0123456789ab",
            "task": "next_bytes",
            "params": 12_000,
            "tokens": 400_000,
            "loss": 1.75,
            "accuracy": 0.5,
        }
    ]


def test_an_lm_eval_result_of_another_model_is_refused():
    result = {
        "results": {"arc": {"acc,none": 0.5}},
        "versions": {},
        "config": {"model_args": "pretrained=gpt2"},
    }
    with pytest.raises(ScalingError, match="an lm-eval result: scores of one model"):
        read_json(json.dumps(result))


def test_a_text_that_the_largest_run_reads_more_than_once_is_a_warning(tmp_path):
    for steps in (100, 200):
        publish(tmp_path, run_config(16, steps), {steps: 3.0})
    tokens = 200 * 8 * run_config(16, 200).task.seq_len
    text = {"source": "notes", "n_bytes": 9, "held_out_bytes": 1}

    def repeated(train_tokens):
        write_json(tmp_path / "plan.json", {"text": text | {"train_tokens": train_tokens}})
        found = read_source([tmp_path], SourceOptions()).warnings
        return [each for each in found if each.code is WarningCode.REPEATED_DATA]

    assert repeated(tokens) == []
    (warning,) = repeated(tokens // 4)
    assert warning.data == {"passes": 4.0}
    assert "reads the text 4 times" in warning.message
