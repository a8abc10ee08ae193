"""The commands `data prepare` and `data info`."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from scaling.cli.app import add_command
from scaling.cli.options import GLOB
from scaling.cli.output import Output, argument, echo_err, facts, flag, option

group = typer.Typer(
    name="data",
    no_args_is_help=True,
    help="Prepare a token store from text, jsonl, parquet or Hugging Face data, and inspect one.",
)


def prepare(
    source: list[str] = argument(
        "SOURCE...",
        "Text, .jsonl or .parquet files or folders, or Hugging Face data: "
        "hf:OWNER/NAME/CONFIG:SPLIT (CONFIG and SPLIT optional), hf:FOLDER.",
    ),
    out: Path = option("The token store to write.", metavar="DIR", default=...),
    tokenizer: str = option(
        "bytes, bpe (trained here), the path of a tokenizer.json, hf:NAME or hf:FOLDER.",
        default="bytes",
    ),
    vocab_size: int = option("Vocabulary of a BPE trained here.", min=257, max=2**20, default=4096),
    text_column: str = option(
        "Field with the text in jsonl, parquet and data sets.",
        names="--text-column --text-field",
        default="text",
    ),
    val_frac: float = option("Fraction of documents in the validation split.", default=0.1),
    streaming: bool = flag("Stream a data set from the Hub instead of downloading it."),
    max_documents: int | None = option("Use only the first so many documents.", min=1),
    separator: str | None = option(
        "The token of a tokenizer.json that ends each document.", metavar="TOKEN"
    ),
    patterns: list[str] | None = GLOB,
    *,
    output: Output,
) -> None:
    """Write a memory-mapped token store, split by document into training and validation.

    Example: scaling data prepare notes/*.txt --out data/notes --tokenizer bpe --vocab-size 4096
    """
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
        patterns=patterns or (),
    )
    for warning in document.get("warnings", []):
        echo_err(f"warning: {warning['message']}")
    usage = f'use it in a sweep file: [base.task] kind = "text", corpus = "{out}"'
    output.emit(
        document,
        lambda: [facts(str(out), document), usage],
        next_command=f"scaling init sweep.toml --minutes 10 --data {shlex.quote(str(out))}",
    )


def info(
    folder: str = argument("[DIR]", 'A token store, or "stdlib".', default="stdlib"),
    *,
    output: Output,
) -> None:
    """Verify a token store and show its contents.

    Example: scaling data info data/notes
    """
    from scaling.tasks.corpus.prepare import info as run_info

    document = run_info(folder)
    output.emit(
        document,
        lambda: [facts(folder, document)],
        next_command=f"scaling init sweep.toml --minutes 10 --data {shlex.quote(folder)}",
    )


for function in (prepare, info):
    add_command(group, function)
