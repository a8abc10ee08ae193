import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scaling.tasks.corpus.token_store import (
    Chunk,
    Source,
    write_store,
)
from scaling.tasks.corpus.tokenizer import BYTES


@pytest.fixture
def private_cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SCALING_CACHE", str(folder))
    return folder


@pytest.fixture
def make_store(tmp_path) -> Callable[..., Path]:
    """Write a store of pseudo-random bytes; returns its folder."""

    def make(n_train: int = 5000, n_val: int = 1000, name: str = "store", facts=BYTES) -> Path:
        def tokens(n: int, key: str) -> np.ndarray:
            seed = int(hashlib.sha256(f"{name} {key}".encode()).hexdigest()[:8], 16)
            return np.random.default_rng(seed).integers(0, facts.vocab_size, n)

        chunks = [
            Chunk("train", tokens(n_train, "train"), n_train, 3),
            Chunk("val", tokens(n_val, "val"), n_val, 1),
        ]
        source = Source(path="test", n_files=4, n_bytes=n_train + n_val)
        described = {"tokenizer": facts, "split_rule": "test", "sources": [source]}
        write_store(tmp_path / name, chunks, facts.vocab_size, lambda: described)
        return tmp_path / name

    return make
