"""The public Python API: `from scaling import plan, run, fit, predict, report, load`.

Each function is what the command of its name calls; a result holds the document that `--json`
prints, gives pandas tables, and shows itself in a notebook.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

import pandas as pd
from pydantic import ValidationError

from scaling.accounting import DeviceTime as DeviceTime
from scaling.config import Sweep
from scaling.config.base import validation_messages
from scaling.errors import ScalingError, unknown_choice
from scaling.fit.fit_options import FitOptions
from scaling.fit.pipeline import fit as run_fit
from scaling.fit.result import FitResult
from scaling.points.points import FOLDER, source_label
from scaling.points.source import read_rows
from scaling.predict.predict import predict as run_predict
from scaling.predict.prediction import PredictionResult
from scaling.report import notebook_html
from scaling.report.parts.fit_tables import OPTIMUM

if TYPE_CHECKING:
    from scaling.execute.options import RunOptions
    from scaling.execute.run_sweep import SweepOutcome
    from scaling.plan import Plan
    from scaling.report.fit_plots import FitPlots

PathText = Union[str, PathLike[str]]
Source = Union[PathText, pd.DataFrame, Sequence[Union[PathText, pd.DataFrame]]]
OPTIONS = {item.name for item in fields(FitOptions)}


@dataclass(frozen=True, repr=False)
class _Result:
    """A result that shows itself as the terminal does."""

    result: Any

    @cached_property
    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return dict(self.result.to_dict())

    @property
    def warnings(self) -> list[str]:
        """What to mind before the numbers are used."""
        return [warning.message for warning in self.result.warnings]

    def __repr__(self) -> str:
        return notebook_html.as_text(self.result)

    def _repr_html_(self) -> str:
        return notebook_html.as_html(self.result)


@dataclass(frozen=True, repr=False)
class Prediction(_Result):
    """The answer to one question, as `result`; `document` is what `scaling predict --json`
    prints.
    """

    result: PredictionResult

    def to_frame(self) -> pd.DataFrame:
        """value, lo and hi by quantity: flops, n_params, tokens, tokens_per_param and loss; NaN
        where there is no interval.
        """
        names = ["flops", *(name for name, _, _ in OPTIMUM)]
        entries = {name: getattr(self.result, name) for name in names}
        return _frame(entries, "quantity", ["value", "lo", "hi"])


@dataclass(frozen=True, repr=False)
class Fit(_Result):
    """A fitted law, as `result`; `document` is what `scaling fit --json` prints."""

    result: FitResult

    @property
    def params(self) -> pd.DataFrame:
        """The law's parameters: value, se, lo and hi by name."""
        return _frame(self.result.params, "parameter", ["value", "se", "lo", "hi"])

    @property
    def derived(self) -> pd.DataFrame:
        """What derives from the parameters, such as the exponents a and b of N* and D*."""
        return _frame(self.result.derived, "parameter", ["value", "se", "lo", "hi"])

    @property
    def data(self) -> pd.DataFrame:
        """The points that were fitted (at most 5,000 of them), one row each: n_params, tokens,
        flops, loss and others.
        """
        return pd.DataFrame(self.document["data"])

    @property
    def plot(self) -> FitPlots:
        """Figures on matplotlib axes: `fit.plot.isoflop(ax=ax)`, frontier, forecast, law,
        residuals.
        """
        from scaling.report.fit_plots import FitPlots

        return FitPlots(self.result)

    def predict(self, **question: Any) -> Prediction:
        """What the law says of a question: see `scaling.predict`."""
        return predict(self, **question)

    def save(self, path: PathText) -> Path:
        """Write the document for `scaling predict`, `next` and `report`; returns its path. Raises
        ScalingError (74).
        """
        self.result.save(Path(path))
        return Path(path)


def load(source: Source) -> pd.DataFrame:
    """Runs as a table. A results folder gives every measurement of every run, one row each; a file
    gives its own columns.

    Columns in which every cell is a number become numbers; others stay as they were written
    ("70B"), and `fit` reads them. Raises ScalingError that names the file and the fault.
    """
    sources = _sources(source)
    rows, foreign, _ = read_rows(sources)
    if not rows:
        tables = [_numbers(table) for _, table in foreign]
        if any(list(table.columns) != list(tables[0].columns) for table in tables):
            raise ScalingError(
                "the tables do not hold the same columns",
                where=source_label(sources),
                remedy="load them one by one",
            )
        return pd.concat(tables, ignore_index=True)
    table = pd.concat(rows, ignore_index=True)
    only = sources[0]
    is_folder = len(sources) == 1 and isinstance(only, Path) and only.is_dir()
    table.attrs = {FOLDER: str(only)} if is_folder else {}
    corrupt = [str(file) for part in rows for file in part.attrs.get("corrupt", ())]
    if corrupt:
        table.attrs["corrupt"] = corrupt
    return table


def fit(
    source: Source,
    law: str | None = None,
    *,
    columns: str | Mapping[str, str] | None = None,
    options: FitOptions | None = None,
    **changes: Any,
) -> Fit:
    """Fit a scaling law to a results folder, a file, a DataFrame, or several of one kind.

    `columns` says which column holds what, `{"N": "params", "D": "tokens", "L": "loss"}`, or as
    text as on the command line. `options` are those of `scaling fit`; each can also be given by
    name, with underscores: approach, objective, delta, where, holdout, bootstrap, ci, seed, ...
    Raises ScalingError that says what is wrong, where, and what to do instead.
    """
    wrong = next((name for name in changes if name not in OPTIONS), None)
    if wrong is not None:
        raise unknown_choice("option", wrong, OPTIONS, where="fit")
    changes |= {"law": law} if law is not None else {}
    if isinstance(columns, Mapping):
        columns = ",".join(f"{letter}={column}" for letter, column in columns.items())
    changes |= {"columns": columns} if columns is not None else {}
    try:
        chosen = replace(_options(options, FitOptions), **changes)
    except ValidationError as error:
        what, remedy = validation_messages(error), "see help(scaling.FitOptions)"
        raise ScalingError(what, where="fit", remedy=remedy) from None
    return Fit(run_fit(_sources(source), chosen))


def predict(source: Fit | FitResult | Mapping[str, Any] | PathText, **question: Any) -> Prediction:
    """The compute-optimal model for `flops`, the loss of `n_params` and `tokens`, or the budget
    that reaches a `loss`; `n_params` or `tokens` alone asks for which budget it is compute-optimal.

    `source` is what `fit` returned, a fit's document, the path of FIT.json, or "published:NAME".
    The question has loss, flops, n_params, tokens, unique_tokens, steps, task_loss, as far as the
    law has them; text such as "70B" or "0.5 PF-days" is read. `inference_tokens` adds the size that
    is cheapest to train and serve, `smaller` ("0.5,0.3") what smaller models of the same loss cost,
    `devices` the time of training, `with_model` a model that can be built. Raises ScalingError.
    """
    if isinstance(source, Fit):
        source = source.result
    elif not isinstance(source, (FitResult, Mapping)):
        what, remedy = "a fit, its document, its path or published:NAME", "fit a table first"
        source = str(*_listed([source], what, remedy))
    times = question.get("devices")
    if times is not None and not isinstance(times, DeviceTime):
        try:
            question["devices"] = DeviceTime(**times)
        except TypeError:  # no mapping, an unknown key or a value of another type
            what, remedy = f"{times!r:.80} is no DeviceTime", "{'device': 'h100', 'count': 8}"
            raise ScalingError(what, where="devices", remedy=f"give {remedy}") from None
    return Prediction(run_predict(source, **question))


def plan(
    sweep: PathText | Sweep, *, overrides: str | Sequence[str] = (), simulated: str | None = None
) -> Plan:
    """Every run of a sweep with its cost, and the infeasible cells with their reasons.

    `sweep` is a sweep file or a Sweep; `overrides` are "KEY=VALUE", as on the command line.
    """
    from scaling.execute.planning import plan_sweep

    return plan_sweep(
        _sweep(sweep),
        overrides=_texts(overrides),
        simulated=simulated,
        on_message=lambda message: None,  # they stand in its `warnings`
    )


def run(
    sweep: PathText | Sweep,
    folder: PathText | None = None,
    options: RunOptions | None = None,
    *,
    overrides: str | Sequence[str] = (),
) -> SweepOutcome:
    """Train what a folder (default results/<name>) lacks of a sweep; safe to call again.

    `options` (`scaling.execute.options.RunOptions`) say where and how: workers, budgets, executor.
    Raises ScalingError, before anything is trained, for a sweep, folder or machine that does not
    fit.
    """
    from scaling.config.overrides import load_with_overrides
    from scaling.execute.options import RunOptions
    from scaling.execute.planning import folder_of
    from scaling.execute.run_sweep import run_sweep

    given = _sweep(sweep)
    source = None if isinstance(given, Sweep) else given
    loaded = load_with_overrides(given, _texts(overrides)) if source else given
    target = folder_of(loaded, None if folder is None else Path(folder), source)
    return run_sweep(loaded, target, _options(options, RunOptions))


def report(
    source: PathText | Sequence[PathText],
    out: PathText | None = None,
    *,
    budgets: float | Sequence[float] = (),
    style: Literal["screen", "paper"] = "screen",
    width: float | None = None,
    models: bool = False,
    force: bool = False,
) -> Path:
    """Write the report of a results folder, fits, or several sweeps; returns its index.html.

    `budgets` (FLOPs of the first of several sweeps) are those at which compute is compared. The
    style `paper` writes figures for a journal, `width` inches wide; `models` draws published laws
    and models next to the frontier; `force` replaces a report of other sources in `out`.
    """
    from scaling.render.matplotlib_backend import Style
    from scaling.report.page import write_report

    if style not in (styles := ("screen", "paper")):
        raise unknown_choice("style", style, styles, where="report")
    remedy = 'save a fit first: fit.save("fit.json"), then report("fit.json")'
    paths = _listed(source, "the path of a results folder or fit", remedy)
    target = None if out is None else Path(out)
    return write_report(
        paths,
        target,
        budgets=list(budgets) if isinstance(budgets, Iterable) else [budgets],
        style=Style(style, width),
        models=models,
        force=force,
    )


def _listed(source: Any, what: str, remedy: str, *kinds: type) -> list[Any]:
    """Paths, and items of other kinds as they are. Raises ScalingError for what is neither."""
    items: list[Any] = list(source) if isinstance(source, (list, tuple)) else [source]
    for item in items:
        if not isinstance(item, (str, PathLike, *kinds)):
            raise ScalingError(f"{type(item).__name__} is not {what}", remedy=remedy)
    return [item if isinstance(item, kinds) else Path(item) for item in items]


def _options(given: Any, kind: type) -> Any:
    if given is not None and not isinstance(given, kind):
        name = kind.__name__
        remedy = f"give options={name}(...)"
        raise ScalingError(f"options: {type(given).__name__} is not {name}", remedy=remedy)
    return kind() if given is None else given


def _sweep(sweep: Any) -> Any:
    return _listed([sweep], "a sweep file or a Sweep", "give the path of a file", Sweep)[0]


def _texts(overrides: str | Sequence[str]) -> Sequence[str]:
    return [overrides] if isinstance(overrides, str) else overrides


def _sources(source: Source) -> list[Path | pd.DataFrame]:
    remedy = "give a path or a pandas DataFrame"
    return _listed(source, "a source of runs", remedy, pd.DataFrame)


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The table with numbers where every cell of a column is one, or empty."""
    numbers = {}
    for name in table.columns:
        values = pd.to_numeric(table[name], errors="coerce")
        is_blank = table[name].isna() | table[name].astype(str).str.strip().eq("")
        if (values.notna() | is_blank).all():
            numbers[name] = values
    return table.assign(**numbers)


def _frame(entries: Mapping[str, object], index: str, columns: list[str]) -> pd.DataFrame:
    """Estimates as a table of floats, one row each."""
    rows = [[getattr(entry, column, None) for column in columns] for entry in entries.values()]
    return pd.DataFrame(
        rows, index=pd.Index(list(entries), name=index), columns=columns, dtype=float
    )
