"""A mesh changes where arrays live and nothing else.

The rules say where, and what does not fit is rejected.
"""

import math
from dataclasses import dataclass

import pytest
from jax.sharding import PartitionSpec as P

from scaling.config import MeshShape
from scaling.train.sharding import arrange_slices, partition_spec
from tests.train import child_processes
from tests.train.sharding_cases import CASES

pytestmark = pytest.mark.slow

NAMES = [f"{layers} {name}" for layers, cases in CASES.items() for name in cases]
CUBE = MeshShape(data=2, fsdp=2, tensor=2)


@pytest.fixture(scope="module")
def report():
    return child_processes.answer(child_processes.start("tests.train.sharding_cases", devices=8))


@pytest.mark.parametrize("name", NAMES)
def test_losses_norms_and_gradients_are_those_of_one_device(report, name):
    assert max(report[name]["differences"]) < 1e-5
    assert report[name]["whole"]


@pytest.mark.parametrize("name", NAMES)
def test_every_matrix_is_divided_by_fsdp_and_tensor(report, name):
    layers, _, case = name.partition(" ")
    mesh = CASES[layers][case]["mesh"]
    for tree in ("params", "mu"):
        for path, (shape, shard) in report[name][tree].items():
            is_matrix = ("kernel" in path and "router" not in path) or "embedding" in path
            expected = (
                mesh.fsdp * mesh.tensor if is_matrix else mesh.fsdp if "position" in path else 1
            )
            assert math.prod(shape) == expected * math.prod(shard), path
    assert report[name]["params"] == report[name]["mu"]


def test_tokens_of_the_next_dispatch_are_copied_before_losses_of_this_one_are_read(report):
    events, boundaries = report["host"]["events"], report["host"]["boundaries"]
    copied, late = 0, {}
    for event, number in events:
        if event == "copied":
            copied += 1
            assert number == 8
        else:
            late[number] = copied - len(late) - 1  # dispatches handed over since
    within = [step for step in late if step not in boundaries]
    assert len(within) > 3
    assert {late[step] for step in within} == {1}
    assert {late[step] for step in boundaries} == {0}  # measurements wait for them


def spec(path, shape, mesh=CUBE):
    return partition_spec(path.split("."), shape, 64, mesh)


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("embedding", (512, 64), P(("tensor",), ("fsdp",))),
        ("unembedding", (64, 512), P(("fsdp",), ("tensor",))),
        ("position", (32, 64), P(None, ("fsdp",))),
        ("blocks.attention.qkv.kernel", (64, 192), P(("fsdp",), ("tensor",))),
        (
            "blocks.attention.qkv.kernel",
            (48, 64),
            P(("tensor",), ("fsdp",)),
        ),  # stored transposed: the output is narrower
        ("blocks.attention.out.kernel", (64, 64), P(("tensor",), ("fsdp",))),
        ("blocks.attention.out.kernel", (64, 128), P(("fsdp",), ("tensor",))),  # transposed
        ("blocks.attention.out.kernel", (32, 64), P(("tensor",), ("fsdp",))),
        ("blocks.ffn.up.kernel", (3, 64, 256), P(None, ("fsdp",), ("tensor",))),  # stacked layers
        ("blocks.ffn.down.kernel", (3, 64, 256), P(None, ("fsdp",), ("tensor",))),
        ("blocks.ffn.expert_up.kernel", (4, 64, 256), P("fsdp", None, ("tensor",))),
        ("blocks.ffn.expert_down.kernel", (3, 4, 256, 64), P(None, "fsdp", ("tensor",), None)),
        ("blocks.ffn.expert_up.kernel", (5, 64, 256), P(None, None, ("tensor",))),
        ("blocks.ffn.router.kernel", (4, 64), P()),
        ("blocks.ffn.up.bias", (256,), P()),
        ("blocks.ffn_norm.gain", (3, 64), P()),
        ("count", (), P()),
    ],
)
def test_sharding_rules(path, shape, expected):
    assert spec(path, shape) == expected


@dataclass(frozen=True)
class FakeDevice:
    """One of a described machine: its number and slice."""

    id: int
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "fake"
    process_index: int = 0


def test_slices_are_joined_along_data_alone():
    devices = tuple(FakeDevice(i, i % 2) for i in range(8))  # the two slices interleaved
    grid = arrange_slices((4, 2, 1), devices, 2)
    assert grid.shape == (4, 2, 1)
    assert [{device.slice_index for device in part.flat} for part in grid] == [{0}, {0}, {1}, {1}]
    across = arrange_slices((1, 8, 1), devices, 2)  # data does not divide: in their own order
    assert [device.id for device in across.flat] == list(range(8))


def test_axis_that_does_not_divide_is_moved_or_dropped():
    assert spec("embedding", (511, 64)) == P(None, ("tensor", "fsdp"))
    assert spec("embedding", (511, 62), MeshShape(fsdp=4)) == P(None, None)
    assert spec("embedding", (512, 62), MeshShape(fsdp=4)) == P(("fsdp",), None)
