"""Writes a report: one self-contained page, the same as Markdown, figures as SVG, PDF and PNG,
tables as CSV and LaTeX.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scaling.errors import DISK, ScalingError
from scaling.files import write_atomically, write_json, write_lines, write_text
from scaling.render import matplotlib_backend, plotly_backend
from scaling.render.escape import for_markdown, sanitize
from scaling.report.inputs import is_comparison, load_fits, load_inputs
from scaling.report.sections import Report, build_report, study_sections

TEMPLATES = Path(__file__).parent / "templates"
PICTURES = (
    "svg",
    "png",
    "pdf",
)  # a canvas is laid out again each time: the order is part of the bytes


COMPARISON = "comparison"


def write_report(
    source: Path | Sequence[Path],
    out: Path | None = None,
    prediction: Mapping[str, Any] | None = None,
    budgets: Sequence[float] = (),
) -> Path:
    """Write the report of a results folder, of fit documents of the same runs, or a comparison of
    several sweeps; returns its index.html.

    `out` is by default `report/` in the folder (or next to the document), and `comparison/` here
    for several sweeps, whose numbers also lie there as comparison.json. `prediction` replaces the
    forecast for ten times the largest budget; `budgets` are FLOPs of the first sweep at which a
    comparison asks what the others need. Raises ScalingError that names what is absent, damaged, or
    cannot be written.
    """
    sources = [source] if isinstance(source, Path) else list(source)
    if not sources:
        raise ScalingError(
            "nothing to report on",
            remedy="name a results folder or a fit document: scaling report results/demo",
        )
    many = is_comparison(sources)
    if budgets and not many:
        raise ScalingError(
            "budgets are asked of a comparison, and these are fits of one sweep",
            where="--budgets",
            remedy="name two sweeps: scaling report A B --budgets 1e13",
        )
    target = out or (
        Path(COMPARISON)
        if many
        else (sources[0] if sources[0].is_dir() else sources[0].parent) / "report"
    )
    if target.exists() and not target.is_dir():
        raise ScalingError(
            "is a file; a report is a folder",
            where=str(target),
            remedy="name another folder with --out",
            exit_code=DISK,
        )
    said = shlex.join(
        [
            "scaling",
            "report",
            *map(str, sources),
            *(["--budgets", ",".join(map(repr, budgets))] if budgets else []),
        ]
    )
    report = (
        _comparison(sources, target, budgets, said)
        if many
        else _of_one(sources, target, prediction, said)
    )
    for figure in report.figures:
        canvas = matplotlib_backend.draw(figure)
        for kind in PICTURES:
            write_atomically(
                target / "figures" / f"{figure.name}.{kind}",
                partial(matplotlib_backend.save, canvas, kind),
            )
    for table in report.tables:
        write_text(target / "tables" / f"{table.name}.csv", table.to_csv())
        write_text(target / "tables" / f"{table.name}.tex", table.to_latex())
    write_text(target / "report.md", markdown(report))
    write_text(target / "index.html", html(report))
    names = [f"figures/{figure.name}.{kind}" for figure in report.figures for kind in PICTURES]
    names += [f"tables/{table.name}.{kind}" for table in report.tables for kind in ("csv", "tex")]
    names += (
        [f"{COMPARISON}.json", *(path.name for path in target.glob("fit-*.json"))] if many else []
    )
    _write_sums(target, [*names, "report.md", "index.html"])
    return target / "index.html"


def _of_one(
    sources: Sequence[Path], target: Path, prediction: Mapping[str, Any] | None, command: str
) -> Report:
    """The report of one sweep."""
    material = load_inputs(sources, target / "fit.json")
    studies = study_sections(material.rows)  # an error here is no fault of a document
    try:
        return build_report(material, prediction, command, studies)
    except (KeyError, TypeError, AttributeError) as error:
        raise _incomplete(error, str(material.path)) from error


def _comparison(
    sources: Sequence[Path], target: Path, budgets: Sequence[float], command: str
) -> Report:
    """The report of several sweeps; its numbers are written as comparison.json."""
    from scaling.fit.result import FitResult
    from scaling.predict.compare import compare as compare_fits
    from scaling.report.compare import compose as compose_comparison

    with tempfile.TemporaryDirectory() as made:  # nothing is written where a comparison is refused
        documents, told = load_fits(sources, Path(made))
        try:
            fits = {
                name: FitResult.parse(document, name, "fit it again")
                for name, document in documents.items()
            }
            found = compare_fits(fits, budgets).to_dict()
            report = compose_comparison(found, documents, told, command)
        except (KeyError, TypeError, AttributeError) as error:
            raise _incomplete(error, ", ".join(documents)) from error
        for path in sorted(Path(made).iterdir()):
            write_text(target / path.name, path.read_text(encoding="utf-8"))
    write_json(target / f"{COMPARISON}.json", {**found, "fitted": list(told)}, indent=1)
    return report


def _incomplete(error: Exception, where: str) -> ScalingError:
    what = f"not a complete fit document: {error!r} is missing or of the wrong kind"
    return ScalingError(
        what, where=where, remedy="write it again with: scaling fit SOURCE --out FIT.json"
    )


def _write_sums(target: Path, names: Sequence[str]) -> None:
    """Digests of all files of the report, as `sha256sum -c` reads them."""
    lines = [
        f"{hashlib.sha256((target / name).read_bytes()).hexdigest()}  {name}"
        for name in sorted(names)
    ]
    write_lines(target / "SHA256SUMS", "\n".join(lines), comment="# ")


def html(report: Report) -> str:
    """The whole page as one string; nothing in it asks for another file, and only our own scripts
    may run.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    drawn: dict[str, Any] = {
        figure.name: plotly_backend.to_plotly(figure) for figure in report.figures
    }
    plots = _json(drawn | {"config": plotly_backend.CONFIG}) if drawn else ""
    predictor = report.predictor
    sources = {
        "plotly": plotly_backend.plotly_js() if drawn else "",
        "script": _template("page.js") if drawn else "",
        "predict": _template("predictor.js") if predictor else "",
    }
    scripts = {name: _script(text) for name, text in sources.items()}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_cleaned,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["html"] = lambda table: Markup(table.to_html())
    style = _template("style.css") + (_template("predictor.css") if predictor else "")
    trusted = {
        "style": style,
        "plots": plots,
        "predictor_data": _json(predictor.data) if predictor else "",
        **scripts,
    }
    context = _context(report) | {name: Markup(text) for name, text in trusted.items()}
    allowed = policy([text for text in scripts.values() if text])
    return environment.get_template("index.html.j2").render(
        policy=allowed, predictor=predictor, **context
    )


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str]) -> str:
    """A content security policy under which these scripts run and nothing else does, and no request
    leaves the page.
    """
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: "
        "blob:; base-uri 'none'; form-action 'none'"
    )


def _script(source: str) -> str:
    """A script with the line ends that an HTML parser gives it, so that its hash holds."""
    return source.replace("\r\n", "\n").strip()


def _json(value: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _cleaned(value: Any) -> Any:
    """Text for a page: control characters gone; jinja2 escapes the rest."""
    return sanitize(value) if type(value) is str else value


def markdown(report: Report) -> str:
    """The report as Markdown for people and repositories; figures are links to figures/*.svg."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finished(value: Any) -> Any:
        return value if isinstance(value, Markup) else Markup(for_markdown(value))

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finished,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["file"] = lambda name: Markup(name)
    environment.filters["code"] = lambda text: Markup(" ".join(sanitize(text).split()))
    return re.sub(
        r"\n{3,}", "\n\n", environment.get_template("report.md.j2").render(**_context(report))
    )


def _context(report: Report) -> dict[str, Any]:
    names = (
        "name",
        "question",
        "sections",
        "sentences",
        "notices",
        "headline",
        "tiles",
        "trust",
        "verdict",
        "version",
    )
    return {name: getattr(report, name) for name in names}
