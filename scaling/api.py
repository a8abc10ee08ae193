"""The public Python API: `from scaling import plan, run, fit, predict, report, load`.

Each function is what the command of its name calls; a result holds the document that `--json`
prints, gives pandas tables, and shows itself in a notebook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import pandas as pd

from scaling.config import Sweep
from scaling.errors import ScalingError, unknown_choice
from scaling.fit.options import FitOptions
from scaling.fit.pipeline import fit as run_fit
from scaling.fit.result import FitResult
from scaling.points.readers import FOLDER, source_label
from scaling.points.source import read_rows
from scaling.predict.predict import predict as run_predict
from scaling.predict.prediction import Prediction as PredictionDocument
from scaling.predict.serving import Serving
from scaling.report import notebook_html
from scaling.report.parts.fit_tables import OPTIMUM

if TYPE_CHECKING:
    from scaling.execute.options import RunOptions
    from scaling.execute.run_sweep import SweepOutcome
    from scaling.plan import Plan

PathText = Union[str, PathLike[str]]
Source = Union[PathText, pd.DataFrame, Sequence[Union[PathText, pd.DataFrame]]]
OPTIONS = {item.name for item in fields(FitOptions)}
ESTIMATE = ["value", "se", "lo", "hi"]


@dataclass(frozen=True, repr=False)
class Prediction:
    """The answer to one question; `document` is what `scaling predict --json` prints."""

    document: Mapping[str, Any]

    @property
    def warnings(self) -> list[str]:
        """What to mind before the numbers are used."""
        return [warning["message"] for warning in self.document["warnings"]]

    def to_frame(self) -> pd.DataFrame:
        """value, lo and hi by quantity: flops, n_params, tokens, tokens_per_param and loss; NaN
        where there is no interval.
        """
        names = ["flops", *(name for name, _, _ in OPTIMUM)]
        return _frame(
            {name: self.document.get(name) or {} for name in names},
            "quantity",
            ["value", "lo", "hi"],
        )

    def __repr__(self) -> str:
        """What the terminal shows."""
        return notebook_html.as_text(PredictionDocument.model_validate(self.document))

    def _repr_html_(self) -> str:
        return notebook_html.prediction_html(PredictionDocument.model_validate(self.document))


@dataclass(frozen=True, repr=False)
class Fit:
    """A fitted law; `document` is what `scaling fit --json` prints."""

    document: Mapping[str, Any]

    @property
    def params(self) -> pd.DataFrame:
        """The law's parameters: value, se, lo and hi by name."""
        return _frame(self.document["params"], "parameter", ESTIMATE)

    @property
    def derived(self) -> pd.DataFrame:
        """What derives from the parameters, such as the exponents a and b of N* and D*."""
        return _frame(self.document["derived"], "parameter", ESTIMATE)

    @property
    def data(self) -> pd.DataFrame:
        """The points that were fitted (at most 5,000 of them), one row each: n_params, tokens,
        flops, loss and others.
        """
        return pd.DataFrame(self.document["data"])

    @property
    def warnings(self) -> list[str]:
        """What to mind before the law is used."""
        return [warning["message"] for warning in self.document["warnings"]]

    def predict(self, **question: Any) -> Prediction:
        """What the law says of a question: see `scaling.predict`."""
        return predict(self, **question)

    def save(self, path: PathText) -> Path:
        """Write the document for `scaling predict`, `next` and `report`; returns its path. Raises
        ScalingError (74).
        """
        self._result().save(Path(path))
        return Path(path)

    def __repr__(self) -> str:
        """What the terminal shows."""
        return notebook_html.as_text(self._result())

    def _repr_html_(self) -> str:
        return notebook_html.fit_html(self._result())

    def _result(self) -> FitResult:
        return FitResult.parse(self.document, "fit", "fit again")


def load(source: Source) -> pd.DataFrame:
    """Runs as a table. A results folder gives every measurement of every run, one row each; a file
    gives its own columns.

    Columns in which every cell is a number become numbers; others stay as they were written
    ("70B"), and `fit` reads them. Raises ScalingError that names the file and the fault.
    """
    sources = _sources(source)
    rows, foreign, _ = read_rows(sources)
    if rows and foreign:
        raise ScalingError(
            "results of this program and foreign tables do not mix",
            where=str(foreign[0][0]),
            remedy="load them one by one",
        )
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
    table.attrs = (
        {FOLDER: str(only)}
        if len(sources) == 1 and isinstance(only, Path) and only.is_dir()
        else {}
    )
    damaged = [str(each) for part in rows for each in part.attrs.get("corrupt", ())]
    if damaged:
        table.attrs["corrupt"] = damaged
    return table


def fit(
    source: Source,
    law: str = "auto",
    *,
    columns: str | Mapping[str, str] | None = None,
    **options: Any,
) -> Fit:
    """Fit a scaling law to a results folder, a file, a DataFrame, or several of one kind.

    `columns` says which column holds what, `{"N": "params", "D": "tokens", "L": "loss"}`, or as
    text as on the command line. `options` are those of `scaling fit`, with underscores: approach,
    objective, delta, where, holdout, bootstrap, ci, seed, ... Raises ScalingError that says what is
    wrong, where, and what to do instead.
    """
    wrong = next((name for name in options if name not in OPTIONS), None)
    if wrong is not None:
        raise unknown_choice("option", wrong, OPTIONS, where="fit")
    result = run_fit(_sources(source), FitOptions(law=law, columns=_columns(columns), **options))
    return Fit(result.to_dict())


def predict(
    source: Fit | Mapping[str, Any] | PathText,
    *,
    loss: object = None,
    inference_tokens: object = None,
    smaller: object = None,
    serving: Mapping[str, Any] | None = None,
    devices: Mapping[str, Any] | None = None,
    with_model: bool = False,
    **inputs: object,
) -> Prediction:
    """The compute-optimal model for `flops`, the loss of `n_params` and `tokens`, or the budget that
    reaches a `loss`; `n_params` or `tokens` alone asks for which budget it is compute-optimal.

    `source` is what `fit` returned, a fit's document, the path of FIT.json, or "published:NAME".
    `inputs` are flops, n_params, tokens, unique_tokens, steps, task_loss, as far as the law has
    them; text such as "70B" or "0.5 PF-days" is read. `inference_tokens` adds the size that is
    cheapest to train and serve, `smaller` ("0.5,0.3") what smaller models of the same loss cost,
    `serving` ({"device": "h100", ...}, as on the command line) the same in device-seconds,
    `devices` ({"device": "h100", "count": 8, "mfu": 0.4}) the time of training, `with_model` a model that can
    be built. Raises ScalingError.
    """
    if isinstance(source, Fit):
        source = source.document
    elif not isinstance(source, Mapping):
        source = str(source)
    return Prediction(
        run_predict(
            source,
            loss=loss,
            inference_tokens=inference_tokens,
            smaller=smaller,
            serving=Serving(**serving) if serving is not None else None,
            devices=devices,
            with_model=with_model,
            **inputs,
        ).to_dict()
    )


def plan(
    sweep: PathText | Sweep, *, overrides: Sequence[str] = (), simulated: str | None = None
) -> Plan:
    """Every run of a sweep with its cost, and the infeasible cells with their reasons.

    `sweep` is a sweep file or a Sweep; `overrides` are "KEY=VALUE", as on the command line.
    """
    from scaling.config.overrides import load_with_overrides
    from scaling.execute.planning import with_eval_sets
    from scaling.plan import plan as expand
    from scaling.tasks import open_task, resolve

    loaded = sweep if isinstance(sweep, Sweep) else load_with_overrides(Path(sweep), overrides)
    task = resolve(loaded.base.task)
    return expand(with_eval_sets(loaded), task, open_task(task).vocab_size, simulated)


def run(
    sweep: PathText | Sweep,
    folder: PathText | None = None,
    options: RunOptions | None = None,
    *,
    overrides: Sequence[str] = (),
) -> SweepOutcome:
    """Train what a folder (default results/<name>) lacks of a sweep; safe to call again.

    `options` (`scaling.execute.options.RunOptions`) say where and how: workers, budgets, executor.
    Raises ScalingError, before anything is trained, for a sweep, folder or machine that does not
    fit.
    """
    from scaling.config.overrides import load_with_overrides
    from scaling.execute.options import RunOptions
    from scaling.execute.run_sweep import run_sweep

    loaded = sweep if isinstance(sweep, Sweep) else load_with_overrides(Path(sweep), overrides)
    target = Path("results") / loaded.name if folder is None else Path(folder)
    return run_sweep(loaded, target, options or RunOptions())


def report(
    source: PathText | Sequence[PathText],
    out: PathText | None = None,
    *,
    budgets: Sequence[float] = (),
) -> Path:
    """Write the report of a results folder, fits, or several sweeps; returns its index.html.

    `budgets` (FLOPs of the first of several sweeps) are those at which compute is compared.
    """
    from scaling.report.page import write_report

    sources = [source] if isinstance(source, (str, PathLike)) else list(source)
    target = None if out is None else Path(out)
    return write_report([Path(item) for item in sources], target, budgets=list(budgets))


def _sources(source: Source) -> list[Path | pd.DataFrame]:
    """Paths and tables. Raises ScalingError for what is neither."""
    items: list[Any] = list(source) if isinstance(source, (list, tuple)) else [source]
    for item in items:
        if not isinstance(item, (str, PathLike, pd.DataFrame)):
            raise ScalingError(
                f"a {type(item).__name__} is no source of runs",
                remedy="give a path or a pandas DataFrame",
            )
    return [item if isinstance(item, pd.DataFrame) else Path(item) for item in items]


def _columns(columns: str | Mapping[str, str] | None) -> str | None:
    """The columns as the command line takes them. Raises ScalingError for a name that this form
    cannot hold.
    """
    if columns is None or isinstance(columns, str):
        return columns
    from scaling.points.columns import parse_columns

    text = ",".join(f"{letter}={column}" for letter, column in columns.items())
    if parse_columns(text) != {
        str(letter).strip().upper(): str(column) for letter, column in columns.items()
    }:
        raise ScalingError(
            f"columns {dict(columns)} are ambiguous",
            where="columns",
            remedy="rename them in the table",
        )
    return text


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The table with numbers where every cell of a column is one, or empty."""
    converted = {name: pd.to_numeric(table[name], errors="coerce") for name in table.columns}
    blank = {
        name: table[name].isna() | table[name].astype(str).str.strip().eq("")
        for name in table.columns
    }
    return table.assign(
        **{
            name: values
            for name, values in converted.items()
            if (values.notna() | blank[name]).all()
        }
    )


def _frame(
    entries: Mapping[str, Mapping[str, Any]], index: str, columns: list[str]
) -> pd.DataFrame:
    """Estimates as a table of floats, a row each."""
    rows = [[entry.get(column) for column in columns] for entry in entries.values()]
    return pd.DataFrame(
        rows, index=pd.Index(list(entries), name=index), columns=columns, dtype=float
    )
