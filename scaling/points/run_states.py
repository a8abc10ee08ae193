"""Rows that are no finished run, by what a table says of its runs: states, exit codes, marks,
shares done, dates of the end, summaries.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.points.columns import last_name
from scaling.points.units import word_set
from scaling.warning import ResultWarning, WarningCode, warn

STATE_WORDS = word_set("state status lifecycle phase outcome completion result")
FINISHED = word_set(
    "finished finish done complete completed success succeeded successful ok passed converged"
)
UNFINISHED = word_set(
    "crashed crash failed failure fail running killed preempted preempting pending queued waiting "
    "cancelled canceled aborted abort stopped timeout timed_out oom out_of_memory node_fail error "
    "errored diverged interrupted incomplete unfinished scheduled starting submitted suspended "
    "terminated deleted paused initializing in_progress inprogress evicted pruned oomkilled nan "
    "outlier"
)
YES, NO = word_set("1 1.0 true yes y t x ✓ ✔ ✅ ☑"), word_set("0 0.0 false no n f - ✗ ✘ ❌ ☐")
BLANK = {"", "nan", "none", "nat", "null", "<na>"}
EXITED = {"0", "0.0", "0:0"}
FLAG_WORDS = word_set("is has was did run loss training any nan inf")
TIMES = word_set("at time date on timestamp")  # of an end that a column dates
PROGRESS = word_set(
    "progress pct percent percentage fraction frac share portion proportion of run training trained"
)
ELAPSED = word_set("completion elapsed step steps epoch epochs")  # what a share may be of
CRASH = re.compile(r"(?<![a-z])(?:crash|kill|preempt|diverge|fail|abort|oom\b|out of memory)", re.I)
SUMMARY = word_set("mean average avg total totals sum median std overall")  # of a row of no run
EXIT_CODE = re.compile(r"(exit|return)_?(code|status)")


@dataclass(frozen=True)
class Reduction:
    """Rows to keep (mask), why the others are left out, and the warning about it."""

    keep: np.ndarray
    reason: str = ""
    warning: ResultWarning | None = None


def run_states(table: pd.DataFrame, where: str | None) -> Iterator[Reduction]:
    """Rows that are no finished run, by a column of states, exit codes, marks, shares or dates of
    the end, or that sum others up; none by a column that `--where` names.

    Raises ScalingError where no run is finished.
    """
    for name in map(str, table.columns):
        if where and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", where):
            continue
        plain, column = last_name(name), table[name]
        words, texts = set(plain.split("_")), column.astype(str).fillna("")
        values = {text.strip().lower() for text in texts.unique()}
        crashed = set(filter(CRASH.search, values))

        def rows_of(chosen: Collection[str], texts: pd.Series = texts) -> np.ndarray:
            return texts.str.strip().str.lower().isin(chosen).to_numpy(bool)

        ends = words & (FINISHED | UNFINISHED | {"end", "ended"})
        is_finished = bool(words & (FINISHED | {"end", "ended"}))
        if ends and words <= ends | FLAG_WORDS and values <= {*YES, *NO, *BLANK}:
            yield Reduction(rows_of(YES) == is_finished, f"marked in column {name!r}")
        elif EXIT_CODE.search(plain) and values & EXITED:
            yield Reduction(rows_of(EXITED), f"ended with an error by {name!r}")
        elif is_finished and words & TIMES and values & BLANK and values - BLANK:
            yield Reduction(~rows_of(BLANK), f"not finished: no {name!r}")
        elif words & PROGRESS and words <= PROGRESS | FINISHED | ELAPSED:
            share = pd.to_numeric(texts.str.rstrip("% "), errors="coerce")
            full = 100 if share.max() >= 100 else 1  # a last step may go a little beyond it
            is_full = share.ge(full).to_numpy()
            if share.max() <= 1.05 * full and share.notna().all() and is_full.sum() > 1:
                yield Reduction(is_full, f"not finished by column {name!r}")
        elif words & STATE_WORDS or _state(texts.iloc[0]) in FINISHED | UNFINISHED:
            yield from _states(column, bool(words & STATE_WORDS))
        elif values & SUMMARY and rows_of(SUMMARY).sum() <= max(2, len(table) / 5):
            named = ", ".join(sorted(values & SUMMARY))
            yield Reduction(~rows_of(SUMMARY), f"no run by {name!r} ({named})")
        elif crashed and (count := rows_of(crashed).sum()) <= len(table) / 2:
            message = (
                f"column {name!r} says of {count} rows: {min(crashed)[:60]!r}, ...: they are used; "
                "leave them out with --where"
            )
            yield Reduction(np.ones(len(table), bool), "", warn(WarningCode.RUN_STATE, message))


def _state(cell: object) -> str:
    """A cell as the word of a state: `JobState.FAILED` is failed."""
    word = re.sub(r"[^\w.]+", "_", str(cell).strip().lower()).strip("_")
    word = re.sub(r"^\w+\.", "", word)
    if str(cell).endswith("+"):  # Slurm's, cut off
        word = next((each for each in FINISHED | UNFINISHED if each.startswith(word)), word)
    return word


def _states(column: pd.Series, is_named: bool) -> Iterator[Reduction]:
    """The finished runs by a column of states: one that is named so, or holds nothing else."""
    name, words = column.name, column.map(_state)
    is_known = words.isin(FINISHED | UNFINISHED)
    choose = f'--where "`{name}` == ..."'
    if not is_named and not (is_known.all() and words.isin(UNFINISHED - {"nan"}).any()):
        return
    if not is_known.any():
        shown = ", ".join(repr(str(word)) for word in column.unique()[:8])
        if column.nunique() > 1:
            message = (
                f"column {name!r} holds no word that is known as a run's state ({shown}): all rows "
                f"are used; choose runs with {choose}"
            )
            yield Reduction(np.ones(len(column), bool), "", warn(WarningCode.RUN_STATE, message))
        return
    keep = words.isin(FINISHED).to_numpy(bool)
    if not keep.any():
        listed = ", ".join(sorted(map(str, column.unique()))[:8])
        raise ScalingError(
            f"column {name!r} calls no run finished: {listed}",
            remedy=f"choose the runs yourself: {choose}",
        )
    unknown = sorted(set(column[~is_known].astype(str)))
    message = (
        f"column {name!r} holds unknown states, left out as not finished: "
        f"{', '.join(map(repr, unknown[:8]))}; choose runs with {choose}"
    )
    warning = warn(WarningCode.RUN_STATE, message, column=str(name), states=unknown[:50])
    yield Reduction(keep, f"not finished by column {name!r}", warning if unknown else None)
