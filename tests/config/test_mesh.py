"""What a mesh needs is said before anything starts, with numbers that would do."""

import pytest

from scaling.config import Execution, MeshShape, OptimConfig, RunConfig, SyntheticTask
from scaling.config.mesh import check, describe, parse_mesh
from scaling.errors import ScalingError
from tests.models import small_model

MODEL = small_model(32, 4, n_layers=1, n_kv_heads=1, d_ff=96, vocab_size=51)
RUN = RunConfig(
    model=MODEL,
    task=SyntheticTask(kind="synthetic"),
    optim=OptimConfig(lr=1e-3),
    batch_size=12,
    n_steps=10,
)


@pytest.mark.parametrize(
    ("text", "mesh"),
    [
        ("data=2,fsdp=4", MeshShape(data=2, fsdp=4)),
        (" tensor = 8 ", MeshShape(tensor=8)),
        ("data=1", MeshShape()),
    ],
)
def test_mesh_strings_are_parsed(text, mesh):
    assert parse_mesh(text) == mesh
    assert parse_mesh(describe(mesh)) == mesh


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "fdsp=4",
            "--mesh fdsp=4: 'fdsp' is not an axis of a mesh\n"
            "  did you mean fsdp? axes: data, fsdp, tensor, as in data=2,fsdp=4",
        ),
        (
            "",
            "--mesh : '' is not an axis of a mesh\n  axes: data, fsdp, tensor, as in data=2,fsdp=4",
        ),
        ("data=2,data=4", "--mesh data=2,data=4: data is given twice\n  name each axis once"),
        ("data=0", "--mesh data=0: data = '0' is not a number of devices\n  write it as data=4"),
        ("data=-1", "--mesh data=-1: data = '-1' is not a number of devices\n  write it as data=4"),
        ("data", "--mesh data: data = '' is not a number of devices\n  write it as data=4"),
        (
            "data=1e9",
            "--mesh data=1e9: data = '1e9' is not a number of devices\n  write it as data=4",
        ),
        (
            "data=99999999999",
            "--mesh data=99999999999: data = '99999999999' is not a number of devices\n"
            "  write it as data=4",
        ),
    ],
)
def test_malformed_mesh_is_rejected(text, message):
    with pytest.raises(ScalingError) as caught:
        parse_mesh(text)
    assert str(caught.value) == message


REFUSED = [
    (
        {"data": 4, "fsdp": 4},
        {},
        "mesh data=4,fsdp=4: needs 16 devices, there are 8\n"
        "  here: 8 x TPU v4; data x fsdp x tensor must not exceed 8",
    ),
    (
        {"data": 8},
        {},
        "mesh data=8: batch_size = 12 does not divide among data x fsdp = 8 devices\n"
        "  batch_size 8, 16, or data x fsdp one of 1, 2, 3, 4, 6, 12",
    ),
    (
        {"data": 2},
        {"micro_batch": 5},
        f"run {RUN.run_id}: micro_batch = 5 does not divide batch_size = 12\n"
        "  fitting: 2, 4, 6, 12",
    ),
    (
        {},
        {"micro_batch": 5},
        f"run {RUN.run_id}: micro_batch = 5 does not divide batch_size = 12\n"
        "  fitting: 1, 2, 3, 4, 6, 12",
    ),
    (
        {"fsdp": 4},
        {"micro_batch": 6},
        "mesh fsdp=4: micro_batch = 6 does not divide among data x fsdp = 4 devices\n"
        "  fitting: 4, 12",
    ),
    (
        {"tensor": 8},
        {},
        "mesh tensor=8: tensor = 8 does not divide n_heads = 4\n  tensor must divide 4",
    ),
]


@pytest.mark.parametrize(("axes", "choices", "message"), REFUSED)
def test_mesh_that_does_not_fit_is_rejected(axes, choices, message):
    with pytest.raises(ScalingError) as caught:
        check(RUN, Execution(mesh=MeshShape(**axes), **choices), 8, kind="TPU v4")
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


def test_a_pack_on_a_mesh_is_rejected():
    with pytest.raises(ScalingError, match="a pack of 3 runs and a mesh exclude each other"):
        check(RUN, Execution(mesh=MeshShape(data=2)), 8, pack=3)


def test_tensor_must_divide_the_width():
    odd = RUN.model_copy(update={"model": MODEL.model_copy(update={"d_ff": 98})})
    with pytest.raises(ScalingError, match="tensor = 4 does not divide d_ff = 98") as caught:
        check(odd, Execution(mesh=MeshShape(tensor=4)), 8)
    assert caught.value.remedy == "tensor must divide 2"


def test_mesh_that_fits_is_accepted():
    for axes in ({}, {"data": 4}, {"data": 2, "fsdp": 2, "tensor": 2}, {"tensor": 4}):
        check(RUN, Execution(mesh=MeshShape(**axes), micro_batch=4), 8)
    check(RUN, Execution(), 1, pack=16)
