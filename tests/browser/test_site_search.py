"""The search of the documentation's site, in a browser."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.browser.conftest import PATIENCE, watch
from tests.docs.test_site import site  # noqa: F401

pytestmark = pytest.mark.slow


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, format, *args):
        """Say nothing."""


@pytest.fixture
def address(site):  # noqa: F811
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("words", "page"),
    [("isoFLOP", "forecasts.html"), ("learning rate", "your-own-table.html")],
)
def test_search_finds_the_page_and_asks_no_other_host(words, page, address, browser):
    watched = watch(browser.new_page(), address)
    watched.page.set_default_timeout(PATIENCE)
    watched.page.goto(f"{address}/index.html")
    watched.page.locator("input[name=query]").fill(words, force=True)
    results = watched.page.locator(".md-search-result__link")
    results.first.wait_for(state="attached")
    found = results.evaluate_all("links => links.map((link) => link.pathname.slice(1))")
    assert page in found[:8]
    assert watched.asked == []
    assert [said for said in watched.said if said.startswith("error")] == []
    watched.page.close()
