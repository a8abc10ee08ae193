"""CSV tables: any common encoding, line end and separator; text cells, every row as long as the
header.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa

from scaling.errors import ScalingError

MAX_HEADER = 1_000_000  # bytes
SEPARATORS = (",", ";", "\t", "|")
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def decode(path: Path, data: bytes) -> tuple[bytes, str]:
    """Text as UTF-8 with line feeds, and what it was where it was not UTF-8 ("" where it was).

    Raises ScalingError for bytes that are no text.
    """
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "")
    sample = data[:4096]
    if not encoding and b"\0" in sample:
        odd, even = sample[1::2].count(0), sample[0::2].count(0)
        half = len(sample) // 2
        encoding = "utf-16-le" if 2 * odd > half else "utf-16-be" if 2 * even > half else ""
        if not encoding:
            raise ScalingError(
                f"holds bytes that are no text (it starts with {data[:8]!r})",
                where=str(path),
                remedy="export it as a CSV table in UTF-8",
            )
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding:
            raise ScalingError(
                f"not readable as {encoding}: {error.reason}",
                where=str(path),
                remedy="save it as UTF-8",
            ) from None
        encoding = "cp1252"
        text = data.decode("cp1252", "replace")
    if re.match(r"\s*<(!doctype\s+)?html", text[:200], re.I):
        raise ScalingError(
            "is an HTML page and no table",
            where=str(path),
            remedy="download the file itself (are you signed in?)",
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    named = "" if encoding in ("", "utf-8-sig") else encoding.replace("-sig", "")
    return text.encode("utf-8", "replace"), named


def read_csv(path: Path, data: bytes) -> pd.DataFrame:
    """Text cells, no row longer or shorter than the header (pandas would shift such a row
    silently).

    Lines that begin with # are comments; `sep=;` in the first line names the separator.
    """
    from pyarrow import csv as arrow_csv  # 0.1 s, needed for this form only

    data, mark = _without_comments(data)
    header = data.split(b"\n", 1)[0]
    if len(header) > MAX_HEADER:
        raise ScalingError(
            f"the first line is {len(header):,} bytes long, which is no header",
            where=str(path),
            remedy="it needs a header and one row for each run",
        )
    counts = {sign: header.count(sign.encode()) for sign in SEPARATORS}
    mark = mark or max(counts, key=lambda name: (counts[name], name == ","))
    if not counts.get(mark) and re.search(rb"\S[ ]+\S", header):
        data, mark = _spaces_as_tabs(data), "\t"
        header = data.split(b"\n", 1)[0]
    try:
        names = next(csv.reader(io.StringIO(header.decode("utf-8", "replace")), delimiter=mark))
    except (csv.Error, StopIteration) as error:
        raise ScalingError(
            f"the header is not readable: {error}", where=str(path), remedy="give column names"
        ) from None
    plain = [name.strip() for name in names]
    twice = (
        next((name for name in plain if name and plain.count(name) > 1), None)
        if len(set(plain)) < len(plain)
        else None
    )
    if twice is not None:
        raise ScalingError(
            f"column {twice!r} stands twice in the header",
            where=str(path),
            remedy="give every column its own name",
        )
    unique = [name or f"unnamed {position + 1}" for position, name in enumerate(plain)]
    if b"\n" not in data.strip():
        return pd.DataFrame(columns=unique)
    as_text = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(unique, pa.string()), strings_can_be_null=False
    )
    try:
        parsed = arrow_csv.read_csv(
            to_arrow(data.split(b"\n", 1)[1]),
            read_options=arrow_csv.ReadOptions(
                column_names=unique, block_size=max(1 << 20, min(len(data) + 1, 1 << 30))
            ),
            parse_options=arrow_csv.ParseOptions(delimiter=mark, newlines_in_values=False),
            convert_options=as_text,
        )
    except pa.ArrowInvalid as error:
        what = f"not a readable CSV table: {str(error).splitlines()[0][:160]}"
        raise ScalingError(
            what,
            where=str(path),
            remedy="every row needs as many cells as the header; write decimal points",
        ) from None
    table = parsed.to_pandas(use_threads=False)
    empty = [
        name
        for name, written in zip(unique, plain, strict=True)
        if not written and table[name].astype(str).str.strip().eq("").all()
    ]
    return table.drop(columns=empty)


def _without_comments(data: bytes) -> tuple[bytes, str]:
    """The lines that are no comments, and the separator that a line `sep=;` names ("" without one).

    A comment directly above rows of numbers, with as many separators as they, is the header.
    """
    lines = data.split(b"\n")
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith(b"#")]
    kept = [line for line in kept if not re.fullmatch(rb"[\s|:+-]*-[\s|:+-]*", line)]  # Markdown
    mark = ""
    if kept and (named := re.fullmatch(rb'"?sep=(.)"?\s*', kept[0])):
        mark, kept = named[1].decode("utf-8", "replace"), kept[1:]
    comments = [line for line in lines if line.lstrip().startswith(b"#")]
    if comments and kept and not re.search(rb"[A-DF-Zac-df-z]", kept[0].replace(b"nan", b"")):
        last = comments[-1].lstrip().lstrip(b"#").strip()
        if any(last.count(s.encode()) == kept[0].count(s.encode()) > 0 for s in SEPARATORS):
            kept = [last, *kept]
    return b"\n".join(kept), mark


def _spaces_as_tabs(data: bytes) -> bytes:
    return b"\n".join(re.sub(rb"[ \t]+", b"\t", line.strip()) for line in data.split(b"\n"))


def to_arrow(data: bytes) -> pa.BufferReader:
    """A copy in Arrow's memory: its threads may outlive the interpreter, which must not free it
    under them.
    """
    buffer = pa.allocate_buffer(len(data))
    memoryview(buffer).cast("B")[:] = data
    return pa.BufferReader(buffer)
