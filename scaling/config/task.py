"""What a model learns, as configuration."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import Field, model_validator

from scaling.config.base import Frozen, Length, OpenFraction, Symbols, UpToTen

DataSeed = Annotated[int, Field(ge=0, lt=2**31)]


class _Task(Frozen):
    """What every task says of its windows: `fixed_vocab_size` where it needs no data to know, and
    `target_positions`, the places of a window's targets that are scored (None: all of them);
    `answerable` says whether a window is a problem whose answer can be verified.
    """

    answerable: ClassVar[bool] = False

    @property
    def fixed_vocab_size(self) -> int | None:
        """Token ids are below this: the task's `n_symbols`, if it has any; None where the data
        decide.
        """
        return getattr(self, "n_symbols", None)

    @property
    def target_positions(self) -> tuple[int, ...] | None:
        """Which of the seq_len targets count in the loss; None for all."""
        return None


class TextTask(_Task):
    """Next-token prediction on a token store: `corpus` is "stdlib" or a folder written by `scaling
    data prepare`.

    `digest` is the SHA-256 of the tokens. The planner fills it in, so every row says which corpus
    it was trained on. `unique_tokens` limits training to that many tokens of the corpus, read again
    and again in another order. With `document_separator`, the id of the token that ends a document
    (`scaling data info` names it), attention stays within a document.
    """

    kind: Literal["text"]
    corpus: Annotated[str, Field(min_length=1, max_length=4096)] = "stdlib"
    seq_len: Length = 64
    digest: str | None = None
    unique_tokens: Annotated[int, Field(ge=2, le=2**53)] | None = None
    document_separator: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    def _identity(self) -> dict[str, Any]:
        """The digest identifies a corpus, not the folder that it happens to lie in."""
        data = super()._identity()
        if self.digest:
            data.pop("corpus", None)
        return data


class TextFacts(Frozen):
    """The text of a sweep, as plan.json keeps it: where it comes from, its bytes, those of them
    that are held out, and the tokens to train on.
    """

    source: str
    n_bytes: int
    held_out_bytes: int
    train_tokens: int


class SyntheticTask(_Task):
    """A stream of Zipf-distributed facts whose entropy is known exactly (Hutter's model of learning
    curves).

    Each fact is a key of `key_len` symbols followed by one value symbol that the key determines;
    key k has probability proportional to k^-(1 + zipf).
    """

    kind: Literal["synthetic"]
    n_facts: Length = 4096
    zipf: UpToTen = 0.5
    n_symbols: Symbols = 32
    seq_len: Length = 64
    data_seed: DataSeed = 0


class ModularTask(_Task):
    """Equations a o b = c modulo p, of which a share is trained on and the rest held out (Power
    2022).

    A window is a, b, "=", c; only c is predicted. `operation` is a + b, a - b, a b, or a^2 + a b +
    b^2.
    """

    kind: Literal["modular"]
    p: Annotated[int, Field(ge=2, le=4096)] = 59
    operation: Literal["add", "subtract", "multiply", "quadratic"] = "add"
    train_fraction: OpenFraction = 0.4
    data_seed: DataSeed = 0

    @property
    def seq_len(self) -> int:
        """a, b and the sign."""
        return 3

    @property
    def fixed_vocab_size(self) -> int:
        """The residues and the sign."""
        return self.p + 1

    @property
    def target_positions(self) -> tuple[int, ...]:
        """The result alone."""
        return (2,)


class ArithmeticTask(_Task):
    """Addition of two whole numbers, written digit by digit: 0012+0934=649000 (the sum's lowest
    digit first, unless `reverse` is off).

    Operands are padded with zeros to `digits`; only the sum's digits + 1 digits are predicted. With
    `length_power` the lengths of operands are drawn in training with P(l) ~ l^-length_power and
    evenly when held out: problems of mixed difficulty; without it operands are even over 0 ..
    10^digits - 1. Held-out problems are drawn by themselves: where there are few (10^(2 digits))
    most were also trained on.
    """

    answerable: ClassVar[bool] = True

    kind: Literal["arithmetic"]
    digits: Annotated[int, Field(ge=1, le=18)] = 4
    reverse: bool = True
    length_power: Annotated[float, Field(ge=0.0, le=10.0)] | None = None
    data_seed: DataSeed = 0

    @property
    def seq_len(self) -> int:
        """Two operands, two signs, and the sum but for its last digit."""
        return 3 * self.digits + 2

    @property
    def fixed_vocab_size(self) -> int:
        """Ten digits, "+" and "="."""
        return 12

    @property
    def target_positions(self) -> tuple[int, ...]:
        """The digits of the sum."""
        return tuple(range(2 * self.digits + 1, self.seq_len))


class InductionTask(_Task):
    """A random segment repeated over the window: what comes next can only be copied (Olsson 2022,
    section "repeated random tokens").

    Each window draws the length of its segment evenly from `shortest` to `longest`, so that no
    fixed distance can be learned.
    """

    kind: Literal["induction"]
    n_symbols: Symbols = 64
    shortest: Annotated[int, Field(ge=2, le=2**20)] = 10
    longest: Annotated[int, Field(ge=2, le=2**20)] = 30
    seq_len: Annotated[int, Field(ge=4, le=2**20)] = 64
    data_seed: DataSeed = 0

    @model_validator(mode="after")
    def _repeats(self) -> InductionTask:
        if not self.shortest <= self.longest < self.seq_len:
            raise ValueError(
                f"segments of {self.shortest} to {self.longest} symbols"
                f" do not repeat in a window of {self.seq_len}"
            )
        return self


class RegressionTask(_Task):
    """In-context linear regression (Garg 2022) in tokens: x_1, y_1, x_2, y_2, ... with y = w.x +
    noise and another w in each window.

    x is one of 2^`n_features` points of {-1, 1}^n_features, w is normal with variance 1 /
    n_features, the noise has standard deviation `noise`, and y is given as one of `n_levels` even
    levels from -3 to 3. Only the y are predicted.
    """

    kind: Literal["regression"]
    n_features: Annotated[int, Field(ge=1, le=10)] = 4
    n_levels: Annotated[int, Field(ge=4, le=4096)] = 32
    noise: UpToTen = 0.2
    examples: Symbols = 16
    data_seed: DataSeed = 0

    @property
    def seq_len(self) -> int:
        """All x and y but for the last y."""
        return 2 * self.examples - 1

    @property
    def fixed_vocab_size(self) -> int:
        """The points x, then the levels of y."""
        return int(2**self.n_features) + self.n_levels

    @property
    def target_positions(self) -> tuple[int, ...]:
        """The places of y."""
        return tuple(range(0, self.seq_len, 2))


TaskConfig = Annotated[
    Union[TextTask, SyntheticTask, ModularTask, ArithmeticTask, InductionTask, RegressionTask],
    Field(discriminator="kind"),
]
