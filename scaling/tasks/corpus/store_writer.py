"""Writes a token store under another name, synced and renamed: it is complete or absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scaling.errors import ScalingError
from scaling.files import check_local, disk_error, sync
from scaling.tasks.corpus.token_store import (
    MANIFEST,
    SCHEMA,
    SPLITS,
    TOKENIZER,
    Chunk,
    Manifest,
    Source,
    Split,
    SplitFacts,
    TokenizerFacts,
    check_ids,
    dtype_for,
    open_store,
    splits_digest,
    verify,
)


@dataclass
class _Sink:
    """One split while it is written."""

    handle: BinaryIO
    vocab_size: int
    n_tokens: int = 0
    n_documents: int = 0
    n_bytes: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)

    def add(self, chunk: Chunk) -> None:
        if len(chunk.tokens):
            check_ids(int(chunk.tokens.max()), self.vocab_size, "the tokenizer")
            dtype = np.dtype(dtype_for(self.vocab_size)).newbyteorder("<")
            narrow = np.ascontiguousarray(chunk.tokens, dtype)
            self.sha256.update(narrow.data)
            self.handle.write(narrow.data)
        self.n_tokens += len(chunk.tokens)
        self.n_documents += chunk.n_documents
        self.n_bytes += chunk.n_bytes

    def facts(self) -> SplitFacts:
        return SplitFacts(
            n_tokens=self.n_tokens,
            n_documents=self.n_documents,
            n_bytes=self.n_bytes,
            bytes_per_token=self.n_bytes / self.n_tokens,
            sha256=self.sha256.hexdigest(),
        )


def write_store(
    folder: Path,
    chunks: Iterable[Chunk],
    tokenizer: TokenizerFacts,
    *,
    split_rule: str,
    sources: Sequence[Source],
    excluded: Mapping[str, int] | None = None,
    tokenizer_json: str | None = None,
    final_facts: Callable[[], Mapping[str, Any]] = dict,
) -> Manifest:
    """Write a store, whole or not at all.

    `sources`, `excluded` and `final_facts()` (other fields of
    the manifest) are read after the last chunk. Writing the same tokens again keeps the
    old store.

    Raises ScalingError for an empty split, for a folder that holds something else, and (74) for
    disk or permissions.
    """
    check_overwritable(folder)
    building = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    new = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        splits = _write_tokens(building, chunks, tokenizer.vocab_size)
        fields = {
            "schema": SCHEMA,
            "tokenizer": tokenizer,
            "dtype": dtype_for(tokenizer.vocab_size),
            "splits": splits,
            "split_rule": split_rule,
            "sources": tuple(sources),
            "excluded": dict(excluded or {}),
            "digest": splits_digest(splits),
        }
        manifest = Manifest.model_validate(fields | dict(final_facts()))
        if tokenizer_json is not None:
            (building / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
        (building / MANIFEST).write_text(
            manifest.model_dump_json(indent=1, by_alias=True) + "\n", encoding="utf-8"
        )
        return _publish(building, folder, manifest)
    except OSError as error:
        raise disk_error(error, folder) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
        for parent in new:  # of an error nothing is left
            with contextlib.suppress(OSError):
                parent.rmdir()


def check_overwritable(folder: Path) -> None:
    """Refuse to write over anything but a token store or an empty folder."""
    check_local(folder)
    remedy = "name another folder with --out, or move this one away"
    if folder.exists() and not folder.is_dir():
        raise ScalingError("is a file, not a folder", where=folder, remedy=remedy)
    if folder.is_dir() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise ScalingError("holds something else than a token store", where=folder, remedy=remedy)


def _write_tokens(
    building: Path, chunks: Iterable[Chunk], vocab_size: int
) -> dict[Split, SplitFacts]:
    with contextlib.ExitStack() as stack:
        sinks = {
            name: _Sink(stack.enter_context(open(building / f"{name}.bin", "wb")), vocab_size)
            for name in SPLITS
        }
        for chunk in chunks:
            sinks[chunk.split].add(chunk)
    if not any(sink.n_bytes for sink in sinks.values()):
        raise ScalingError(
            "the corpus is empty: no document holds text", remedy="name files with text in them"
        )
    for name, sink in sinks.items():
        if sink.n_tokens == 0 or sink.n_documents == 0:
            other = "raise" if name == "val" else "lower"
            raise ScalingError(
                f"no document fell into the {name} split",
                remedy=f"{other} --val-frac, or give more documents",
            )
    return {name: sink.facts() for name, sink in sinks.items()}


def _publish(building: Path, folder: Path, manifest: Manifest) -> Manifest:
    """Sync the finished files and rename their folder.

    Where an intact store of the same tokens stands already, it stays.
    """
    for path in (*building.iterdir(), building):
        sync(path)
    try:
        os.rename(building, folder)
        sync(folder.parent)
        return manifest
    except OSError:
        if not (folder / MANIFEST).is_file():
            raise
    standing = open_store(folder)
    if standing.manifest.digest != manifest.digest:
        raise ScalingError(
            f"holds another token store (digest {standing.manifest.digest[:12]}, "
            f"new {manifest.digest[:12]})",
            where=folder,
            remedy="name another folder with --out, or delete this one",
        )
    verify(standing)
    return standing.manifest
