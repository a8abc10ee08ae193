"""The page of a comparison: what it says first, its files, and which sources
are compared at all.
"""

import copy
import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from scaling.cli import with_commands
from scaling.errors import ScalingError
from scaling.fit.pipeline import FitOptions
from scaling.report.compare import compose, sentences
from scaling.report.inputs import is_comparison, load_fits, options_of
from scaling.report.page import html, write_report
from tests.documents import compare, dump

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
    for path, held in zip(paths, (document, other), strict=True):
        dump(held, path)
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


def test_comparison_report_has_its_files_and_starts_with_the_compute_ratio(page):
    said = (page.parent / "report.md").read_text(encoding="utf-8")
    summary = said.partition("## Summary")[2].partition("###")[0]
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
        for kind in ("svg", "pdf", "png")
    }
    tables = {
        f"tables/{name}.{kind}"
        for name in ("compute", "estimates", "tests", "sweeps")
        for kind in ("csv", "tex")
    }
    assert names == figures | tables | {"index.html", "report.md", "comparison.json", "SHA256SUMS"}
    listed = [
        line.split("  ")
        for line in (page.parent / "SHA256SUMS").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert all(
        hashlib.sha256((page.parent / name).read_bytes()).hexdigest() == digest
        for digest, name in listed
    )
    with (page.parent / "tables" / "tests.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["p"]) for row in rows] == [test["p"] for test in found["tests"]]


def test_losses_that_do_not_compare_leave_the_exponents(document, pair):
    documents = {path.stem: json.loads(path.read_text()) for path in pair}
    for corpus, held in zip(("abc", "def"), documents.values(), strict=True):
        held["source"]["evaluation"] = {
            "corpus": corpus,
            "unit": "nats per token",
            "simulated": None,
        }
    report = compose(compare(documents), documents, (), "scaling report")
    assert report.notices == (
        "better and base: Losses are not comparable: they were measured on different data (abc "
        "and def). Only exponents are compared.",
    )
    assert [section.id for section in report.sections] == ["exponents", "size", "provenance"]
    assert [tile.label for tile in report.tiles] == ["exponent a of base", "exponent a of better"]


def test_hostile_names_are_text(pair):
    documents = {f"{HOSTILE} {path.stem}": json.loads(path.read_text()) for path in pair}
    text = html(compose(compare(documents), documents, (HOSTILE,), HOSTILE))
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_unreachable_compute_ratio_is_described(pair):
    documents = {path.stem: json.loads(path.read_text()) for path in pair}
    held = documents["better"]
    held["params"]["E"]["value"] = 9.0
    held["bootstrap"]["draws"]["E"] = list(np.full(len(held["bootstrap"]["draws"]["E"]), 9.0))
    found = compare(documents)
    assert sentences(found)[0].startswith(
        "By these fits better never reaches the loss of base, at any compute"
    )
    assert found["multipliers"]["better"]["at_top"]["unreached"] == 1.0
    report = compose(found, documents, (), "scaling report")
    assert "better does not reach this loss with any compute" in html(report)


def test_a_folder_is_fitted_as_the_first_source_was(document, pair, results_folder, tmp_path):
    first = json.loads(pair[0].read_text())
    first["bootstrap"] |= {"resamples": 20}
    first["source"]["convention"] = {"params": "total", "flops": "6nd"}
    dump(first, pair[0])
    found, told = load_fits([pair[0], results_folder], tmp_path / "made")
    assert list(found) == ["base", "synthetic"]
    assert told == ("synthetic was fitted for this comparison as base was: it held no fit.",)
    assert options_of(found["synthetic"]) == options_of(first)
    assert options_of(first) == FitOptions(
        law=first["law"],
        params="total",
        flops="6nd",
        bootstrap=20,
        seed=first["bootstrap"]["seed"],
        ci=first["ci"],
    )
    assert found["synthetic"]["source"]["evaluation"]["unit"] == "nats per token"
    assert (tmp_path / "made" / "fit-2.json").exists()
    assert not (results_folder / "fits").exists()


def test_sources_are_labelled_by_the_distinct_part_of_their_paths(pair, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "base.json").write_bytes(pair[1].read_bytes())
    found, _ = load_fits([pair[0], tmp_path / "x" / "base.json"], tmp_path / "made")
    assert list(found) == [f"{tmp_path.name}/base", "x/base"]
    with pytest.raises(ScalingError, match="named twice"):
        load_fits([pair[0], pair[0]], tmp_path / "made")


def test_the_command_line_writes_the_same_bytes_gives_the_numbers_and_refuses_budgets_of_one(
    page, sources, tmp_path
):
    run = CliRunner()
    done = run.invoke(
        with_commands(),
        [
            "report",
            *map(str, sources),
            "--out",
            str(tmp_path / "out"),
            "--budgets",
            "1e14",
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["comparison"]
    assert found["multipliers"]["better"]["rows"][-1]["flops"] == 1e14
    assert "checksum" not in found
    assert (tmp_path / "out" / "SHA256SUMS").read_bytes() == (
        page.parent / "SHA256SUMS"
    ).read_bytes()
    done = run.invoke(with_commands(), ["report", str(sources[0]), "--budgets", "1e14"])
    assert done.exit_code == 2
    assert "budgets are asked of a comparison" in done.stderr
