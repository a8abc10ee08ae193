"""The corpus that every machine has.

The sources of the running interpreter's standard library, as bytes.

Left out, so that the text is ordinary and the splits share nothing: tests, installed packages, the
tables of `encodings` (hundreds of nearly equal files) and what the interpreter's build generated.
The corpus differs between versions of Python, so its digest stands in every row.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sysconfig
from pathlib import Path

import numpy as np

from scaling.errors import DISK, STOPPED, ScalingError
from scaling.store.cache import cache_folder
from scaling.tasks.corpus.token_store import (
    MANIFEST,
    SCHEMA,
    Chunk,
    Source,
    write_store,
)
from scaling.tasks.corpus.tokenizer import BYTES

VAL_FRAC = 0.1
LARGEST_FILE = 0.01  # of the corpus: no one file may decide the held-out loss
SPLIT_RULE = (
    "by file: the first tenth of the bytes in the order of the SHA-256 of the path; "
    "a file above 1 % of the corpus trains"
)
_LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "encodings"}
_LEFT_OUT |= {"test", "tests", "idle_test"}
_LOCK_SECONDS = 300


def stdlib_store() -> Path:
    """The folder of the store, built on first use (a second or so).

    Two processes at once build it once.

    Raises ScalingError where the interpreter has no sources, or the cache cannot be used.
    """
    from filelock import FileLock, Timeout

    files = source_files(Path(sysconfig.get_paths()["stdlib"]))
    folder = cache_folder("stores") / f"stdlib-{_fingerprint(files)}"
    if (folder / MANIFEST).is_file():
        return folder
    try:
        with FileLock(folder.with_name("stdlib.lock"), timeout=_LOCK_SECONDS):
            if not (folder / MANIFEST).is_file():
                for left_over in folder.parent.glob(".stdlib-*.tmp"):  # of a killed process
                    shutil.rmtree(left_over)
                _build(files, folder)
    except Timeout:
        raise ScalingError(
            f"another process has been writing the corpus for {_LOCK_SECONDS} s",
            where=folder,
            remedy="stop it, then run again",
            exit_code=STOPPED,
        ) from None
    except OSError as error:
        what = f"cannot write the corpus: {error.strerror}"
        remedy = "set SCALING_CACHE to a folder of your own"
        raise ScalingError(what, where=folder, remedy=remedy, exit_code=DISK) from error
    return folder


def source_files(root: Path) -> dict[str, Path]:
    """The sources that make the corpus: relative path with forward slashes -> file, sorted."""
    files: dict[str, Path] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [
            name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")
        ]
        for name in names:
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                path = Path(folder, name)
                files |= {path.relative_to(root).as_posix(): path} if path.is_file() else {}
    if not files:
        raise ScalingError(
            "this interpreter has no standard library sources",
            where=root,
            remedy="prepare a corpus of your own: scaling data prepare FILES...",
        )
    return dict(sorted(files.items()))


def held_out(sizes: dict[str, int]) -> set[str]:
    """The paths of the val split: `SPLIT_RULE`."""
    total, taken = sum(sizes.values()), 0
    chosen: set[str] = set()
    for name in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if taken >= VAL_FRAC * total:
            break
        if 0 < sizes[name] <= LARGEST_FILE * total:
            chosen.add(name)
            taken += sizes[name]
    return chosen


def _fingerprint(files: dict[str, Path]) -> str:
    """Changes whenever the corpus may have changed; reads no file."""
    parts = [f"{SCHEMA} {SPLIT_RULE} {sorted(_LEFT_OUT)} {platform.python_version()}"]
    for name, path in files.items():
        status = path.stat()
        parts.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _build(files: dict[str, Path], folder: Path) -> None:
    try:
        texts = {name: path.read_bytes() for name, path in files.items()}
    except OSError as error:
        what = f"cannot read a source of the standard library: {error.strerror}"
        raise ScalingError(
            what, where=error.filename, remedy="fix the permissions", exit_code=DISK
        ) from error
    texts = {name: text for name, text in texts.items() if text}
    sizes = {name: len(text) for name, text in texts.items()}
    val = held_out(sizes)
    chunks = (
        Chunk(
            "val" if name in val else "train",
            np.frombuffer(text + b"\0", np.uint8),
            n_bytes=len(text) + 1,
            n_documents=1,
        )
        for name, text in texts.items()
    )
    origin = f"standard library of {platform.python_implementation()} {platform.python_version()}"
    facts = {
        "tokenizer": BYTES,
        "split_rule": SPLIT_RULE,
        "sources": [Source(path=origin, n_files=len(texts), n_bytes=sum(sizes.values()))],
        "excluded": {"empty documents": len(files) - len(texts)},
    }
    write_store(folder, chunks, BYTES.vocab_size, lambda: facts)
