import json
import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaling.config import TextTask
from scaling.errors import ScalingError
from scaling.tasks import open_task
from scaling.tasks.corpus import documents as documents_module
from scaling.tasks.corpus.documents import blocks, whole_characters
from scaling.tasks.corpus.prepare import info, prepare
from scaling.tasks.corpus.token_store import open_store

WORDS = [
    "scaling",
    "laws",
    "tell",
    "how",
    "the",
    "loss",
    "falls",
    "with",
    "size",
    "and",
    "with",
    "data",
    "café",
    "中文",
]


def text(seed, lines=20):
    rng = np.random.default_rng(seed)
    return "".join(" ".join(rng.choice(WORDS, 8)) + "\n" for _ in range(lines))


def texts_of(folder):
    """The documents of each split of a store of bytes."""
    return {
        split: [part.decode() for part in tokens.tobytes().split(b"\0")[:-1]]
        for split, tokens in open_store(folder).tokens.items()
    }


@pytest.fixture
def corpus(tmp_path):
    """A folder with 150 documents in many files."""
    folder = tmp_path / "corpus"
    (folder / "deep" / "er").mkdir(parents=True)
    for i in range(150):
        (folder / ("deep/er" if i % 3 else ".") / f"{i}.txt").write_text(text(i), encoding="utf-8")
    (folder / "empty.md").touch()
    (folder / ".hidden").write_bytes(b"\xff")
    return folder


def test_a_folder_of_texts(corpus, tmp_path):
    manifest = prepare([corpus], tmp_path / "out")
    found = texts_of(tmp_path / "out")
    assert sorted(found["train"] + found["val"]) == sorted(text(i) for i in range(150))
    assert 5 <= len(found["val"]) <= 30
    assert manifest["excluded"] == {"empty documents": 1}
    assert manifest["sources"] == [
        {
            "path": str(corpus),
            "n_files": 151,
            "n_bytes": sum(len(text(i).encode()) for i in range(150)),
            "kinds": {"text": 151},
        }
    ]
    assert manifest["splits"]["train"]["bytes_per_token"] == 1.0
    assert info(tmp_path / "out") == {"folder": str(tmp_path / "out"), **manifest}
    assert open_task(TextTask(kind="text", corpus=str(tmp_path / "out"))).vocab_size == 256
    moved = corpus.rename(tmp_path / "moved")
    assert prepare([moved], tmp_path / "again")["digest"] == manifest["digest"]
    assert (
        prepare([moved, moved / "3.txt", moved], tmp_path / "again")["digest"] == manifest["digest"]
    )


def test_rows_of_jsonl_and_parquet_split_by_their_text(tmp_path):
    rows = [{"body": text(i), "id": i} for i in range(200)] + [{"body": text(0), "id": -1}]
    (tmp_path / "a.jsonl").write_text(
        "\n\n".join(json.dumps(row) for row in rows), encoding="utf-8"
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=30)
    one = prepare([tmp_path / "a.jsonl"], tmp_path / "one", text_column="body")
    two = prepare([tmp_path / "a.parquet"], tmp_path / "two", text_column="body")
    assert one["digest"] == two["digest"]
    found = texts_of(tmp_path / "one")
    assert len(found["train"] + found["val"]) == 201
    assert not set(found["train"]) & set(found["val"])  # a repeated text stands on one side only


def test_a_single_text_is_cut_at_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(documents_module, "_BLOCK_BYTES", 1000)
    (tmp_path / "book.txt").write_text(text(0, 500), encoding="utf-8")
    manifest = prepare([tmp_path / "book.txt"], tmp_path / "out", val_frac=0.2)
    found = texts_of(tmp_path / "out")
    assert found["train"] + found["val"] == [found["train"][0], found["val"][0]]
    assert found["train"][0] + found["val"][0] == text(0, 500)
    assert found["train"][0].endswith("\n")
    assert 0.19 < len(found["val"][0]) / len(text(0, 500)) < 0.21
    assert manifest["split_rule"] == "the last 0.2 of each document"


@pytest.mark.parametrize("content", ["\u4e2d" * 1000, "a\n" + "\u00e9" * 999, "\U0001f600" * 11])
def test_text_without_lines_is_cut_between_characters(tmp_path, monkeypatch, content):
    monkeypatch.setattr(documents_module, "_BLOCK_BYTES", 100)
    (tmp_path / "long.txt").write_text(content, encoding="utf-8")
    for number, fraction in enumerate((0.1, 0.15, 0.33)):
        prepare([tmp_path / "long.txt"], tmp_path / str(number), val_frac=fraction)
        found = texts_of(tmp_path / str(number))
        assert found["train"][0] + found["val"][0] == content


def test_blocks_end_with_lines_or_characters(monkeypatch):
    monkeypatch.setattr(documents_module, "_BLOCK_BYTES", 10)
    data = "ab\ncdefgh\nij\u00e9\u4e2d\U0001f600\u00e9\u4e2d\U0001f600 tail".encode()
    parts = list(blocks(data, 0, len(data)))
    assert b"".join(parts) == data
    assert parts[0] == b"ab\ncdefgh\n"
    assert [part.decode() for part in parts]
    assert [whole_characters("a\u4e2db".encode(), end) for end in (1, 3, 5)] == [1, 1, 5]


def test_bpe_counts_bytes_as_bytes_do(corpus, tmp_path):
    plain = prepare([corpus], tmp_path / "bytes")
    manifest = prepare([corpus], tmp_path / "bpe", tokenizer="bpe", vocab_size=300)
    assert manifest["tokenizer"]["kind"] == "bpe"
    assert manifest["tokenizer"]["lossless"]
    for split in ("train", "val"):
        assert manifest["splits"][split]["n_bytes"] == plain["splits"][split]["n_bytes"]
        assert manifest["splits"][split]["bytes_per_token"] > 2
    again = prepare(
        [corpus], tmp_path / "loaded", tokenizer=str(tmp_path / "bpe" / "tokenizer.json")
    )
    assert again["digest"] == manifest["digest"]
    assert open_task(TextTask(kind="text", corpus=str(tmp_path / "bpe"))).vocab_size == 300


REFUSED = {
    "latin.txt": (b"caf\xe9 au lait", "not UTF-8 text at byte 3"),
    "wide.txt": ("text".encode("utf-16-le"), "a zero byte at byte 1"),
    "data.npz": (b"PK", "archives, arrays and pickles are not read"),
    "data.pkl": (pickle.dumps("x"), "archives, arrays and pickles are not read"),
    "a.jsonl": (b'{"text": "x"}\n{"txt": "y"}\n', r"line 2: unknown field 'text'"),
    "b.jsonl": (b'{"text": "x"}\n[1]\n', "line 2: not a JSON object"),
    "c.jsonl": (b'{"text": 7}\n', "line 1: the text is of type int"),
    "d.jsonl": (b'{"text": null}\n', "line 1: the text is missing"),
    "e.jsonl": (b'{"text": "\\ud800"}\n', "half a character"),
    "f.jsonl": (b'{"text": "x"}\n\n{"text": "\xff"}\n', "line 3: not UTF-8 text at byte 10"),
    "g.jsonl": (b"[" * 100_000, "line 1: not JSON"),
    "h.parquet": (b"PAR1 and no more", "not a readable Parquet file"),
    "empty.txt": (b"", "the corpus is empty"),
    "tiny.txt": (b"a", "no document fell into the train split"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_files_are_rejected_and_nothing_is_left(tmp_path, name):
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScalingError, match=message) as caught:
        prepare([tmp_path / name], tmp_path / "out")
    assert name in str(caught.value) or "split" in message or "empty" in message
    assert caught.value.remedy
    assert len(str(caught.value).splitlines()) <= 3
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_bad_requests_are_rejected(tmp_path, corpus):
    table = pa.table({"txt": ["a"], "n": [1]})
    pq.write_table(table, tmp_path / "t.parquet")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nothing").mkdir()
    out = tmp_path / "out"
    for sources, options, message in [
        (
            [tmp_path / "t.parquet"],
            {},
            r"unknown column 'text'\n  did you mean txt\? known: n, txt",
        ),
        ([tmp_path / "absent.txt"], {}, "no such file"),
        ([tmp_path / "pipe"], {}, "not a regular file"),
        ([tmp_path / "nothing"], {}, "the corpus is empty"),
        ([], {}, "no files"),
        ([corpus], {"val_frac": 1.5}, "--val-frac 1.5"),
        ([corpus], {"val_frac": 1e-6}, "no document fell into the val split"),
        ([corpus], {"tokenizer": "absent.json"}, "no such tokenizer"),
        ([corpus], {"tokenizer": "bpe", "vocab_size": 10}, "--vocab-size 10"),
    ]:
        with pytest.raises(ScalingError, match=message):
            prepare(sources, out, **options)
        assert not out.exists()


def test_patterns_choose_the_files_of_a_folder_and_the_others_are_counted(tmp_path):
    for name in ("a.md", "deep/b.md", "deep/c.txt", "d.py"):
        path = tmp_path / "notes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}\n" * 200)
    notes = tmp_path / "notes"
    expected = {"*.md": 2, "deep/*": 2, "d.py": 1}
    for number, (pattern, n_files) in enumerate(expected.items()):
        manifest = prepare([notes], tmp_path / str(number), patterns=[pattern])
        assert manifest["sources"][0]["n_files"] == n_files
        assert manifest["excluded"] == {"files that match no pattern": 4 - n_files}
    both = prepare([notes], tmp_path / "both", patterns=["*.md", "*.txt"])
    assert both["sources"][0]["n_files"] == 3
    with pytest.raises(ScalingError, match=r"none of 4 files matches \*\.rst"):
        prepare([notes], tmp_path / "none", patterns=["*.rst"])


def test_a_store_inside_its_own_source_is_left_out(corpus):
    first = prepare([corpus], corpus / "tokens")
    assert prepare([corpus], corpus / "tokens") == first


def test_file_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.txt")
    (tmp_path / name).write_text(text(0), encoding="utf-8")
    assert (
        prepare([tmp_path / name], tmp_path / "out")["sources"][0]["path"]
        == f"{tmp_path}/caf\ufffd.txt"
    )
