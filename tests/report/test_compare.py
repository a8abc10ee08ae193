"""The page of a comparison: what it says first, its files, and which sources
are compared at all.
"""

import copy
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from scaling.errors import ScalingError
from scaling.fit.pipeline import FitOptions
from scaling.predict.compare import compare
from scaling.report.compare import compose, sentences
from scaling.report.inputs import is_comparison, load_fits, options_of
from scaling.report.page import html, write_report
from tests.command_line import scaling
from tests.documents import as_fit, dump

HOSTILE = "<script>alert(1)</script>|[x](y) \\input"


@pytest.fixture
def pair(sources, tmp_path):
    """Copies to be changed."""
    return [Path(shutil.copy(path, tmp_path)) for path in sources]


@pytest.fixture(scope="module")
def sources(document, tmp_path_factory):
    """Fits of two sweeps: the second reaches the gap above the floor with A and B a tenth smaller,
    so with less compute.
    """
    other = copy.deepcopy(document)
    for name in ("A", "B"):
        other["params"][name]["value"] *= 0.9
        other["bootstrap"]["draws"][name] = [
            0.9 * value for value in other["bootstrap"]["draws"][name]
        ]
    other["source"]["digest"] = "f" * 64
    paths = [tmp_path_factory.mktemp("sources") / f"{name}.json" for name in ("base", "better")]
    for path, content in zip(paths, (document, other), strict=True):
        dump(content, path)
    return paths


@pytest.fixture(scope="module")
def page(sources, tmp_path_factory):
    return write_report(sources, tmp_path_factory.mktemp("comparison") / "out", budgets=[1e14])


def test_several_sweeps_are_compared_and_fits_of_one_are_not(pair, results_folder, tmp_path):
    assert is_comparison(pair)
    assert is_comparison([results_folder, pair[0]])
    assert not is_comparison(pair[:1])
    assert not is_comparison([results_folder])
    dump(json.loads(pair[0].read_text()), tmp_path / "again.json")
    assert not is_comparison([pair[0], tmp_path / "again.json"])


@pytest.mark.slow
def test_comparison_report_has_its_files_and_starts_with_the_compute_ratio(page):
    said = (page.parent / "report.md").read_text(encoding="utf-8")
    summary = said.partition("## Answer")[2].partition("###")[0]
    found = json.loads((page.parent / "comparison.json").read_text())
    top = found["multipliers"]["better"]["at_top"]["share"]
    assert summary.strip().startswith(f"better needs {top['value']:.3f} ")
    assert 0 < top["value"] < 1
    assert "It is not known on what the losses were measured" in said
    names = {
        path.relative_to(page.parent).as_posix()
        for path in page.parent.rglob("*")
        if path.is_file()
    }
    figures = {
        f"figures/compare-{name}.{kind}"
        for name in ("loss", "multiplier", "size")
        for kind in ("svg", "pdf", "png", "csv")
    }
    tables = {
        f"tables/{name}.{kind}"
        for name in ("compute", "estimates", "tests")
        for kind in ("csv", "tex")
    }
    assert names == figures | tables | {
        "index.html",
        "report.md",
        "comparison.json",
        "manifest.json",
    }
    with (page.parent / "tables" / "tests.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["p"]) for row in rows] == [test["p"] for test in found["tests"]]


def test_losses_that_do_not_compare_leave_the_exponents(document, pair):
    documents = {path.stem: json.loads(path.read_text()) for path in pair}
    for corpus, content in zip(("abc", "def"), documents.values(), strict=True):
        content["source"]["evaluation"] = {
            "corpus": corpus,
            "unit": "nats per token",
            "simulated": None,
        }
    fits = {name: as_fit(content) for name, content in documents.items()}
    report = compose(compare(fits), fits, (), "scaling report")
    assert report.notices == (
        "better and base: Losses are not comparable: they were measured on different data (abc "
        "and def). Only exponents are compared.",
    )
    assert [section.id for section in report.sections] == ["exponents", "provenance"]
    assert [figure.name for figure in report.lead] == ["compare-size"]
    assert report.sentences[0].startswith("better and base do not differ significantly")


def test_hostile_names_are_text(pair):
    fits = {f"{HOSTILE} {path.stem}": as_fit(json.loads(path.read_text())) for path in pair}
    text = html(compose(compare(fits), fits, (HOSTILE,), HOSTILE))
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_unreachable_compute_ratio_is_described(pair):
    documents = {path.stem: json.loads(path.read_text()) for path in pair}
    better = documents["better"]
    better["params"]["E"]["value"] = 9.0
    better["bootstrap"]["draws"]["E"] = list(np.full(len(better["bootstrap"]["draws"]["E"]), 9.0))
    fits = {name: as_fit(content) for name, content in documents.items()}
    comparison = compare(fits)
    assert sentences(comparison)[0].startswith(
        "By these fits better never reaches the loss of base, at any compute"
    )
    assert comparison.multipliers["better"].at_top.unreached == 1.0
    report = compose(comparison, fits, (), "scaling report")
    assert "better does not reach this loss with any compute" in html(report)


def test_a_folder_is_fitted_as_the_first_source_was(document, pair, results_folder, tmp_path):
    first = json.loads(pair[0].read_text())
    first["bootstrap"] |= {"resamples": 20}
    first["source"]["convention"] = {"params": "total", "flops": "6nd"}
    dump(first, pair[0])
    fits, notes = load_fits([pair[0], results_folder], tmp_path / "made")
    assert list(fits) == ["base", "synthetic"]
    assert notes == ("synthetic was fitted for this comparison as base was: it had no fit.",)
    assert options_of(fits["synthetic"]) == options_of(as_fit(first))
    assert options_of(as_fit(first)) == FitOptions(
        law=first["law"],
        objective="huber-log",
        delta=0.001,
        params="total",
        flops="6nd",
        bootstrap=20,
        seed=first["bootstrap"]["seed"],
        ci=first["ci"],
    )
    first["objective"]["delta_from_noise"] = True  # then the other's is chosen from its own noise
    assert options_of(as_fit(first)).delta is None
    assert fits["synthetic"].source.evaluation["unit"] == "nats per token"
    assert (tmp_path / "made" / "fit-2.json").exists()
    assert not (results_folder / "fits").exists()


def test_sources_are_labelled_by_the_distinct_part_of_their_paths(pair, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "base.json").write_bytes(pair[1].read_bytes())
    found, _ = load_fits([pair[0], tmp_path / "x" / "base.json"], tmp_path / "made")
    assert list(found) == [f"{tmp_path.name}/base", "x/base"]
    with pytest.raises(ScalingError, match="named twice"):
        load_fits([pair[0], pair[0]], tmp_path / "made")


@pytest.mark.slow
def test_the_command_line_writes_the_same_bytes_gives_the_numbers_and_refuses_budgets_of_one(
    page, sources, tmp_path
):
    asked = ("--out", tmp_path / "out", "--budgets", "1e14", "--json")
    done = scaling("report", *sources, *asked, code=0)
    found = json.loads(done.stdout)["comparison"]
    assert found["multipliers"]["better"]["rows"][-1]["flops"] == 1e14
    assert "checksum" not in found
    written = sorted(path for path in (tmp_path / "out").rglob("*.*") if path.is_file())
    assert len(written) == 22
    for path in written:
        before = page.parent / path.relative_to(tmp_path / "out")
        assert path.read_bytes() == before.read_bytes(), path.name
    done = scaling("report", sources[0], "--budgets", "1e14", code=2)
    assert "budgets are asked of a comparison" in done.stderr
