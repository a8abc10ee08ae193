"""Kaplan and Chinchilla reconciled: the published exponents of both countings, and our own runs
counted twice.
"""

import numpy as np
import pandas as pd
import pytest

from scaling.errors import ScalingError
from scaling.fit.fit_options import FitOptions
from scaling.predict.reconcile import OMEGA, reconcile, without_embeddings
from scaling.report.terminal import reconcile_parts
from tests.fit.test_pipeline import simulated


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
