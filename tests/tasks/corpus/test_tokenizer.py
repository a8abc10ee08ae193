import json
from pathlib import Path

import pytest

from scaling.errors import ScalingError
from scaling.tasks.corpus.tokenizer import (
    END,
    byte_encoder,
    cut_long_words,
    is_lossless,
    load_tokenizer,
    train_bpe,
)

TEXTS = [
    f"the {word} said: caf\u00e9 {n}\n" * 3 for n in range(50) for word in ("cat", "dog", "bird")
]
SAMPLE = "the cat\u2019s <|endoftext|> caf\u00e9\r\n\ttab \U0001f600".encode()


def lossless(encoder, text):
    return is_lossless(encoder, [text], encoder.encode([text]))


def test_bytes_are_their_own_tokens():
    encoder = byte_encoder()
    assert encoder.encode([SAMPLE])[0].tobytes() == SAMPLE
    assert lossless(encoder, SAMPLE)


def test_bpe_is_deterministic_shorter_and_lossless():
    one, two = (train_bpe(iter(TEXTS), 300) for _ in range(2))
    assert one.json == two.json
    assert one.facts.vocab_size == 300
    assert lossless(one, SAMPLE)
    (ids,) = one.encode([TEXTS[0].encode()])
    assert len(ids) < 0.6 * len(TEXTS[0].encode())
    assert one.facts.separator == 0
    assert (
        one.facts.separator not in one.encode([SAMPLE])[0]
    )  # text that spells the separator stays text


def test_truncation_and_templates_of_a_tokenizer_file_are_ignored(tmp_path):
    trained = json.loads(train_bpe(TEXTS, 300).json)
    trained["truncation"] = {
        "direction": "Right",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    special = {END: {"id": END, "ids": [0], "tokens": [END]}}
    single = [{"SpecialToken": {"id": END, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    trained["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": single,
        "special_tokens": special,
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(trained))
    encoder = load_tokenizer(path)
    (ids,) = encoder.encode([SAMPLE])
    assert len(ids) > 4
    assert 0 not in ids
    assert encoder.decode(ids) == SAMPLE.decode()


def test_lossy_tokenizer_is_reported(tmp_path):
    trained = json.loads(train_bpe(TEXTS, 300).json)
    trained["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "t.json").write_text(json.dumps(trained))
    assert not lossless(load_tokenizer(tmp_path / "t.json"), b"The Cat")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[1",
        json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}}).encode(),
    ],
)
def test_invalid_tokenizer_file_is_rejected(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ScalingError, match="not a tokenizer") as caught:
        load_tokenizer(path)
    assert caught.value.where == str(path)
    assert "validation error" not in caught.value.what
    if b"BPE" in content:
        assert caught.value.what.endswith("vocab_size = 1: should be greater than 1")


def test_only_long_words_are_cut_for_training():
    plain = "def f(x):\n    return x  # a line\n" * 100 + "a" * 255 + "1" * 255 + "-" * 255
    assert list(cut_long_words(plain)) == [plain]
    genome = "ACGT" * 1000 + " " + "1" * 300 + "=_" * 200 + " " * 300
    parts = list(cut_long_words(genome))
    assert "".join(parts) == genome
    assert max(map(len, parts)) < 700
    assert lossless(train_bpe([genome], 300), genome.encode())


def test_missing_file_and_impossible_vocabulary():
    with pytest.raises(ScalingError, match="no such tokenizer"):
        load_tokenizer(Path("absent.json"))
    with pytest.raises(ScalingError, match="--vocab-size 256"):
        train_bpe(TEXTS, 256)
