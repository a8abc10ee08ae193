"""Points are flagged with a reason, kept in the fit, and the fit is shown without them."""

import numpy as np
import pytest

from scaling.fit.pipeline import FitOptions
from tests.documents import fit
from tests.fit.test_pipeline import LAW, simulated

QUICK = FitOptions(bootstrap=0, holdout="none")


def written(path, rows):
    path.write_text("N,D,loss\n" + "".join(f"{n!r},{d!r},{loss!r}\n" for n, d, loss in rows))
    return path


def runs(tmp_path):
    lines = simulated(tmp_path / "clean.csv", sizes=9).read_text().splitlines()[1:]
    return [tuple(map(float, line.split(","))) for line in lines]


def true_loss(n, d):
    return LAW["E"] + LAW["A"] * n ** -LAW["alpha"] + LAW["B"] * d ** -LAW["beta"]


def reasons(document):
    return {
        item["reason"].split(":")[0]: [point["row"] for point in item["points"]]
        for item in document["flagged"]
    }


def test_a_clean_sweep_has_no_flags(tmp_path):
    assert fit([written(tmp_path / "runs.csv", runs(tmp_path))], QUICK)["flagged"] == []


@pytest.mark.parametrize("kind", ["outlier", "duplicate", "few tokens"])
def test_each_kind_is_named_and_the_fit_is_shown_without_it(tmp_path, kind):
    rows = runs(tmp_path)
    if kind == "outlier":
        n, d, loss = rows[12]
        rows[12], row, reason = (
            (n, d, loss * 1.08),
            13,
            "off the curve of its budget by more than 5 robust standard deviations",
        )
    elif kind == "duplicate":
        n, d, loss = rows[20]
        rows.append((n * 1.001, d, loss * 1.1))
        row, reason = 21, "near duplicates"
    else:
        rows.append((3e9, 1e9, true_loss(3e9, 1e9)))
        row, reason = len(rows), "fewer tokens than parameters (D/N below 1)"
    document = fit([written(tmp_path / "runs.csv", rows)], QUICK)
    assert row in reasons(document)[reason]
    assert document["n_points"] == len(rows)
    rest = document["fit_without_flagged"]
    assert rest["n_points"] == len(rows) - rest["left_out"]
    assert abs(rest["a"] - LAW["beta"] / (LAW["alpha"] + LAW["beta"])) < 0.05


def test_a_budget_off_its_centre_is_flagged(tmp_path):
    rows = runs(tmp_path)
    kept = [row for row in rows if not (6 * row[0] * row[1] < 1.5e18 and row[0] > 0.4 * 0.1 * 1e9)]
    small = np.geomspace(0.05, 0.35, 6) * 0.1 * 1e9
    kept += [(float(n), float(1e18 / (6 * n)), float(true_loss(n, 1e18 / (6 * n)))) for n in small]
    document = fit([written(tmp_path / "runs.csv", kept)], QUICK)
    assert any("off-centre" in reason for reason in reasons(document))
