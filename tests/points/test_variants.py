"""Runs that differ in more than size, data and seed are said not to follow one law."""

import pandas as pd
import pytest

from scaling.config import OptimConfig, RunConfig, TextTask
from scaling.config.model import differing_parts
from scaling.points.comparability import supports_one_law
from scaling.points.source import SourceOptions, read_source
from scaling.store.rows import Measurement, Provenance, rows
from scaling.warning import WarningCode
from tests.models import small_model

PARTS = [
    ("pos", "none"),
    ("ffn", "swiglu"),
    ("tie_embeddings", True),
    ("n_experts", 4),
    ("gains", False),
    ("n_kv_heads", 1),
]


def model(**changes):
    return small_model(**{"d_model": 16, "n_heads": 2} | changes)


def table(models):
    task, optim = TextTask(kind="text", digest="d"), OptimConfig(lr=1e-2)
    parts = []
    for n_steps, each in enumerate(models, 50):
        run = RunConfig(model=each, task=task, optim=optim, batch_size=8, n_steps=n_steps)
        loss = [Measurement(n_steps, "val", "loss", 3.0)]
        parts.append(rows("s", run, loss, Provenance("cpu", "c", "0")).to_pandas())
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(("name", "value"), PARTS)
def test_runs_that_differ_in_a_part_of_the_model_are_warned_about(name, value):
    runs = table([model(), model(**{name: value})])
    source = read_source([runs], SourceOptions())
    assert [w.data["columns"] for w in source.warnings if w.code is WarningCode.MIXED_DATA] == [
        [name]
    ]
    assert not supports_one_law(runs)


def test_sizes_are_one_law_and_an_input_of_the_law_is_no_variant():
    sizes = [model(), model(d_model=32, n_heads=4, n_kv_heads=4, d_ff=128)]
    assert differing_parts(sizes) == ()
    assert supports_one_law(table(sizes))
    experts = table([model(), model(n_experts=4)])
    source = read_source([experts], SourceOptions(inputs=("N", "D", "n_experts")))
    assert WarningCode.MIXED_DATA not in [warning.code for warning in source.warnings]
