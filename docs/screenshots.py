"""The pictures of the documentation, from the program as it is: `python -m docs.screenshots` (make
screenshots).

The report of the runs of results/reference in Chromium (wide, narrow, dark, on paper) as PNG, its
figures in docs/gallery, and what three commands print as SVG. Nothing is trained. Needs Chromium; a
picture above 250 kB is an error.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.text import Text

from tests.browser.chromium import FLAGS, browser_path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
OUT = DOCS / "screenshots"
GALLERY = DOCS / "gallery"
SWEEP = "results/reference"
FIGURES = [
    "isoflop-curves",
    "frontier-size",
    "frontier-loss",
    "contours",
    "residuals",
    "wrong-size",
    "models",
]
MOST_BYTES = 250_000
COLUMNS, GAP = 110, 12
IN_SIGHT = "() => [...document.images].every((image) => image.complete)"


@dataclass(frozen=True)
class Shot:
    """One picture of the page: the window in CSS pixels, and the element it begins with (the top of
    the page without); several elements
    are several windows side by side.
    """

    path: Path
    width: int
    height: int
    dark: bool = False
    starts: tuple[str, ...] = ("",)


SHOTS = (
    Shot(DOCS / "report.png", 1280, 945),
    Shot(OUT / "report-dark.png", 1120, 750, dark=True, starts=("#frontier",)),
    Shot(OUT / "report-law.png", 1120, 660, starts=("#law",)),
    Shot(OUT / "report-narrow.png", 390, 844),
    Shot(OUT / "report-predictor.png", 1120, 735, starts=("#predictor",)),
    Shot(OUT / "report-narrow-isoflop.png", 390, 636, starts=("#summary figure",)),
)
TERMINALS = {
    # seconds are of the machine, and of what else it does
    "plan": "scaling plan sweeps/demo.toml --no-probe",
    "fit": "scaling fit results/reference --out {folder}/fit.json",
    "predict": "scaling predict results/reference/fits/chinchilla.json --flops 1e14",
}


def main() -> int:
    """Write all pictures; returns the exit status."""
    chromium = browser_path()
    if chromium is None:
        sys.stderr.write("error: no Chromium here; on Debian: apt-get install chromium\n")
        return 2
    OUT.mkdir(exist_ok=True)
    GALLERY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / SWEEP, Path(folder, SWEEP), ignore=shutil.ignore_patterns("report"))
        report = Path(folder, SWEEP, "report")
        for options in ([], ["--models"]):  # the page is photographed without published models
            subprocess.run(
                [*_scaling(), "report", SWEEP, *options],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                check=True,
                stdout=subprocess.DEVNULL,
            )
            if not options:
                photograph(chromium, report / "index.html")
        for name in FIGURES:
            shutil.copy(report / "figures" / f"{name}.svg", GALLERY)
        for name, command in TERMINALS.items():
            (OUT / f"{name}.svg").write_text(terminal(command, Path(folder)), encoding="utf-8")
    written = [GALLERY / f"{name}.svg" for name in FIGURES]
    written += [shot.path for shot in SHOTS] + [OUT / f"{name}.svg" for name in TERMINALS]
    large = [path for path in written if path.stat().st_size > MOST_BYTES]
    for path in written:
        sys.stdout.write(
            f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} "
            f"kB{' (too large)' if path in large else ''}\n"
        )
    return 1 if large else 0


def _scaling() -> list[str]:
    return [sys.executable, "-m", "scaling"]


def photograph(chromium: str, page: Path) -> None:
    """All of SHOTS, each from a page opened anew in a window of its size; 256 colours are enough
    for flat pictures.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, headless=True, args=list(FLAGS)
        )
        for shot in SHOTS:
            view = browser.new_page(
                viewport={"width": shot.width, "height": shot.height},
                color_scheme="dark" if shot.dark else "light",
                device_scale_factor=2 if shot.width < 500 else 1,
                reduced_motion="reduce",
            )
            view.goto(page.as_uri())
            windows = [window(view, start) for start in shot.starts]
            width, height = windows[0].size
            picture = Image.new("RGB", (len(windows) * (width + GAP) - GAP, height), "#8c96a3")
            for place, image in enumerate(windows):
                picture.paste(image, (place * (width + GAP), 0))
            picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
                shot.path, optimize=True
            )
            view.close()
        browser.close()


def window(view: Any, start: str) -> Image.Image:
    """What stands in the window when the page is scrolled to an element."""
    if start:
        view.evaluate("(start) => document.querySelector(start).scrollIntoView()", start)
    view.wait_for_function(IN_SIGHT)
    return Image.open(io.BytesIO(view.screenshot())).convert("RGB")


def terminal(command: str, folder: Path) -> str:
    """What a command really prints, as an SVG of a terminal that shows the command above it."""
    words = shlex.split(command.format(folder=folder))
    environment = {
        **os.environ,
        "FORCE_COLOR": "1",
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm-256color",
        "JAX_PLATFORMS": "cpu",
    }
    environment.pop("NO_COLOR", None)
    done = subprocess.run(
        [*_scaling(), *words[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = command.partition(" --out {folder}")[0]
    printed = "\n".join(
        line for line in done.stdout.rstrip().splitlines() if str(folder) not in line
    )
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(Text(f"$ {shown}", style="bold"))
    console.print(Text.from_ansi(printed))
    svg = console.export_svg(title="scaling", unique_id=f"scaling-{words[1]}")
    return re.sub(
        r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL
    )  # they would be asked of a host; any monospaced face does


if __name__ == "__main__":
    sys.exit(main())
