"""Writes a report: one self-contained page, the same as Markdown, figures as SVG, PDF, PNG and CSV,
tables as CSV and LaTeX.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scaling.errors import DISK, ScalingError
from scaling.files import ChecksumError, read_json, write_atomically, write_json, write_text
from scaling.render import matplotlib_backend
from scaling.render.escape import environment, for_markdown, sanitize
from scaling.render.matplotlib_backend import SCREEN, Style
from scaling.report.inputs import is_comparison, load_fits, load_inputs
from scaling.report.sections import Report, build_report

TEMPLATES = Path(__file__).parent / "templates"
# a canvas is laid out again each time: the order is part of the bytes
PICTURES = ("svg", "png", "pdf")
FILES = (*PICTURES, "csv")  # of a figure
COMPARISON = "comparison"
MANIFEST = "manifest.json"  # names the sources of a report, its figures and its tables
JSON: Any = {"separators": (",", ":"), "allow_nan": False}  # on the page


def write_report(
    source: Path | Sequence[Path],
    out: Path | None = None,
    budgets: Sequence[float] = (),
    style: Style = SCREEN,
    models: bool = False,
    force: bool = False,
) -> Path:
    """Write the report of a results folder, of fit documents of the same runs, or a comparison of
    several sweeps; returns its index.html.

    `out` is by default `report/` in the folder, FIT-report/ next to FIT.json, and `comparison/`
    here for several sweeps, whose numbers also lie there as comparison.json. `budgets` are
    FLOPs of the first sweep at which a comparison asks what the others need; `models` draws
    published laws and models with the frontier. The report of other sources is replaced by `force`
    alone. Raises ScalingError that names what is absent, corrupt, or cannot be written.
    """
    sources = [source] if isinstance(source, Path) else list(source)
    if not sources:
        raise ScalingError(
            "nothing to report on",
            remedy="name a results folder or a fit document: scaling report results/demo",
        )
    many = is_comparison(sources)
    if budgets and not many:
        what = "budgets are asked of a comparison, and these are fits of one sweep"
        remedy = "name two sweeps: scaling report A B --budgets 1e13"
        raise ScalingError(what, where="--budgets", remedy=remedy)
    first = sources[0]
    own = first / "report" if first.is_dir() else first.with_name(f"{first.stem}-report")
    target = out or (Path(COMPARISON) if many else own)
    if target.exists() and not target.is_dir():
        what, remedy = "is a file; a report is a folder", "name another folder with --out"
        raise ScalingError(what, where=target, remedy=remedy, exit_code=DISK)
    names = [os.path.relpath(path, target) for path in sources]
    former: dict[str, Any] = {}
    with suppress(FileNotFoundError, NotADirectoryError, ChecksumError):
        former = read_json(target / MANIFEST)
    lists = (former.get(key) for key in ("sources", "files"))
    others, stale = ([*map(str, each)] if isinstance(each, list) else [] for each in lists)
    others = others or names
    if (out or many) and others != names and not force:
        what = f"holds the report of {', '.join(others)}"
        remedy = "name another folder with --out, or replace that report with --force"
        raise ScalingError(what, where=target, remedy=remedy)
    words = ["scaling", "report", *map(str, sources)]
    words += ["--budgets", ",".join(map(repr, budgets))] if budgets else []
    words += ["--models"] if models else []
    words += ["--style", style.name] if style.name != SCREEN.name else []
    words += ["--width", f"{style.width:g}"] if style.width else []
    command = shlex.join(words)
    if many:
        report = _comparison(sources, target, budgets, command)
    else:
        inputs = load_inputs(sources, target / "fit.json")
        report = build_report(inputs, None, command, models)
    written = _write(report, target, style)
    for name in set(stale) - set(written):
        if re.fullmatch(r"(figures|tables)/[^/]+", name):
            (target / name).unlink(missing_ok=True)
    write_json(target / MANIFEST, {"sources": names, "files": written}, indent=1)
    return target / "index.html"


def _write(report: Report, target: Path, style: Style) -> list[str]:
    """All files of a report but its numbers; returns the names of those of figures and tables."""
    svgs, written = {}, []
    for figure in report.figures:
        canvas = matplotlib_backend.draw(figure, style)
        path = target / "figures" / figure.name
        for kind in PICTURES:
            write = partial(matplotlib_backend.save, canvas, kind, style=style)
            write_atomically(path.with_suffix(f".{kind}"), write)
        svgs[figure.name] = path.with_suffix(".svg").read_text(encoding="utf-8")
        write_text(path.with_suffix(".csv"), figure.to_csv())
        written += [f"figures/{figure.name}.{kind}" for kind in FILES]
    for table in report.tables:
        write_text(target / "tables" / f"{table.name}.csv", table.to_csv())
        write_text(target / "tables" / f"{table.name}.tex", table.to_latex())
        written += [f"tables/{table.name}.{kind}" for kind in ("csv", "tex")]
    write_text(target / "report.md", markdown(report))
    write_text(target / "index.html", html(report, svgs=svgs))
    return written


def _comparison(
    sources: Sequence[Path], target: Path, budgets: Sequence[float], command: str
) -> Report:
    """The report of several sweeps; its numbers are written as comparison.json."""
    from scaling.predict.compare import compare as compare_fits
    from scaling.report.compare import compose

    with tempfile.TemporaryDirectory() as made:  # nothing is written where it is not possible
        fits, notes = load_fits(sources, Path(made))
        comparison = compare_fits(fits, budgets)
        report = compose(comparison, fits, notes, command)
        for path in sorted(Path(made).iterdir()):
            write_text(target / path.name, path.read_text(encoding="utf-8"))
    document = {**comparison.to_dict(), "fitted": list(notes)}
    write_json(target / f"{COMPARISON}.json", document, indent=1)
    return report


@dataclass(frozen=True)
class Live:
    """What a page that is served while a sweep trains says at its top, and which one it is."""

    version: int
    lines: Sequence[str]


def html(report: Report, live: Live | None = None, svgs: Mapping[str, str] | None = None) -> str:
    """The whole page as one string; nothing in it asks for another file, and only our own scripts
    may run. `svgs` are its figures by name, drawn here where they are not given. A `live` page asks
    the server that it comes from whether there is a newer one.
    """
    from jinja2.utils import htmlsafe_json_dumps
    from markupsafe import Markup

    if svgs is None:
        svgs = {figure.name: matplotlib_backend.to_svg(figure) for figure in report.figures}
    predictor = report.predictor
    parts = {"page.js": True, "predictor.js": predictor, "watch.js": live}
    # with the line ends that an HTML parser gives them, so that their hashes hold
    scripts = [_template(name).replace("\r\n", "\n").strip() for name, on in parts.items() if on]
    template = environment(TEMPLATES, html=lambda table: table.to_html())
    return str(
        template.get_template("index.html.j2").render(
            report=report,
            policy=policy(scripts, live is not None),
            live=live,
            kinds=() if live else FILES,
            table_kinds=() if live else ("csv", "tex"),
            style=Markup(_template("style.css")),
            images={n: Markup(base64.b64encode(svg.encode()).decode()) for n, svg in svgs.items()},
            predictor_data=predictor and htmlsafe_json_dumps(predictor.data, **JSON),
            scripts=[Markup(text) for text in scripts],
        )
    )


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str], asks_server: bool = False) -> str:
    """A content security policy under which these scripts run and nothing else does, and no request
    leaves the page, but for those that `asks_server`.
    """
    digests = (hashlib.sha256(text.encode()).digest() for text in scripts)
    hashes = (f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    allowed = " ".join(hashes) or "'none'"
    server = "; connect-src 'self'" if asks_server else ""
    return (
        f"default-src 'none'; script-src {allowed}; style-src "
        "'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'" + server
    )


def markdown(report: Report) -> str:
    """The report as Markdown for people and repositories; figures are links to figures/*.svg."""

    def one_line(text: str) -> str:
        return " ".join(sanitize(text).split())

    template = environment(TEMPLATES, for_markdown, file=str, code=one_line)
    text = template.get_template("report.md.j2").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text)
