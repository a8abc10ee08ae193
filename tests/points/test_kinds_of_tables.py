"""Tables as people bring them, each read to the numbers that it means, or
refused with the reason.
"""

import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest

from scaling.errors import ScalingError
from scaling.fit.fit_options import FitOptions
from scaling.points.source import SourceOptions, read_source

N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(2e7, 2e9, 5), np.geomspace(4e8, 4e10, 5)))
LOSS = 1.70 + 420 / N**0.34 + 650 / D**0.30
C = 6 * N * D
LN2 = np.log(2)


def frame(**columns):
    return pd.DataFrame(columns)


def plain():
    return frame(params=N, tokens=D, val_loss=LOSS)


def read(source, inputs=("N", "D"), **options):
    return read_source([source], SourceOptions(inputs=inputs, **options))


def check(source, n=N, d=D, loss=LOSS, rtol=1e-6):
    points = source.points
    for name, got, wanted in (("N", points.n, n), ("D", points.d, d), ("L", points.loss, loss)):
        assert got is not None, name
        np.testing.assert_allclose(got, wanted, rtol=rtol, err_msg=name)


HEADERS = [
    ("params (M)", N / 1e6, "tokens (B)", D / 1e9, "loss", LOSS),
    ("params_M", N / 1e6, "tokens_billions", D / 1e9, "val_loss", LOSS),
    ("params [1e6]", N / 1e6, "tokens [10^9]", D / 1e9, "val loss (nats/token)", LOSS),
    ("params x1e6", N / 1e6, "tokens / 1e9", D / 1e9, "val_loss", LOSS),
    ("Parameters (millions)", N / 1e6, "Training tokens (billions)", D / 1e9, "Loss", LOSS),
    ("n_params in millions", N / 1e6, "tokens, in billions", D / 1e9, "loss", LOSS),
    ("model size (B)", N / 1e9, "tokens (T)", D / 1e12, "final loss", LOSS),
    ("params", N, "tokens (10⁹)", D / 1e9, "loss (bits/token)", LOSS / LN2),
    ("N", N, "D", D, "loss in bits", LOSS / LN2),
    ("N", N, "D", D, "val_loss_bits", LOSS / LN2),
    ("N", N, "D", D, "perplexity", np.exp(LOSS)),
    ("N", N, "D", D, "val_ppl", np.exp(LOSS)),
    ("N", N, "D", D, "loss (perplexity)", np.exp(LOSS)),
    ("#params", N, "#tokens", D, "val/loss", LOSS),
    ("model/num_params", N, "throughput/total_tokens", D, "eval/paloma/macro_loss", LOSS),
    ("config.n_params", N, "summary.tokens_seen", D, "summary/val_loss", LOSS),
    ("nParams", N, "trainTokens", D, "smooth loss", LOSS),
    ("non_embedding_params", N, "train/tokens", D, "eval_loss", LOSS),
    ("N", N, "tokens/total", D, "Perplexity (val)", np.exp(LOSS)),
    ("params_no_emb", N, "number of tokens", D, "Validation Cross-Entropy", LOSS),
    ("Params (w/o embeddings)", N, "tokens", D, "val/loss/mean", LOSS),
    ("Model size (M params)", N / 1e6, "Training data (B tokens)", D / 1e9, "Val. loss", LOSS),
    ("Mparams", N / 1e6, "Gtokens", D / 1e9, "loss", LOSS),
    ("n_params", N, "d_tokens_k", D / 1e3, "neg_log_likelihood", LOSS),
    ("N_params", N, "D_tokens", D, "L_val", LOSS),
    ("num_non_emb_params", N, "num_train_tokens", D, "final_val_ce", LOSS),
    ("model_param_count", N, "n_tokens_seen", D, "validation_metrics/loss/global_avg", LOSS),
    ("hparam_n_params", N, "tokens_processed", D, "val/loss.min", LOSS),
    ("body_params", N, "consumed_tokens", D, "val_loss_epoch", LOSS),
    ("params", N, "tokens", D, "log_ppl", LOSS),
    ("params", N, "tokens", D, "eval/log_perplexity", LOSS),
    ("params", N, "tokens", D, "log2_ppl", LOSS / LN2),
    ("params", N, "tokens", D, "log10(perplexity)", LOSS / np.log(10)),
    ("params", N, "tokens", D, "word_perplexity", np.exp(LOSS)),
    ("n_params", N, "time/token", D, "metrics/eval/LanguageCrossEntropy", LOSS),
    ("n_params", N, "num_tokens_seen", D, "validation_metrics/loss/global_avg_loss", LOSS),
    ("$N$", N, "$D$", D, "$L$", LOSS),
]


@pytest.mark.parametrize("row", HEADERS, ids=lambda row: f"{row[0]}|{row[2]}|{row[4]}")
def test_headers_with_units_words_and_paths_are_read(row, tmp_path):
    table = pd.DataFrame({row[0]: row[1], row[2]: row[3], row[4]: row[5]})
    table.to_csv(tmp_path / "runs.csv", index=False)
    check(read(tmp_path / "runs.csv"))


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("compute (PFLOPs)", 1e15),
        ("GFLOPs", 1e9),
        ("training_flops (TFLOPs)", 1e12),
        ("compute (PF-days)", 8.64e19),
        ("compute in PF days", 8.64e19),
        ("petaflop/s-days", 8.64e19),
        ("FLOPs (1e18)", 1e18),
        ("FLOPs [E]", 1e18),
        ("train_flops_zetta", 1e21),
        ("flops x 10^15", 1e15),
        ("TFLOP/s-hours", 3.6e15),
        ("PF/s-days", 8.64e19),
    ],
)
def test_compute_in_any_unit_gives_its_tokens(name, factor, tmp_path):
    frame(params=N, **{name: C / factor}, loss=LOSS).to_csv(tmp_path / "runs.csv", index=False)
    source = read(tmp_path / "runs.csv")
    check(source)
    np.testing.assert_allclose(source.points.c, C, rtol=1e-6)


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ("params (bananas)", "bananas"),
        ("log_params", "logarithm"),
        ("log10(params)", "logarithm"),
        ("ln params", "logarithm"),
        ("params (log scale)", "log"),
        ("params (%)", "%"),
    ],
)
def test_a_header_that_is_not_understood_is_refused(column, why, tmp_path):
    table = pd.DataFrame({column: N, "tokens": D, "val_loss": LOSS})
    table.to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(ScalingError, match=why):
        read(tmp_path / "runs.csv", columns={"N": column})


CELLS = {
    "suffixes": lambda: frame(
        params=[f"{n / 1e6:.9g}M" for n in N], tokens=[f"{d / 1e9:.9g} B" for d in D], val_loss=LOSS
    ),
    "nouns": lambda: frame(
        params=[f"{n / 1e6:.9g}M params" for n in N],
        tokens=[f"{d / 1e9:.9g}B tokens" for d in D],
        val_loss=[f"{x:.9f} nats" for x in LOSS],
    ),
    "bits": lambda: frame(params=N, tokens=D, val_loss=[f"{x / LN2:.9f} bits" for x in LOSS]),
    "bits and nats": lambda: frame(
        params=N,
        tokens=D,
        val_loss=[f"{x:.9f} nats" if x > 3 else f"{x / LN2:.9f} bits" for x in LOSS],
    ),
    "about": lambda: frame(params=[f"~{n / 1e6:.9g}M" for n in N], tokens=D, val_loss=LOSS),
    "powers": lambda: frame(
        params=[f"{n / 1e6:.9g}e6" for n in N],
        tokens=[f"{d / 1e9:.9g} x 10^9" for d in D],
        val_loss=LOSS,
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_with_units_are_read_and_noted(name):
    source = read(CELLS[name]())
    check(source)
    assert any("cells of" in note for note in source.notes)


@pytest.mark.parametrize("ratio", ["tokens/param", "flops/token", "D/N", "FLOPs / token"])
def test_a_ratio_is_no_count(ratio):
    table = frame(flops=C, loss=LOSS).assign(**{ratio: D / N})
    source = read(table)
    assert ratio not in source.columns.values()
    if ratio in ("tokens/param", "D/N"):  # with C it says N and D
        check(source)
        assert "parameters derived: N = sqrt(C / (6 r))" in " ".join(source.notes)
    else:
        assert set(source.columns) == {"C", "L"}


@pytest.mark.parametrize("path", ["compute/{}", "steps/{}", "step/{}"])
def test_a_path_is_no_ratio(path):
    check(read(frame(**{"params": N, path.format("total_tokens"): D, "loss": LOSS})))


def test_total_and_active_parameters_are_known():
    source = read(frame(N_active=N, D_total=D, loss=LOSS))
    check(source)
    assert source.columns["N"] == "N_active"
    total = read(frame(N_total=N, D=D, loss=LOSS))
    check(total)
    assert total.points.convention["params"] == "total"
    check(read(frame(N=N, N_total=9 * N, D=D, D_total=9 * D, loss=LOSS)))
    for total, active in (("N_total", "N_active"), ("total_params", "active_params")):
        table = frame(**{total: 9 * N, active: N, "D": D, "loss": LOSS})
        with pytest.raises(ScalingError) as error:
            read(table)
        assert f'"N={total}", or N={active} (C = 6 N D counts the active' in str(error.value)


@pytest.mark.parametrize(
    "extra", [{"total_steps": 2}, {"max_steps": 2}, {"global_step": 1}, {"step": 1}]
)
def test_of_several_columns_of_steps_the_usual_one_is_taken(extra):
    steps = {"steps": D / 2**19, **{name: D / 2**19 * times for name, times in extra.items()}}
    check(read(frame(params=N, **steps, batch_size=256, seq_len=2048, loss=LOSS)))


def test_a_named_column_of_values_is_not_spread():
    table = frame(tag=[f"t{i}" for i in range(25)], params=N, tokens=D, value=LOSS)
    check(read(table, columns={"L": "value"}))


def test_lists_of_parts_of_runs_are_put_side_by_side(tmp_path):
    parts = {
        "config": plain()[["params", "tokens"]].to_dict("records"),
        "summary": plain()[["val_loss"]].to_dict("records"),
    }
    (tmp_path / "runs.json").write_text(json.dumps(parts))
    check(read(tmp_path / "runs.json"))


@pytest.mark.parametrize("name", ["loss (-)", "val loss (\u2193)", "loss ()"])
def test_signs_in_parentheses_are_no_unit(name):
    check(read(frame(params=N, tokens=D, **{name: LOSS})))


def test_gaps_of_compute_are_not_filled_where_it_is_not_needed():
    flops = np.where(np.arange(24) % 3 == 0, C[:24], np.nan)
    source = read(plain().iloc[:24].assign(flops=flops))
    check(source, N[:24], D[:24], LOSS[:24])
    np.testing.assert_allclose(source.points.c, C[:24])


@pytest.mark.parametrize("line", ["M,B", "M,B,nats,x"])
def test_a_second_line_of_another_length_is_no_header(line, tmp_path):
    rows = "\n".join(f"{n},{d},{loss}" for n, d, loss in zip(N, D, LOSS, strict=True))
    (tmp_path / "runs.csv").write_text(f"params,tokens,loss\n{line}\n{rows}\n")
    with pytest.raises(ScalingError, match="not a readable CSV table: Expected 3 columns"):
        read(tmp_path / "runs.csv")


def test_paths_with_an_ampersand_are_no_latex(tmp_path):
    plain().assign(model=r"C:\\a & b\\c").to_csv(tmp_path / "runs.csv", index=False)
    check(read(tmp_path / "runs.csv"))


def test_names_of_other_quantities_are_not_taken():
    others = "d_model n_layers tokens_per_second batch_tokens eval_tokens aux_loss loss_std"
    table = plain().assign(**{name: np.arange(25.0) + 1 for name in others.split()})
    table["log_flops"] = np.log(C)
    table["flops_per_token"] = 6 * N
    source = read(table)
    check(source)
    assert dict(source.columns) == {"N": "params", "D": "tokens", "L": "val_loss"}
    with pytest.raises(ScalingError, match="'log10_tokens' holds a logarithm"):
        read(frame(params=N, log10_tokens=np.log10(D), loss=LOSS))


def test_a_loss_of_its_own_goes_before_its_unit():
    table = plain().rename(columns={"val_loss": "eval/macro_loss"})
    table["eval/c4/bpb"] = 0.3 * LOSS
    check(read(table))


def test_all_ambiguities_are_asked_about_at_once():
    table = plain().assign(train_tokens=2 * D, train_loss=LOSS - 0.1)
    with pytest.raises(ScalingError) as caught:
        read(table)
    assert "D=tokens,L=val_loss" in str(caught.value)
    paths = {"train_loss": "train/loss", "val_loss": "val/loss", "train_tokens": "train/tokens"}
    paths = table.rename(columns=paths | {"tokens": "eval/tokens"}).iloc[:, ::-1]
    with pytest.raises(ScalingError, match="D=train/tokens,L=val/loss"):
        read(paths)
    check(read(table, columns={"D": "tokens", "L": "val_loss"}))


def test_thousands_separators_are_read_where_they_are_unambiguous():
    n, d = np.round(N), np.round(D)
    for sign in (",", " ", "'", "\u2019", "\u202f", "_"):
        table = frame(
            params=[f"{int(x):,}".replace(",", sign) for x in n],
            tokens=[f"{int(x):,}".replace(",", sign) for x in d],
            val_loss=LOSS,
        )
        check(read(table), n, d)
    dots = frame(params=[f"{int(x):,}".replace(",", ".") for x in n], tokens=D, val_loss=LOSS)
    check(read(dots), n)
    nouns = frame(params=N, tokens=[f"{int(x):,} tokens" for x in d], val_loss=LOSS)
    check(read(nouns), N, d)
    check(
        read(frame(params=["2,00,00,000", "6,32,45,553"] * 3, tokens=D[:6], val_loss=LOSS[:6])),
        np.array([2e7, 63245553] * 3),
        D[:6],
        LOSS[:6],
    )
    decimals = pd.DataFrame({"params (k)": [f"{x / 1e3:,.1f}" for x in n], "tokens": D})
    check(read(decimals.assign(val_loss=LOSS)), np.round(n / 1e3, 1) * 1e3)


def csv_text(sep=",", decimal="."):
    return plain().to_csv(index=False, sep=sep, decimal=decimal)


BYTES = {
    "cr": csv_text().replace("\n", "\r").encode(),
    "crlf": csv_text().replace("\n", "\r\n").encode(),
    "bom": b"\xef\xbb\xbf" + csv_text().encode(),
    "utf-16": csv_text().encode("utf-16"),
    "utf-16-be": csv_text(sep="\t").encode("utf-16-be"),
    "utf-32": csv_text().encode("utf-32"),
    "cp1252": ("# Größe\n" + csv_text()).encode("cp1252"),
    "semicolons": csv_text(sep=";").encode(),
    "tabs": csv_text(sep="\t").encode(),
    "bars": csv_text(sep="|").encode(),
    "spaces": csv_text(sep=" ").encode(),
    "sep=": b"sep=;\n" + csv_text(sep=";").encode(),
    "comments": b"# from cluster A\n# seed 0\n\n" + csv_text().encode(),
    "blank lines": b"\n\n" + csv_text().replace("\n", "\n\n").encode(),
    "other comments": b"// from cluster A\n% seed 0\n" + csv_text().encode(),
    "a title": b"Our sweep\n\n" + csv_text().encode(),
    "a title of a spreadsheet": b"Our sweep,,\n2026-01-01,,\n" + csv_text().encode(),
    "header in a comment": b"# " + csv_text().encode(),
    "quotes": ('"params","tokens","val_loss"\n' + csv_text().split("\n", 1)[1]).encode(),
    "LaTeX": (csv_text(sep="&").replace("\n", " \\\\\n") + "\\hline\n").encode(),
    "two tables": csv_text().encode() + csv_text().encode(),
    "an average below": csv_text().encode() + b"Average,,3.1\n",
    "an index": plain().to_csv().encode(),
    "two lines of headers": ("model,,result\n" + csv_text()).encode(),
    "two lines of headers and an index": plain()
    .set_axis(pd.MultiIndex.from_tuples([("m", "params"), ("m", "tokens"), ("e", "loss")]), axis=1)
    .to_csv()
    .encode(),
    "a line of units": frame(params=N / 1e6, tokens=D / 1e9, loss=LOSS / LN2)
    .to_csv(index=False)
    .replace("\n", "\nM,B,bits\n", 1)
    .encode(),
    "a printed frame": plain().to_string(float_format=repr).encode(),
    "a grid": b"+--+--+\n" + csv_text("|").replace("\n", "\n+==+==+\n").encode(),
    "lines of =": b"=== === ===\n" + csv_text(" ").encode() + b"=== === ===\n",
    "LaTeX in LaTeX": (
        "\\toprule \\textbf{Params} & \\multicolumn{1}{c}{Tokens} & $L$ \\\\\n\\midrule\n"
        + "".join(
            f"${n / 1e6!r} \\times 10^{{6}}$ & {d!r} & \\textbf{{{x!r}}} \\\\\n"
            for n, d, x in zip(N.tolist(), D.tolist(), LOSS.tolist(), strict=True)
        )
    ).encode(),
    "bold cells": frame(params=N, tokens=D, loss=[f"**{x!r}**" for x in LOSS.tolist()])
    .to_csv(index=False, sep="|")
    .encode(),
    "merged cells": plain()
    .assign(tokens=np.where(np.arange(25) % 5, "", D.astype(str)))
    .to_csv(index=False)
    .encode(),
    "empty last column": "\n".join(line + "," for line in csv_text().split()).encode(),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_of_any_program_are_read(name, tmp_path):
    (tmp_path / "runs.csv").write_bytes(BYTES[name])
    check(read(tmp_path / "runs.csv"))
    (tmp_path / "runs.csv.gz").write_bytes(gzip.compress(BYTES[name]))
    check(read(tmp_path / "runs.csv.gz"))


def test_decimal_commas_are_read_where_they_are_sure(tmp_path):
    (tmp_path / "runs.csv").write_text(csv_text(sep=";", decimal=","))
    check(read(tmp_path / "runs.csv"))
    german = [f"{x:,.1f}".translate(str.maketrans(",.", ".,")) for x in N]
    check(read(frame(params=german, tokens=D, val_loss=LOSS)), np.round(N, 1))
    billions = [f"{x / 1e9:.3f}".replace(".", ",") for x in D]  # 0,400 are no thousands
    check(read(pd.DataFrame({"N": N, "tokens (B)": billions, "loss": LOSS})), d=D.round(-6))
    losses = [f"{x:.3f}".replace(".", ",") for x in LOSS]
    large = [f"{x / 1e8:.3f}".replace(".", ",") for x in D]  # nor are 4,000 beside such losses
    table = pd.DataFrame({"N": N, "tokens (B)": large, "loss": losses})
    check(read(table), d=10 * D.round(-5), loss=LOSS.round(3))
    check(read(frame(params=N, tokens=D, val_loss=losses)), loss=np.round(LOSS, 3))
    doubtful = [f"{x:.3f}".replace(".", ",") for x in np.linspace(1.001, 9.999, 25)]
    source = read(frame(params=doubtful, tokens=D, val_loss=LOSS))
    assert source.points.n.min() == 1001  # thousands, and the unlikely unit is warned about
    assert any(warning.code.value == "unlikely_unit" for warning in source.warnings)


RECORDS = [
    {"params": float(n), "tokens": float(d), "val_loss": float(x)}
    for n, d, x in zip(N, D, LOSS, strict=True)
]
JSON = {
    "records": ("json", json.dumps(RECORDS)),
    "lines": ("jsonl", "\n".join(map(json.dumps, RECORDS))),
    "lines in a log": ("txt", "\n".join(map(json.dumps, RECORDS))),
    "lines with CR": ("jsonl", "\r\n".join(map(json.dumps, RECORDS))),
    "columns": ("json", json.dumps(plain().to_dict("list"))),
    "pandas": ("json", plain().to_json(double_precision=15)),
    "pandas split": ("json", plain().to_json(orient="split", double_precision=15)),
    "pandas index": ("json", plain().to_json(orient="index", double_precision=15)),
    "runs in an object": ("json", json.dumps({"created": "today", "runs": RECORDS})),
    "rows with a header": (
        "json",
        json.dumps([["params", "tokens", "val_loss"], *plain().to_numpy().tolist()]),
    ),
    "a list in lines": ("jsonl", "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]"),
    "rows of each size": (
        "json",
        json.dumps({f"{n / 1e6:.0f}M": [r for r in RECORDS if r["params"] == n] for n in N[:5]}),
    ),
    "runs below other keys": ("json", json.dumps({"by": "me", "sweep": {"experiments": RECORDS}})),
    "named runs": ("json", json.dumps({f"run-{i}": each for i, each in enumerate(RECORDS)})),
    "nested": (
        "jsonl",
        "\n".join(
            json.dumps(
                {
                    "name": f"r{i}",
                    "config": {"model": {"params": each["params"]}, "lr": 1e-3},
                    "summary": {"tokens": each["tokens"], "eval": {"loss": each["val_loss"]}},
                }
            )
            for i, each in enumerate(RECORDS)
        ),
    ),
    "MLflow": (
        "json",
        json.dumps(
            {
                "runs": [
                    {
                        "info": {"status": "FINISHED"},
                        "data": {
                            "params": [{"key": "n_params", "value": each["params"]}],
                            "metrics": [
                                {"key": "tokens", "value": each["tokens"]},
                                {"key": "val_loss", "value": each["val_loss"]},
                            ],
                        },
                    }
                    for each in RECORDS
                ]
            }
        ),
    ),
}


@pytest.mark.parametrize("name", JSON)
def test_json_of_any_shape_is_read(name, tmp_path):
    suffix, text = JSON[name]
    path = tmp_path / f"runs.{suffix}"
    path.write_text(text)
    same = check_unordered if name == "rows of each size" else check
    same(read(path), rtol=1e-5)


def numpy_repr(cell):
    return repr({name: np.float64(x) if name != "layers" else x for name, x in cell.items()})


@pytest.mark.parametrize("write", [json.dumps, repr, numpy_repr])
def test_dictionaries_in_cells_become_columns(write):
    table = frame(
        config=[write({"n_params": float(n), "layers": [1, 2]}) for n in N],
        summary=[
            write({"tokens": float(d), "loss": float(x)}) for d, x in zip(D, LOSS, strict=True)
        ],
    )
    check(read(table))


def test_lists_of_one_and_categories_are_plain_cells(tmp_path):
    table = frame(params=[[n] for n in N], tokens=D, loss=LOSS).assign(config=[{"a": [1, 2]}] * 25)
    check(read(table))
    plain().assign(kind=pd.Categorical(["x"] * 25)).to_parquet(tmp_path / "runs.parquet")
    check(read(tmp_path / "runs.parquet"))
    with pytest.raises(ScalingError, match="holds a list"):
        read(frame(params=N, tokens=D, loss=[[9.0, x] for x in LOSS]))


@pytest.mark.parametrize(
    "text",
    [
        "step 1: train loss 4.2, val loss 4.3\nstep 2: train loss 4.1, val loss 4.2\n",
        "1700000000100 4.2559 100\n1700000000200 4.1 200\n",
        plain().T.to_csv(header=False),
    ],
)
def test_a_first_line_of_numbers_is_no_header(text, tmp_path):
    (tmp_path / "runs.txt").write_text(text)
    with pytest.raises(ScalingError, match="the first line holds numbers and is not a header"):
        read(tmp_path / "runs.txt")


STATES = {
    "state": ("finished", "crashed"),
    "run_state": ("Finished", "preempted"),
    "lifecycle": ("COMPLETED", "NODE_FAIL"),
    "job_status": ("COMPLETED", "CANCELLED by 1234"),
    "status": ("success", "RUNNING"),
    "exit_code": ("0", "137"),
    "State": ("JobState.SUCCEEDED", "JobState.FAILED"),
    "finished": ("True", "False"),
    "crashed": ("no", "yes"),
    "Status ": ("✅ Finished", "❌ failed"),
    "slurm_state": ("COMPLETED", "OUT_OF_MEMORY"),
    "phase": ("Succeeded", "Failed"),
    "end": ("finished", "killed"),
    "exitcode": ("0:0", "1:0"),
    "was_preempted": ("False", "True"),
    "converged": ("True", "False"),
    "ExitCode": ("0:0", "0:9"),
    "Done?": ("✓", "✗"),
    "complete": ("x", ""),
    "nan_loss": ("0", "1"),
    "progress": ("100%", "43%"),
    "run_progress": ("1000/1000", "370/1000"),
    "is_final": ("True", "False"),
    "last_checkpoint": (1, 0),
    "include": (1, 0),
    "is_valid": ("yes", "no"),
    "exclude": ("", "x"),
    "ignored_in_fit": (False, True),
    "label": ("run", "Grand total"),
    "run ": ("", "Mean of 25 runs:"),
    "pct_complete": (1.0, 0.25),
    "portion_steps_elapsed": (1.0, 0.5),
    "finished_at": ("2026-01-01", ""),
    "result": ("ok", "oom"),
    "State of job": ("COMPLETED", "OUT_OF_ME+"),
    "name": ("run", "mean"),
}


@pytest.mark.parametrize("name", STATES)
def test_only_finished_runs_are_used(name):
    done, undone = STATES[name]
    table = plain().assign(**{name: [done] * 25})
    unfinished = plain().iloc[:4].assign(**{name: undone})
    unfinished["val_loss"] += 0.5
    source = read(pd.concat([table, unfinished], ignore_index=True))
    check(source)
    assert sum(count for _, count in source.points.excluded) == 4


def test_runs_below_their_planned_steps_are_not_finished():
    table = plain().assign(step=1000, max_steps=1000)
    early = table.iloc[:4].assign(step=370, val_loss=9.0)
    source = read(pd.concat([table, early], ignore_index=True))
    check(source)
    assert source.points.excluded == (("not finished: 'step' below 'max_steps'", 4),)
    check(read(table.assign(max_steps=2000)))
    halves = pd.concat([plain().assign(tokens=D / 2, val_loss=9), plain()], ignore_index=True)
    check(read(halves.assign(target_tokens=[f"{d / 1e9:.9g}B" for d in np.tile(D, 2)])))


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("use_checkpoint", np.arange(25) % 2),  # of activations
        ("keep_last_checkpoint", np.arange(25) % 2),
        ("ignore_nan_loss", np.arange(25) % 2),
        ("include", np.zeros(25, int)),
        ("exclude", np.ones(25, int)),
        ("is_final", [""] * 25),
        ("last_eval", [""] * 25),
        ("run", np.arange(25) % 2),
        ("run", np.arange(80, 105)),
        ("fraction", np.tile([0.2, 0.4, 0.6, 0.8, 1.0], 5)),  # of the data
        ("target_tokens", D * (1 + 1e-3 * (np.arange(25) % 2))),  # the last batch is whole
        ("target_tokens", np.full(25, D.max())),  # of the longest run
    ],
)
def test_columns_that_mark_no_runs_leave_none_out(column, cells):
    source = read(plain().assign(**{column: cells}))
    assert source.points.excluded == ()
    check(source)


def test_checkpoints_all_keeps_rows_that_are_not_the_last():
    early = plain().assign(step=500, val_loss=LOSS + 0.5, tokens=D / 2)
    table = pd.concat([early, plain().assign(step=1000)], ignore_index=True)
    for marks in ({"max_steps": 1000}, {"is_final": table["step"] == 1000}):
        assert len(read(table.assign(**marks)).points) == 25
        assert len(read(table.assign(**marks), checkpoints="all").points) == 50


@pytest.mark.parametrize("column", ["finished", "crashed"])
def test_marks_by_which_no_run_is_finished_are_refused(column):
    with pytest.raises(ScalingError, match=f"no run is finished: 25 marked in column '{column}'"):
        read(plain().assign(**{column: int(column == "crashed")}))


def test_cells_that_say_that_nothing_was_measured_are_missing():
    words = ["n.a.", "--", "\u2014", "TBD", "?", "#DIV/0!", "not run", "OOM"]
    for source in (
        read(plain().assign(val_loss=[*LOSS[:17], *words])),
        read(plain().assign(val_loss=[*LOSS[:17], *["see log"] * 8]), where="val_loss > 0"),
    ):
        check(source, N[:17], D[:17], LOSS[:17])
        assert [count for _, count in source.points.excluded] == [8]
        assert not source.warnings


def test_an_unknown_state_is_named():
    table = plain().assign(state=["finished"] * 24 + ["zombie"])
    source = read(table)
    assert len(source.points) == 24
    assert any("zombie" in warning.message for warning in source.warnings)
    source = read(plain().assign(state=["alpha"] * 24 + ["omega"]))
    assert len(source.points) == 25
    assert any("'omega'" in warning.message for warning in source.warnings)


def test_a_crash_in_a_text_is_said():
    table = plain().assign(notes=["crashed at step 4000", *[""] * 24])
    source = read(table)
    check(source)
    assert ["'crashed at step 4000'" in warning.message for warning in source.warnings] == [True]


def checkpoints():
    """Four rows a run, equally spaced, whose last loss is that of the law."""
    share = np.tile([0.25, 0.5, 0.75, 1.0], 25)
    n, d = np.repeat(N, 4), np.repeat(D, 4) * share
    loss = (1.70 + 420 / n**0.34 + 650 / d**0.30) * np.where(share < 1, 1.04, 1)
    return frame(params=n, tokens=d, val_loss=loss)


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"step": np.tile([1, 2, 3, 4], 25)},
        {"uid": np.repeat([f"{i * 7919:x}" for i in range(25)], 4)},
        {"path": [f"/ckpt/m{i // 4}/step_{i % 4}00/model.pt" for i in range(100)]},
        {"tokens": np.repeat(D, 4), "_step": np.tile([1, 2, 3, 4], 25)},
    ],
    ids=["nothing", "step", "uid", "path", "planned tokens"],
)
def test_checkpoints_without_names_of_runs_are_reduced(columns):
    source = read(checkpoints().assign(**columns))
    check_unordered(source)
    assert sum(count for _, count in source.points.excluded) == 75
    assert len(read(checkpoints().assign(**columns), checkpoints="all").points) == 100


def test_checkpoints_spaced_in_log_tokens_without_names_are_warned_about():
    n, d = np.repeat(N, 4), np.repeat(D, 4) * np.tile([0.125, 0.25, 0.5, 1.0], 25)
    table = frame(params=n, tokens=d, val_loss=1.70 + 420 / n**0.34 + 650 / d**0.30)
    (warning,) = read(table).warnings
    assert "--checkpoints last (25 runs)" in warning.message
    check_unordered(read(table, checkpoints="last"))


def test_a_grid_of_finished_runs_is_not_taken_for_checkpoints():
    n, d = (axis.ravel() for axis in np.meshgrid(N[:5], np.arange(1, 8) * 2e9, indexing="ij"))
    grid = frame(params=n, tokens=d, val_loss=1.70 + 420 / n**0.34 + 650 / d**0.30)
    source = read(grid)
    assert len(source.points) == 35
    (warning,) = source.warnings
    assert "--checkpoints last (5 runs)" in warning.message
    assert len(read(grid, checkpoints="last").points) == 5
    for certain in (
        {"source": grid.assign(run=range(35))},
        {"source": grid, "checkpoints": "all"},
        {"source": plain().sort_values(["params", "tokens"])},
        {"source": pd.concat([plain().assign(seed=i) for i in range(3)])},
    ):
        source = read(**certain)
        assert not source.warnings
        assert not source.points.excluded


def test_several_rows_of_a_run_or_cell_are_reduced_and_said():
    early = plain().assign(run=range(25), tokens=D / 2, val_loss=LOSS + 0.3)
    late = plain().assign(run=range(25))
    codes = set()
    for table in (
        pd.concat([early, late], ignore_index=True),
        pd.concat([late, early], ignore_index=True).rename(columns={"run": "run_name"}),
        pd.concat([early.assign(step=1), late.assign(step=2)], ignore_index=True),
    ):
        source = read(table)
        check_unordered(source)
        codes |= {warning.code.value for warning in source.warnings}
    for column, name in (
        ("name", "run{}-step{}"),
        ("checkpoint", "m{}@{}"),
        ("path", "m{}/iter_{}"),
        ("model", "m{}-{}pct"),
    ):
        named = [
            part.drop(columns="run").assign(**{column: [name.format(i, step) for i in range(25)]})
            for step, part in ((500, early), (1000, late))
        ]
        check_unordered(read(pd.concat(named, ignore_index=True)))
    for column, at in (("wandb_id", range(25)), ("experiment", [f"exp {i}" for i in range(25)])):
        both = [part.drop(columns="run").assign(**{column: at}) for part in (early, late)]
        check_unordered(read(pd.concat(both, ignore_index=True)))
    swept = "lr learning_rate batch_size config/optimizer.lr muon_lr tokens_per_batch hidden_size"
    for column in swept.split():
        worse = plain().assign(**{column: 1e-2, "val_loss": LOSS + 0.2})
        best = plain().assign(**{column: 1e-3})
        source = read(pd.concat([worse, best], ignore_index=True))
        check_unordered(source)
        codes |= {warning.code.value for warning in source.warnings}
    searched = [plain().assign(val_loss=LOSS + 0.2), plain()]  # a random search: no rate twice
    searched = pd.concat(searched, ignore_index=True).assign(lr=np.linspace(1e-3, 1e-2, 50))
    check_unordered(read(searched))
    twice = pd.concat([plain(), plain()], ignore_index=True)
    check_unordered(read(twice.assign(uid=range(50))))
    copies = read(twice)
    check_unordered(copies)
    codes |= {warning.code.value for warning in copies.warnings}
    assert {"repeated_rows", "hyperparameters_vary"} <= codes


def test_shares_of_the_data_in_names_are_no_checkpoints():
    order = np.argsort(N, kind="stable")
    names = [f"{n / 1e6:.0f}M-{p}%" for n in np.unique(N) for p in (1, 3, 10, 30, 100)]
    for column in ("run", "run_id", "model"):
        source = read(plain().iloc[order].reset_index(drop=True).assign(**{column: names}))
        check_unordered(source)


def test_a_grid_is_no_run_of_checkpoints():
    sizes = plain().assign(model=[f"{n:.0e}" for n in N])
    twice = pd.concat([sizes.assign(kind="a"), sizes.assign(kind="b", val_loss=LOSS + 0.01)])
    twice["experiment"] = twice["model"] + twice["kind"]
    assert len(read(sizes).points) == 25
    source = read(twice)
    assert len(source.points) == 50
    assert any("'kind'" in warning.message for warning in source.warnings)


def check_unordered(source, rtol=1e-6):
    points = source.points
    order = np.lexsort((points.n, points.d))
    np.testing.assert_allclose(points.n[order], N, rtol=rtol)
    np.testing.assert_allclose(points.d[order], D, rtol=rtol)
    np.testing.assert_allclose(points.loss[order], LOSS, rtol=rtol)


BUDGETS = (
    "target_flops flops_budget compute_budget Target_Compute isoflop_group config/target_flops"
)


@pytest.mark.parametrize("name", [*BUDGETS.split(), "Target Compute (EFLOPs)", "budget_label"])
def test_a_nominal_budget_groups_runs_and_is_no_count(name):
    random = np.random.default_rng(0)
    nominal = np.repeat(np.geomspace(1e18, 1e20, 5), 7)
    n = 0.14 * nominal**0.469 * np.tile(np.geomspace(0.25, 4, 7), 5)
    flops = nominal * np.exp(random.uniform(-0.12, 0.12, 35))
    runs = frame(N=n, D=flops / 6 / n, loss=1.70 + 420 / n**0.34 + 650 / (flops / 6 / n) ** 0.30)
    shown = nominal / 1e18 if "EFLOPs" in name else nominal
    shown = [f"C{i // 7}" for i in range(35)] if name == "budget_label" else shown
    source = read(runs.assign(**{name: shown}))
    np.testing.assert_allclose(source.points.c, flops)
    assert source.points.convention["flops"] == "6nd"
    np.testing.assert_array_equal(source.points.budget, np.repeat(range(5), 7))
    assert any(f"by {name!r}, within 1" in note for note in source.notes)


def test_a_budget_by_another_way_of_counting_is_the_compute():
    flops = C * (1 - 0.05 * np.log(N / N[0]))  # attention and head counted otherwise
    runs = plain().assign(flops_budget=flops)
    np.testing.assert_allclose(read(runs).points.c, flops)
    only = read(frame(params=N, flops_budget=C, loss=LOSS))
    check(only)
    assert "tokens derived: D = C / (6 N)" in only.notes


@pytest.mark.parametrize("budget", [np.full(25, 1e18), [f"{c:.3g} FLOPs" for c in C]])
def test_a_nominal_budget_that_groups_nothing_is_not_used(budget):
    source = read(plain().assign(flops=C, flops_budget=budget))
    check(source)
    np.testing.assert_allclose(source.points.c, C)
    assert source.points.budget is None or len(set(source.points.budget)) == len(set(budget))


@pytest.mark.parametrize(("values", "quoted"), [([1, 2], "1"), (["a", "b"], "'a'")])
def test_a_condition_on_a_column_of_mixed_data_is_one_that_works(values, quoted):
    runs = plain().assign(cluster=np.resize(np.repeat(values, 3), 25))
    runs["val_loss"] *= np.where(runs["cluster"] == values[0], 1, 1.1)
    (warning,) = read(runs).warnings
    assert f'--where "cluster == {quoted}"' in warning.message
    assert len(read(runs, where=f"cluster == {quoted}").points) == 13


def test_parameters_are_derived_from_compute_and_tokens():
    source = read(frame(flops=C, tokens=D, loss=LOSS))
    check(source)
    assert "parameters derived: N = C / (6 D)" in source.notes
    np.testing.assert_allclose(source.points.c, C)


@pytest.mark.parametrize("name", ["TFLOPS", "C"])
def test_compute_of_a_second_is_no_compute_of_a_run(name):
    with pytest.raises(ScalingError, match="not in FLOPs of the whole training"):
        read(frame(params=N, loss=LOSS).assign(**{name: [f"{300 + i} TFLOPs" for i in range(25)]}))


def test_compute_with_gaps_is_derived():
    check(read(plain().assign(compute="8xH100")))
    check(read(plain().assign(flops=np.where(np.arange(25) < 3, np.nan, C))))


@pytest.mark.parametrize("unit", ["GFLOPs", "PFLOPs", "EFLOPs"])
def test_compute_off_by_one_factor_is_named(unit):
    factor = {"GFLOPs": 1e9, "PFLOPs": 1e15, "EFLOPs": 1e18}[unit]
    table = plain().assign(flops=C / factor)
    source = read(table)
    check(source)
    assert any(unit in warning.message for warning in source.warnings)
    with pytest.raises(ScalingError, match=unit):
        read(table, columns={"C": "flops"})


DATA = "data dataset corpus tokenizer config/data_mix train_set mixture lang tokenizer.name"


@pytest.mark.parametrize("column", DATA.split())
def test_several_corpora_are_warned_about(column):
    table = plain().assign(**{column: ["c4", "pile"] * 12 + ["c4"]})
    assert any(warning.code.value == "mixed_data" for warning in read(table).warnings)
    numbers = plain().assign(vocab_size=[32000, 50257] * 12 + [32000], data_parallel=[8] * 24 + [4])
    (warning,) = read(numbers).warnings
    assert warning.data["column"] == "vocab_size"


def test_groups_of_other_losses_are_warned_about_whatever_they_are_called():
    arch = np.where(np.arange(25) % 3 == 0, "mamba", "gpt")
    table = plain().assign(arch=arch, val_loss=LOSS * np.where(arch == "gpt", 1, 0.97))
    (warning,) = read(table).warnings
    assert (warning.code.value, warning.data["column"]) == ("mixed_data", "arch")
    assert abs(warning.data["effect"] - 0.0305) < 0.002
    assert not read(plain().assign(arch=arch)).warnings


def test_equal_columns_and_named_letters_ask_no_more():
    table = plain().assign(train_tokens=D)
    check(read(plain().assign(train_tokens=np.round(D / 1e6) * 1e6)))
    check(read(plain().assign(n_params=[f"{n / 1e6:.9g}M" for n in N], tokens_B=D / 1e9)))
    check(read(plain().assign(n_params=np.where(np.arange(25) < 3, np.nan, N))))
    check(read(table))
    check(read(table, columns={"D": "tokens"}))
    check(read(table, columns={"L": "val_loss"}))


def test_conventions_of_n_are_carried_from_names():
    for name, params in (
        ("non_embedding_params", "nonembedding"),
        ("params (non-embedding)", "nonembedding"),
        ("params_excl_embeddings", "nonembedding"),
        ("Params (w/o embeddings)", "nonembedding"),
        ("params_no_emb", "nonembedding"),
        ("N_nonembed", "nonembedding"),
        ("backbone_params", "nonembedding"),
        ("params (incl. embeddings)", "as given"),
        ("total_params", "total"),
        ("params", "as given"),
    ):
        table = plain().rename(columns={"params": name})
        source = read(table, columns={"N": name})
        assert source.points.convention["params"] == params, name
        check(source)


@pytest.mark.slow
def test_what_would_take_minutes_is_refused_in_time(tmp_path):
    huge = tmp_path / "huge.jsonl"
    huge.write_text('{"params": 1' + "0" * 400 + ', "tokens": 1e9, "loss": 3}\n')
    with pytest.raises(ScalingError, match="digits"):
        read(huge)
    wide = tmp_path / "wide.csv"
    wide.write_text(",".join(f"c{i}" for i in range(100_000)) + "\n" + ",".join(["1"] * 100_000))
    with pytest.raises(ScalingError, match="columns"):
        read(wide)
    long = tmp_path / "long.csv"
    long.write_text("x" * 10_000_000 + "\n1\n")
    with pytest.raises(ScalingError, match="header"):
        read(long)


def test_a_loss_curve_is_told_what_is_missing():
    step = np.arange(0, 1000, 10)
    curve = pd.DataFrame({"_step": step, "train/loss": 5 - step / 1000})
    for table in (curve, curve.assign(**{"throughput/total_tokens": step * 1e6})):
        with pytest.raises(ScalingError, match="the loss curve of one run, without its param"):
            read(table)


def test_an_accuracy_of_zero_is_a_point_of_the_sigmoid():
    accuracy = np.maximum(0.0, np.linspace(0.9, -0.1, 25))
    table = pd.DataFrame({"ce": np.linspace(1.6, 3.6, 25), "acc (%)": 100 * accuracy})
    source = read(table, inputs=("X",), columns={"X": "ce", "Y": "acc (%)"})
    np.testing.assert_allclose(source.points.loss, accuracy)
    assert source.columns == {"X": "ce", "Y": "acc (%)"}
    with pytest.raises(ScalingError, match="accuracies up to 90"):
        read(
            table.rename(columns={"acc (%)": "acc"}), inputs=("X",), columns={"X": "ce", "Y": "acc"}
        )


STRANGERS = {
    "words of a header": lambda: pd.DataFrame(
        {" PARAMS ": N, "Tokens (Billions)": D / 1e9, "Final Validation Loss": LOSS}
    ),
    "words of a path": lambda: pd.DataFrame(
        {"model.config.num_parameters": N, "trainer/global_tokens": D, "eval/c4/loss": LOSS}
    ),
    "a long table": lambda: pd.concat(
        [
            frame(run=range(25), params=N, tokens=D, metric="val_loss", value=LOSS),
            frame(run=range(25), params=N, tokens=D, metric="accuracy", value=0.3),
        ]
    ),
    "steps, batch and window": lambda: frame(
        params=N, steps=D / (256 * 2048), batch_size=256, seq_len=2048, loss=LOSS
    ),
    "steps and tokens of a batch": lambda: frame(
        params=N, train_steps=D / 2**19, batch_tokens=2**19, loss=LOSS
    ),
    "tokens per parameter": lambda: frame(params=N, tokens_per_param=D / N, loss=LOSS),
    "tokens/param": lambda: pd.DataFrame({"params": N, "tokens/param": D / N, "loss": LOSS}),
    "samples and their length": lambda: frame(
        params=N, consumed_train_samples=D / 2048, seq_length=2048, loss=LOSS
    ),
    "iterations, batch and length": lambda: pd.DataFrame(
        {"params": N, "train-iters": D / 2**21, "train_batch_size": 1024, "seq_length": 2048}
    ).assign(loss=LOSS),
    "steps and batch with units": lambda: pd.DataFrame(
        {"params": N, "steps (k)": D / 5e8, "batch size (M tokens)": 0.5, "loss": LOSS}
    ),
    "epochs of unique tokens": lambda: frame(params=N, unique_tokens=D / 2, epochs=2, loss=LOSS),
    "a column that stands twice in pandas": lambda: plain().assign(**{"val_loss.1": LOSS + 1}),
    "a melted table": lambda: plain().assign(run=range(25)).melt("run"),
    "tags": lambda: plain().assign(run=range(25)).melt("run", var_name="tag"),
    "D/N": lambda: pd.DataFrame({"params": N, "D/N": D / N, "loss": LOSS}),
    "a loss and its perplexity": lambda: plain().assign(ppl=np.exp(LOSS)),
    "W&B's config": lambda: pd.DataFrame(
        {"config": [{"n_params": {"value": n}} for n in N], "tokens": D, "loss": LOSS}
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_columns_that_say_it_otherwise_are_read(name):
    check(read(STRANGERS[name]()))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"params (M)": N, "tokens": D}, r"N is 2e\+14.*N=params \(M\) \[params\]"),
        ({"params": N, "tokens (M)": D}, r"D is 4e\+15.*D=tokens \(M\) \[tokens\]"),
        ({"params": N, "tokens": D, "loss": np.exp(2 * LOSS)}, r"L is \d+.*\[perplexity\]"),
        ({"params": N, "dataset_tokens": D, "epochs": 4}, "'epochs' goes to 4.*D is too small"),
    ],
)
def test_numbers_that_cannot_be_what_the_header_says_are_warned_about(columns, words):
    (warning,) = read(pd.DataFrame({"loss": LOSS, **columns})).warnings
    assert re.search(words, warning.message)


def test_the_unit_of_a_header_can_be_denied():
    table = plain().rename(columns={"params": "params (M)"})
    source = read(table, columns={"N": "params (M) [params]"})
    check(source)
    assert not source.warnings


def test_a_markdown_table_is_read_and_a_page_is_refused(tmp_path):
    rows = plain().astype(str)
    lines = ["| " + " | ".join(row) + " |" for row in [list(rows), ["---"] * 3, *rows.to_numpy()]]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    check(read(tmp_path / "runs.csv"))
    (tmp_path / "page.csv").write_text("<!DOCTYPE html><html><body>Sign in</body></html>\n")
    with pytest.raises(ScalingError, match="HTML"):
        read(tmp_path / "page.csv")


def test_active_and_total_parameters_are_a_choice():
    table = plain().rename(columns={"params": "params_active"}).assign(params_total=8 * N)
    with pytest.raises(ScalingError, match="active parameters"):
        read(table)
    check(read(table, columns={"N": "params_active"}))


def test_runs_on_several_corpora_are_not_called_repeats():
    table = pd.concat([plain().assign(source="c4"), plain().assign(source="pile")])
    warnings = {warning.code.value for warning in read(table).warnings}
    assert warnings == {"mixed_data"}


def test_a_law_of_one_count_refuses_the_others():
    with pytest.raises(ScalingError, match="does not use N"):
        read(plain(), inputs=("D",), columns={"N": "params"})
    for law, columns in (
        ("kaplan-n", "D=tokens"),
        ("optimum", "C=a,D=b,L=c"),
        ("power", "C=a,N=b"),
    ):
        with pytest.raises(ScalingError, match=f"the law {law} does not use [DN]"):
            FitOptions(law=law, columns=columns).source()
    derived = read(plain(), inputs=("C",), columns={"N": "params", "D": "tokens"})
    np.testing.assert_allclose(derived.points.c, C)


@pytest.mark.parametrize(
    ("name", "factor"),
    [("N_opt (B)", 1e9), ("N_opt_B", 1e9), ("D* (M tokens)", 1e6), ("N_opt", 1.0)],
)
def test_minima_of_the_law_optimum_are_counts_with_suffixes(name, factor):
    flops = np.geomspace(1e18, 1e22, 9)
    optima = 0.09 * np.sqrt(flops)
    for cells in (optima / factor, [f"{n / 1e6:.12g}M" for n in optima]):
        table = pd.DataFrame({"C": flops, name: cells})
        points = read(table, inputs=("C",), columns={"C": "C", "L": name}).points
        np.testing.assert_allclose(points.loss, optima)


def test_sequences_of_a_length_are_tokens_where_no_column_of_tokens_stands():
    name = "sequences (2048 tokens)"
    table = plain().assign(**{name: D / 2048})
    assert read(table).columns["D"] == "tokens"
    for columns in ({}, {"D": name}):
        source = read(table.drop(columns="tokens"), columns=columns)
        check(source)
        assert f"{name!r} is read in sequences of 2048 (x 2048)" in source.notes
    for name in ("n_sequences", "sequences (2k tokens)"):
        with pytest.raises(ScalingError, match=r"sequences of (unknown length|2k)"):
            read(plain().rename(columns={"tokens": name}))


def test_zeros_of_flops_are_gaps():
    flops = np.where(np.arange(len(C)) % 4, C, 0.0)
    for column in (flops, np.where(flops > 0, flops, np.nan), 0 * C, np.full(len(C), np.nan)):
        source = read(plain().assign(C=column))
        check(source)
        assert ("zeros of 'C' are gaps" in source.notes) == (column == 0).any()
        assert "'C' has gaps and is not used" in source.notes
    check(read(plain().assign(C=0), columns={"C": "C", "N": "params", "D": "tokens"}))
    source = read(plain().drop(columns="tokens").assign(C=flops))
    np.testing.assert_allclose(source.points.d, D[flops > 0])
    assert source.points.excluded == (("'C' missing or not finite", int((flops == 0).sum())),)


def test_a_batch_is_sequences_times_their_length_or_asked_about():
    table = plain().assign(lr=1e-3, batch_size=256, seq_len=2048)
    inputs = ("LR", "B", "N", "D")
    assert set(read(table, inputs=inputs).points.others["B"]) == {256 * 2048}
    (warning,) = read(table, inputs=inputs, columns={"B": "batch_size"}).warnings
    assert "[sequences of 2048]" in warning.message


@pytest.mark.parametrize("suffix", ["tex", "md"])
def test_a_table_in_a_document_is_read_where_it_is_named(tmp_path, suffix):
    rows = ["1e7 & 1e9 & 3.5", "2e7 & 2e9 & 3.3", "4e7 & 4e9 & 3.1"]
    text = "\\begin{tabular}{lll}\nN & D & loss \\\\\n\\hline\n"
    text += "".join(f"{row} \\\\\n" for row in rows) + "\\end{tabular}\n"
    if suffix == "md":
        lines = ["N & D & loss", "--- & --- & ---", *rows]
        text = "".join(f"| {line.replace('&', '|')} |\n" for line in lines)
    path = tmp_path / f"runs.{suffix}"
    path.write_text(text)
    points = read_source([path], SourceOptions()).points
    assert points.d.tolist() == [1e9, 2e9, 4e9]
    (tmp_path / "runs.csv").write_text("N,D,loss\n1e8,1e9,2.5\n2e8,2e9,2.4\n")
    assert read_source([tmp_path], SourceOptions()).points.n.tolist() == [1e8, 2e8]


def test_a_wide_table_is_refused_with_the_way_to_a_long_one(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text("params,1B tokens,2B tokens,4B tokens\n1e7,3.5,3.4,3.3\n2e7,3.4,3.3,3.2\n")
    what = r"the names of columns are numbers\n  give one row per run.*DataFrame\.melt"
    with pytest.raises(ScalingError, match=what):
        read_source([path], SourceOptions(inputs=("N", "D")))
