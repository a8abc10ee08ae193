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


def test_only_process_0_publishes(reports):
    assert [report["writes"] for report in reports] == [True, False]
    assert reports[0]["published"] > 0  # one, or more where training takes 20 s
    assert reports[1]["published"] == 0


def test_each_process_reads_only_the_parts_of_a_batch_that_its_devices_hold(reports):
    for index, report in enumerate(reports):
        part = report["batch"] // 4
        assert report["sizes"] == [part]
        assert report["parts"] == [[2 * index, part], [2 * index + 1, part]]


def test_each_process_hashes_the_shards_that_it_wrote(reports):
    for index, report in enumerate(reports):
        own = report["hashed"][0] if index == 0 else report["hashed"][-1]
        assert own
        assert all(f"ocdbt.process_{index}/" in name for name in own)
    assert {*reports[0]["hashed"][0], *reports[1]["hashed"][-1], *reports[0]["hashed"][1]} == {
        *reports[0]["manifest"]
    }


def test_each_process_checks_what_it_wrote_when_it_resumes(reports):
    for index, report in enumerate(reports):
        shards = [name for name in report["checked"] if "ocdbt.process_" in name]
        assert shards
        assert all(f"ocdbt.process_{index}/" in name for name in shards)
    assert not {*reports[0]["checked"]} & {*reports[1]["checked"]}
    assert {*reports[0]["checked"], *reports[1]["checked"]} == {*reports[0]["manifest"]}


def test_a_save_that_process_1_finds_corrupt_is_used_by_none(reports):
    assert "ocdbt.process_1/" in reports[0]["flipped"]
    for report in reports:
        assert report["set_aside"] == 1
        assert report["after_flip"] == report["whole"]


def test_a_mesh_that_leaves_a_process_out_is_rejected(reports):
    for text in reports[1]["refused"]:
        assert "data x fsdp x tensor = 4" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"coordinator": "10.0.0.1:80"},
            "missing --processes and --process",
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
