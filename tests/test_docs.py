"""The documentation is true: reference pages are fresh, and every file they name exists."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from scaling import fit, load
from scaling.formatting import format_count, format_flops

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sweep-files.md", "command-line.md", "laws.md", "code-map.md"])
def test_reference_pages_are_current(name):
    code = f"import runpy; print(runpy.run_path('docs/reference.py')['PAGES'][{name!r}](), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout == (ROOT / "docs" / name).read_text(encoding="utf-8"), (
        "renew with: python docs/reference.py"
    )


def test_command_line_page_has_no_accidental_markup():
    assert (
        re.findall(
            r"\[\]|\ba  in\b", (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
        )
        == []
    )


def test_readme_layout_names_every_folder_of_the_package():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    layout = text[text.index("```\nscaling/\n") :]
    folders = [path.parent.name for path in (ROOT / "scaling").glob("*/__init__.py")]
    assert [name for name in folders if f"  {name}/" not in layout] == []


@pytest.mark.slow
def test_readme_numbers_are_those_of_the_kept_results():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    found = fit(ROOT / "results" / "reference", approach="isoflop", bootstrap=0).document
    minima = found["approaches"]["isoflop"]["minima"]
    for each in minima:
        budget, n_sizes = float(f"{each['flops']:.1g}"), len(set(each["n_params"]))
        optimum = f"{each['n_star'] / 1e3:.1f}k | {each['loss_star']:.3f}"
        assert f"| {format_flops(budget)} | {n_sizes} | {optimum} |" in text
    assert text.count("e10 |") + text.count("e11 |") == len(minima)
    names = ("reference", "honest", "honest-at-3.2e13", "experts", "optimizers")
    runs = pd.concat(load(ROOT / "results" / name) for name in names)
    n = runs["n_params_nonembedding"] + runs["vocab_size"] * runs["d_model"]
    assert f"{format_count(n.min(), 2)} to {format_count(n.max())} parameters" in text


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_lines_are_at_most_100_columns(page):
    """Tables, code blocks and lines that are one link or path may be longer."""
    in_block, long = False, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_block = not in_block
        elif (
            not in_block
            and len(line) > 100
            and line[0] not in "|<!"
            and not line.startswith("    ")
            and " " in line.strip()
        ):
            long.append(number)
    assert long == []


def test_every_module_has_a_docstring():
    pages = [
        path
        for path in (ROOT / "scaling").rglob("*.py")
        if path.stat().st_size and not path.read_text().startswith('"""')
    ]
    assert pages == []


def test_links_of_the_pages_resolve():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_file_exceeds_its_line_limit():
    long = {
        path.name: count
        for path in (ROOT / "scaling").rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert long == {}
