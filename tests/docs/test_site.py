"""The documentation as a site: it builds without a warning, fetches nothing, and leaves no page
out.
"""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.blocks import ROOT

pytestmark = pytest.mark.slow

pytest.importorskip("material", reason="mkdocs-material is not installed")


class Page(HTMLParser):
    """What a page fetches when it is opened, where it leads, and the places in it that may be led
    to.
    """

    def __init__(self, path):
        super().__init__()
        self.fetched, self.links, self.places = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        self.places |= {said.get("id"), said.get("name")}
        if tag == "a" and said.get("href"):
            self.links.append(said["href"])
        elif tag == "link" and said.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.fetched.append(said["href"])
        elif said.get("src"):
            self.fetched.append(said["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(folder),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def read(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_site_loads_no_external_resource(site):
    for path, page in read(site).items():
        assert [source for source in page.fetched if urlsplit(source).netloc] == [], path.name
        assert all(
            (path.parent / urlsplit(source).path).exists()
            for source in page.fetched
            if path.name != "404.html"
        ), path.name
    for sheet in site.rglob("*.css"):
        assert not re.search(
            r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")
        ), sheet.name


def test_every_link_and_anchor_resolves(site):
    found = read(site)
    for path, page in found.items():
        for link in page.links:
            there = urlsplit(link)
            if there.scheme or there.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(there.path)).resolve() if there.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.name}: {link}"
            if there.fragment and target.suffix == ".html":
                assert unquote(there.fragment) in found[Path(target)].places, f"{path.name}: {link}"


def test_every_page_is_in_the_navigation_and_the_search_index(site):
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    known = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {page.with_suffix(".html").name for page in (ROOT / "docs").glob("*.md")} == known
    assert list(site.rglob("*.py")) == []


def test_every_command_has_its_help_on_the_command_line_page():
    import typer

    from scaling.cli.app import app

    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")

    def verbs(group, before=""):
        for name, verb in group.commands.items():
            yield from (
                verbs(verb, f"{before}{name} ")
                if hasattr(verb, "commands")
                else [f"{before}{name}"]
            )

    assert [
        verb for verb in verbs(typer.main.get_command(app)) if f"\n## scaling {verb}\n" not in text
    ] == []
