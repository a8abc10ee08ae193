"""From text to token ids.

Plain bytes, a BPE trained on the corpus itself, or a tokenizer that comes as `tokenizer.json`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from scaling.config.sweep_file import validation_error
from scaling.errors import ScalingError
from scaling.files import disk_error
from scaling.tasks.corpus.token_store import TokenizerFacts

if TYPE_CHECKING:
    import tokenizers

BYTES = TokenizerFacts(kind="bytes", name="bytes", vocab_size=256, separator=0)
END = "<|endoftext|>"
# The end of a document in well-known vocabularies; if there is none, its beginning.
_KNOWN_ENDS = f"""
{END} <|end_of_text|> </s> <eos> <|eos|> <EOS_TOKEN> [EOS] <｜end▁of▁sentence｜>
<|END_OF_TURN_TOKEN|> <|im_end|> [SEP]
""".split()
_KNOWN_BEGINNINGS = [
    "<|bos|>",
    "<|begin_of_text|>",
    "<s>",
    "<bos>",
    "<BOS_TOKEN>",
    "[BOS]",
    "<｜begin▁of▁sentence｜>",
]
_MAX_JSON_BYTES = 2**28
# Letters, digits, signs or spaces alone, as the pre-tokenizer takes them for one word: the trainer
# needs the square of a word's length, which no language comes near, but a genome does.
_LONG_WORD = re.compile(r"[^\W\d_]{256}|\d{256}|(?:[^\w\s]|_){256}|\s{256}")


@dataclass(frozen=True)
class Encoder:
    """`encode` maps UTF-8 texts to arrays of ids, `decode` ids to text.

    `json` is tokenizer.json, None for bytes.
    """

    facts: TokenizerFacts
    encode: Callable[[Sequence[bytes]], list[np.ndarray]]
    decode: Callable[[Sequence[int]], str]
    json: str | None = None


def byte_encoder() -> Encoder:
    """One token a byte; byte 0, which text does not hold, ends a document."""
    return Encoder(
        BYTES,
        lambda texts: [np.frombuffer(text, np.uint8) for text in texts],
        lambda ids: bytes(ids).decode(errors="replace"),
    )


def train_bpe(texts: Iterable[str], vocab_size: int) -> Encoder:
    """A byte-level BPE (Sennrich 2016; Radford 2019) trained on `texts`.

    It has at most `vocab_size` tokens, separator included.

    Equal texts give an equal tokenizer. Raises ScalingError for a vocabulary too small for the
    256 bytes.
    """
    if not 257 <= vocab_size <= 2**20:
        raise ScalingError(
            f"--vocab-size {vocab_size} is out of range",
            remedy="from 257 (the bytes and a separator) to 1048576",
        )
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    words = itertools.chain.from_iterable(map(cut_long_words, texts))
    tokenizer.train_from_iterator(words, trainer=trainer)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    return _encoder(tokenizer, "bpe", f"bpe-{tokenizer.get_vocab_size()}", ids[END])


def cut_long_words(text: str) -> Iterator[str]:
    """The text in parts that end after 256 letters (digits, signs, spaces) on end; most texts have
    no such place.
    """
    start = 0
    for word in _LONG_WORD.finditer(text):
        yield text[start : word.end()]
        start = word.end()
    yield text[start:]


def load_tokenizer(path: Path, name: str | None = None, separator: str | None = None) -> Encoder:
    """A tokenizer from its `tokenizer.json`, under its file's name if no other is given.

    The file's truncation, padding and special-token templates are switched off. Documents end with
    the token `separator`; by default a well-known end of text, the eos_token or bos_token of a
    tokenizer_config.json in the same folder, or a well-known beginning of text.

    Raises ScalingError for a file that is missing or no tokenizer.
    """
    from tokenizers import Tokenizer

    remedy = 'give "bytes", "bpe", the path of a tokenizer.json, or hf:NAME'
    if not path.is_file():
        raise ScalingError("no such tokenizer", where=path, remedy=remedy)
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ScalingError("too large for a tokenizer.json", where=path, remedy=remedy)
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        ids = tokenizer.get_vocab(with_added_tokens=True)
        if separator is not None and separator not in ids:
            raise ScalingError(
                f"--separator {separator!r} is not a token of the tokenizer",
                where=path,
                remedy="name a token of its vocabulary, such as its end of text",
            )
        candidates = [*_KNOWN_ENDS, *_config_tokens(path), *_KNOWN_BEGINNINGS]
        end = separator or next((token for token in candidates if token in ids), None)
        return _encoder(tokenizer, "file", name or path.name, None if end is None else ids[end])
    except OSError as error:
        raise disk_error(error, path, "read") from error
    except ScalingError:
        raise
    except Exception as error:  # the library raises bare Exception
        reason = str(error)[:120]
        if isinstance(error, ValidationError):  # of the facts about it
            reason = validation_error(error, TokenizerFacts, str(path)).what
        raise ScalingError(f"not a tokenizer.json: {reason}", where=path, remedy=remedy) from error


def _config_tokens(path: Path) -> list[str]:
    """eos_token and bos_token of the tokenizer_config.json in the tokenizer's folder."""
    try:
        config = json.loads(path.with_name("tokenizer_config.json").read_text(encoding="utf-8"))
        tokens = [config.get("eos_token"), config.get("bos_token")]
    except (OSError, ValueError, AttributeError):
        return []
    tokens = [token.get("content") if isinstance(token, dict) else token for token in tokens]
    return [token for token in tokens if isinstance(token, str)]


def is_lossless(encoder: Encoder, texts: Sequence[bytes], tokens: Sequence[np.ndarray]) -> bool:
    """Whether tokens decode to the texts; bits per byte mean nothing when text is lost."""
    if encoder.facts.kind == "bytes":
        return True
    with _tokenizer_errors(encoder.facts.name):
        pairs = zip(texts, tokens, strict=True)
        return all(encoder.decode(ids.tolist()) == text.decode() for text, ids in pairs)


@contextlib.contextmanager
def _tokenizer_errors(name: str) -> Iterator[None]:
    """Turns an error or panic of the library into ScalingError."""
    try:
        yield
    except (ScalingError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of its Rust code is no Exception
        raise ScalingError(
            f"the tokenizer fails on a text: {str(error)[:120]}",
            where=name,
            remedy="use another tokenizer, or leave the text out",
        ) from error


def _encoder(
    tokenizer: tokenizers.Tokenizer, kind: str, name: str, separator: int | None
) -> Encoder:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # "<|endoftext|>" inside a text is text, not the end of a document
    tokenizer.encode_special_tokens = True
    vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0) + 1
    facts = TokenizerFacts.model_validate(
        {"kind": kind, "name": name, "vocab_size": vocab_size, "separator": separator}
    )

    def encode(texts: Sequence[bytes]) -> list[np.ndarray]:
        with _tokenizer_errors(name):
            decoded = [text.decode() for text in texts]
            encodings = tokenizer.encode_batch_fast(decoded, add_special_tokens=False)
            return [np.asarray(encoding.ids, np.int64) for encoding in encodings]

    def decode(ids: Sequence[int]) -> str:
        return tokenizer.decode(list(ids), skip_special_tokens=False)

    return Encoder(facts, encode, decode, tokenizer.to_str())
