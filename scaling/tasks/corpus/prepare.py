"""From a person's own files to a token store: `scaling data prepare`, and `scaling data info`.

A corpus is never loaded whole. Documents go to train or val by a hash of what identifies them:
the path of a text file below the source that was named, the text of a row. With fewer than `SMALL_CORPUS_DOCUMENTS`
documents every document is cut instead: its last part, from the beginning of a line on, is held
out.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scaling.errors import ScalingError
from scaling.tasks.corpus import hugging_face
from scaling.tasks.corpus.documents import Document, blocks, documents, list_files, sizes
from scaling.tasks.corpus.token_store import (
    Chunk,
    Source,
    Split,
    check_overwritable,
    verify,
    write_store,
)
from scaling.tasks.corpus.tokenizer import (
    Encoder,
    byte_encoder,
    load_tokenizer,
    round_trip_checked,
    train_bpe,
)
from scaling.tasks.text import open_corpus

SMALL_CORPUS_DOCUMENTS = 100
_MAX_LINE = 2**16
_ENCODED_BYTES = 2**20


@dataclass(frozen=True)
class _Piece:
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
) -> dict[str, Any]:
    """Write the token store `out` from files and folders, then from data sets of Hugging Face
    ("hf:..."); returns its manifest.

    `tokenizer` is "bytes", "bpe" (trained on the train split, at most `vocab_size` tokens), the
    path of a tokenizer.json, or "hf:" and a name or folder. The first `max_documents` are taken,
    empty ones counted. Raises ScalingError that names file and place; nothing is left behind then.
    """
    if not 0.0 < val_frac < 1.0:
        raise ScalingError(
            f"--val-frac {val_frac} is not between 0 and 1", remedy="0.1 holds out a tenth"
        )
    check_overwritable(out)
    texts = _Documents(sources, out, text_column, streaming, max_documents)
    is_small = (
        len(list(itertools.islice(texts.documents(), SMALL_CORPUS_DOCUMENTS)))
        < SMALL_CORPUS_DOCUMENTS
    )
    excluded: Counter[str] = Counter()

    def pieces() -> Iterator[_Piece]:
        excluded.clear()
        return _pieces(texts.documents(), val_frac, is_small, excluded)

    encoder = _encoder(tokenizer, vocab_size, pieces)
    manifest = write_store(
        out,
        _chunks(pieces(), encoder),
        encoder.facts,
        split_rule=f"the last {val_frac:g} of each document"
        if is_small
        else f"{val_frac:g} of the documents, by SHA-256",
        sources=texts.sources,
        excluded=excluded,
        tokenizer_json=encoder.json,
    )
    return manifest.model_dump(mode="json", by_alias=True)


class _Documents:
    """The documents of files and data sets, pass after pass the same.

    Data sets come after files, each kind in the order it was named.
    """

    def __init__(
        self,
        sources: Sequence[Path | str],
        out: Path,
        column: str,
        streaming: bool,
        most: int | None,
    ) -> None:
        named = [
            hugging_face.parse(str(source))
            for source in sources
            if str(source).startswith(hugging_face.PREFIX)
        ]
        self._paths = [
            Path(source) for source in sources if not str(source).startswith(hugging_face.PREFIX)
        ]
        self._files = list_files(self._paths, out) if self._paths or not named else []
        self._corpora = [
            hugging_face.open_corpus(one, column, streaming=streaming) for one in named
        ]
        self._column, self._most = column, most
        self.sources: list[Source] = []

    def documents(self) -> Iterator[Document]:
        """All of them, or the first; at the end of a pass `sources` says what it has read."""
        everything = itertools.chain(
            documents(self._files, self._column), *(corpus.documents() for corpus in self._corpora)
        )
        yield from itertools.islice(everything, self._most)
        self.sources[:] = [
            *sizes(self._paths, self._files),
            *(corpus.source for corpus in self._corpora),
        ]


def info(corpus: str | Path) -> dict[str, Any]:
    """The manifest of a store ("stdlib" or a folder) with its `folder`, after reading and verifying
    every token.
    """
    store = open_corpus(str(corpus))
    verify(store)
    return {"folder": str(store.folder)} | store.manifest.model_dump(mode="json", by_alias=True)


def _pieces(
    corpus_documents: Iterator[Document], val_frac: float, is_small: bool, excluded: Counter[str]
) -> Iterator[_Piece]:
    for document in corpus_documents:
        if not document.n_bytes:
            excluded["empty documents"] += 1
            continue
        with document.open() as handle:
            for split, start, stop in _parts(document, handle, val_frac, is_small):
                for text, last in _with_last(blocks(handle, start, stop, document.where)):
                    yield _Piece(split, text, last)


def _parts(
    document: Document, handle: BinaryIO, val_frac: float, is_small: bool
) -> list[tuple[Split, int, int]]:
    """The byte ranges of a document in each split."""
    if not is_small:
        position = int.from_bytes(hashlib.sha256(document.identity).digest()[:8]) / 2**64
        return [("val" if position < val_frac else "train", 0, document.n_bytes)]
    cut = _cut(handle, int(document.n_bytes * (1.0 - val_frac)), document.n_bytes)
    parts: list[tuple[Split, int, int]] = [("train", 0, cut), ("val", cut, document.n_bytes)]
    return [(split, start, stop) for split, start, stop in parts if start < stop]


def _cut(handle: BinaryIO, wanted: int, n_bytes: int) -> int:
    """The first beginning of a line after `wanted`.

    Inside a very long or last line, of a character.
    """
    handle.seek(wanted)
    line = handle.readline(_MAX_LINE)
    if line.endswith(b"\n") and wanted + len(line) < n_bytes:
        return wanted + len(line)
    continuation = itertools.takewhile(lambda byte: byte & 0xC0 == 0x80, line[:4])
    return wanted + len(list(continuation))


def _with_last(items: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each item, and whether it is the last."""
    current = next(items, None)
    while current is not None:
        following = next(items, None)
        yield current, following is None
        current = following


def _encoder(tokenizer: str, vocab_size: int, pieces: Callable[[], Iterator[_Piece]]) -> Encoder:
    if tokenizer == "bytes":
        return byte_encoder()
    train = (piece.text.decode() for piece in pieces() if piece.split == "train")
    path, name = (
        hugging_face.tokenizer_file(tokenizer)
        if tokenizer.startswith(hugging_face.PREFIX)
        else (Path(tokenizer), None)
    )
    encoder = train_bpe(train, vocab_size) if tokenizer == "bpe" else load_tokenizer(path, name)
    return round_trip_checked(encoder, next((piece.text for piece in pieces()), b""))


def _chunks(pieces: Iterator[_Piece], encoder: Encoder) -> Iterator[Chunk]:
    """The tokens of the pieces, encoded about a MiB at a time."""
    batch: list[_Piece] = []
    waiting = 0
    for piece in pieces:
        batch.append(piece)
        waiting += len(piece.text)
        if waiting >= _ENCODED_BYTES:
            yield from _encoded(batch, encoder)
            batch, waiting = [], 0
    yield from _encoded(batch, encoder)


def _encoded(batch: list[_Piece], encoder: Encoder) -> Iterator[Chunk]:
    """A chunk a piece.

    The last piece of a document carries the separator, where the tokenizer has one.
    """
    end = [] if encoder.facts.separator is None else [encoder.facts.separator]
    for piece, tokens in zip(batch, encoder.encode([piece.text for piece in batch]), strict=True):
        closing = end if piece.ends else []
        yield Chunk(
            piece.split,
            np.append(tokens, np.array(closing, tokens.dtype)),
            len(piece.text) + len(closing),
            int(piece.ends),
        )
