"""Figures by matplotlib: the same bytes every time, hostile words drawn as words."""

import os
import subprocess
import sys
from itertools import combinations

import pytest

from scaling.render.figure import (
    Axis,
    Band,
    Figure,
    Line,
    Markers,
    ReferenceLine,
    Text,
)
from scaling.render.matplotlib_backend import Style, draw, save

HOSTILE = (
    "<img src=x onerror=alert(1)></script><script>alert(2)</script> $\\frac{$ <a "
    'href="javascript:1">'
)


def everything(word="runs"):
    traces = (
        Band([1, 10], [1.0, 2.0], [2.0, 3.0], 0.3),
        Line([1, 10], [1.5, 2.5], word, 1, "dash", name=word),
        Markers(
            [2, 5],
            [1.6, 2.0],
            "_" + word,
            2,
            "cross",
            lo=[1.5, 1.8],
            hi=[1.8, 2.2],
        ),
        ReferenceLine(x=5.0, label=word),
        ReferenceLine(y=2.0),
        Text(3.0, 2.2, word),
    )
    return Figure(
        "everything",
        word,
        word,
        Axis(word, log=True, unit="flops"),
        Axis(word),
        traces,
        Axis(word),
    )


def test_svg_is_reproducible_and_undated(tmp_path):
    for name in ("one", "two"):
        save(draw(everything(HOSTILE)), "svg", tmp_path / name)
    first = (tmp_path / "one").read_bytes()
    assert first == (tmp_path / "two").read_bytes()
    assert b"dc:date" not in first
    assert b"<script" not in first
    assert b"onerror=alert(1)>" not in first


def test_png_is_reproducible(tmp_path):
    for name in ("one", "two"):
        save(draw(everything()), "png", tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_pdf_is_reproducible_for_any_hash_seed_and_undated(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tests.render.test_backends import HOSTILE, "
        "draw, everything, save; "
    )
    code += "save(draw(everything(HOSTILE)), 'pdf', Path(sys.argv[1]))"
    canvas = draw(everything(HOSTILE))
    save(canvas, "pdf", tmp_path / "one")
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "two"],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        check=True,
    )
    first = (tmp_path / "one").read_bytes()
    assert first == (tmp_path / "two").read_bytes()
    assert first.startswith(b"%PDF")
    assert b"CreationDate" not in first
    assert b"ModDate" not in first


@pytest.mark.slow
def test_importing_render_loads_no_plotting_and_no_jax():
    code = (
        "import sys, scaling.report, scaling.report.page, scaling.report.terminal; "
        "print([m for m in ('matplotlib', 'jinja2', 'rich', 'scipy', 'jax') if m in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("width", [5.0, 3.25])
def test_words_cover_no_other_word_and_stay_inside(width):
    """Nine budgets of nearly the same loss, each named after its right end."""
    ends = [(10.0 ** (6 + i / 20), 2.0 + 0.001 * (i % 4)) for i in range(9)]
    words = [Text(x, y, f"{i + 1}.25e20", "ink", "left") for i, (x, y) in enumerate(ends)]
    lines = [Line([1e5, x], [3.0, y], "", "ink") for x, y in ends]
    axes = Axis("N", log=True, unit="count"), Axis("loss", log=True)
    canvas = draw(Figure("words", "words", "", *axes, [*lines, *words]), Style("paper", width))
    canvas.draw_without_rendering()
    boxes = [text.get_window_extent() for text in canvas.axes[0].texts]
    assert len(boxes) == 9
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.shrunk(0.9, 0.7).overlaps(b)]
    assert max(box.x1 for box in boxes) <= canvas.axes[0].get_window_extent().x1 + 1
