"""The report as a whole: complete, self-contained, safe, and honest where there
is little to say.
"""

import base64
import copy
import csv
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scaling
from scaling import files
from scaling.config import Sweep
from scaling.config.sweep_file import dump_sweep
from scaling.errors import DISK, ScalingError
from scaling.fit.pipeline import FitOptions, fit
from scaling.report.page import write_report
from tests.documents import dump

HOSTILE = (
    '</script><script>alert(1)</script><img src=x onerror=alert(2)> "><svg onload=alert(3)> =1+1 '
    "[x](javascript:alert(4)) | `"
)


class Page(HTMLParser):
    """What a browser would load and run."""

    def __init__(self, text):
        super().__init__()
        self.links, self.handlers, self.tags, self.scripts, self.words, self._open = (
            [],
            [],
            [],
            [],
            [],
            "",
        )
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._open = tag
        self.links += [
            value
            for name, value in attrs
            if name in ("src", "href", "srcset", "action", "data", "poster")
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open == "script":
            kind, before = self.scripts.pop()
            self.scripts.append((kind, before + data))
        elif self._open != "style":
            self.words.append(data)


def sweep(folder, question):
    text = {
        "name": "hostile",
        "question": question,
        "base": {"task": {"kind": "synthetic"}},
        "design": {"kind": "isoflop", "sizes": [1e4, 2e4], "budgets": [1e11, 1e12]},
    }
    (folder / "sweep.toml").write_text(dump_sweep(Sweep.model_validate(text)))


@pytest.fixture(scope="module")
def folder(results_folder, document, tmp_path_factory):
    """The synthetic results with a fit, hostile in every field that a stranger can write."""
    copied = tmp_path_factory.mktemp("hostile") / "results"
    (copied / "failures").mkdir(parents=True)
    (copied / "runs").symlink_to(results_folder / "runs")
    (copied / "failures" / "0123456789ab.txt").write_text(
        f"ValueError: {HOSTILE}\n\nTraceback (most recent call last):\n"
    )
    sweep(copied, HOSTILE)
    hostile = copy.deepcopy(document)
    hostile["warnings"].append({"code": "other", "message": HOSTILE})
    hostile["excluded"].append({"reason": HOSTILE, "count": 3})
    hostile["source"]["paths"] = [HOSTILE]
    hostile["approaches"]["isoflop"]["minima"][0]["unavailable"] = HOSTILE
    dump(hostile, copied / "fits" / "chinchilla.json")
    dump(document, copied / "fits" / "=other.json")
    assert write_report(copied) == copied / "report" / "index.html"
    return copied


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report" / "index.html").read_text(encoding="utf-8")


def test_all_parts_are_written_and_no_half_file_is_left(folder):
    names = {
        path.relative_to(folder / "report").as_posix()
        for path in (folder / "report").rglob("*")
        if path.is_file()
    }
    pictures = "training-curves isoflop-curves frontier-size frontier-loss contours residuals "
    pictures += "wrong-size"
    expected = {
        f"figures/{name}.{kind}"
        for name in pictures.split()
        for kind in ("svg", "pdf", "png", "csv")
    }
    listed = (
        "predictions approaches parameters laws laws-compared holdout exclusions "
        "failures runs provenance training-origin"
    )
    expected |= {f"tables/{name}.{kind}" for name in listed.split() for kind in ("csv", "tex")} | {
        "index.html",
        "report.md",
        "manifest.json",
    }
    assert names == expected


def test_the_points_and_lines_of_a_figure_are_a_table(folder, document):
    path = folder / "report" / "figures" / "residuals.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [row["kind"] for row in rows].count("referenceline") == 1, "the zero"
    rows = [row for row in rows if row["kind"] == "markers"]
    assert len(rows) == document["n_points"]
    path = folder / "report" / "figures" / "frontier-size.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    labels = {row["trace"] for row in rows if row["kind"] == "line"}
    assert "20 tokens per parameter" in labels
    line = [row for row in rows if row["trace"] == "20 tokens per parameter"]
    names = "parameters N (with head)", "training FLOPs C (exact)"
    n, c = (float(line[0][name]) for name in names)
    assert 20 * 6 * n**2 == pytest.approx(c)


def test_hostile_text_ends_no_row_of_a_latex_table(folder):
    text = (folder / "report" / "tables" / "failures.tex").read_text(encoding="ascii")
    body = text.partition("\\midrule")[2].partition("\\bottomrule")[0].strip().splitlines()
    assert body == [line for line in body if line.endswith(" \\\\") and line.count(" & ") == 1]
    assert "$<$script$>$alert(1)$<$/script$>$" in text


def test_page_loads_nothing_external_and_allows_only_its_scripts(folder, text):
    page = Page(text)
    files = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert all((folder / "report" / link).is_file() for link in files), files
    assert {link.partition("/")[0] for link in files} == {"figures", "tables"}
    assert page.handlers == []
    assert not {"svg", "iframe", "object", "base", "form"} & set(page.tags)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1].replace(
        "&#39;", "'"
    )
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    code = [source for kind, source in page.scripts if kind is None]
    assert len(code) == 2
    for source in code:
        assert base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() in policy
    assert len(text.encode()) < 1_000_000


def test_hostile_text_is_shown_as_text(text):
    page = Page(text)
    assert "alert(1)" in "".join(page.words), "the question is shown"
    assert "<img src=x" not in text
    assert "<svg onload" not in text
    data = next(source for kind, source in page.scripts if kind == "application/json")
    assert "<" not in data
    assert "start" in json.loads(data)


def test_the_summary_says_what_was_trained_and_what_follows(text):
    said = " ".join("".join(Page(text).words).split())
    assert (
        "It rests on 30 runs of 12.5k to 246k parameters (blocks and output matrix) and 1e11 to "
        "1e13 FLOPs; 5 were left out" in said
    )
    assert "The answer is for 10 times the largest budget trained" in said
    assert "10 times the compute: 3.4 times the parameters on 2.9 times the tokens." in said
    assert "0.530 [0.477, 0.583]" in said
    assert "With 1e14 FLOPs, train a model of 1.15M parameters on " in said
    assert "95 % intervals: " in said
    assert "10 times the compute of the largest run" not in said, "it is said once, above"
    assert "How far to trust it" in said
    assert "with a mean error of 1.1 %" in said


def test_markdown_links_its_figures_and_has_no_html(folder):
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    links = re.findall(r"(?<!\\)!\[[^\]]*\]\(([^)]*)\)", text)
    assert len(links) == 7
    assert all((folder / "report" / link).is_file() for link in links)
    prose = [
        line for line in text.splitlines() if not line.startswith("    ")
    ]  # indented code is literal
    assert not any("<" in line for line in prose)
    tables = [line for line in prose if line.startswith("|")]
    header = tables.index("| parameter | value | se | lo | hi | note | ")
    assert tables[header + 1].split() == [
        "|",
        "---",
        "|",
        "---:",
        "|",
        "---:",
        "|",
        "---:",
        "|",
        "---:",
        "|",
        "---",
        "|",
    ]
    assert tables[header + 2].startswith("| E | 1.100 | 0.0550 | 0.990 | 1.21 | not identified |")


def test_tables_are_csv_without_formulas(folder):
    for path in (folder / "report" / "tables").glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.reader(handle))
        assert len({len(row) for row in rows}) == 1, path.name
        for cell in (cell for row in rows for cell in row):
            assert cell[:1] not in "=+@" or not cell, (path.name, cell)
            assert cell[:1] != "-" or float(cell) < 0
    with (folder / "report" / "tables" / "laws.csv").open() as handle:
        assert [row[0] for row in csv.reader(handle)][1:3] == ["chinchilla", "'=other"]


@pytest.mark.slow
def test_a_fit_document_alone_is_enough(document, tmp_path):
    dump(document, tmp_path / "mine.json")
    page = write_report(tmp_path / "mine.json", tmp_path / "out")
    assert page == tmp_path / "out" / "index.html"
    assert not (tmp_path / "out" / "figures" / "training-curves.svg").exists()
    assert (tmp_path / "out" / "figures" / "contours.svg").exists()
    assert "<h1>mine</h1>" in page.read_text()


@pytest.mark.slow
def test_a_folder_without_fits_is_fitted_on_the_way(results_folder, tmp_path):
    (tmp_path / "runs").symlink_to(results_folder / "runs")
    said = " ".join(
        "".join(Page(write_report(tmp_path, tmp_path / "out").read_text()).words).split()
    )
    made = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert (made["law"], made["n_points"]) == ("chinchilla", 30)
    assert "It rests on 30 runs" in said
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "out"}, (
        "the folder itself stays as it is"
    )


def test_runs_that_no_law_fits_are_shown_with_the_reason(results_folder, tmp_path):
    (tmp_path / "runs").mkdir()
    for path in sorted((results_folder / "runs").iterdir())[:2]:
        (tmp_path / "runs" / path.name).symlink_to(path)
    said = " ".join("".join(Page(write_report(tmp_path).read_text()).words).split())
    assert "No law could be fitted." in said
    assert "All 2 runs" in said
    assert (tmp_path / "report" / "figures" / "training-curves.svg").exists()
    assert not (tmp_path / "report" / "fit.json").exists()


def test_a_report_removes_what_a_former_one_wrote_and_no_file_of_the_user(results_folder, tmp_path):
    folder = tmp_path / "report"
    for name in ("figures/gone.svg", "tables/gone.tex", "figures/mine.svg", "tables/mine.csv"):
        files.write_text(folder / name, "written before")
    files.write_text(tmp_path / "mine.csv", "beyond the report")
    listed = ["figures/gone.svg", "tables/gone.tex", "../mine.csv", "figures/../../mine.csv"]
    sources = [os.path.relpath(results_folder, folder)]
    files.write_json(folder / "manifest.json", {"sources": sources, "files": listed})
    write_report(results_folder, folder)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert not left & set(listed)
    assert {"figures/mine.svg", "tables/mine.csv"} <= left
    assert (tmp_path / "mine.csv").exists()
    written = files.read_json(folder / "manifest.json")["files"]
    assert {name for name in left if "/" in name and "mine" not in name} == set(written)


@pytest.mark.slow
def test_runs_that_differ_in_a_part_of_the_model_are_fitted_as_scaling_fit_does(tmp_path):
    merged = Path(__file__).parents[2] / "results" / "experts" / "merged"
    (tmp_path / "merged").symlink_to(merged)
    said = " ".join("".join(Page(write_report(tmp_path).read_text()).words).split())
    options = FitOptions(bootstrap=0, holdout="none")
    warnings = [each.message for each in fit([tmp_path], options).warnings]
    (mixed,) = [each for each in warnings if each.startswith("the runs differ in n_experts")]
    assert mixed in said
    assert "No law" not in said


def test_only_failed_runs_make_a_report_that_says_so(tmp_path):
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / "0123456789ab.txt").write_text(
        "out of memory: MemoryError: 12 GiB\n\nTraceback\n"
    )
    said = " ".join("".join(Page(write_report(tmp_path).read_text()).words).split())
    assert "No run finished: all 1 failed" in said
    assert "MemoryError: 12 GiB" in said


def test_absent_or_empty_source_is_named(tmp_path):
    with pytest.raises(ScalingError, match="absent"):
        write_report(tmp_path / "absent")
    with pytest.raises(ScalingError, match="holds no runs"):
        write_report(tmp_path)
    with pytest.raises(ScalingError, match="nothing to report"):
        write_report([])
    (tmp_path / "not.json").write_text("[]")
    with pytest.raises(ScalingError, match=r"not\.json"):
        write_report(tmp_path / "not.json")
    assert sorted(os.listdir(tmp_path)) == ["not.json"], "nothing was written"


def test_incomplete_document_is_named(document, tmp_path):
    lacking = copy.deepcopy(document)
    del lacking["approaches"]["isoflop"]["minima"][1]["flops"]
    dump(lacking, tmp_path / "lacking.json")
    with pytest.raises(ScalingError, match=r"lacking\.json: .*minima\.1\.flops' is missing"):
        write_report(tmp_path / "lacking.json")
    assert os.listdir(tmp_path) == ["lacking.json"]


@pytest.mark.slow
def test_reports_of_two_fits_stand_apart(document, tmp_path):
    for name in ("a", "b"):
        dump(document, tmp_path / f"{name}.json")
    pages = [write_report(tmp_path / f"{name}.json") for name in ("a", "b")]
    assert [page.parent.name for page in pages] == ["a-report", "b-report"]


@pytest.mark.slow
def test_a_report_of_another_source_is_replaced_by_force_alone(document, tmp_path):
    for name in ("a", "b"):
        dump(document, tmp_path / f"{name}.json")
    out = tmp_path / "out"
    page = write_report(tmp_path / "a.json", out)
    assert files.read_json(out / "manifest.json")["sources"] == [os.path.join("..", "a.json")]
    written = page.read_bytes()
    with pytest.raises(ScalingError, match=r"holds the report of ../a\.json") as caught:
        write_report(tmp_path / "b.json", out)
    assert caught.value.exit_code == 2
    assert page.read_bytes() == written
    assert write_report(tmp_path / "a.json", out) == page
    write_report(tmp_path / "b.json", out, force=True)
    assert "<h1>b</h1>" in page.read_text()


def test_an_output_folder_that_is_a_file_is_a_disk_error(document, tmp_path):
    dump(document, tmp_path / "fit.json")
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(ScalingError) as caught:
        write_report(tmp_path / "fit.json", tmp_path / "out")
    assert caught.value.exit_code == DISK
    assert "out" in str(caught.value)


def test_a_law_written_with_an_offset_answers_a_loss_and_has_a_report(tmp_path):
    """Its frontier is found by minimisation, and small budgets have no optimum: D* is below 0."""
    grid = np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 3e10, 6))
    n, d = (axis.ravel() for axis in grid)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.002, n.size))
    loss = (1.7 + 420 / n**0.34 + 650 / (d + 2e8) ** 0.3) * noise
    pd.DataFrame({"params": n, "tokens": d, "loss": loss}).to_csv(
        tmp_path / "runs.csv", index=False
    )
    fitted = scaling.fit(
        tmp_path / "runs.csv",
        formula="L = E + A/N^alpha + B/(D + 2e8)^beta",
        bootstrap=20,
        holdout="none",
    )
    answer = fitted.predict(flops=1e21)
    again = fitted.predict(loss=answer.result.loss.value)
    assert again.result.flops.value == pytest.approx(1e21, rel=1e-6)
    fitted.save(tmp_path / "fit.json")
    scaling.report(tmp_path / "fit.json", out=tmp_path / "report")
    assert "frontier-loss.svg" in {path.name for path in (tmp_path / "report/figures").iterdir()}
