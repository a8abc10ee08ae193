"""The two backends: valid plotly JSON in both themes, the same SVG every time, hostile words drawn
as words.
"""

import json
import math
import os
import subprocess
import sys

import plotly.graph_objects as go
import pytest
from matplotlib.text import Text as Letters

from scaling.render.figure import (
    DARK,
    LIGHT,
    Axis,
    Band,
    ColorScale,
    Figure,
    Line,
    Markers,
    ReferenceLine,
    Text,
)
from scaling.render.matplotlib_backend import draw, save
from scaling.render.plotly_backend import to_plotly

HOSTILE = (
    "<img src=x onerror=alert(1)></script><script>alert(2)</script> $\\frac{$ <a "
    'href="javascript:1">'
)


def everything(word="runs"):
    traces = (
        Band([1, 10], [1.0, 2.0], [2.0, 3.0], 0.3),
        Line([1, 10], [1.5, 2.5], word, 1, "dash", note=word),
        Markers(
            [2, 5],
            [1.6, 2.0],
            "_" + word,
            2,
            "cross",
            lo=[1.5, 1.8],
            hi=[1.8, 2.2],
            notes=[word, word],
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
        ColorScale(word, 1.0, 100.0),
    )


def patched(base, change):
    """What page.js does with the dark patch."""
    if change is None or not isinstance(change, dict):
        return base if change is None else change
    if isinstance(base, list):
        return [patched(item, change.get(str(index))) for index, item in enumerate(base)]
    return {key: patched(value, change.get(key)) for key, value in base.items()}


def test_plotly_accepts_every_kind_of_trace_in_both_themes():
    drawn = to_plotly(everything())
    assert json.loads(json.dumps(drawn, allow_nan=False)) == drawn
    dark = drawn.pop("dark")
    go.Figure(drawn)  # raises on any name or value that plotly does not know
    text = json.dumps(patched(drawn, dark))
    go.Figure(json.loads(text))
    assert DARK.ink in text
    assert LIGHT.ink not in text


def test_plotly_places_annotations_and_ranges_by_exponent():
    layout = to_plotly(everything())["layout"]
    word = next(note for note in layout["annotations"] if note.get("yref") != "paper")
    assert word["x"] == pytest.approx(math.log10(3.0))
    assert layout["xaxis"]["range"][1] == pytest.approx(1.0, abs=0.05)


def test_hostile_text_is_escaped_for_plotly():
    texts = json.dumps(to_plotly(everything(HOSTILE)))
    assert "<" not in texts
    assert "&lt;img" in texts


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
    assert not any(text.get_path_effects() for text in canvas.findobj(Letters)), (
        "the outlines are for the PDF alone"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "two"],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        check=True,
    )
    first = (tmp_path / "one").read_bytes()
    assert first == (tmp_path / "two").read_bytes()
    assert first.startswith(b"%PDF")
    assert not {
        word for word in (b"CreationDate", b"ModDate", b"/Type3", b"/BaseFont") if word in first
    }


@pytest.mark.slow
def test_importing_render_loads_no_plotting_and_no_jax():
    code = (
        "import sys, scaling.report, scaling.report.page, scaling.report.terminal; "
        "print([m for m in ('matplotlib', 'plotly', 'jinja2', 'rich', 'scipy', 'jax') if m in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
