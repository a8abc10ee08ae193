"""A sweep file changed from the command line: what is set, what becomes an axis, what it is called,
what is rejected.
"""

from pathlib import Path

import pytest

from scaling.config.overrides import load_with_overrides, parse
from scaling.config.sweep_file import dump_sweep, load_sweep
from scaling.errors import ScalingError
from tests.sweep_files import tiny

SWEEPS = Path(__file__).parents[2] / "sweeps"
CELLS = {"kind": "list", "cells": [{"size": "2k", "tokens": "20k", "settings": {"optim.lr": 0.01}}]}


@pytest.fixture
def path(tmp_path):
    def written(**changes):
        target = tmp_path / "tiny.toml"
        target.write_text(dump_sweep(tiny(**changes)))
        return target

    return written


@pytest.mark.parametrize(
    ("text", "keys", "value"),
    [
        ("optim.lr=3e-4", ("base", "optim", "lr"), 3e-4),
        ("base.optim.lr = 3e-4", ("base", "optim", "lr"), 3e-4),
        ("design.sizes=[2k,6k]", ("design", "sizes"), ["2k", "6k"]),
        ("design.budgets=[1e12, 1e13]", ("design", "budgets"), [1e12, 1e13]),
        ("seeds=[0,1]", ("seeds",), [0, 1]),
        ("model.norm=[rmsnorm,layernorm]", ("base", "model", "norm"), ["rmsnorm", "layernorm"]),
        ("model.qk_norm=false", ("base", "model", "qk_norm"), False),
        ("task.corpus=data/mine", ("base", "task", "corpus"), "data/mine"),
        (
            'task={kind="synthetic", n_facts=64}',
            ("base", "task"),
            {"kind": "synthetic", "n_facts": 64},
        ),
        ("tuning=[]", ("tuning",), []),
    ],
)
def test_a_value_is_toml_and_a_bare_word_is_text(text, keys, value):
    found = parse(text)
    assert (found.keys, found.value) == (keys, value)


@pytest.mark.parametrize(
    "text",
    [
        "lr",
        "=1",
        "optim.lr=",
        "a b=1",
        "optim..lr=1",
        "seeds=[0,1",
        'name="x',
        "seeds=[0,,1]",
        "base=1",
        "x=[[1,a]]",
    ],
)
def test_override_without_an_equals_sign_is_rejected_by_name(text):
    with pytest.raises(ScalingError, match="override") as found:
        parse(text)
    assert text in found.value.what


def test_overrides_set_nested_fields_and_the_folder_name(path):
    changed = load_with_overrides(
        path(),
        ["evals.points=8", "optim.lr=3e-4", "task.seq_len=16", "seeds=[0,1]", "design.sizes=[3k]"],
    )
    assert (changed.evals.points, changed.base.optim.lr, changed.base.task.seq_len) == (8, 3e-4, 16)
    assert (changed.seeds, changed.design.sizes) == ((0, 1), (3000.0,))
    assert changed.name.startswith("tiny-design.sizes-evals.points-optim.lr-seeds-task.seq")
    assert len(changed.name) <= 64
    assert (
        load_with_overrides(path(), ["optim.lr=3e-4", "seeds=[0, 1]"]).name
        == "tiny-optim.lr-0.0003-seeds-0_1"
    )


def test_folder_name_does_not_depend_on_spelling(path):
    one, other = (
        load_with_overrides(path(), pairs)
        for pairs in (["seeds=[0,1]", "optim.lr=3e-4"], ["base.optim.lr=0.0003", "seeds=[0,1]"])
    )
    assert one == other
    names = {
        load_with_overrides(path(), [f"optim.lr={value}"]).name
        for value in ("0.1", "0.10000001", "0.10000002", "0.11")
    }
    assert len(names) == 4
    long = [
        load_with_overrides(path(), [f"seeds=[{', '.join(map(str, range(last)))}]"]).name
        for last in (40, 41)
    ]
    assert len(set(long)) == 2
    assert all(name.startswith("tiny-seeds-") and len(name) <= 64 for name in long)


def test_override_equal_to_the_file_keeps_the_name(path):
    assert (
        load_with_overrides(path(), ["seeds=[0]", "evals.points=3"])
        == load_with_overrides(path(), [])
        == load_sweep(path())
    )


def test_a_list_for_a_field_is_an_axis_and_one_value_replaces_it(path):
    changed = load_with_overrides(path(), ["model.norm=[rmsnorm,layernorm]", "batch_size=[4,8]"])
    assert [(axis.field, axis.values, axis.role) for axis in changed.axes] == [
        ("batch_size", (4, 8), "scientific"),
        ("model.norm", ("rmsnorm", "layernorm"), "scientific"),
    ]
    axes = [{"field": "optim.lr", "values": [0.01, 0.02], "role": "nuisance"}]
    wider = load_with_overrides(path(axes=axes), ["optim.lr=[0.01,0.03]"])
    assert [(axis.values, axis.role) for axis in wider.axes] == [((0.01, 0.03), "nuisance")]
    fixed = load_with_overrides(path(axes=axes), ["optim.lr=0.03"])
    assert (fixed.axes, fixed.base.optim.lr) == ((), 0.03)


def test_counts_are_read_in_the_units_of_their_quantity(path):
    changed = load_with_overrides(
        path(), ["design.sizes=['3k params']", "design.tokens=['2M tokens']"]
    )
    assert (changed.design.sizes, changed.design.tokens) == ((3000.0,), (2e6,))
    isoflop = {"kind": "isoflop", "sizes": ["3k"], "budgets": ["0.5 PF-days"]}
    assert load_sweep(path(design=isoflop)).design.budgets == (0.5 * 86400e15,)
    for override in ("design.tokens=['0.5 PF-days']", "design.sizes=['20k tokens']"):
        with pytest.raises(ScalingError, match="is not a positive count up to 1e30; write it as"):
            load_with_overrides(path(), [override])


REFUSED = {
    "optim.lrr=3e-4": "base.optim.lrr is not a known key (did you mean lr?)",
    "optim.lr=x": 'base.optim.lr = "x": should be a valid number',
    "model.norm=[]": "axes[0].values",
    "optim.lr=[1e-3,nan]": "axes[0].values[1] = NaN: should be a finite number, a word, true or fa",
    "optim.lr=[[1e-3]]": "axes[0].values[0] = [0.001]: should be a finite number, a word, true",
    "evals.points=[4,8]": "evals.points",
    "evals.points=0": "evals.points = 0: should be greater than or equal to 1",
    "desing.sizes=[1k]": "desing is not a known key (did you mean design?)",
    "design.sizes=[2kk]": "'2kk' is not a positive count up to 1e30; write it as 1e9",
    "axes.field=x": "axes",
    "name=bad name!": 'name = "bad name!": may hold letters, digits, dots, dashes and underscores,',
    "design.sizes=[]": "design.sizes needs 1 or more values",
    "base.task.kind=txt": 'base.task.kind = "txt": should be one of text,',
    "task.kind=txt": "(did you mean text?)",
    "design.kind=foo": 'design.kind = "foo": should be one of isoflop, grid, ladder, list, epochs',
    "name=tiny": None,
}


@pytest.mark.parametrize(("text", "words"), REFUSED.items())
def test_error_names_what_is_wrong_and_the_overrides(path, text, words):
    target = path()
    if words is None:
        with pytest.raises(ScalingError, match="unchanged sweep"):
            load_with_overrides(target, [text, "seeds=[1]"])
        return
    with pytest.raises(ScalingError) as found:
        load_with_overrides(target, ["seeds=[1]", text])
    assert words in found.value.what
    assert found.value.where.startswith(str(target))
    assert text.split("=")[1][:8] in found.value.where


def test_errors_of_the_file_are_not_blamed_on_an_override(path):
    target = path()
    target.write_text(target.read_text().replace("n_layers", "n_layer"))
    with pytest.raises(ScalingError, match="n_layer is not a known key") as found:
        load_with_overrides(target, ["seeds=[1]"])
    assert found.value.where == str(target)


def test_override_without_effect_is_rejected(path):
    with pytest.raises(ScalingError, match="given twice"):
        load_with_overrides(path(), ["optim.lr=1e-3", "base.optim.lr=2e-3"])
    with pytest.raises(ScalingError, match="set by cells"):
        load_with_overrides(path(design=CELLS), ["optim.lr=1e-3"])
    tuned = path(tuning=[{"field": "optim.lr"}])
    with pytest.raises(ScalingError, match="tuned by a") as found:
        load_with_overrides(tuned, ["optim.lr=1e-3"])
    assert "tuning=[]" in found.value.remedy
    assert load_with_overrides(tuned, ["optim.lr=1e-3", "tuning=[]"]).tuning == ()


@pytest.mark.parametrize("name", ["demo.toml", "norms.toml", "epochs.toml"])
def test_a_changed_sweep_can_be_written_and_read(tmp_path, name):
    changed = load_with_overrides(
        SWEEPS / name,
        ["model.norm=[rmsnorm,layernorm]", "task.seq_len=128", "evals.points=4", "optim.lr=1e-3"],
    )
    target = tmp_path / "kept.toml"
    target.write_text(dump_sweep(changed))
    assert load_sweep(target) == changed


def test_more_overrides_than_a_command_takes_are_rejected(path):
    with pytest.raises(ScalingError, match="300 overrides are given; the limit is 256"):
        load_with_overrides(path(), [f"optim.lr={index}" for index in range(300)])


def test_thousands_of_values_are_rejected_at_once(path):
    values = ",".join(str(1e-4 * (1 + i / 1000)) for i in range(3000))
    with pytest.raises(ScalingError, match=r"3000 optim\.lr are given; the limit is 256"):
        load_with_overrides(path(), [f"optim.lr=[{values}]"])


def test_thousands_of_seeds_are_rejected_at_once(path):
    with pytest.raises(ScalingError, match="3000 seeds are given; the limit is 256"):
        load_with_overrides(path(), [f"seeds={list(range(3000))}"])
