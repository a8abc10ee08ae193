"""Points are flagged with a reason, kept in the fit, and the fit is shown without them."""

from dataclasses import replace

import numpy as np
import pytest

from scaling.fit.diagnostics.flagged_points import flags
from scaling.fit.estimate import estimate
from scaling.fit.frontier.frontier import Cost
from scaling.fit.law_weights import weigh_laws
from scaling.fit.laws.laws import LAWS
from scaling.fit.pipeline import FitOptions
from scaling.fit.result import FitResult
from scaling.points.points import Points
from scaling.report.headline import fit_lines
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


@pytest.mark.parametrize("kind", ["outlier", "few tokens"])
def test_each_kind_is_named_and_the_fit_is_shown_without_it(tmp_path, kind):
    rows = runs(tmp_path)
    if kind == "outlier":
        n, d, loss = rows[12]
        rows[12], row, reason = (
            (n, d, loss * 1.08),
            13,
            "off the fitted law by more than noise",
        )
    else:
        rows.append((3e9, 1e9, true_loss(3e9, 1e9)))
        row, reason = len(rows), "fewer tokens than parameters (D/N below 1)"
    document = fit([written(tmp_path / "runs.csv", rows)], QUICK)
    assert row in reasons(document)[reason]
    assert document["n_points"] == len(rows)
    rest = document["fit_without_flagged"]
    assert rest["n_points"] == len(rows) - rest["left_out"]
    assert abs(rest["a"] - LAW["beta"] / (LAW["alpha"] + LAW["beta"])) < 0.05


def test_a_flagged_row_is_numbered_as_in_the_table(tmp_path):
    rows = [(1e9, 1e10, float("nan")), *runs(tmp_path)]
    n, d, loss = rows[13]
    rows[13] = (n, d, loss * 1.08)
    path = written(tmp_path / "runs.csv", rows)
    flagged = reasons(fit([path], QUICK))
    assert flagged["off the fitted law by more than noise"] == [14]
    half = [*rows[:13], (1e9, 1e10, float("nan")), *rows[13:]]
    other = written(tmp_path / "other.csv", half)
    assert [15] in reasons(fit([other], QUICK)).values()


def test_a_budget_off_its_centre_is_flagged(tmp_path):
    rows = runs(tmp_path)
    kept = [row for row in rows if not (6 * row[0] * row[1] < 1.5e18 and row[0] > 0.4 * 0.1 * 1e9)]
    small = np.geomspace(0.05, 0.35, 6) * 0.1 * 1e9
    kept += [(float(n), float(1e18 / (6 * n)), float(true_loss(n, 1e18 / (6 * n)))) for n in small]
    document = fit([written(tmp_path / "runs.csv", kept)], QUICK)
    assert any("off-centre" in reason for reason in reasons(document))


def grid(sizes, seed, sd=0.01):
    """Runs on a grid of sizes x sizes with normal noise."""
    n, d = (
        axis.ravel()
        for axis in np.meshgrid(np.geomspace(1e7, 1e9, sizes), np.geomspace(1e10, 1e12, sizes))
    )
    noise = np.random.default_rng(seed).standard_normal(len(n))
    return Points(true_loss(n, d) * np.exp(sd * noise), n, d, 6 * n * d)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [3, pytest.param(4, marks=pytest.mark.exhaustive), 6])
def test_normal_noise_is_accused_in_at_most_one_table_of_twenty(sizes):
    tables, accused, variances = 60, 0, []
    for seed in range(tables):
        law_fit = estimate(LAWS["chinchilla"], grid(sizes, 100 + seed), delta=None)
        accused += bool(flags(law_fit, []))
        variances.append(law_fit.noise.sd**2)
    assert accused <= 3
    assert np.sqrt(np.mean(variances)) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("sizes", "shift"), [(4, 0.2), (6, 0.1)])
def test_a_run_many_noises_off_is_an_outlier(sizes, shift):
    for seed in range(5):
        points = grid(sizes, seed)
        points.loss[sizes + 1] *= np.exp(shift)
        law_fit = estimate(LAWS["chinchilla"], points, delta=None)
        assert law_fit.noise.outliers[sizes + 1]
        assert law_fit.noise.outliers.sum() <= 2
        assert 0.005 < law_fit.noise.sd < 0.025


def test_flagged_points_that_decide_the_answer_are_a_warning(shared_data):
    table = shared_data / "epoch_chinchilla" / "svg_extracted_data.csv"
    options = FitOptions(
        law="chinchilla",
        columns="N=Model Size,C=Training FLOP,L=loss",
        bootstrap=0,
        holdout="none",
    )
    document = fit([table], options)
    (warning,) = [one for one in document["warnings"] if one["code"] == "flagged_points_decide"]
    with_them, without = warning["data"]["a"]
    assert with_them == pytest.approx(0.5646, abs=5e-4)
    assert without == pytest.approx(0.5015, abs=2e-3)
    assert warning["data"]["count"] == document["fit_without_flagged"]["left_out"]
    assert warning["message"] in dict(fit_lines(FitResult.model_validate(document)))["trust"]
    clean = fit([table], replace(options, drop_highest=5))
    assert clean["derived"]["a"]["value"] == pytest.approx(0.5139, abs=5e-5)
    assert "flagged_points_decide" not in {one["code"] for one in clean["warnings"]}


def test_rounding_is_no_difference(tmp_path):
    """Of a table without noise, in which small runs saw fewer tokens than parameters."""
    sizes, tokens = np.geomspace(2e7, 2e9, 5), np.geomspace(4e8, 4e10, 5)
    rows = [(n, d, true_loss(n, d)) for n in sizes.tolist() for d in tokens.tolist()]
    document = fit([written(tmp_path / "runs.csv", rows)], QUICK)
    assert document["flagged"]
    assert "flagged_points_decide" not in {one["code"] for one in document["warnings"]}


@pytest.mark.slow
@pytest.mark.parametrize("row", [12, 24])
def test_one_absurd_loss_is_named_and_moves_neither_answer_nor_interval(tmp_path, row):
    """A row of 0.02 among 25 of the law, the most expensive one too."""
    noise = np.random.default_rng(0).normal(0, 0.002, 25).tolist()
    grid = [(n, d) for n in np.geomspace(1e7, 1e9, 5) for d in np.geomspace(2e8, 2e10, 5)]
    rows = [(n, d, true_loss(n, d) * np.exp(e)) for (n, d), e in zip(grid, noise, strict=True)]
    rows[row] = (*grid[row], 0.02)
    table = written(tmp_path / "runs.csv", np.array(rows).tolist())
    document = fit([table], replace(QUICK, law="auto"))
    result = FitResult.model_validate(document)
    lines = dict(fit_lines(result))
    assert f": row {row + 1} (loss 0.02)" in lines["trust"]
    rest = Points(*np.delete(np.array(rows), row, 0)[:, [2, 0, 1]].T)
    without = weigh_laws(replace(rest, c=6 * rest.n * rest.d))
    for quantity in ("n_star", "loss_star"):
        ours, theirs = (
            np.concatenate(each.optima(1e21, quantity).ends(0.95))
            for each in (result.combination, without)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    truth = LAWS["chinchilla"].frontier(LAW, Cost())
    _, lo, hi = ours
    assert lo < float(truth.loss(1e21)) < hi < 1.15 * lo


@pytest.mark.slow
def test_flagged_points_that_decide_nothing_are_no_warning(tmp_path):
    points = grid(6, 0, sd=0.004)
    rows = np.stack([points.n, points.d, points.loss], 1).tolist()
    rows.append((3e9, 1e9, true_loss(3e9, 1e9)))
    document = fit([written(tmp_path / "runs.csv", rows)], QUICK)
    assert document["flagged"]
    assert "flagged_points_decide" not in {one["code"] for one in document["warnings"]}
