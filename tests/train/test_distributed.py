"""Two processes are one machine.

Same losses, one decision, one writer; and what does not describe a job is rejected.
"""

import pytest

from scaling.config.run_groups import RunGroup
from scaling.errors import ScalingError
from scaling.tasks import open_task
from scaling.train import trainer
from scaling.train.distributed import DistributedConfig, initialize_distributed
from tests.ports import free_ports
from tests.train import child_processes
from tests.train.test_trainer import numbers, one_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    (port,), folder = free_ports(1), tmp_path_factory.mktemp("job")
    started = [
        child_processes.start("tests.train.distributed_cases", port, index, folder, devices=2)
        for index in range(2)
    ]
    return [child_processes.answer(process) for process in started]


def test_both_processes_see_all_devices_and_agree(reports):
    assert [report["devices"] for report in reports] == [[4, 2], [4, 2]]
    assert [report["agreed"] for report in reports] == [[7, 3], [7, 3]]
    assert reports[0]["whole"] == reports[1]["whole"]


def test_the_numbers_are_those_of_one_process(reports, tmp_path):
    run = one_run("5k")
    alone = trainer.train(RunGroup((run,)), open_task(run.task), lambda _: tmp_path / "c.npz")[
        run.run_id
    ]
    found, expected = reports[0]["whole"], [list(item) for item in numbers(alone)]
    assert [item[:3] for item in found] == [item[:3] for item in expected]
    assert [item[3] for item in found] == pytest.approx([item[3] for item in expected], abs=1e-5)


def test_process_0_stops_both_and_they_resume_bit_identically(reports):
    for report in reports:
        assert report["stopped"] == "stopped"
        assert report["saved"]
        assert report["resumed"] == report["whole"]


def test_each_process_reads_only_the_parts_of_a_batch_that_its_devices_hold(reports):
    for index, report in enumerate(reports):
        part = report["batch"] // 4
        assert report["sizes"] == [part]
        assert report["parts"] == [[2 * index, part], [2 * index + 1, part]]


def test_each_process_writes_its_own_shards(reports):
    assert [report["writes"] for report in reports] == [True, False]
    assert reports[0]["written"] == ["parts.npz", "whole.npz"][: len(reports[0]["written"])]
    assert "parts.npz" in reports[0]["written"]
    assert "parts.1.npz" in reports[1]["written"]
    assert not {*reports[0]["written"]} & {*reports[1]["written"]}
    for report in reports:
        assert {"parts.npz", "parts.1.npz"} <= {*report["files"]}


def test_a_corrupt_part_of_process_1_is_used_by_none(reports):
    for report in reports:
        assert report["set_aside"] > 0
        assert report["after_flip"] == report["whole"]


def test_a_mesh_that_leaves_a_process_out_is_rejected(reports):
    for text in reports[1]["refused"]:
        assert "data x fsdp x tensor = 4" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"coordinator": "10.0.0.1:80"},
            "the number of processes and the index of this process is missing",
        ),
        ({"coordinator": "10.0.0.1", "n_processes": 2, "index": 0}, "names no port"),
        ({"coordinator": "10.0.0.1:80", "n_processes": 2, "index": 2}, "process 2 of 2"),
    ],
)
def test_incomplete_distributed_settings_are_rejected(settings, said):
    with pytest.raises(ScalingError, match=said) as caught:
        DistributedConfig(**settings)
    assert caught.value.remedy


def test_failed_rendezvous_is_reported_with_its_reason(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DEADLINE_EXCEEDED: only 1 of 2 processes came")

    monkeypatch.setattr("jax.distributed.initialize", fail)
    with (
        pytest.raises(ScalingError, match="did not meet: DEADLINE") as caught,
        initialize_distributed(DistributedConfig("127.0.0.1:80", 2, 0)),
    ):
        pass
    assert "same coordinator" in caught.value.remedy
