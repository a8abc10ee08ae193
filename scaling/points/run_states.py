"""Rows that are no finished run, by what a table says of its runs: states, exit codes, marks,
shares done, dates of the end, summaries.
"""

from __future__ import annotations

import re

import pandas as pd

from scaling.errors import ScalingError
from scaling.points.cells import numeric
from scaling.points.columns import column_named, last_name
from scaling.points.repeated_rows import STEP_NAMES
from scaling.points.table_rows import TableRows
from scaling.units import word_set
from scaling.warning import WarningCode

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
ENDED = word_set("end ended")
LAST = ENDED | word_set("final last")
USED = word_set("include included keep kept use used usable valid good")
UNUSED = word_set("exclude excluded ignore ignored discard discarded invalid bad")
MARKS = (  # words of a column of marks, yes or no, and those beside them
    (FINISHED | UNFINISHED | ENDED, word_set("is has was did run loss training any nan inf")),
    (LAST, word_set("is was checkpoint ckpt row eval step of run")),
    (USED | UNUSED, word_set("is was row run in for from fit")),
)
TIMES = word_set("at time date on timestamp")  # of an end that a column dates
PROGRESS = word_set("progress pct percent percentage")
SHARES = word_set("fraction frac share portion proportion")  # alone, of the data maybe
OF = FINISHED | word_set("of run training trained completion elapsed step steps epoch epochs")
PLANNED = 0.99  # of the planned steps or tokens: less is not finished, whole batches may end so
PLANNED_STEPS = word_set("max_steps total_steps target_steps planned_steps max_iters total_iters")
PLANNED_TOKENS = word_set("target_tokens planned_tokens tokens_target tokens_planned")
NAMES = STATE_WORDS | FINISHED | UNFINISHED | LAST | USED | UNUSED | PROGRESS | SHARES
CRASH = re.compile(r"(?<![a-z])(?:crash|kill|preempt|diverge|fail|abort|oom\b|out of memory)", re.I)
SUMMARY = word_set("mean average avg total totals sum median std overall")  # of a row of no run
SUMMED = SUMMARY | word_set("of all the grand runs models rows over dev deviation")
EXIT_CODE = re.compile(r"(exit|return)_?(code|status)")


def drop_unfinished(rows: TableRows, where: str | None, is_each_run: bool = False) -> None:
    """Leave out rows that are no finished run, by a column of states, exit codes, marks, shares or
    dates of the end, or that sum others up; none by a column that `--where` names, nor by what
    parts the last rows of runs from others, where each row `is_each_run`.

    Raises ScalingError where no run is finished.
    """
    table = rows.table
    for letter, clock, names in (
        ("S", column_named(table, STEP_NAMES), PLANNED_STEPS),
        ("D", rows.used.get("D"), PLANNED_TOKENS),
    ):
        planned = column_named(table, names)
        if clock and planned and not where and not is_each_run:
            done, whole = (numeric(table, name, letter, lenient=True) for name in (clock, planned))
            reason = f"not finished: {clock!r} below {planned!r}"
            share = pd.Series(done / whole, table.index)
            is_full = share.ge(PLANNED)
            if len(set(whole)) > 1 or 2 * is_full.sum() >= len(table):  # else a limit of them all
                _drop_by_share(rows, share.mask(is_full & share.le(1), 1), reason)
    for name in map(str, table.columns):
        if where and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", where):
            continue
        plain = last_name(name)
        words, is_number = set(plain.split("_")), pd.api.types.is_numeric_dtype(table[name])
        if is_number and not (words & NAMES or EXIT_CODE.search(plain)):
            continue  # numbers of a column with another name
        texts = table[name].astype(str).fillna("")
        cells = texts.str.strip().str.lower()
        values = set(cells.unique())
        is_mark = values <= {*YES, *NO, *BLANK} and not values <= BLANK
        is_mark &= any(words & ends and words <= ends | beside for ends, beside in MARKS)
        is_finished = bool(words & (FINISHED | LAST | USED))
        is_kept = cells.isin(YES) == is_finished
        is_crash = cells.isin(crashed := set(filter(CRASH.search, values)))
        sums = set(filter(_is_summary, values))
        is_sum = cells.isin(sums)
        if is_mark and words & LAST and is_each_run:
            continue
        if is_mark and (is_kept.any() or words & (FINISHED | UNFINISHED)):
            rows.keep(is_kept, f"marked in column {name!r}")
        elif 0 < is_sum.sum() <= max(2, len(table) / 5):
            named = ", ".join(sorted(sums))
            rows.keep(~is_sum, f"no run by {name!r} ({named})")
        elif EXIT_CODE.search(plain) and values & EXITED:
            rows.keep(cells.isin(EXITED), f"ended with an error by {name!r}")
        elif words & (FINISHED | ENDED) and words & TIMES and values & BLANK and values - BLANK:
            rows.keep(~cells.isin(BLANK), f"not finished: no {name!r}")
        elif (
            words <= PROGRESS | SHARES | OF
            and not is_each_run
            and (words & PROGRESS or (words & SHARES and words & OF))
        ):
            shares = cells.str.split("/", expand=True).apply(  # 370/1000 too
                lambda part: pd.to_numeric(part.str.rstrip("% "), errors="coerce")
            )
            share = shares[0] / (shares[1] if len(shares.columns) == 2 else 1)
            _drop_by_share(rows, share, f"not finished by column {name!r}")
        elif words & STATE_WORDS or _state(texts.iloc[0]) in FINISHED | UNFINISHED:
            _drop_by_state(rows, table[name], bool(words & STATE_WORDS))
        elif 0 < is_crash.sum() <= len(table) / 2 and name not in rows.used.values():
            message = (
                f"column {name!r} says of {is_crash.sum()} rows: {min(crashed)[:60]!r}, ...: they "
                "are used; leave them out with --where"
            )
            rows.warn(WarningCode.RUN_STATE, message)
    if rows.excluded and rows.table.empty:
        reasons = "; ".join(f"{count} {reason}" for reason, count in rows.excluded)
        raise ScalingError(f"no run is finished: {reasons}", remedy="choose runs with --where")


def _drop_by_share(rows: TableRows, share: pd.Series, reason: str) -> None:
    """Keep the rows of which all is done, where several are; a last step may go a bit beyond."""
    full = 100 if share.max() >= 100 else 1
    is_full = share.ge(full)
    if share.max() <= 1.05 * full and share.notna().all() and is_full.sum() > 1:
        rows.keep(is_full, reason)


def _is_summary(cell: str) -> bool:
    """Whether a cell says that its row sums others up: `mean`, `Grand total`, `Total (25 runs)`."""
    if cell[:1].isdigit():  # most are numbers
        return False
    words = set(re.findall(r"[^\W\d_]+", cell))
    return bool(words & SUMMARY) and words <= SUMMED


def _state(cell: object) -> str:
    """A cell as the word of a state: `JobState.FAILED` is failed."""
    word = re.sub(r"[^\w.]+", "_", str(cell).strip().lower()).strip("_")
    word = re.sub(r"^\w+\.", "", word)
    if str(cell).endswith("+"):  # Slurm's, cut off
        word = next((each for each in FINISHED | UNFINISHED if each.startswith(word)), word)
    return word


def _drop_by_state(rows: TableRows, column: pd.Series, is_named: bool) -> None:
    """Keep the finished runs by a column of states: one that is named so, or holds nothing else."""
    name, words = column.name, column.map(_state)
    is_known, is_finished = words.isin(FINISHED | UNFINISHED), words.isin(FINISHED)
    choose = f'--where "`{name}` == ..."'
    if not is_named and not (is_known.all() and words.isin(UNFINISHED - {"nan"}).any()):
        return
    if not is_known.any():
        shown = ", ".join(repr(str(word)) for word in column.unique()[:8])
        message = (
            f"column {name!r} holds no word that is known as a run's state ({shown}): all rows are "
            f"used; choose runs with {choose}"
        )
        if column.nunique() > 1:
            rows.warn(WarningCode.RUN_STATE, message)
        return
    if not is_finished.any():
        listed = ", ".join(sorted(map(str, column.unique()))[:8])
        raise ScalingError(
            f"column {name!r} calls no run finished: {listed}",
            remedy=f"choose the runs yourself: {choose}",
        )
    if unknown := sorted(set(column[~is_known].astype(str))):
        message = (
            f"column {name!r} holds unknown states, left out as not finished: "
            f"{', '.join(map(repr, unknown[:8]))}; choose runs with {choose}"
        )
        rows.warn(WarningCode.RUN_STATE, message, column=str(name), states=unknown[:50])
    rows.keep(is_finished, f"not finished by column {name!r}")
