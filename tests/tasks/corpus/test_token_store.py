import json
from pathlib import Path

import numpy as np
import pytest

from scaling.errors import DISK, ScalingError
from scaling.tasks.corpus.token_store import (
    Chunk,
    Source,
    TokenizerFacts,
    dtype_for,
    open_store,
    verify,
    write_store,
)
from scaling.tasks.corpus.tokenizer import BYTES

SOURCES = [Source(path="x", n_files=1, n_bytes=4)]


def write(folder, chunks, facts=BYTES):
    described = {"tokenizer": facts, "split_rule": "test", "sources": SOURCES}
    return write_store(folder, chunks, facts.vocab_size, lambda: described)


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")],
)
def test_tokens_are_stored_in_the_narrowest_type(tmp_path, vocab_size, dtype):
    facts = TokenizerFacts(kind="file", name="t", vocab_size=vocab_size)
    tokens = np.array([0, 1, vocab_size - 1, 0, 1])
    write(
        tmp_path / "s",
        [
            Chunk("train", tokens[:2], 2, 0),
            Chunk("val", tokens, 10, 2),
            Chunk("train", tokens[2:], 3, 1),
        ],
        facts,
    )
    store = open_store(tmp_path / "s")
    verify(store)
    assert dtype_for(vocab_size) == store.manifest.dtype == dtype
    assert store.tokens["train"].tolist() == store.tokens["val"].tolist() == tokens.tolist()
    assert store.manifest.splits["val"].bytes_per_token == 2.0
    assert store.manifest.splits["train"].n_documents == 1
    with pytest.raises(ValueError, match="read-only"):
        store.tokens["train"][0] = 1


def test_the_digest_depends_on_the_tokens_and_their_split_alone(make_store):
    one, same, other = (
        open_store(make_store(**how)).manifest.digest for how in ({}, {}, {"name": "other"})
    )
    assert one == same != other


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_nothing(tmp_path, failure):
    def chunks():
        yield Chunk("train", np.zeros(1000, np.uint8), 1000, 1)
        raise failure

    expected = ScalingError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write(tmp_path / "s", chunks())
    assert list(tmp_path.iterdir()) == []
    if isinstance(failure, OSError):
        assert caught.value.exit_code == DISK


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("manifest.json", lambda data: b"", "not the manifest"),
        (
            "manifest.json",
            lambda data: data.replace(b'"schema": 1', b'"schema": 2'),
            "store schema 2, this program reads 1",
        ),
        (
            "manifest.json",
            lambda data: data.replace(b'"digest": "', b'"digest": "f')[:-5] + b'"}',
            "not the manifest",
        ),
        ("manifest.json", lambda data: b'{"schema": 1}', "tokenizer is missing"),
        (
            "manifest.json",
            lambda data: data.replace(b'"vocab_size": 256', b'"vocab_size": 70000'),
            "store: dtype uint8 is not that of a vocabulary of 70000",
        ),
        ("train.bin", lambda data: data[:-1], "has 4999 bytes where the manifest says 5000"),
        ("val.bin", None, "the file is missing"),
    ],
)
def test_a_corrupt_store_is_rejected_by_name(make_store, name, damage, message):
    path = make_store() / name
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises(ScalingError, match=message) as caught:
        open_store(path.parent)
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_verify_detects_a_flipped_bit(make_store):
    path = make_store() / "val.bin"
    data = bytearray(path.read_bytes())
    data[77] ^= 4
    path.write_bytes(data)
    with pytest.raises(ScalingError, match="SHA-256") as caught:
        verify(open_store(path.parent))
    assert caught.value.where == str(path)


def test_ids_outside_the_vocabulary_are_never_written(tmp_path):
    facts = TokenizerFacts(kind="file", name="t", vocab_size=300)
    with pytest.raises(ScalingError, match="token id 300 in a vocabulary of 300"):
        write(tmp_path / "s", [Chunk("train", np.array([1, 300]), 2, 1)], facts)
    assert list(tmp_path.iterdir()) == []


def test_rewriting_keeps_an_equal_store_and_rejects_another(make_store):
    folder = make_store()
    before = (folder / "train.bin").stat().st_ino
    make_store()
    assert (folder / "train.bin").stat().st_ino == before
    with pytest.raises(ScalingError, match="another token store"):
        make_store(n_train=6000)
    (folder / "manifest.json").write_text(json.dumps({}))
    with pytest.raises(ScalingError, match="not the manifest"):
        make_store()


def test_foreign_folders_are_neither_opened_nor_overwritten(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("keep me")
    with pytest.raises(ScalingError, match="is not a token store"):
        open_store(tmp_path / "notes")
    with pytest.raises(ScalingError, match="something else"):
        write(tmp_path / "notes", [])
    with pytest.raises(ScalingError, match="is a file"):
        write(tmp_path / "notes" / "a.txt", [])
    with pytest.raises(ScalingError, match="no such token store"):
        open_store(tmp_path / "absent")
    assert (tmp_path / "notes" / "a.txt").read_text() == "keep me"


@pytest.mark.parametrize("named", [".", "../here"])
def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch, named):
    """An empty one could be, and the user's shell would stand in a folder that is gone."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ScalingError, match="folder that you are in"):
        write(Path(named), [])
    assert list(tmp_path.iterdir()) == [tmp_path / "here"]


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "the corpus is empty"),
        ([Chunk("train", np.ones(9, np.uint8), 9, 1)], "no document fell into the val split"),
        ([Chunk("val", np.ones(9, np.uint8), 9, 1)], "no document fell into the train split"),
    ],
)
def test_both_splits_need_text(tmp_path, chunks, message):
    with pytest.raises(ScalingError, match=message):
        write(tmp_path / "s", chunks)
    assert list(tmp_path.iterdir()) == []
