"""`scaling data`: prepare a token store from a user's own files or a data set of Hugging Face, and look at one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scaling.cli.output import Csv, Json, console, echo_err, print_json, print_pairs


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    group = typer.Typer(
        help="Prepare a token store from text, jsonl or parquet files or a data set of Hugging Face, and look at one.",
        no_args_is_help=True,
    )
    group.command(
        "prepare",
        epilog="Example: scaling data prepare notes/*.txt --out data/notes --tokenizer bpe --vocab-size 4096",
    )(prepare)
    group.command("info", epilog="Example: scaling data info data/notes")(info)
    app.add_typer(group, name="data")


def prepare(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files or folders: text, .jsonl, .parquet; or a data set of Hugging Face: hf:OWNER/NAME/CONFIG:SPLIT (CONFIG and SPLIT if need be), hf:FOLDER.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The token store to write.")],
    tokenizer: Annotated[
        str,
        typer.Option(
            help="bytes, bpe (trained here), a tokenizer.json, or hf:NAME or hf:FOLDER that has one."
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
            help="Field that holds the text in jsonl, parquet and data sets.",
        ),
    ] = "text",
    val_frac: Annotated[
        float, typer.Option(help="Part of the documents held out for validation.")
    ] = 0.1,
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming",
            help="Read a data set from the Hub as a stream instead of downloading it.",
        ),
    ] = False,
    max_documents: Annotated[
        int | None, typer.Option(min=1, help="Take the first so many documents.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a memory-mapped token store with its manifest, split by document into training and validation."""
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
    )
    if as_json:
        return print_json(document)
    _show(document, out)
    return typer.echo(f'use it in a sweep file: [base.task] kind = "text", corpus = "{out}"')


def info(
    folder: Annotated[
        str, typer.Argument(metavar="[DIR]", help='A token store, or "stdlib".')
    ] = "stdlib",
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Verify a token store and show what it holds."""
    from scaling.tasks.corpus.prepare import info as run_info

    document = run_info(folder)
    if as_json:
        return print_json(document)
    if as_csv:
        return print_pairs(document)
    return _show(document, folder)


def _show(document: dict[str, Any], where: object) -> None:
    from rich.markup import escape

    from scaling.cli.tables import table

    made = table(escape(str(where)), "field", "value", numbers=False)
    for key, value in document.items():
        for name, part in value.items() if isinstance(value, dict) else [("", value)]:
            made.add_row(f"{key} {name}".strip(), escape(_line(part)))
    console().print(made)


def _line(value: Any) -> str:
    """A value on one line; a long list by its length and its first entries."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return f"{len(value)}" if isinstance(value, list) else str(value)
