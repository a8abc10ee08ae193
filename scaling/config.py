"""All configuration, as frozen models: a sweep file becomes a `Sweep`, the planner turns it into `RunConfig`s.

Every mistake of a file is reported at once. Where and how a run is executed is not configuration of the run, so its
`run_id` does not depend on it. No numpy and no jax in this module.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, create_model, model_validator

from scaling.quantity import parse_count

NConvention = Literal["with_head", "total", "nonembedding"]
FlopsConvention = Literal["exact", "6nd", "kaplan", "chinchilla"]
Precision = Literal["float32", "bfloat16"]


def _short_slug(name: str) -> str:
    """A name that is safe as a folder on every system."""
    stem = name.split(".")[0].upper()
    if name.endswith(".") or stem in {"CON", "PRN", "AUX", "NUL"}:
        raise ValueError(f"{name!r} cannot name a folder on every system")
    return name


Count = Annotated[float, BeforeValidator(parse_count)]
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), AfterValidator(_short_slug)]
Positive = Annotated[int, Field(gt=0, le=2**40)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Counts = Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)]
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
MAX_TOKENS = 2**63  # a row counts tokens in 64 bits


class Frozen(BaseModel):
    """Immutable, strict (no silent conversion), and closed (an unknown key is an error)."""

    __slots__ = ("_canonical", "_run_id")  # kept once computed: a slot is neither compared, dumped, nor carried into a changed copy
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def canonical(self) -> str:
        """The JSON that identifies it: sorted keys, defaults left out, so that a new field changes no old id."""
        known: str | None = getattr(self, "_canonical", None)
        if known is None:
            known = _CANONICAL.encode(self._identity())
            object.__setattr__(self, "_canonical", known)
        return known

    def _identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=True)


class ModelConfig(Frozen):
    """A decoder-only transformer. MHA, GQA and MQA are a property of `n_kv_heads`: all, some, or one.

    `bias` adds biases to the projections and to LayerNorm; `ffn = "swiglu"` has three matrices of width `d_ff`.
    """

    n_layers: Positive
    d_model: Positive
    n_heads: Positive
    n_kv_heads: Positive
    d_head: Positive
    d_ff: Positive
    vocab_size: Annotated[int, Field(gt=1, le=2**31)]
    tie_embeddings: bool = False
    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    pos: Literal["none", "learned", "sinusoidal", "rope", "alibi"] = "rope"
    ffn: Literal["gelu", "swiglu", "relu2"] = "gelu"
    qk_norm: bool = True
    bias: bool = False

    @model_validator(mode="after")
    def _buildable(self) -> ModelConfig:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads = {self.n_heads} is not a multiple of n_kv_heads = {self.n_kv_heads}")
        if self.pos == "rope" and self.d_head % 2:
            raise ValueError(f'pos = "rope" rotates pairs: d_head = {self.d_head} must be even')
        if self.pos == "sinusoidal" and self.d_model % 2:
            raise ValueError(f'pos = "sinusoidal" fills pairs: d_model = {self.d_model} must be even')
        return self


class TextTask(Frozen):
    """Next-token prediction on a token store: `corpus` is "stdlib" or a folder written by `scaling data prepare`.

    `digest` is the SHA-256 of the tokens. The planner fills it in, so every row says which corpus it was trained on.
    """

    kind: Literal["text"]
    corpus: Annotated[str, Field(min_length=1, max_length=4096)] = "stdlib"
    seq_len: Annotated[int, Field(ge=2, le=2**24)] = 64
    digest: str | None = None

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


class OptimConfig(Frozen):
    """AdamW (Loshchilov and Hutter 2019) and its schedule. `clip = false` leaves gradients unclipped.

    `wsd` warms up, stays constant, and decays by 1 - sqrt over the last `cooldown_frac` of the steps (Hagele 2024).
    """

    name: Literal["adamw"] = "adamw"
    lr: Annotated[float, Field(gt=0.0, le=10.0)]
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["cosine", "wsd", "constant"] = "wsd"
    cooldown_frac: Fraction = 0.2
    final_lr_frac: Fraction = 0.0
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    b1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    b2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.98
    eps: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-8
    clip: Annotated[float, Field(gt=0.0)] | Literal[False] = 1.0
    z_loss: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-4

    def cooldown_steps(self, n_steps: int) -> int:
        """Steps of the final decay of `wsd`, at least one."""
        return max(1, round(self.cooldown_frac * n_steps))


class EvalConfig(Frozen):
    """What is measured: `points` evaluations along a run, spaced evenly in log(step), on `tokens` held-out tokens.

    `averaged` also measures the average of the weights so far, which forgets all but about the last tenth of the steps.
    """

    points: Annotated[int, Field(ge=1, le=10_000)] = 12
    tokens: Annotated[int, Field(ge=1, le=2**40)] = 65_536
    averaged: bool = False


class RunConfig(Frozen):
    """Everything that decides the numbers of one run, and nothing else.

    `simulated` names the law that a simulated run's losses come from, as in "published:hoffmann2022"; a real run has none,
    so the two never share an identity.
    """

    model: ModelConfig
    task: TaskConfig
    optim: OptimConfig
    batch_size: Positive
    n_steps: Positive
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Precision = "float32"
    evals: EvalConfig = EvalConfig()
    simulated: Annotated[str, Field(pattern=r"^published:[a-z0-9.-]{1,64}$")] | None = None

    @model_validator(mode="after")
    def _trainable(self) -> RunConfig:
        if self.optim.warmup_steps > self.n_steps:
            raise ValueError(f"optim.warmup_steps = {self.optim.warmup_steps} exceeds n_steps = {self.n_steps}")
        if self.tokens >= MAX_TOKENS:
            raise ValueError(f"{self.tokens:.3g} training tokens are more than a row can hold ({MAX_TOKENS:.3g})")
        return self

    @property
    def batch_tokens(self) -> int:
        """Tokens in one optimiser step."""
        return self.batch_size * self.task.seq_len

    @property
    def tokens(self) -> int:
        """Training tokens D of the whole run."""
        return self.batch_tokens * self.n_steps

    @property
    def trunk_steps(self) -> int:
        """Steps from the beginning on which the horizon has no influence: all before the cooldown of `wsd`, none of `cosine`."""
        if self.optim.schedule == "wsd":
            return self.n_steps - self.optim.cooldown_steps(self.n_steps)
        return self.n_steps if self.optim.schedule == "constant" else 0

    @property
    def trunk(self) -> str:
        """Runs of equal trunks are one and the same up to the shorter one's `trunk_steps`: only their horizons differ."""
        values = [getattr(self, name) for name, _, _ in _IDENTITY if name != "n_steps"]
        return "\n".join([value.canonical() if isinstance(value, Frozen) else str(value) for value in values])

    def canonical(self) -> str:
        """The JSON that identifies the run, as that of its parts.

        Put together here, for a plan asks for the identity of a hundred thousand runs that share their parts.
        """
        told = []
        for name, required, default in _IDENTITY:
            value = getattr(self, name)
            if required or value != default:
                told.append(f'"{name}":{_told(value)}')
        return "{" + ",".join(told) + "}"

    @property
    def run_id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of `canonical()`."""
        known: str | None = getattr(self, "_run_id", None)
        if known is None:
            known = hashlib.sha256(self.canonical().encode()).hexdigest()[:12]
            object.__setattr__(self, "_run_id", known)
        return known


_IDENTITY = [(name, info.is_required(), info.default) for name, info in sorted(RunConfig.model_fields.items())]


def _told(value: Frozen | int | str) -> str:
    """The canonical JSON of a field of a run; `json.dumps` of a number takes ten times as long."""
    if isinstance(value, Frozen):
        return value.canonical()
    return str(value) if isinstance(value, int) else json.dumps(value)


class MeshShape(Frozen):
    """How many devices share a run, and what each axis divides: the batch (`data`), the batch and the parameters (`fsdp`), or the
    widths of every layer (`tensor`).
    """

    data: Positive = 1
    fsdp: Positive = 1
    tensor: Positive = 1

    @property
    def n_devices(self) -> int:
        """Devices in the mesh."""
        return self.data * self.fsdp * self.tensor


class Execution(Frozen):
    """How a run is carried out, not what it computes: results agree to rounding, and a run's identity does not depend on it.

    `micro_batch` sequences are processed at a time and their gradients summed; `remat` computes activations again in the
    backward pass ("products": all but the results of matrix products); `layers` are unrolled, or scanned as one
    (compilation does not grow with depth); `loss_chunk` is the most tokens whose logits exist at once; `attention` is
    this program's own or the device's fused one.
    """

    mesh: MeshShape = MeshShape()
    micro_batch: Positive | None = None
    remat: Literal["none", "products", "block"] = "none"
    layers: Literal["auto", "unrolled", "scan"] = "auto"
    loss_chunk: Positive | None = None
    attention: Literal["auto", "own", "fused"] = "auto"


class Recipe(Frozen):
    """How a size becomes a model and its hyper-parameters; `scaling.recipe` holds the rules and their sources.

    `n_layers` fixes the depth (a smooth valley needs one shape rule); without it depth follows `d_model / aspect`.
    The learning rate is `lr_width / d_model` and the warm-up at most `warmup_frac` of the steps.
    `size_tolerance` is how far (in ln N) the nearest buildable model may lie from the size asked for.
    """

    n_layers: Positive | None = None
    aspect: Annotated[float, Field(gt=0.0, le=1e6)] = 64.0
    width_multiple: Positive = 8
    d_head: Positive | None = None
    n_kv_heads: Positive | None = None
    ffn_ratio: Annotated[float, Field(gt=0.0, le=64.0)] = 4.0
    lr_width: Annotated[float, Field(gt=0.0)] = 0.16
    warmup_frac: Fraction = 0.1
    batch_tokens: Count | None = None
    size_tolerance: Annotated[float, Field(gt=0.0, le=1.0)] = 0.35


class _Design(Frozen):
    """What the three designs share: sizes are N under `params`, budgets are FLOPs under `flops`."""

    sizes: Counts
    params: NConvention = "with_head"
    flops: FlopsConvention = "exact"
    tokens_per_param_range: Annotated[tuple[Count, Count], Strict(False)] | None = None


class IsoflopDesign(_Design):
    """Every size at every budget of FLOPs (Hoffmann 2022, approach 2)."""

    kind: Literal["isoflop"]
    budgets: Counts


class GridDesign(_Design):
    """Every size at every number of tokens (Kaplan 2020)."""

    kind: Literal["grid"]
    tokens: Counts


class LadderDesign(_Design):
    """Every size at given ratios of tokens to parameters (Gadre 2024)."""

    kind: Literal["ladder"]
    tokens_per_param: Counts


Design = Annotated[Union[IsoflopDesign, GridDesign, LadderDesign], Field(discriminator="kind")]


class Axis(Frozen):
    """One field varied over the whole sweep; a nuisance axis is minimised before a law is fitted."""

    field: str
    values: Annotated[tuple[bool | int | float | str, ...], Strict(False), Field(min_length=1)]
    role: Literal["scientific", "nuisance"] = "scientific"


def _partial(model: type[BaseModel], name: str) -> Any:
    """The same fields, none required: what a sweep file may override."""
    fields: dict[str, Any] = {key: (info.rebuild_annotation() | None, None) for key, info in model.model_fields.items()}
    return create_model(name, __base__=Frozen, **fields)


ModelOverrides = _partial(ModelConfig, "ModelOverrides")
OptimOverrides = _partial(OptimConfig, "OptimOverrides")


class Base(Frozen):
    """What all runs of a sweep share; `model` and `optim` override what the recipe derives."""

    task: TaskConfig
    model: ModelOverrides = ModelOverrides()  # type: ignore[valid-type]
    optim: OptimOverrides = OptimOverrides()  # type: ignore[valid-type]
    batch_size: Positive | None = None
    precision: Precision = "float32"


class Sweep(Frozen):
    """One question, answered by a set of runs: the content of a sweep file."""

    name: Slug
    question: Annotated[str, Field(max_length=2000)] = ""
    design: Design
    base: Base
    recipe: Recipe = Recipe()
    axes: Annotated[tuple[Axis, ...], Strict(False)] = ()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Strict(False), Field(min_length=1)] = (0,)
    evals: EvalConfig = EvalConfig()

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON; tells whether two sweep files ask the same question."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def finite(value: float | None) -> float | None:
    """A number for JSON: what is not finite is absent, for JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None
