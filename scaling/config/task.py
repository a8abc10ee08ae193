"""What a model learns, as configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import Field

from scaling.config.base import Frozen


class TextTask(Frozen):
    """Next-token prediction on a token store: `corpus` is "stdlib" or a folder written by `scaling data prepare`.

    `digest` is the SHA-256 of the tokens. The planner fills it in, so every row says which corpus it was trained on.
    `unique_tokens` limits training to that many tokens of the corpus, read again and again in another order.
    """

    kind: Literal["text"]
    corpus: Annotated[str, Field(min_length=1, max_length=4096)] = "stdlib"
    seq_len: Annotated[int, Field(ge=2, le=2**24)] = 64
    digest: str | None = None
    unique_tokens: Annotated[int, Field(ge=2, le=2**53)] | None = None

    def _identity(self) -> dict[str, Any]:
        """The digest identifies a corpus, not the folder that it happens to lie in."""
        data = super()._identity()
        if self.digest:
            data.pop("corpus", None)
        return data


class SyntheticTask(Frozen):
    """A stream of Zipf-distributed facts whose entropy is known exactly (Hutter's model of learning curves).

    Each fact is a key of `key_len` symbols followed by one value symbol that the key determines; key k has
    probability proportional to k^-(1 + zipf).
    """

    kind: Literal["synthetic"]
    n_facts: Annotated[int, Field(ge=2, le=2**24)] = 4096
    zipf: Annotated[float, Field(gt=0.0, le=10.0)] = 0.5
    n_symbols: Annotated[int, Field(ge=2, le=2**16)] = 32
    seq_len: Annotated[int, Field(ge=2, le=2**24)] = 64
    data_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


TaskConfig = Annotated[Union[TextTask, SyntheticTask], Field(discriminator="kind")]
