"""CSV tables: any common encoding, line end and separator; text cells, every row as long as the
header.
"""

from __future__ import annotations

import codecs
import csv
import io
import re

import pandas as pd

from scaling.errors import ScalingError
from scaling.points.cells import MISSING
from scaling.units import Quantity, Unit, parse_unit

MAX_HEADER = 1_000_000  # characters
SEPARATORS = (",", ";", "\t", "|", "&")
COMMENTS = ("#", "//", "%")
_VALUE = re.compile(  # no column's name: 1.2e6, `step: 100`, `val loss 4.3`
    r"^[-+]?\d[\d.]*(e[-+]?\d+)?$|[:=]\s*[-+]?\d|\s[-+]?\d+\.\d+$", re.I
)
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def decode(data: bytes) -> tuple[str, str]:
    """Text with line feeds, and what it was where it was not UTF-8 ("" where it was).

    Raises ScalingError for bytes that are no text.
    """
    encoding = next((name for mark, name in _BOMS.items() if data.startswith(mark)), "")
    sample = data[:4096]
    if not encoding and b"\0" in sample:
        half = len(sample) // 4
        encoding = "utf-16-le" if sample[1::2].count(0) > half else encoding
        encoding = "utf-16-be" if sample[0::2].count(0) > half else encoding
        if not encoding:
            raise ScalingError(
                f"holds bytes that are no text (it starts with {data[:8]!r})",
                remedy="export it as a CSV table in UTF-8",
            )
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding:
            raise ScalingError(
                f"not readable as {encoding}: {error.reason}", remedy="save it as UTF-8"
            ) from None
        encoding = "cp1252"
        text = data.decode(encoding, "replace")
    if re.match(r"\s*<(!doctype\s+)?html", text[:200], re.I):
        raise ScalingError(
            "is an HTML page and no table",
            remedy="download the file itself (are you signed in?)",
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text, encoding if encoding != "utf-8-sig" else ""


def read_csv(text: str) -> pd.DataFrame:
    """Text cells, no row longer or shorter than the header.

    Lines that begin with #, // or % are comments; `sep=;` in the first line names the separator;
    lines of one cell above the header are a title.
    """
    lines, mark = _without_comments(text.split("\n"))
    if len(lines[0]) > MAX_HEADER:
        raise ScalingError(
            f"the first line is {len(lines[0]):,} bytes long: not a header",
            remedy="it needs a header and one row for each run",
        )
    header = next((line for line in lines[:20] if any(s in line for s in SEPARATORS)), lines[0])
    mark = mark or max(SEPARATORS, key=lambda sign: (header.count(sign), sign == ","))
    if mark not in header and re.search(r"\S[ ]+\S", header):
        lines, mark = [re.sub(r"[ \t]+", "\t", line.strip()) for line in lines], "\t"
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=mark))
    except csv.Error as error:
        raise ScalingError(
            f"not a readable CSV table: {error}", remedy="give column names"
        ) from None
    titles = next((i for i, row in enumerate(rows) if sum(map(bool, row)) > 1), 0)
    header_row = rows[titles]
    names, rows = [name.strip() for name in header_row], rows[titles + 1 :]
    rows = [row for row in rows if row != header_row]  # tables one after another
    if _is_second_header(names, rows):
        names = _joined_headers(names, [name.strip() for name in rows.pop(0)])
    if mark == "\t" and all(len(row) == len(names) + 1 for row in rows):
        labels = [row[0].strip() for row in rows]  # names of rows, as R and pandas print them
        counted = (list(map(str, range(start, start + len(rows)))) for start in (0, 1))
        if labels in counted or not any(map(_VALUE.search, labels)):
            names.insert(0, "")
    if 2 * sum(bool(_VALUE.search(name)) for name in names) >= len(names):
        raise ScalingError(
            f"the first line holds numbers and is not a header: {mark.join(names)[:80]}",
            remedy="is it a log, or a table turned by 90 degrees? give a header and a row for each "
            "run",
        )
    wrong = next((row for row in rows if len(row) != len(names)), None)
    if wrong is not None:
        raise ScalingError(
            f"not a readable CSV table: Expected {len(names)} columns, got {len(wrong)}: "
            f"{mark.join(wrong)[:100]}",
            remedy="every row needs as many cells as the header; write decimal points",
        )
    unique = [name or f"unnamed {position + 1}" for position, name in enumerate(names)]
    table = pd.DataFrame(rows, columns=unique, dtype=str)
    empty = [
        name
        for name, written in zip(unique, names, strict=True)
        if not written and table[name].str.strip().eq("").all()
    ]
    return table.drop(columns=empty)


def _is_second_header(names: list[str], rows: list[list[str]]) -> bool:
    """Whether the first row below the header holds words wherever the next holds numbers (but in a
    column without a name).
    """
    if len(rows) < 2 or len(rows[0]) != len(names):
        return False
    columns = zip(names, *rows[:2], strict=False)
    below = [
        word.strip()
        for name, word, cell in columns
        if (name or word) and _VALUE.search(cell.strip())
    ]
    return len(below) > 1 and all(
        word.lower() not in MISSING and not any(map(str.isdigit, word)) for word in below
    )


def _joined_headers(names: list[str], below: list[str]) -> list[str]:
    """Two lines of headers as one: `params (M)` of a unit, else `model/params`, where an empty cell
    continues the one on its left.
    """
    joined, last = [], ""
    for name, word in zip(names, below, strict=True):
        last = name or last
        units = {each: unit for each in Quantity if (unit := parse_unit(word, each))}
        nats = units.get(Quantity.LOSS) == Unit(word)
        is_unit = nats or any(unit.factor != 1 for unit in units.values())
        joined.append(f"{last} ({word})" if is_unit else "/".join(filter(None, (last, word))))
    return joined


def _without_latex(line: str) -> str:
    """A line of a LaTeX table without its commands; empty where it holds nothing else."""
    line = re.sub(r"\s*\\\\.*$|\\(?:hline|(?:top|mid|bottom)rule)\b|\\[,;! ]|\{,\}", "", line)
    line = re.sub(r"\\(?:multicolumn\{\d+\}\{[^{}]*\}|[a-z]+)\{([^{}&]*)\}(?=.*&|$)", r"\1", line)
    line = re.sub(r"\^\{(\d+)\}", r"^\1", line.replace("\\times", "x").replace("\\%", "%"))
    return line if "&" in line else ""


def _without_comments(lines: list[str]) -> tuple[list[str], str]:
    """The lines that are no comments, and the separator that a line `sep=;` names ("" without one).

    A comment directly above rows of numbers, with as many separators as they, is the header.
    """
    comments = [line for line in lines if line.lstrip().startswith(COMMENTS)]
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith(COMMENTS)]
    rule = re.compile(r"[\s|:+=-]*[-=][\s|:+=-]*")  # of Markdown and grid tables
    kept = [line for line in kept if not rule.fullmatch(line)]
    if any(re.search(r"&.*\\\\\s*([\\%\[].*)?$", line) for line in kept):  # LaTeX
        kept = [line for each in kept if (line := _without_latex(each)).strip()]
    mark = ""
    if kept and (named := re.fullmatch(r'"?sep=(.)"?\s*', kept[0])):
        mark, kept = named[1], kept[1:]
    if comments and kept and not re.search(r"[A-DF-Zac-df-z]", kept[0].replace("nan", "")):
        last = comments[-1].lstrip().lstrip("#/%").strip()
        if any(last.count(sign) == kept[0].count(sign) > 0 for sign in SEPARATORS):
            kept = [last, *kept]
    return kept or [""], mark
