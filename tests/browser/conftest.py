"""One Chromium a session, and pages opened from disk under watch: what they say, ask for and throw
is a fault unless a test expects it.

    def test_something(visit):
        page = visit(report / "index.html", width=390, dark=True)

`visit` returns Playwright's Page once its figures are drawn. When the test ends, a message on the
console, an error, or a request for
anything but the file itself fails it.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.browser.chromium import DRAWN, FLAGS, browser_path

PATIENCE = 600_000  # milliseconds that a browser may take for anything


def pytest_collection_modifyitems(items):
    """Everything in this folder needs Chromium."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")


@dataclass
class Watched:
    """A page and what came out of it."""

    page: object
    said: list[str] = field(default_factory=list)  # console messages of any kind, and errors
    asked: list[str] = field(default_factory=list)  # requests that left the page


def watch(page, own):
    """Write down what the page says; requests for anything but `own`, what lies below it, data: or
    blob: are blocked and written down.
    """
    watched = Watched(page)
    page.on("console", lambda message: watched.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: watched.said.append(f"error: {error}"))
    page.on(
        "dialog",
        lambda dialog: (watched.said.append(f"dialog: {dialog.message}"), dialog.dismiss()),
    )

    def decide(route):
        address = route.request.url
        inside = address.partition("#")[0] == own
        if inside or address.startswith(("data:", "blob:", f"{own}/")):
            return route.continue_()
        watched.asked.append(address)
        return route.abort()

    page.route("**/*", decide)
    return watched


@pytest.fixture(scope="session")
def chromium():
    """The path of a Chromium; tests are skipped with the reason where there is none."""
    found = browser_path()
    if found is None:
        pytest.skip(
            "no Chromium here (Debian: apt-get install chromium); pages are not tested in a browser"
        )
    return found


@pytest.fixture(scope="session")
def browser(chromium):
    """One browser a session, headless, with an empty profile and no network of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium, headless=True, args=list(FLAGS), timeout=PATIENCE
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def opening(browser):
    """Open pages that stay open for a module: `opening(path, width=..., dark=...)` gives a Watched;
    what it says is the test's to check.
    """
    contexts = []

    def visit(path, width=1280, height=900, dark=False, **options):
        scheme = "dark" if dark else "light"
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
            **options,
        )
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        address = str(path) if str(path).startswith("http:") else Path(path).resolve().as_uri()
        watched = watch(context.new_page(), address)
        watched.page.goto(address)
        watched.page.wait_for_function(DRAWN)
        return watched

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture
def visit(opening):
    """Open a page: `visit(path, width=390, dark=True)`; at the end of the test it must have said
    and asked for nothing.
    """
    opened = []

    def one(path, **options):
        opened.append(opening(path, **options))
        return opened[-1].page

    yield one
    for watched in opened:
        assert (watched.said, watched.asked) == ([], [])


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    """Where to find a report by name; each is written at most once a session: see
    tests/browser/reports.py.
    """
    from tests.browser.reports import WRITERS

    written = {}

    def report(name):
        if name not in written:
            folder = tmp_path_factory.mktemp(name)
            WRITERS[name](folder)
            written[name] = folder / "index.html"
        return written[name]

    return report
