"""What a report is made from: fit documents, training curves, failures. A folder or documents in,
`ReportInputs` out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd

from scaling import files
from scaling.config.sweep_file import load_sweep
from scaling.errors import BAD_INPUT, ScalingError
from scaling.points.comparability import supports_one_law
from scaling.points.points import Points
from scaling.render.table import Document, Table
from scaling.report.parts.gradient_noise import noise_scales
from scaling.report.parts.run_list import failures_table, runs_table, training_origin
from scaling.store import run_files

if TYPE_CHECKING:
    from scaling.config import Sweep
    from scaling.fit.options import FitOptions
    from scaling.predict.verification import CheckedForecast

MAIN = "chinchilla"
TUNING_SCHEMA = 1


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report shows. `documents` is ordered, the main fit first and read from `path`;
    `notices` say what is absent, `no_law` why no law was fitted where none was asked for.

    `curves` holds every evaluation of every run under the main fit's convention, with the run as
    its group; `verdicts` are what came of the forecasts that the sweep was written with, `tuning`
    how its recipe was measured, and `noise_scale` the gradient noise of the runs that measured it,
    and `rows` the whole results table, for studies.
    """

    name: str
    question: str = ""
    documents: Mapping[str, Document] = field(default_factory=dict)
    path: Path | None = None
    notices: tuple[str, ...] = ()
    no_law: tuple[str, ...] = ()
    curves: Points | None = None
    runs: Table | None = None
    failures: Table | None = None
    origin: tuple[tuple[str, str], ...] = ()
    verdicts: tuple[CheckedForecast, ...] = ()
    tuning: Mapping[str, Any] | None = None
    noise_scale: pd.DataFrame | None = None
    rows: pd.DataFrame | None = None

    @property
    def count(self) -> int:
        """How many runs have measurements."""
        return (
            0
            if self.curves is None or self.curves.group is None
            else len(set(self.curves.group.tolist()))
        )

    @property
    def main(self) -> Document | None:
        """The fit that the report is about."""
        return next(iter(self.documents.values()), None)


def is_comparison(sources: Sequence[Path]) -> bool:
    """Whether these are several sweeps, to be compared: more than one folder, or fits of different
    runs. Raises ScalingError.
    """
    _check_there(sources)
    if len(sources) < 2:
        return False
    return (
        any(path.is_dir() for path in sources)
        or len({_document(path)["source"].get("digest") for path in sources}) > 1
    )


def load_fits(sources: Sequence[Path], out: Path) -> tuple[dict[str, Document], tuple[str, ...]]:
    """One fit document for each of several sweeps, by name, and what the reader must know of how
    they were fitted.

    A folder's own fit is taken where it was made as the first source's was and of the runs that the
    folder holds now; otherwise the folder is fitted here as the first one was, and the document
    kept in the folder `out`. Raises ScalingError.
    """
    fits: dict[str, Document] = {}
    notes: list[str] = []
    names = _names(sources)
    _check_apart(names, sources)
    for index, (name, path) in enumerate(zip(names, sources, strict=True)):
        if not path.is_dir():
            fits[name] = _document(path)
            continue
        like = next(iter(fits.values()), None)
        fits[name], why = _fit_like(path, like, out / f"fit-{index + 1}.json")
        notes += (
            [
                f"{name} was fitted for this "
                f"comparison{' as ' + names[0] + ' was' if like else ''}: {why}."
            ]
            if why
            else []
        )
    return fits, tuple(notes)


def _check_apart(names: Sequence[str], sources: Sequence[Path]) -> None:
    """Raise ScalingError where two folders share runs."""
    run_ids: dict[str, set[str]] = {
        name: run_files.finished_run_ids(path)
        for name, path in zip(names, sources, strict=True)
        if path.is_dir()
    }
    for (first, ours), (second, theirs) in combinations(run_ids.items(), 2):
        if ours & theirs:
            what = (
                f"holds {len(ours & theirs)} of the runs of {first}: their draws are not "
                "independent, and a test would say nothing"
            )
            raise ScalingError(what, where=second, remedy="compare sweeps that share no run")


def _fit_like(folder: Path, like: Document | None, out: Path) -> tuple[Document, str]:
    """A folder's fit with the options of `like` (None: of its main fit); why it was fitted here, or
    "".
    """
    from scaling.fit.pipeline import fit
    from scaling.points.comparability import evaluation_of
    from scaling.points.source import read_rows

    if not run_files.has_runs(folder):
        raise ScalingError(
            "holds no finished runs",
            where=str(folder),
            remedy="train them first: scaling run SWEEP.toml",
        )
    own_fits = [
        _document(path) for path in sorted((folder / "fits").glob("*.json"), key=_main_first)
    ]
    rows, _, digest = read_rows([folder])
    template = like or next(iter(own_fits), None)
    options = options_of(template)
    for document in own_fits:
        if (
            document["source"].get("digest") == digest
            and document.get("bootstrap")
            and options_of(document) == options
        ):
            evaluation = {
                "evaluation": evaluation_of(rows[0])
            }  # a fit of an earlier version does not say
            return {**document, "source": {**evaluation, **document["source"]}}, ""
    result = fit([folder], options)
    result.save(out)
    if not own_fits:
        return result.to_dict(), "it held no fit"
    return (
        result.to_dict(),
        "its own fit is of other options, or of other runs than it holds now",
    )


def options_of(document: Document | None) -> FitOptions:
    """The options that a fit document was made with, so far as they can be applied to the runs of
    another folder.
    """
    from scaling.fit.options import AUTO, FitOptions

    if document is None:
        return FitOptions()
    objective, bootstrap, source = (
        document["objective"],
        document.get("bootstrap") or {},
        document["source"],
    )
    law = "two-stage" if document.get("accuracy") else document["law"]
    law = AUTO if document.get("combination") else law
    options = {
        "law": law,
        "approach": document["approach"],
        "ci": document["ci"],
        "bootstrap": bootstrap.get("resamples"),
        "seed": bootstrap.get("seed"),
    }
    if document["approach"] == "parametric":
        options |= {"objective": objective["name"], "delta": objective["delta"]}
    counted = {
        name: value
        for name, value in (source.get("convention") or {}).items()
        if value != "as given"
    }
    filters = {
        name: value for name, value in (source.get("filters") or {}).items() if name != "cluster"
    }
    all_options = {**options, **counted, **filters}
    return FitOptions(**{name: value for name, value in all_options.items() if value is not None})


def _names(sources: Sequence[Path]) -> list[str]:
    """What each source is called: the name of its file or folder, with as much of its path as tells
    it from the others.
    """
    whole = [
        path.resolve().with_suffix("") if path.is_file() else path.resolve() for path in sources
    ]
    for length in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-length:]) for path in whole]
        if len(set(names)) == len(names):
            return names
    raise ScalingError(
        "a source is named twice",
        where=str(sources[0]),
        remedy="name each results folder or fit document once",
    )


def load_inputs(sources: Sequence[Path], out: Path) -> ReportInputs:
    """Material from one results folder, or from fit documents of the same runs (the first is the
    main one). Raises ScalingError.

    A folder without fits is fitted here and the document kept as `out`, so that it is never older
    than the report.
    """
    _check_there(sources)
    if len(sources) == 1 and sources[0].is_dir():
        return _folder(sources[0], out)
    documents = {_title(path, sources): _document(path) for path in sources}
    return ReportInputs(sources[0].stem, documents=documents, path=sources[0])


def _check_there(sources: Sequence[Path]) -> None:
    for path in sources:
        if not path.exists():
            raise ScalingError(
                "no such file or folder",
                where=str(path),
                remedy="name a results folder or a fit document (FIT.json)",
            )


def _main_first(path: Path) -> tuple[bool, str]:
    return path.stem != MAIN, path.stem


def _title(path: Path, others: Sequence[Path]) -> str:
    return path.stem if [other.stem for other in others].count(path.stem) == 1 else str(path)


def _document(path: Path) -> Document:
    from scaling.fit.result import FitResult

    return FitResult.load(path).to_dict()


def _folder(folder: Path, out: Path) -> ReportInputs:
    failures = failures_table(folder)
    sweep = _sweep(folder)
    name, question = (sweep.name, sweep.question) if sweep else (folder.resolve().name, "")
    if not run_files.has_runs(folder):
        if failures is None:
            raise ScalingError(
                "holds no runs",
                where=str(folder),
                remedy="train them first: scaling run SWEEP.toml",
            )
        text = f"No run finished: all {len(failures.rows)} failed, so there is nothing to fit."
        return ReportInputs(name, question, notices=(text,), failures=failures)
    from scaling.points.run_tables import curves
    from scaling.predict.verification import check_forecasts

    table = run_files.load(folder, planned_only=True)
    paths, no_law = _fits(folder, out, supports_one_law(table))
    documents = {path.stem if path != out else MAIN: _document(path) for path in paths}
    main = next(iter(documents.values()), {})
    tuning, corrupt = _tuning(folder)
    notices = (
        *(
            f"Left out: {corrupt_file}. `scaling run` trains its runs again."
            for corrupt_file in table.attrs["corrupt"]
        ),
        *corrupt,
    )
    evaluations = curves(table, **((main.get("source") or {}).get("convention") or {}))
    return ReportInputs(
        name,
        question,
        documents,
        next(iter(paths), None),
        notices,
        no_law,
        evaluations,
        runs_table(table, evaluations),
        failures,
        training_origin(table),
        tuple(check_forecasts(sweep, table)) if sweep else (),
        tuning,
        noise_scales(table),
        table,
    )


def _tuning(folder: Path) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """The tuning of the sweep's recipe, or why it cannot be read."""
    try:
        result = files.read_json(folder / "tuning.json")
        _check_tuning(result)
    except FileNotFoundError:
        return None, ()
    except files.ChecksumError as error:
        return None, (
            f"tuning.json is corrupt and left out: {error}. `scaling tune` writes it again.",
        )
    return result, ()


def _check_tuning(found: Mapping[str, Any]) -> None:
    """Raise ChecksumError for a document that is of another schema, or that cannot be shown: a
    person may have edited it.
    """
    from scaling.config import Tuning
    from scaling.report.parts import tuning

    if found.get("schema") != TUNING_SCHEMA:
        raise files.ChecksumError(
            f"its schema is not {TUNING_SCHEMA}, the one that this program reads"
        )
    try:
        if not {entry["field"] for entry in found["fields"]} <= {
            *get_args(Tuning.model_fields["field"].annotation)
        }:
            raise files.ChecksumError("it names a field that cannot be tuned")
        for table in tuning.optima(found):
            table.to_csv()
        tuning.ladders(found)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise files.ChecksumError(f"{type(error).__name__} where it is shown") from None


def _sweep(folder: Path) -> Sweep | None:
    path = folder / "sweep.toml"
    return load_sweep(path) if path.exists() else None


def _fits(folder: Path, out: Path, may_fit: bool) -> tuple[list[Path], tuple[str, ...]]:
    """The folder's fits, the main one first; without any, the default fit where a law may hold."""
    paths = sorted((folder / "fits").glob("*.json"), key=_main_first)
    if paths or not may_fit:
        return paths, ()
    from scaling.fit.pipeline import FitOptions, fit

    try:
        fit([folder], FitOptions()).save(out)
    except ScalingError as error:
        if error.exit_code != BAD_INPUT:
            raise
        return [], (
            f"No law could be fitted. {error.what}",
            *([error.remedy] if error.remedy else []),
        )
    return [out], ()
