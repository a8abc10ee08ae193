"""The documentation is true: reference pages are fresh, and every file that is named exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["sweep-files.md", "command-line.md", "laws.md", "house.md"])
def test_reference_pages_are_fresh(name):
    code = f"import runpy; print(runpy.run_path('docs/reference.py')['PAGES'][{name!r}](), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    assert done.stdout == (ROOT / "docs" / name).read_text(encoding="utf-8"), (
        "renew with: python docs/reference.py"
    )


def test_no_word_of_the_command_line_was_taken_for_markup():
    assert (
        re.findall(
            r"\[\]|\ba  in\b", (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
        )
        == []
    )


def test_the_tree_of_the_readme_names_every_room():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = [path.name for path in (ROOT / "scaling").iterdir() if (path / "__init__.py").exists()]
    assert [room for room in rooms if f"\n  {room}/" not in text] == [], (
        "name them in the README's tree"
    )


def test_every_module_says_where_it_stands():
    pages = [
        path
        for path in (ROOT / "scaling").rglob("*.py")
        if path.stat().st_size and not path.read_text().startswith('"""')
    ]
    assert pages == []


def test_links_of_the_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_file_outgrows_its_ceiling():
    long = {
        path.name: count
        for path in (ROOT / "scaling").rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 600
    }
    assert long == {}
