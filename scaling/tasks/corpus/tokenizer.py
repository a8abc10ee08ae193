"""From text to token ids.

Plain bytes, a BPE trained on the corpus itself, or a tokenizer that comes as `tokenizer.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaling.errors import DISK, ScalingError
from scaling.tasks.corpus.token_store import TokenizerFacts

if TYPE_CHECKING:
    import tokenizers

BYTES = TokenizerFacts(kind="bytes", name="bytes", vocab_size=256, separator=0)
END = "<|endoftext|>"
_KNOWN_ENDS = (END, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_MAX_JSON_BYTES = 2**28


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
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return _encoder(tokenizer, "bpe", f"bpe-{tokenizer.get_vocab_size()}")


def load_tokenizer(path: Path, name: str | None = None) -> Encoder:
    """A tokenizer from its `tokenizer.json`, under its file's name if no other is given.

    The file's truncation, padding and special-token templates are switched off.

    Raises ScalingError for a file that is missing or no tokenizer.
    """
    from tokenizers import Tokenizer

    remedy = 'give "bytes", "bpe", the path of a tokenizer.json, or hf:NAME'
    if not path.is_file():
        raise ScalingError("no such tokenizer", where=str(path), remedy=remedy)
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ScalingError("too large for a tokenizer.json", where=str(path), remedy=remedy)
        return _encoder(
            Tokenizer.from_str(path.read_text(encoding="utf-8")), "file", name or path.name
        )
    except OSError as error:
        raise ScalingError(
            f"cannot read: {error.strerror}",
            where=str(path),
            remedy="fix the permissions",
            exit_code=DISK,
        ) from error
    except ScalingError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise ScalingError(
            f"not a tokenizer.json: {str(error)[:120]}", where=str(path), remedy=remedy
        ) from error


def round_trip_checked(encoder: Encoder, sample: bytes) -> Encoder:
    """The encoder with `lossless` set by a round trip of a sample.

    Bits per byte mean nothing when text is lost.
    """
    lossless = encoder.decode(encoder.encode([sample])[0].tolist()) == sample.decode()
    return replace(encoder, facts=encoder.facts.model_copy(update={"lossless": lossless}))


def _encoder(tokenizer: tokenizers.Tokenizer, kind: str, name: str) -> Encoder:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = (
        True  # "<|endoftext|>" inside a text is text, not the end of a document
    )
    ids = tokenizer.get_vocab(with_added_tokens=True)
    separator = next((ids[end] for end in _KNOWN_ENDS if end in ids), None)
    vocab_size = max(ids.values(), default=0) + 1
    facts = TokenizerFacts.model_validate(
        {"kind": kind, "name": name, "vocab_size": vocab_size, "separator": separator}
    )

    def encode(texts: Sequence[bytes]) -> list[np.ndarray]:
        encodings = tokenizer.encode_batch_fast(
            [text.decode() for text in texts], add_special_tokens=False
        )
        return [np.asarray(encoding.ids, np.int64) for encoding in encodings]

    return Encoder(
        facts,
        encode,
        lambda tokens: tokenizer.decode(list(tokens), skip_special_tokens=False),
        tokenizer.to_str(),
    )
