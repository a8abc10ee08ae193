"""Kaplan and Chinchilla reconciled: the published exponents of both countings, and our own runs
counted twice.
"""

import json

import numpy as np
import pandas as pd
import pytest

from scaling.errors import ScalingError
from scaling.fit.fit_options import FitOptions
from scaling.predict.reconcile import OMEGA, reconcile, without_embeddings
from scaling.report.terminal import reconcile_parts
from tests.browser.reports import REFERENCE
from tests.command_line import scaling
from tests.documents import dump
from tests.fit.test_pipeline import simulated

FIT = REFERENCE / "fits" / "chinchilla.json"


@pytest.mark.parametrize(
    ("name", "nonembedding", "total"),
    [("besiroglu2024", 0.7805, 0.515), ("hoffmann2022", 0.7388, 0.458)],
)
def test_published_exponents(name, nonembedding, total):
    found = reconcile(f"published:{name}", FitOptions()).studies
    assert round(found.nonembedding, 4) == nonembedding
    assert round(found.total, 3) == total


def test_embeddings_are_taken_off():
    n = np.geomspace(1e3, 1e11, 9)
    np.testing.assert_allclose(without_embeddings(n + OMEGA * np.cbrt(n), OMEGA), n, rtol=1e-9)


def test_runs_are_counted_in_both_ways(tmp_path):
    found = reconcile(str(simulated(tmp_path / "runs.csv")), FitOptions(bootstrap=20))
    a = {row.counting: row.a.value for row in found.countings}
    assert set(a) == {"total", "nonembedding"}
    assert a["nonembedding"] > a["total"]


def test_the_page_says_how_far_counting_moves_the_exponent():
    parts = reconcile_parts(reconcile("published:besiroglu2024", FitOptions()))
    assert any("from 0.515 to 0.781;" in part for part in parts if isinstance(part, str))


@pytest.mark.parametrize(
    ("source", "omega", "says"),
    [
        ("published:kaplan2020-n", OMEGA, "Chinchilla's form"),
        ("published:besiroglu2024", -1.0, "--omega"),
        ("absent.csv", OMEGA, "no such file"),
    ],
)
def test_bad_sources_are_rejected(source, omega, says):
    with pytest.raises(ScalingError, match=says):
        reconcile(source, FitOptions(), omega)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": 1}, "written with fit schema 1"),
        ({"ci": 2.0}, "ci = '2.0'"),
        ({"n_points": None}, "n_points"),
    ],
)
def test_what_is_wrong_with_a_fit_is_said_and_not_that_it_is_no_table(tmp_path, changes, says):
    document = json.loads(FIT.read_text())
    dump({**document, **changes}, tmp_path / "fit.json")
    with pytest.raises(ScalingError, match=says):
        reconcile(str(tmp_path / "fit.json"), FitOptions())


def test_a_table_in_json_is_counted_and_no_fit(tmp_path):
    table = pd.read_csv(simulated(tmp_path / "runs.csv"))
    table.to_json(tmp_path / "runs.json", orient="records")
    assert len(reconcile(str(tmp_path / "runs.json"), FitOptions(bootstrap=0)).countings) == 2


def test_the_next_command_is_one_that_takes_a_fit():
    assert f"next: scaling report {FIT}" in scaling("reconcile", FIT, code=0).stdout


def test_a_column_without_embeddings_is_not_reduced_again(tmp_path):
    n, d = (
        grid.ravel() for grid in np.meshgrid(np.geomspace(2e7, 2e9, 5), np.geomspace(4e8, 4e10, 5))
    )
    loss = 1.7 + 420 / n**0.34 + 650 / d**0.3
    table = pd.DataFrame({"non_embedding_params": n, "tokens": d, "val_loss": loss})
    table.to_csv(tmp_path / "runs.csv", index=False)
    document = reconcile(str(tmp_path / "runs.csv"), FitOptions(law="chinchilla", bootstrap=0))
    a = {row.counting: row.a.value for row in document.countings}
    assert abs(a["nonembedding"] - 0.46875) < 2e-3
    assert a["total"] < a["nonembedding"] - 0.02
