"""How Chromium is found and started, without a word to any host, and when a report's figures are
drawn.
"""

import shutil

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PLACES = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")
DRAWN = (
    "() => [...document.querySelectorAll('.canvas')].every((canvas) => "
    "canvas.querySelector('.main-svg'))"
)


def browser_path():
    """The path of the browser, or None."""
    return next(filter(None, map(shutil.which, PLACES)), None)
