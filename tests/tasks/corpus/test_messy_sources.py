"""Corpora as they come: other suffixes, duplicates, links, byte order marks, odd tokenizers."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaling.errors import ScalingError
from scaling.tasks.corpus.prepare import prepare
from scaling.tasks.corpus.token_store import open_store
from scaling.tasks.corpus.tokenizer import load_tokenizer, train_bpe
from scaling.warning import WarningCode


def sentence(i):
    rng = np.random.default_rng(i)
    return " ".join(rng.choice(["alpha", "beta", "gamma", "delta"], 60)) + f" {i}\n"


def documents_of(folder):
    return {
        split: tokens.tobytes().split(b"\0")[:-1]
        for split, tokens in open_store(folder).tokens.items()
    }


def write_lines(path, n=150, **fields):
    lines = [json.dumps({"text": sentence(i), "id": i} | fields) for i in range(n)]
    path.write_text("\n".join(lines), encoding="utf-8")


def test_json_lines_named_json_are_rows(tmp_path):
    write_lines(tmp_path / "a.jsonl")
    write_lines(tmp_path / "b.json")
    one, two = (prepare([tmp_path / name], tmp_path / name[0]) for name in ("a.jsonl", "b.json"))
    assert one["digest"] == two["digest"]
    assert two["sources"][0]["kinds"] == {"json": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", '{"text": "x"}\n{"text": "y"}\n', "looks like JSON lines"),
        ("a.json", '[{"text": "x"}]', "one object per line"),
        ("a.json", '{\n "text": "x"\n}', "one object per line"),
        ("a.csv", "text\nx\n", ".csv files are not read as text"),
        ("a.html", "<p>x</p>", ".html files are not read as text"),
        ("a.txt", '[ {"text": "x"},\n {"text": "y"}]', "is a list of JSON objects"),
        ("a.txt", "<!DOCTYPE html>\n<p>not found</p>", "is an HTML page"),
        ("a.txt", "%PDF-1.4\n", "is a PDF"),
        ("a.jsonl", "version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("a.parquet", "version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("a.txt", "\x1f\udc8b", "is compressed by gzip"),
    ],
)
def test_structured_text_is_rejected_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ScalingError, match=message) as caught:
        prepare([tmp_path / name], tmp_path / "out")
    assert caught.value.where == str(tmp_path / name)
    assert not (tmp_path / "out").exists()


def test_prose_that_begins_with_a_brace_is_text(tmp_path):
    (tmp_path / "a.txt").write_text("{sic} he said.\n" * 99, encoding="utf-8")
    assert prepare([tmp_path / "a.txt"], tmp_path / "out")["sources"][0]["kinds"] == {"text": 1}


def test_files_that_describe_a_data_set_are_no_documents(tmp_path):
    (tmp_path / "set" / "data").mkdir(parents=True)
    rows = [{"text": sentence(i)} for i in range(150)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / "data" / "train.parquet")
    for name in ("README.md", "LICENSE.txt", "NOTICE", "CITATION.cff"):
        (tmp_path / "set" / name).write_text("# A data set\n")
    (tmp_path / "set" / "dataset_infos.json").write_text('{\n "default": {}}')
    manifest = prepare([tmp_path / "set"], tmp_path / "out")
    assert manifest["sources"][0]["kinds"] == {"parquet": 1}
    assert sum(len(part) for part in documents_of(tmp_path / "out").values()) == 150


def test_a_folder_of_text_keeps_its_readme_but_not_its_metadata(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "README.md").write_text(sentence(0) * 9)
    (tmp_path / "set" / "dataset_info.json").write_text('{"features": {}}')
    assert prepare([tmp_path / "set"], tmp_path / "out")["sources"][0]["kinds"] == {"text": 1}


def test_an_address_is_no_source(tmp_path):
    with pytest.raises(ScalingError, match="s3:// addresses are not supported"):
        prepare(["s3://bucket/corpus"], tmp_path / "out")


def test_a_text_column_needs_rows(tmp_path):
    (tmp_path / "a.txt").write_text(sentence(0) * 9)
    with pytest.raises(ScalingError, match="no file has rows"):
        prepare([tmp_path / "a.txt"], tmp_path / "out", text_column="body")


def test_no_text_stands_in_both_splits_and_repetitions_are_counted(tmp_path):
    for version in ("v1", "v2"):
        (tmp_path / "c" / version).mkdir(parents=True)
        for i in range(150):
            (tmp_path / "c" / version / f"{i}.txt").write_text(sentence(i))
    (tmp_path / "c" / "near.txt").write_text(sentence(3).upper())
    manifest = prepare([tmp_path / "c"], tmp_path / "out")
    split = documents_of(tmp_path / "out")
    assert len(split["train"]) + len(split["val"]) == 301
    assert not set(split["train"]) & set(split["val"])
    assert manifest["duplicates"] == {"exact": 150, "near": 1}
    assert [w["code"] for w in manifest["warnings"]] == [WarningCode.DUPLICATE_DOCUMENTS]


def test_folders_behind_links_are_read_once(tmp_path):
    (tmp_path / "real").mkdir()
    for i in range(120):
        (tmp_path / "real" / f"{i}.txt").write_text(sentence(i))
    (tmp_path / "c").mkdir()
    for name in ("one", "two"):
        (tmp_path / "c" / name).symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "c")
    manifest = prepare([tmp_path / "c"], tmp_path / "out")
    assert manifest["sources"][0]["n_files"] == 120
    assert "duplicates" not in manifest


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeff" + sentence(0) * 9, encoding="utf-8")
    (tmp_path / "b.txt").write_text(sentence(0) * 9, encoding="utf-8")
    one, two = (prepare([tmp_path / name], tmp_path / name[0]) for name in ("a.txt", "b.txt"))
    assert one["digest"] == two["digest"]
    write_lines(tmp_path / "c.jsonl")
    (tmp_path / "d.jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "c.jsonl").read_bytes())
    three, four = (prepare([tmp_path / f"{n}.jsonl"], tmp_path / n) for n in ("c", "d"))
    assert three["digest"] == four["digest"]


def byte_level(path, specials):
    """A byte-level tokenizer.json with these special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([sentence(i) for i in range(50)], trainer=trainer)
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize(
    ("specials", "boundary"),
    [
        (
            [
                "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
                "<\uff5cend\u2581of\u2581sentence\uff5c>",
            ],
            1,
        ),
        (["<|bos|>", "<|user_start|>"], 0),
        (["<BOS_TOKEN>", "<EOS_TOKEN>"], 1),
        (["[BOS]", "[EOS]"], 1),
        (["<|im_start|>", "<|im_end|>", "<|endoftext|>"], 2),
        ([], None),
    ],
    ids=["deepseek", "nanochat", "cohere", "kimi", "qwen", "none"],
)
def test_the_document_boundary_of_well_known_tokenizers(tmp_path, specials, boundary):
    path = byte_level(tmp_path / "t.json", specials)
    assert load_tokenizer(path).facts.separator == boundary


def test_a_boundary_is_read_from_the_config_or_given(tmp_path):
    path = byte_level(tmp_path / "tokenizer.json", ["<a>", "<stop>"])
    assert load_tokenizer(path).facts.separator is None
    assert load_tokenizer(path, separator="<a>").facts.separator == 0
    config = {"eos_token": {"content": "<stop>"}, "bos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(path).facts.separator == 1
    with pytest.raises(ScalingError, match="--separator '<b>' is not a token"):
        load_tokenizer(path, separator="<b>")


def test_documents_without_a_boundary_are_a_warning(tmp_path):
    path = byte_level(tmp_path / "t.json", [])
    write_lines(tmp_path / "a.jsonl")
    manifest = prepare([tmp_path / "a.jsonl"], tmp_path / "out", tokenizer=str(path))
    assert [w["code"] for w in manifest["warnings"]] == [WarningCode.NO_DOCUMENT_SEPARATOR]
    with pytest.raises(ScalingError, match="bytes has its own"):
        prepare([tmp_path / "a.jsonl"], tmp_path / "out", separator="x")


def test_text_lost_in_a_late_document_makes_the_tokenizer_lossy(tmp_path):
    trained = json.loads(train_bpe([sentence(i) for i in range(50)], 300).json)
    trained["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "t.json").write_text(json.dumps(trained))
    texts = [sentence(i) for i in range(150)]
    for last, lossless in (("all lower", True), ("One Capital", False)):
        rows = [json.dumps({"text": text}) for text in [*texts, last]]
        (tmp_path / "a.jsonl").write_text("\n".join(rows))
        out = tmp_path / str(lossless)
        manifest = prepare([tmp_path / "a.jsonl"], out, tokenizer=str(tmp_path / "t.json"))
        assert manifest["tokenizer"]["lossless"] is lossless


def test_an_error_inside_the_tokenizer_is_an_error_of_the_input(tmp_path, monkeypatch):
    encoder = load_tokenizer(byte_level(tmp_path / "t.json", ["</s>"]))
    with pytest.raises(ScalingError, match="the tokenizer fails on a text"):
        encoder.encode([b"\xff"])


def test_a_rejected_corpus_leaves_no_folder(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(ScalingError, match="the corpus is empty"):
        prepare([tmp_path / "a.txt"], tmp_path / "new" / "data" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_files_of_a_folder_that_are_no_text_are_skipped_and_named(tmp_path):
    (tmp_path / "c" / "deep").mkdir(parents=True)
    for i in range(4):
        (tmp_path / "c" / f"{i}.txt").write_text(sentence(i) * 9)
    clean = prepare([tmp_path / "c"], tmp_path / "clean")
    (tmp_path / "c" / "logo.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "c" / "NEWS.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "c" / "deep" / "late.bin.txt").write_bytes(b"a" * 9 + b"\0")
    manifest = prepare([tmp_path / "c"], tmp_path / "out")
    assert manifest["digest"] == clean["digest"]
    assert manifest["sources"][0]["n_files"] == 4
    assert manifest["excluded"] == {"files that are no text": 3}
    (warning,) = manifest["warnings"]
    assert (warning["code"], warning["data"]["files"]) == (WarningCode.SKIPPED_FILES, 3)
    names = [path.rpartition("/c/")[2] for path in warning["data"]["paths"]]
    assert names == ["NEWS.gz", "deep/late.bin.txt", "logo.png"]
    for words in (
        "not UTF-8 text at byte 0 (logo.png)",
        "archives, arrays and pickles are not read (NEWS.gz)",
        "a zero byte at byte 9 (late.bin.txt)",
    ):
        assert words in warning["message"]


def test_a_folder_of_mostly_no_text_is_rejected_with_all_of_them(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.txt").write_text(sentence(0))
    for name in ("b.gz", "c.html", "d.png"):
        (tmp_path / "c" / name).write_bytes(b"\x89")
    with pytest.raises(ScalingError, match=r"3 of 4 files .*b\.gz.*c\.html.*d\.png") as caught:
        prepare([tmp_path / "c"], tmp_path / "out")
    assert caught.value.where == str(tmp_path / "c")
    for i in range(60):
        (tmp_path / "c" / f"{i:02}.png").write_bytes(b"\x89")
    with pytest.raises(ScalingError, match=r"63 of 64 files .*07\.png, 53 more\)"):
        prepare([tmp_path / "c"], tmp_path / "out")
