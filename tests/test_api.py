"""`from scaling import load, fit, predict`: the numbers of the command line as pandas tables and as
HTML that shows text as text.
"""

import importlib
import inspect
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scaling
from scaling import api, fit, load, predict
from scaling.config.sweep_file import dump_sweep
from scaling.errors import ScalingError
from scaling.execute.options import RunOptions
from scaling.fit.fit_options import FitOptions
from scaling.warning import WarningCode, warn
from tests.documents import fit as run_fit
from tests.documents import predict as run_predict
from tests.sweep_files import tiny

RESULTS = Path(__file__).parents[1] / "results" / "honest"
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>"
N, D = (axis.ravel() for axis in np.meshgrid([1e6, 3e6, 1e7, 3e7], [2e7, 1e8, 5e8]))
TABLE = pd.DataFrame({"N": N, "D": D, "loss": 1.7 + 400 / N**0.34 + 400 / D**0.28})
QUICK = {"bootstrap": 0, "holdout": "none"}


class Tags(HTMLParser):
    """The elements of a fragment that a browser would make, and what lies between them."""

    def __init__(self, text):
        super().__init__()
        self.opened, self.attributes, self.words = [], set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.opened.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def fitted():
    return fit(TABLE, **QUICK)


@pytest.mark.slow
def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import scaling; dir(scaling); scaling.fit; "
    code += (
        "print({'jax', 'numpy', 'pandas', 'scipy', 'pydantic', 'typer', 'scaling.api'} & "
        "set(sys.modules))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "set()"
    )
    code = (
        "import sys; from scaling import fit, load, predict; predict('published:besiroglu2024', "
        "flops=1e21); "
    )
    code += "print({'jax', 'scipy', 'matplotlib', 'rich', 'jinja2', 'typer'} & set(sys.modules))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "set()"
    )


@pytest.mark.parametrize("name", ["fit", "plan", "predict", "report"])
def test_subpackage_is_callable_as_its_function(name):
    package = getattr(scaling, name)
    assert package is importlib.import_module(f"scaling.{name}")
    assert inspect.signature(package) == inspect.signature(getattr(api, name))


@pytest.mark.slow
def test_a_package_is_callable_however_it_was_imported():
    code = "import scaling.fit.fit_options, scaling; "
    code += "print(callable(scaling.fit), callable(scaling.plan))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True True"


def test_the_package_lists_its_functions():
    assert {*scaling.__all__} <= set(dir(scaling))
    assert all(callable(getattr(scaling, name)) for name in scaling.__all__ if name[0] != "_")
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        _ = scaling.fits


@pytest.mark.slow
def test_a_frame_gives_what_its_file_gives(fitted, tmp_path):
    TABLE.to_csv(tmp_path / "runs.csv", index=False)
    document = run_fit([tmp_path / "runs.csv"], FitOptions(**QUICK))
    assert {**fitted.document, "source": None} == {**document, "source": None}
    assert fitted.document["source"]["paths"] == ["DataFrame"]
    assert (
        fitted.params.loc["alpha", "value"]
        == document["params"]["alpha"]["value"]
        == pytest.approx(0.34, abs=1e-3)
    )
    assert list(fitted.params.columns) == ["value", "se", "lo", "hi"]
    assert np.isnan(fitted.params["lo"]).all(), "no bootstrap, no intervals"
    assert {"a", "b"} <= set(fitted.derived.index)
    assert list(fitted.data["loss"]) == list(TABLE["loss"])
    assert fitted.warnings == [warning["message"] for warning in document["warnings"]]


@pytest.mark.slow
def test_frames_of_any_shape_are_read(fitted):
    shuffled = TABLE.iloc[::-1].rename(columns={"N": "size in words", "loss": 3}).set_index("D")
    again = fit(shuffled, columns={"N": "size in words", "D": "D", "L": "3"}, **QUICK)
    assert again.params["value"].to_dict() == pytest.approx(
        fitted.params["value"].to_dict(), rel=1e-4
    )
    written = pd.DataFrame(
        {"N": ["1M", "3M", "10M"] * 3, "D": ["20M"] * 3 + ["100M"] * 3 + ["0.5B"] * 3}
    ).astype(object)
    numbers = load_numbers(written)
    written["loss"] = 1.7 + 400 / numbers["N"] ** 0.34 + 400 / numbers["D"] ** 0.28
    assert fit([written.iloc[:5], written.iloc[5:]], **QUICK).document["n_points"] == 9


def load_numbers(table):
    return table.map(lambda text: float(text[:-1]) * {"M": 1e6, "B": 1e9}[text[-1]])


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((TABLE,), {"lawn": "kaplan"}, "unknown option 'lawn'"),
        ((TABLE,), {"law": "kaplann"}, "did you mean kaplan-n?"),
        ((TABLE,), {"columns": {"N": "params"}}, "DataFrame: no column 'params'"),
        ((TABLE.iloc[:0],), {}, "DataFrame: holds no rows"),
        ((TABLE.set_index("N", drop=False),), {}, "column 'N' stands twice"),
        ((TABLE.assign(loss=["low"] * len(TABLE)),), {}, "row 1: 'low'"),
        ((TABLE.to_dict(),), {}, "dict is not a source"),
        (("absent.csv",), {}, "absent.csv: no such file"),
        (([],), {}, "no source is given"),
        ((TABLE,), {"bootstrap": "many"}, "fit: bootstrap: should be a valid integer"),
        (
            (TABLE,),
            {"bootstrap": 0, "drop_highest": 1.5},
            "drop_highest: should be a valid int",
        ),
        ((TABLE,), {"law": 3}, "law: should be a valid string"),
        ((TABLE,), {"fix": {"alpha": 0.35}}, "fix: should be a valid string"),
        ((TABLE,), {"ci": None}, "ci: should be a valid number"),
        ((TABLE,), {"where": ["N > 1e6"]}, "where: should be a valid string"),
        ((TABLE,), {"options": {"bootstrap": 0}}, "options: dict is not FitOptions"),
    ],
)
def test_bad_input_says_what_and_where(arguments, options, said):
    with pytest.raises(ScalingError, match=said.replace("?", r"\?")):
        fit(*arguments, **options)


@pytest.mark.slow
def test_a_prediction_is_that_of_the_saved_fit(fitted, tmp_path):
    path = fitted.save(tmp_path / "fit.json")
    answer = fitted.predict(flops="1e20")
    again = run_predict(str(path), flops=1e20)
    assert {**answer.document, "source": None} == {**again, "source": None}
    assert answer.document["source"] == "a fit of DataFrame"
    table = answer.to_frame()
    assert list(table.index) == ["flops", "n_params", "tokens", "tokens_per_param", "loss"]
    assert table.loc["n_params", "value"] == again["n_params"]["value"]
    assert table.dtypes.eq(float).all()
    assert predict(path, flops=1e20).document == again
    assert predict(fitted.document, loss=2.5).to_frame().loc["loss", "value"] == pytest.approx(2.5)
    for source, question, said in (
        (fitted, {}, "no question is asked"),
        (fitted, {"flop": 1e20}, r"did you mean flops\?"),
        (fitted, {"flops": 1e20, "inferece_tokens": 1e9}, r"did you mean inference_tokens\?"),
        (TABLE, {"flops": 1e20}, "DataFrame is not a fit"),
        ([path], {"flops": 1e20}, "list is not a fit"),
    ):
        with pytest.raises(ScalingError, match=said):
            predict(source, **question)


@pytest.mark.parametrize("devices", [3, "h100", {}, {"n": 2}, {"device": "h100", "count": "two"}])
def test_devices_that_are_no_device_time_are_refused(devices):
    with pytest.raises(ScalingError, match="is no DeviceTime"):
        predict("published:besiroglu2024", flops=1e21, devices=devices)


def test_a_published_law_predicts_and_shows_itself():
    answer = predict(
        "published:besiroglu2024",
        flops=5.76e23,
        inference_tokens="2T",
        with_model=True,
    )
    page = Tags(answer._repr_html_())
    assert "besiroglu2024" in page.words
    assert "A model that can be built" in page.words
    assert answer.document["inference"]["demand_tokens"] == 2e12
    assert "answer    5.76e23 FLOPs" in repr(answer)
    assert "\x1b" not in repr(answer)
    assert " \n" not in repr(answer)


@pytest.mark.slow
def test_html_shows_hostile_text_as_text():
    rows = TABLE.rename(columns={"loss": HOSTILE}).assign(tokenizer=[HOSTILE, "b"] * 6)
    found = fit(rows, columns=f"N=N,D=D,L={HOSTILE}", **QUICK)
    warning = warn(WarningCode.OTHER, HOSTILE + "\x1b[31m\u202e")
    found = api.Fit(found.result.model_copy(update={"warnings": (warning,)}))
    for shown in (found._repr_html_(), hostile_prediction(found)._repr_html_()):
        page = Tags(shown)
        assert not {"script", "img", "link", "style", "iframe"} & set(page.opened)
        assert page.attributes <= {"style", "scope"}
        assert "alert(1)" in page.words
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert "\x1b" not in repr(found)


def hostile_prediction(found):
    answer = found.predict(flops=1e20)
    changes = {"warnings": (warn(WarningCode.OTHER, HOSTILE),), "source": HOSTILE + "\x1b"}
    return api.Prediction(answer.result.model_copy(update=changes))


@pytest.mark.slow
def test_a_results_folder_goes_through_pandas_unchanged(monkeypatch):
    monkeypatch.chdir(RESULTS.parents[1])
    rows = load("results/honest")
    assert len(rows) == 1765
    assert {"run_id", "step", "metric", "value", "n_params"} <= set(rows.columns)
    direct = json.loads(json.dumps(run_fit([Path("results/honest")], FitOptions(**QUICK))))
    through = json.loads(json.dumps(fit(rows, **QUICK).document))
    assert through["source"]["digest"] == direct["source"]["digest"]
    assert through["source"].pop("paths") == ["DataFrame of results/honest"]
    assert direct["source"].pop("paths") == ["results/honest"]
    assert through == direct
    assert (
        fit(rows[rows["run_id"] != rows["run_id"].iloc[0]], **QUICK).document["n_points"]
        == direct["n_points"] - 1
    )


def test_a_file_loads_with_numbers_where_all_cells_are(tmp_path):
    (tmp_path / "runs.csv").write_text("N,D,loss,note\n1e6,20M,3.5,a\n2e6,40M,,b\n")
    table = load(tmp_path / "runs.csv")
    assert table["N"].tolist() == [1e6, 2e6]
    assert table["D"].tolist() == ["20M", "40M"]
    assert table["loss"].isna().tolist() == [False, True]
    (tmp_path / "other.csv").write_text("N,loss\n1,2\n")
    with pytest.raises(ScalingError, match="do not hold the same columns"):
        load(tmp_path)


@pytest.mark.slow
def test_laws_with_tables_of_their_own_take_frames(tmp_path):
    draws = np.random.default_rng(0).binomial(400, np.linspace(0.02, 0.6, 40))
    table = pd.DataFrame({"n": 400, "c": draws})
    table.to_csv(tmp_path / "counts.csv", index=False)
    found, document = (
        fit(table, "coverage", bootstrap=0),
        run_fit([tmp_path / "counts.csv"], FitOptions(law="coverage", bootstrap=0)),
    )
    assert found.document["params"] == document["params"]
    assert found.document["source"]["paths"] == ["DataFrame"]
    assert Tags(found._repr_html_()).opened.count("table") >= 2
    with pytest.raises(ScalingError, match="says nothing of N and D"):
        found.predict(flops=1e20)


def test_plan_and_run_take_a_sweep_and_give_typed_results(tmp_path):
    sweep = tiny(base={"task": {"kind": "synthetic", "seq_len": 16}})
    planned = scaling.plan(sweep)
    assert len(planned.runs) == 4
    law = "published:besiroglu2024"
    outcome = scaling.run(
        sweep, tmp_path / "out", RunOptions(simulate=law, on_message=lambda _: None)
    )
    assert (outcome.counts["done"], outcome.stop, outcome.exit_code) == (4, None, 0)
    assert set(load(tmp_path / "out")["run_id"]) == {
        item.run_id for item in scaling.plan(sweep, simulated=law).runs
    }
    path = tmp_path / "tiny.toml"
    path.write_text(dump_sweep(sweep))
    assert len(scaling.plan(path, overrides="seeds=[0,1]").runs) == 8
    for call, said in (
        (lambda: scaling.plan(3), "int is not a sweep file"),
        (lambda: scaling.run(TABLE), "DataFrame is not a sweep file"),
        (lambda: scaling.report(3), "int is not the path"),
        (lambda: scaling.report(tmp_path, style="papr"), r"did you mean paper\?"),
    ):
        with pytest.raises(ScalingError, match=said):
            call()
