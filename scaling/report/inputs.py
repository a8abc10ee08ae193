"""What a report is made from: fits, loss curves, failures. A folder or fit documents in,
`ReportInputs` out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from scaling import files
from scaling.config.sweep_file import load_run, load_sweep
from scaling.errors import BAD_INPUT, ScalingError
from scaling.fit.result import MAIN, FitResult, fit_paths
from scaling.points.comparability import eval_sets, supports_one_law
from scaling.points.points import Points
from scaling.points.run_tables import data_id
from scaling.predict.law_source import FittedLaw, load_law
from scaling.store import run_files

if TYPE_CHECKING:
    from scaling.fit.fit_options import FitOptions
    from scaling.predict.verification import CheckedForecast
    from scaling.tuning.document import TuningResult


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report shows. `fits` is ordered, the main fit first and read from `path`;
    `notices` say what is absent, `no_law` why no law was fitted where none was asked for.

    Of a results `folder`, `rows` are the whole table; `curves` holds every evaluation of every run
    under the main fit's convention, with the run as its group; `checked` are the forecasts that the
    sweep was written with, `tuning` how its recipe was measured.
    """

    name: str
    question: str = ""
    fits: Mapping[str, FitResult] = field(default_factory=dict)
    path: Path | None = None
    folder: Path | None = None
    notices: tuple[str, ...] = ()
    no_law: tuple[str, ...] = ()
    curves: Points | None = None
    checked: tuple[CheckedForecast, ...] = ()
    tuning: TuningResult | None = None
    rows: pd.DataFrame | None = None

    @property
    def main(self) -> FitResult | None:
        """The fit that the report is about."""
        return next(iter(self.fits.values()), None)

    @cached_property
    @np.errstate(all="ignore")  # draws of what is not identified overflow
    def law(self) -> FittedLaw | None:
        """The law of the main fit; None for one that says nothing of N and D."""
        from scaling.fit.fit_options import TABLE_LAWS

        main = self.main
        return None if main is None or main.law in TABLE_LAWS else load_law(main)


def is_comparison(sources: Sequence[Path]) -> bool:
    """Whether these are several sweeps, to be compared: more than one folder, or fits of different
    runs. Raises ScalingError.
    """
    for path in sources:
        if not path.exists():
            raise ScalingError(
                "no such file or folder",
                where=path,
                remedy="name a results folder or a fit document (FIT.json)",
            )
    if len(sources) < 2:
        return False
    return (
        any(path.is_dir() for path in sources)
        or len({FitResult.load(path).source.digest for path in sources}) > 1
    )


def load_fits(sources: Sequence[Path], out: Path) -> tuple[dict[str, FitResult], tuple[str, ...]]:
    """One fit for each of several sweeps, by name, and how those were fitted that were fitted here.

    A folder's own fit is taken where it was made as the first source's was and of the runs that the
    folder has now; otherwise the folder is fitted here as the first one was, and the document kept
    in the folder `out`. Raises ScalingError.
    """
    fits: dict[str, FitResult] = {}
    notes: list[str] = []
    names = _names(sources)
    run_ids = [run_files.finished_run_ids(path) if path.is_dir() else set() for path in sources]
    for (first, ours), (second, theirs) in combinations(zip(names, run_ids, strict=True), 2):
        if ours & theirs:
            what = (
                f"holds {len(ours & theirs)} of the runs of {first}: their draws are not "
                "independent, and a test would say nothing"
            )
            raise ScalingError(what, where=second, remedy="compare sweeps that share no run")
    eval_set = _shared_eval_set(sources)
    if eval_set is not None:
        notes.append(
            "The sweeps were trained on different text, so they are compared by their losses on "
            f"the evaluation set {eval_set}, which all of them measured."
        )
    for index, (name, path) in enumerate(zip(names, sources, strict=True)):
        like = next(iter(fits.values()), None)
        if path.is_dir():
            fits[name], why = _fit_like(path, like, out / f"fit-{index + 1}.json", eval_set)
        else:
            fits[name], why = FitResult.load(path), ""
        if why:
            as_first = f" as {names[0]} was" if like else ""
            notes.append(f"{name} was fitted for this comparison{as_first}: {why}.")
    return fits, tuple(notes)


def _shared_eval_set(sources: Sequence[Path]) -> str | None:
    """An evaluation set that the runs of all folders have measured, where they were trained on
    different text.
    """
    corpora, known = set(), list[set[tuple[str, str]]]()
    for path in sources:
        if not path.is_dir() or not run_files.has_runs(path):
            return None
        rows = run_files.read_folder(path, ["run_id", "config"]).table
        if rows.num_rows == 0:
            return None
        run = load_run(rows["config"][0].as_py(), str(path))
        corpora.add(data_id(run.task))
        known.append(set(eval_sets(run).items()))
    shared = sorted(set.intersection(*known))
    return shared[0][0] if len(corpora) > 1 and shared else None


def _fit_like(
    folder: Path, like: FitResult | None, out: Path, eval_set: str | None
) -> tuple[FitResult, str]:
    """A folder's fit with the options of `like` (None: of its main fit), on an evaluation set if
    there is one; why it was fitted here, or "".
    """
    from scaling.fit.pipeline import fit
    from scaling.points.source import read_rows

    if not run_files.has_runs(folder):
        raise _untrained("holds no finished runs", folder)
    own_fits = [FitResult.load(path) for path in fit_paths(folder)]
    digest = read_rows([folder])[2]
    options = options_of(like or next(iter(own_fits), None))
    options = replace(options, eval_set=eval_set or options.eval_set)
    for own in own_fits:
        if own.source.digest == digest and own.bootstrap and options_of(own) == options:
            return own, ""
    result = fit([folder], options)
    result.save(out)
    if not own_fits:
        return result, "it had no fit"
    return result, "its own fit is of other options, or of other runs than it holds now"


def _untrained(what: str, folder: Path) -> ScalingError:
    remedy = "train them first: scaling run SWEEP.toml"
    return ScalingError(what, where=folder, remedy=remedy)


def options_used(fit: FitResult) -> dict[str, Any]:
    """The options that a fit was made with, by name; those that it does not say are left out."""
    drawn, objective, source = fit.bootstrap, fit.objective, fit.source
    options = {
        "law": "auto" if fit.combination else "two-stage" if fit.accuracy else fit.law,
        "approach": fit.approach,
        "objective": objective.name,
        "delta": objective.delta,
        **{key: value for key, value in source.convention if value != "as given"},
        "ci": fit.ci,
        **({"bootstrap": drawn.resamples, "seed": drawn.seed} if drawn else {}),
        **source.filters,
    }
    return {name: value for name, value in options.items() if value is not None}


def options_of(fit: FitResult | None) -> FitOptions:
    """The options that a fit was made with, so far as they apply to the runs of another folder."""
    from scaling.fit.fit_options import FitOptions

    if fit is None:
        return FitOptions()
    apart = {"cluster"} if fit.approach == "parametric" else {"cluster", "objective", "delta"}
    apart |= {"delta"} if fit.objective.delta_from_noise else set()
    used = options_used(fit).items()
    return FitOptions(**{name: value for name, value in used if name not in apart})


def _names(sources: Sequence[Path]) -> list[str]:
    """What each source is called: the name of its file or folder, with as much of its path as it
    takes to distinguish it from the others.
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
        where=sources[0],
        remedy="name each results folder or fit document once",
    )


def load_inputs(sources: Sequence[Path], out: Path, refit: bool = False) -> ReportInputs:
    """The inputs of one results folder, or of fits of the same runs (the first is the main one).

    A folder without fits (with `refit`, any folder) is fitted here and the document kept as `out`,
    so that it is never older than the report. Raises ScalingError.
    """
    if len(sources) == 1 and sources[0].is_dir():
        return _folder(sources[0], out, refit)
    fits = {name: FitResult.load(path) for name, path in zip(_names(sources), sources, strict=True)}
    return ReportInputs(sources[0].stem, fits=fits, path=sources[0])


def _folder(folder: Path, out: Path, refit: bool) -> ReportInputs:
    from scaling.fit.pipeline import FitOptions, fit
    from scaling.points.run_tables import curves
    from scaling.predict.verification import check_forecasts
    from scaling.tuning.document import TuningResult

    path = folder / "sweep.toml"
    sweep = load_sweep(path) if path.exists() else None
    inputs = ReportInputs(folder.resolve().name, folder=folder)
    if sweep:
        inputs = replace(inputs, name=sweep.name, question=sweep.question)
    if not run_files.has_runs(folder):
        n_failed = len(list((folder / "failures").glob("*.txt")))
        if not n_failed:
            raise _untrained("holds no runs", folder)
        text = f"No run finished: all {n_failed} failed, so there is nothing to fit."
        return replace(inputs, notices=(text,))
    table = run_files.load(folder, planned_only=True)
    notices = [
        f"Left out: {corrupt}. `scaling run` trains its runs again."
        for corrupt in table.attrs["corrupt"]
    ]
    paths: list[Path] = [] if refit else fit_paths(folder)
    no_law: tuple[str, ...] = ()
    if not paths and supports_one_law(table, with_variants=True):
        try:
            fit([folder], FitOptions()).save(out)
            paths = [out]
        except ScalingError as error:
            if error.exit_code != BAD_INPUT:
                raise
            no_law = tuple(filter(None, (f"No law could be fitted. {error.what}", error.remedy)))
    fits = {path.stem if path != out else MAIN: FitResult.load(path) for path in paths}
    tuning = None
    try:
        with suppress(FileNotFoundError):
            tuning = TuningResult.load(folder)
    except (files.ChecksumError, ValidationError) as error:
        why = str(error).partition("\n")[0]
        notices.append(
            f"tuning.json is corrupt and left out: {why}. `scaling tune` writes it again."
        )
    convention = next(iter(fits.values())).source.convention if fits else ()
    return replace(
        inputs,
        fits=fits,
        path=next(iter(paths), None),
        notices=tuple(notices),
        no_law=no_law,
        curves=curves(table, **{key: value for key, value in convention if value}),
        checked=tuple(check_forecasts(sweep, table)) if sweep else (),
        tuning=tuning,
        rows=table,
    )
