"""`scaling report FOLDER --watch` in a browser: the page follows a sweep whose runs finish while it
is open.
"""

import shutil
import signal
import subprocess
import sys

import pytest

from tests.browser.reports import REFERENCE

AT_LAW = "document.getElementById('law')?.getBoundingClientRect().top"
SAYS = "(status) => document.getElementById('status')?.innerText === status"


@pytest.fixture
def sweep(tmp_path):
    """The folder of the reference sweep before its first run has finished."""
    folder = tmp_path / "sweep"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("fits", "report", "*.parquet"))
    return folder


@pytest.fixture
def watching(sweep):
    """(process, address) of the command that follows the sweep."""
    command = [sys.executable, "-m", "scaling", "report", str(sweep), "--watch", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process, process.stdout.readline().split()[0]
        process.kill()


def finish(sweep, paths):
    """Runs finish: each file appears whole."""
    for path in paths:
        shutil.copy(path, sweep / "runs" / "being-written")
        (sweep / "runs" / "being-written").rename(sweep / "runs" / path.name)


def test_page_follows_a_sweep_and_stays_where_it_was_scrolled_to(sweep, watching, opening):
    process, address = watching
    at_first = set(sweep.rglob("*"))
    assert address.startswith("http://127.0.0.1:")
    runs = sorted((REFERENCE / "runs").iterdir(), key=lambda path: path.stat().st_size)
    watched = opening(address)
    page = watched.page
    assert page.inner_text(".notice") == "No run has finished yet."
    assert page.inner_text("#status") == "43 missing of 43 runs"

    finish(sweep, runs[:14])
    page.wait_for_function(SAYS, arg="14 done, 29 missing of 43 runs")
    page.wait_for_selector(".answer")
    page.evaluate("document.getElementById('training').open = true")
    page.evaluate("document.getElementById('law').scrollIntoView()")
    page.evaluate("scrollBy(0, 300)")
    before, first_answer = page.evaluate(AT_LAW), page.inner_text(".answer")

    finish(sweep, runs[14:])
    page.wait_for_function(SAYS, arg="43 done of 43 runs")
    page.wait_for_function(
        "(old) => document.querySelector('.answer')?.innerText.includes(old) === false",
        arg=first_answer,
    )
    page.wait_for_selector("#plot-forecast-history", state="attached")
    page.wait_for_function(f"(old) => Math.abs({AT_LAW} - old) <= 2", arg=before)
    assert page.evaluate("document.getElementById('training').open")
    assert page.locator(".files a").count() == 0, "no file of the page is served"

    written = set(sweep.rglob("*")) - at_first - {sweep / "runs" / path.name for path in runs}
    assert written == set(), "nothing is written into the sweep's folder"
    assert (watched.said, watched.asked) == ([], [])

    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    page.wait_for_selector("#status.ended")
