"""Data sets and tokenizers of Hugging Face, all of them made here.

Equal texts give equal stores, from any source; no network.
"""

import json
from pathlib import Path

import pytest

from scaling.config import TextTask
from scaling.errors import ScalingError
from scaling.tasks import open_task
from scaling.tasks.corpus import hugging_face
from scaling.tasks.corpus.prepare import info, prepare
from tests.command_line import scaling

pytestmark = pytest.mark.filterwarnings("default")  # the library's own
datasets = pytest.importorskip("datasets")
ROWS = [
    {"text": f"row {i}: the loss falls with size é中\nand with data {i * i}\n", "id": i}
    for i in range(150)
] + [{"text": "", "id": -1}]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The rows as one jsonl file, as a folder of them, as a saved data set, and as one with two
    splits.
    """
    root = tmp_path_factory.mktemp("hub")
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    (root / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (root / "shards").mkdir()
    for number, part in enumerate((lines[:70], lines[70:])):
        (root / "shards" / f"train-{number:05d}.jsonl").write_text(
            "\n".join(part), encoding="utf-8"
        )
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(root / "saved")
    datasets.DatasetDict({"train": whole, "dev": whole.select(range(20))}).save_to_disk(
        root / "split"
    )
    return root


def test_same_texts_from_any_source_give_the_same_store(made, tmp_path):
    plain = prepare([made / "rows.jsonl"], tmp_path / "plain")
    for name in ("shards", "saved", "split"):
        manifest = prepare([f"hf:{made / name}"], tmp_path / name)
        assert manifest["digest"] == plain["digest"]
        assert manifest["splits"] == plain["splits"]
        (source,) = manifest["sources"]
        n_bytes = sum(len(row["text"].encode()) for row in ROWS)
        assert {**source, "revision": None} == {
            "path": f"hf:{made / name}:train",
            "n_files": 0,
            "n_bytes": n_bytes,
            "n_documents": 151,
            "column": "text",
            "revision": None,
        }
        assert source.get("revision", "fingerprint ").startswith("fingerprint ")
        assert info(tmp_path / name)["sources"] == [source]
    assert open_task(TextTask(kind="text", corpus=str(tmp_path / "shards"))).vocab_size == 256


def test_the_first_documents_of_a_split_and_files_before_data_sets(made, tmp_path):
    manifest = prepare(
        [f"hf:{made / 'split'}:dev", made / "rows.jsonl"], tmp_path / "both", max_documents=160
    )
    assert [source["path"] for source in manifest["sources"]] == [
        str(made / "rows.jsonl"),
        f"hf:{made / 'split'}:dev",
    ]
    assert manifest["sources"][1]["n_documents"] == 9
    assert sum(side["n_documents"] for side in manifest["splits"].values()) == 159  # one is empty
    few = prepare([f"hf:{made / 'split'}:dev"], tmp_path / "few")
    assert few["split_rule"] == "the last 0.1 of each document"


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """The Hub's client as HF_HUB_OFFLINE=1 makes it, with a cache of its own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_tokenizers_of_a_folder_and_of_the_hubs_cache(made, tmp_path, offline):
    trained = prepare([f"hf:{made / 'saved'}"], tmp_path / "bpe", tokenizer="bpe", vocab_size=300)
    assert (
        trained["digest"]
        == prepare([made / "rows.jsonl"], tmp_path / "same", tokenizer="bpe", vocab_size=300)[
            "digest"
        ]
    )
    loaded = prepare(
        [f"hf:{made / 'shards'}"], tmp_path / "loaded", tokenizer=f"hf:{tmp_path / 'bpe'}"
    )
    assert loaded["digest"] == trained["digest"]
    assert loaded["tokenizer"]["name"] == "hf:bpe"
    text = (tmp_path / "bpe" / "tokenizer.json").read_bytes()
    assert (tmp_path / "loaded" / "tokenizer.json").read_bytes() == text
    commit = "0123456789abcdef0123456789abcdef01234567"
    held = offline / "models--me--mine"
    for path, content in {
        "refs/main": commit.encode(),
        f"snapshots/{commit}/tokenizer.json": text,
    }.items():
        (held / path).parent.mkdir(parents=True)
        (held / path).write_bytes(content)
    cached = prepare([made / "rows.jsonl"], tmp_path / "hub", tokenizer="hf:me/mine")
    assert (cached["digest"], cached["tokenizer"]["name"]) == (
        trained["digest"],
        f"hf:me/mine@{commit[:12]}",
    )


def test_unreachable_hub_is_reported_and_writes_nothing(made, tmp_path, offline):
    for arguments, what in (
        (
            ["hf:someone/corpus/config:validation", "--streaming"],
            "error: hf:someone/corpus/config:validation: cannot be had: ",
        ),
        (
            [str(made / "rows.jsonl"), "--tokenizer", "hf:someone/model"],
            "error: hf:someone/model: no tokenizer can be had: ",
        ),
    ):
        done = scaling("data", "prepare", "--out", tmp_path / "out", *arguments, code=2)
        assert what in done.stderr
        assert "where there is a network" in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"]


REFUSED = {
    "hf:": "names no data set",
    "hf:a/b/c/d": "names no data set",
    "hf:{made}/shards:train[:5]": "slices: use --max-documents",
    "hf:{made}/nowhere": "no such folder",
    "hf:{made}/rows.jsonl": "is a file",
    "hf:{made}/shards:dev": "cannot be read: ValueError: Bad split: dev",
    "hf:{made}/split:test": "unknown split 'test'",
    "hf:{made}/saved:dev": "no split 'dev'",
}


@pytest.mark.parametrize("name", REFUSED)
def test_unknown_data_set_is_rejected(name, made, tmp_path):
    with pytest.raises(ScalingError, match=REFUSED[name].replace("[", r"\[")) as caught:
        prepare([name.format(made=made)], tmp_path / "out")
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_missing_text_and_columns_are_rejected(made, tmp_path):
    with pytest.raises(ScalingError, match="unknown column 'body'"):
        prepare([f"hf:{made / 'shards'}"], tmp_path / "out", text_column="body")
    with pytest.raises(ScalingError, match=r"saved:train row 1: the text is of type int"):
        prepare([f"hf:{made / 'saved'}"], tmp_path / "out", text_column="id")
    assert list(tmp_path.iterdir()) == []


def test_data_set_names_are_parsed():
    assert hugging_face.parse("hf:me/books/en:test") == hugging_face.DatasetRef(
        "me/books", "en", "test"
    )
    assert hugging_face.parse("hf:books") == hugging_face.DatasetRef("books")
    assert str(hugging_face.parse("hf:me/books/en")) == "hf:me/books/en:train"
    assert hugging_face.parse(f"hf:{Path.cwd()}").folder == Path.cwd()
