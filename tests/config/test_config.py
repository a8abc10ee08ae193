"""Configuration survives its files, its identity is stable, and every mistake of a file is named at
once.
"""

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from scaling.config import (
    Axis,
    Base,
    EvalConfig,
    Forecast,
    GridDesign,
    IsoflopDesign,
    LadderDesign,
    ModelConfig,
    OptimConfig,
    PowerRule,
    Recipe,
    RunConfig,
    Sweep,
    SyntheticTask,
    TextTask,
)
from scaling.config.sweep_file import dump_sweep, load_run, load_sweep
from scaling.errors import ScalingError
from tests.models import small_model
from tests.sweep_files import tiny

GOLDEN = RunConfig(
    model=small_model(),
    task=TextTask(kind="text", digest="ab" * 32),
    optim=OptimConfig(lr=0.01, warmup_steps=10),
    batch_size=8,
    n_steps=100,
)

positive = st.integers(1, 2**20)
fractions = st.floats(0, 1)
rates = st.floats(1e-9, 10)
counts = st.lists(st.floats(1, 1e26), min_size=1, max_size=4).map(tuple)
models = st.builds(
    lambda groups, **fields: ModelConfig(n_heads=groups * fields["n_kv_heads"], **fields),
    groups=st.integers(1, 8),
    n_layers=positive,
    d_model=positive.map(lambda n: 2 * n),
    n_kv_heads=st.integers(1, 64),
    d_head=st.integers(1, 64).map(lambda n: 2 * n),
    d_ff=positive,
    vocab_size=st.integers(2, 2**31),
    tie_embeddings=st.booleans(),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    pos=st.sampled_from(get_args(ModelConfig.model_fields["pos"].annotation)),
    ffn=st.sampled_from(["gelu", "swiglu", "relu2"]),
    qk_norm=st.booleans(),
    bias=st.booleans(),
)
tasks = st.one_of(
    st.builds(
        TextTask,
        kind=st.just("text"),
        corpus=st.text(min_size=1, max_size=20),
        seq_len=st.integers(2, 4096),
    ),
    st.builds(
        SyntheticTask,
        kind=st.just("synthetic"),
        n_facts=st.integers(2, 9999),
        zipf=st.floats(0.01, 10),
    ),
)
optimisers = st.builds(
    OptimConfig,
    lr=rates,
    schedule=st.sampled_from(["cosine", "wsd", "constant"]),
    cooldown_frac=fractions,
    weight_decay=fractions,
    clip=st.just(False) | rates,
)
runs = st.builds(
    RunConfig,
    model=models,
    task=tasks,
    optim=optimisers,
    batch_size=positive,
    n_steps=positive,
    seed=st.integers(0, 2**32 - 1),
    precision=st.sampled_from(["float32", "bfloat16"]),
    evals=st.builds(EvalConfig, points=st.integers(1, 100)),
)
designs = st.one_of(
    st.builds(
        IsoflopDesign,
        kind=st.just("isoflop"),
        sizes=counts,
        budgets=counts,
        flops=st.sampled_from(["exact", "6nd", "kaplan"]),
    ),
    st.builds(
        GridDesign,
        kind=st.just("grid"),
        sizes=counts,
        tokens=counts,
        params=st.sampled_from(["total", "with_head"]),
    ),
    st.builds(LadderDesign, kind=st.just("ladder"), sizes=counts, tokens_per_param=counts),
)
bases = st.builds(
    lambda task, model, optim: Base.model_validate(
        {"task": task.model_dump(exclude_none=True), "model": model, "optim": optim}
    ),
    tasks,
    st.fixed_dictionaries(
        {}, optional={"bias": st.booleans(), "n_heads": positive, "pos": st.just("alibi")}
    ),
    st.fixed_dictionaries(
        {}, optional={"lr": rates, "clip": st.just(False), "schedule": st.just("cosine")}
    ),
)
axes = st.builds(
    Axis,
    field=st.sampled_from(["optim.lr", "model.ffn"]),
    values=st.lists(
        st.booleans() | st.integers(0, 99) | rates | st.text(max_size=8), min_size=1, max_size=3
    ).map(tuple),
)
sweeps = st.builds(
    Sweep,
    name=st.from_regex(r"[a-z0-9][a-z0-9_-]{3,20}", fullmatch=True),
    question=st.text(max_size=80),
    design=designs,
    base=bases,
    recipe=st.builds(Recipe, n_layers=st.none() | positive, lr_width=rates),
    axes=st.lists(axes, max_size=2).map(tuple),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple),
)


@pytest.mark.slow
@given(runs)
def test_run_config_round_trips_through_json(run):
    again = load_run(run.model_dump_json(), "here")
    assert again == run
    assert again.run_id == run.run_id
    assert RunConfig.model_validate_json(run.canonical()) == run


@settings(max_examples=30)
@given(sweep=sweeps)
def test_sweep_round_trips_through_its_file(tmp_path_factory, sweep):
    path = tmp_path_factory.mktemp("sweep") / "x.toml"
    path.write_text(dump_sweep(sweep), encoding="utf-8")
    again = load_sweep(path)
    assert again == sweep


def test_run_ids_do_not_change():
    """Results are found by these names: if this fails, every finished run would be trained again.

    A change is right only when the numbers of a run change; a new field must have a default that
    means the old behaviour.
    """
    assert GOLDEN.run_id == "9adba6503036"
    assert json.loads(GOLDEN.canonical()) == {
        "batch_size": 8,
        "model": {
            "d_ff": 128,
            "d_head": 32,
            "d_model": 32,
            "n_heads": 1,
            "n_kv_heads": 1,
            "n_layers": 2,
            "vocab_size": 256,
        },
        "n_steps": 100,
        "optim": {"lr": 0.01, "warmup_steps": 10},
        "task": {"digest": "ab" * 32, "kind": "text"},
    }


def test_run_ids_depend_on_numbers_only():
    elsewhere = GOLDEN.task.model_copy(update={"corpus": "some/folder"})
    assert GOLDEN.model_copy(update={"task": elsewhere}).run_id == GOLDEN.run_id
    changes = [
        {"seed": 1},
        {"precision": "bfloat16"},
        {"n_steps": 101},
        {"task": TextTask(kind="text", digest="cd" * 32)},
    ]
    assert len(
        {GOLDEN.run_id, *(GOLDEN.model_copy(update=change).run_id for change in changes)}
    ) == 1 + len(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 3, "n_kv_heads": 2}, "n_heads = 3 is not a multiple of n_kv_heads = 2"),
        ({"d_head": 11}, 'pos = "rope" rotates pairs: d_head = 11 must be even'),
        (
            {"pos": "sinusoidal", "d_model": 33},
            'pos = "sinusoidal" fills pairs: d_model = 33 must be even',
        ),
        ({"n_layers": 0}, "Input should be greater than 0"),
        ({"n_layers": True}, "Input should be a valid integer"),
        ({"d_ff": 1.5}, "Input should be a valid integer"),
        ({"vocab_size": 10**40}, "Input should be less than or equal to 2147483648"),
        ({"dropout": 0.1}, "Extra inputs are not permitted"),
    ],
)
def test_models_that_cannot_be_built_are_rejected(changes, message):
    with pytest.raises(ValidationError) as caught:
        ModelConfig.model_validate(GOLDEN.model.model_dump() | changes)
    assert message in str(caught.value)


def test_a_warm_up_longer_than_the_run_is_rejected():
    with pytest.raises(ValidationError, match=r"optim.warmup_steps = 10 exceeds n_steps = 9"):
        RunConfig.model_validate(GOLDEN.model_dump() | {"n_steps": 9})


MISTAKES = {
    """
name = "x"
[design]
kind = "isoflop"
sizes = ["10k"]
budgets = [1e13]
[base]
batch_size = 0
[base.task]
kind = "text"
seq_lenn = 64
[recipe]
aspekt = 3
""": """x.toml: 3 mistakes: base.task.seq_lenn is not a known key (did you mean seq_len?); \
base.batch_size = 0: should be greater than 0; \
recipe.aspekt is not a known key (did you mean aspect?)
  fix these values; docs/sweep-files.md lists every key with its range""",
    """
name = "x"
[design]
kind = "grid"
sizes = [1e4]
[base.task]
kind = "text"
[base.model]
norm = "batchnorm"
n_heads = 2.5
[base.optim]
lr = nan
""": """x.toml: 4 mistakes: design.tokens is missing; \
base.model.n_heads = 2.5: should be a valid integer; \
base.model.norm = "batchnorm": should be 'layernorm' or 'rmsnorm'; \
base.optim.lr = NaN: should be a finite number
  fix these values; docs/sweep-files.md lists every key with its range""",
    """
name = "CON"
[design]
kind = "isoflops"
[base.task]
kind = "text"
""": """x.toml: 2 mistakes: name: 'CON' cannot name a folder on every system; \
design.kind = "isoflops": should be one of isoflop, grid, ladder, list, epochs (did you mean \
isoflop?)
  fix these values; docs/sweep-files.md lists every key with its range""",
    """
name = "x"
[design]
kind = "isoflop"
sizes = []
budgets = ["abc"]
[base.task]
kind = "text"
""": """x.toml: 2 mistakes: \
design.sizes needs 1 or more values; \
design.budgets[0]: 'abc' is not a positive count up to 1e30; write it as 1e13 or "10T" \
(suffixes K, M, B, T, P, E)
  fix these values; docs/sweep-files.md lists every key with its range""",
    "": "x.toml: the sweep file is empty\n  see sweeps/demo.toml for the form",
    "name = \n": "x.toml: not valid TOML: Invalid value (at line 1, column 8)\n"
    "  see sweeps/demo.toml for the form",
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.items(), ids=range(len(MISTAKES)))
def test_all_errors_of_a_file_are_reported_at_once(tmp_path, text, message):
    path = tmp_path / "x.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScalingError) as caught:
        load_sweep(path)
    assert str(caught.value).replace(str(path), "x.toml") == message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "what"), [("absent.toml", "no such file"), (".", "is a folder")])
def test_missing_or_invalid_file_is_rejected(tmp_path, name, what):
    with pytest.raises(ScalingError, match=what):
        load_sweep(tmp_path / name)


def test_a_results_folder_is_answered_with_its_sweep_file(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(dump_sweep(tiny()))
    with pytest.raises(ScalingError, match=f"is a folder\n  name its sweep file: {path}"):
        load_sweep(tmp_path)


CELL = {"size": 1e6, "tokens": 2e7, "flops": 1.2e14, "loss": 3.0}


@pytest.mark.parametrize(
    ("kind", "held", "words"),
    [
        (Forecast, CELL | {"lo": 3.2, "hi": 3.4}, "outside its own interval"),
        (Forecast, CELL | {"lo": 2.0, "hi": 2.5}, "outside its own interval"),
        (Forecast, CELL | {"lo": 3.1, "hi": 2.9}, "outside its own interval"),
        (PowerRule, {"coef": 1.0, "n_range": (2e6, 1e6)}, "the smaller size first"),
    ],
)
def test_reversed_ranges_are_rejected(kind, held, words):
    with pytest.raises(ValidationError, match=words):
        kind.model_validate(held)
