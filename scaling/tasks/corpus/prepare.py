"""From a person's own files to a token store: `scaling data prepare`, and `scaling data info`.

A document is loaded whole, a corpus never is. Documents go to train or val by a hash of their text,
so that equal texts stand in one split. With fewer than `SMALL_CORPUS_DOCUMENTS` documents every one
is cut instead: its last part, from the beginning of a line on, is the validation split.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scaling.errors import ScalingError
from scaling.tasks.corpus import hugging_face
from scaling.tasks.corpus.documents import (
    Document,
    FileList,
    blocks,
    describe_skipped,
    describe_sources,
    documents,
    has_rows,
    list_files,
)
from scaling.tasks.corpus.token_store import (
    Chunk,
    Source,
    Split,
    TokenizerFacts,
    check_overwritable,
    verify,
    write_store,
)
from scaling.tasks.corpus.tokenizer import (
    Encoder,
    byte_encoder,
    is_lossless,
    load_tokenizer,
    train_bpe,
)
from scaling.tasks.text import open_corpus
from scaling.warning import ResultWarning, WarningCode, warn

SMALL_CORPUS_DOCUMENTS = 100
_MAX_LINE = 2**16
_MAX_NEAR_BYTES = 2**20  # of a document are compared with others up to case, digits and signs
_ENCODED_BYTES = 2**20


class _Piece(NamedTuple):
    """A part of a document, at most a block; `ends` tells the last one of a document in a split."""

    split: Split
    text: bytes
    ends: bool


def prepare(
    sources: Sequence[Path | str],
    out: Path,
    tokenizer: str = "bytes",
    vocab_size: int = 4096,
    text_column: str = "text",
    val_frac: float = 0.1,
    streaming: bool = False,
    max_documents: int | None = None,
    separator: str | None = None,
    patterns: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the token store `out` from files and folders, then from data sets of Hugging Face
    ("hf:..."); returns its manifest.

    `tokenizer` is "bytes", "bpe" (trained on the train split, at most `vocab_size` tokens), the
    path of a tokenizer.json, or "hf:" and a name or folder; `separator` is the token that ends a
    document, where it is not a well-known one. The first `max_documents` are taken, empty ones
    counted; of folders the files that match one of `patterns`. Raises ScalingError that names file
    and place; nothing is left behind then.
    """
    if not 0.0 < val_frac < 1.0:
        raise ScalingError(
            f"--val-frac {val_frac} is not between 0 and 1", remedy="0.1 holds out a tenth"
        )
    check_overwritable(out)
    reader = _Reader(sources, out, text_column, streaming, max_documents, patterns)
    first = itertools.islice(reader.documents(), SMALL_CORPUS_DOCUMENTS)
    is_small = sum(1 for _ in first) < SMALL_CORPUS_DOCUMENTS
    pieces = functools.partial(_pieces, reader, val_frac, is_small)
    train = (piece.text.decode() for piece in pieces() if piece.split == "train")
    encoder = _encoder(tokenizer, vocab_size, train, separator)
    duplicates, losses = _Duplicates(), list[bool]()

    def facts() -> dict[str, Any]:
        tokenizer_facts = encoder.facts.model_copy(update={"lossless": not any(losses)})
        counts = duplicates.counts()
        excluded = {
            "files that are no text": len(reader.listed.skipped),
            "files that match no pattern": reader.listed.unmatched,
            "empty documents": reader.n_empty,
        }
        by_hash = f"{val_frac:g} of the documents, by SHA-256"
        return {
            "tokenizer": tokenizer_facts,
            "split_rule": f"the last {val_frac:g} of each document" if is_small else by_hash,
            "sources": reader.sources(),
            "excluded": {reason: count for reason, count in excluded.items() if count},
            "duplicates": counts,
            "warnings": tuple(_warnings(tokenizer_facts, counts, reader.listed.skipped)),
        }

    chunks = _chunks(pieces(duplicates), encoder, losses)
    manifest = write_store(out, chunks, encoder.facts.vocab_size, facts, encoder.json)
    return manifest.model_dump(mode="json", by_alias=True)


class _Reader:
    """The documents of files and data sets, pass after pass the same.

    Data sets come after files, each kind in the order it was named. At the end of a pass `sources`
    says what it has read, and `n_empty` how many documents were empty.
    """

    def __init__(
        self,
        sources: Sequence[Path | str],
        out: Path,
        column: str,
        streaming: bool,
        most: int | None,
        patterns: Sequence[str],
    ) -> None:
        named = [str(source) for source in sources if str(source).startswith(hugging_face.PREFIX)]
        paths = [Path(source) for source in sources if str(source) not in named]
        refs = [hugging_face.parse(text) for text in named]
        self.listed = FileList({}, {})
        if paths or not refs:
            self.listed = list_files(paths, out, patterns)
        self._corpora = [hugging_face.open_corpus(ref, column, streaming=streaming) for ref in refs]
        self._paths = list(itertools.chain.from_iterable(self.listed.files.values()))
        if column != "text" and not refs and not any(map(has_rows, self._paths)):
            raise ScalingError(
                f"--text-column {column} is for rows, and no file has rows",
                where=paths[0],
                remedy="leave it out, or name .jsonl or .parquet files",
            )
        self._column, self._most, self.n_empty = column, most, 0

    def documents(self) -> Iterator[Document]:
        """Those that are not empty, of all or of the first."""
        self.n_empty = 0
        passes = [documents(self._paths, self._column)]
        passes += [corpus.documents() for corpus in self._corpora]
        for document in itertools.islice(itertools.chain(*passes), self._most):
            if document.text:
                yield document
            else:
                self.n_empty += 1

    def sources(self) -> list[Source]:
        """What the last pass has read."""
        of_data_sets = [corpus.source for corpus in self._corpora]
        return [*describe_sources(self.listed.files), *of_data_sets]


class _Duplicates:
    """Counts repeated documents: equal, or equal up to case, digits, spaces and signs."""

    def __init__(self) -> None:
        self._exact, self._near = array("Q"), array("Q")

    def add(self, document: Document) -> None:
        """Count a document."""
        head = document.text[:_MAX_NEAR_BYTES].decode(errors="replace")
        letters = "".join(filter(str.isalpha, head.casefold()))
        near = hashlib.sha256(f"{letters or head} {len(document.text) > len(head)}".encode())
        self._exact.append(int.from_bytes(document.sha256()[:8]))
        self._near.append(int.from_bytes(near.digest()[:8]))

    def counts(self) -> dict[str, int]:
        """Repeated documents; `near` does not count the exact ones."""
        exact, near = (
            len(hashes) - len(np.unique(np.asarray(hashes))) for hashes in (self._exact, self._near)
        )
        counts = {"exact": exact, "near": max(0, near - exact)}
        return {kind: count for kind, count in counts.items() if count}


def _warnings(
    tokenizer: TokenizerFacts, duplicates: Mapping[str, int], skipped: Mapping[Path, str]
) -> Iterator[ResultWarning]:
    if skipped:
        yield warn(
            WarningCode.SKIPPED_FILES,
            f"left out {len(skipped)} files that are no text: {describe_skipped(skipped)}",
            files=len(skipped),
            paths=[str(path) for path in skipped][:1000],
        )
    if tokenizer.separator is None:
        yield warn(
            WarningCode.NO_DOCUMENT_SEPARATOR,
            "the tokenizer has no known end of document, so documents run together; "
            "name one of its tokens with --separator",
            tokenizer=tokenizer.name,
        )
    if not tokenizer.lossless:
        yield warn(
            WarningCode.LOSSY_TOKENIZER,
            "the tokenizer does not give back every text, so bits per byte are not reported",
            tokenizer=tokenizer.name,
        )
    if duplicates:
        yield warn(
            WarningCode.DUPLICATE_DOCUMENTS,
            f"repeated documents, all kept: {duplicates.get('exact', 0)} exact (always in one "
            f"split), {duplicates.get('near', 0)} nearly equal (perhaps in both)",
            **duplicates,
        )


def info(corpus: str | Path) -> dict[str, Any]:
    """The manifest of a store ("stdlib" or a folder) with its `folder`, after reading and verifying
    every token.
    """
    store = open_corpus(str(corpus))
    verify(store)
    return {"folder": str(store.folder)} | store.manifest.model_dump(mode="json", by_alias=True)


def _pieces(
    reader: _Reader, val_frac: float, is_small: bool, duplicates: _Duplicates | None = None
) -> Iterator[_Piece]:
    for document in reader.documents():
        text = document.text
        if duplicates is not None:
            duplicates.add(document)
        if is_small:
            cut = _line_start(text, int(len(text) * (1.0 - val_frac)))
        else:
            is_val = int.from_bytes(document.sha256()[:8]) / 2**64 < val_frac
            cut = 0 if is_val else len(text)
        parts: tuple[tuple[Split, int, int], ...] = (("train", 0, cut), ("val", cut, len(text)))
        for split, start, stop in parts:
            for block in blocks(text, start, stop):
                start += len(block)
                yield _Piece(split, block, start == stop)


def _line_start(text: bytes, position: int) -> int:
    """The first beginning of a line after a position, or in a very long or last line of a
    character from there on.
    """
    end = text.find(b"\n", position, position + _MAX_LINE) + 1
    if 0 < end < len(text):
        return end
    while position < len(text) and text[position] & 0xC0 == 0x80:
        position += 1
    return position


def _encoder(
    tokenizer: str, vocab_size: int, train: Iterator[str], separator: str | None
) -> Encoder:
    if separator is not None and tokenizer in ("bytes", "bpe"):
        raise ScalingError(
            f"--separator is for a tokenizer.json; {tokenizer} has its own",
            remedy="leave out --separator",
        )
    if tokenizer == "bytes":
        return byte_encoder()
    if tokenizer == "bpe":
        return train_bpe(train, vocab_size)
    path, name = Path(tokenizer), None
    if tokenizer.startswith(hugging_face.PREFIX):
        path, name = hugging_face.tokenizer_file(tokenizer)
    return load_tokenizer(path, name, separator)


def _chunks(pieces: Iterator[_Piece], encoder: Encoder, losses: list[bool]) -> Iterator[Chunk]:
    """The tokens of the pieces, encoded about a MiB at a time; `losses` tells the lossy batches.

    The last piece of a document carries the separator, where the tokenizer has one.
    """
    separator = encoder.facts.separator
    while first := next(pieces, None):
        batch, waiting = [first], len(first.text)
        while waiting < _ENCODED_BYTES and (piece := next(pieces, None)):
            batch.append(piece)
            waiting += len(piece.text)
        texts = [piece.text for piece in batch]
        encoded = encoder.encode(texts)
        losses.append(not is_lossless(encoder, texts, encoded))
        for piece, tokens in zip(batch, encoded, strict=True):
            end = [separator] if piece.ends and separator is not None else []
            tokens = np.append(tokens, np.array(end, tokens.dtype))
            yield Chunk(piece.split, tokens, len(piece.text) + len(end), int(piece.ends))
