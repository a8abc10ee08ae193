"""The commands `data prepare` and `data info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from scaling.cli.app import add_command
from scaling.cli.output import Csv, Json, echo_err, emit
from scaling.cli.tables import table

FACTS = ("field", "value")
group = typer.Typer(
    name="data",
    no_args_is_help=True,
    help="Prepare a token store from text, jsonl, parquet or Hugging Face data, and inspect one.",
)


def prepare(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Text, .jsonl or .parquet files or folders, or Hugging Face data: "
            "hf:OWNER/NAME/CONFIG:SPLIT (CONFIG and SPLIT optional), hf:FOLDER.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The token store to write.")],
    tokenizer: Annotated[
        str,
        typer.Option(
            help="bytes, bpe (trained here), the path of a tokenizer.json, hf:NAME or hf:FOLDER."
        ),
    ] = "bytes",
    vocab_size: Annotated[
        int, typer.Option(min=257, max=2**20, help="Vocabulary of a BPE trained here.")
    ] = 4096,
    text_column: Annotated[
        str,
        typer.Option(
            "--text-column",
            "--text-field",
            help="Field with the text in jsonl, parquet and data sets.",
        ),
    ] = "text",
    val_frac: Annotated[
        float, typer.Option(help="Fraction of documents in the validation split.")
    ] = 0.1,
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming",
            help="Stream a data set from the Hub instead of downloading it.",
        ),
    ] = False,
    max_documents: Annotated[
        int | None, typer.Option(min=1, help="Use only the first so many documents.")
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN", help="The token of a tokenizer.json that ends each document."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a memory-mapped token store, split by document into training and validation.

    Example: scaling data prepare notes/*.txt --out data/notes --tokenizer bpe --vocab-size 4096
    """
    from rich.console import Group

    from scaling.tasks.corpus.prepare import prepare as run_prepare

    echo_err(f"preparing {len(source)} source(s) ...")
    document = run_prepare(
        source,
        out,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        text_column=text_column,
        val_frac=val_frac,
        streaming=streaming,
        max_documents=max_documents,
        separator=separator,
    )
    for warning in document.get("warnings", []):
        echo_err(f"warning: {warning['message']}")
    usage = f'use it in a sweep file: \\[base.task] kind = "text", corpus = "{out}"'
    emit(document, lambda: Group(_facts(document, out), usage), as_json=as_json)


def info(
    folder: Annotated[
        str, typer.Argument(metavar="[DIR]", help='A token store, or "stdlib".')
    ] = "stdlib",
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Verify a token store and show its contents.

    Example: scaling data info data/notes
    """
    from scaling.tasks.corpus.prepare import info as run_info

    document = run_info(folder)
    emit(document, lambda: _facts(document, folder), as_json=as_json, as_csv=as_csv, columns=FACTS)


def _facts(document: dict[str, Any], title: object) -> Table:
    rows = table(escape(str(title)), *FACTS, numbers=False)
    for key, value in document.items():
        for name, part in value.items() if isinstance(value, dict) else [("", value)]:
            rows.add_row(f"{key} {name}".strip(), escape(_line(part)))
    return rows


def _line(value: Any) -> str:
    """A value on one line; of a list its length."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return f"{len(value)}" if isinstance(value, list) else str(value)


for function in (prepare, info):
    add_command(group, function)
