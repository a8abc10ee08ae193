"""A state on eight devices comes back to the bit, on any mesh.

What is damaged is noticed, and the save before it taken.
"""

import pytest

from tests.train import child_processes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return child_processes.answer(
        child_processes.start(
            "tests.train.checkpoint_cases", tmp_path_factory.mktemp("saves"), devices=8
        )
    )


def test_saved_state_is_restored_bit_identically_while_training_goes_on(report):
    assert report["round trip"]["note"] == 2
    assert report["round trip"]["same"]
    assert report["round trip"]["placed"]


def test_checkpoint_is_restored_on_another_mesh(report):
    assert report["round trip"]["elsewhere"]
    assert report["round trip"]["devices"] == 4


def test_save_returns_before_it_is_written(report):
    assert report["round trip"]["returned"] < report["round trip"]["whole"]


def test_corrupt_file_is_detected_and_the_previous_save_restored(report):
    assert len(report["damages"]) == 8
    assert set(map(tuple, report["damages"].values())) == {(1, True)}


def test_the_last_two_are_kept(report):
    assert report["others"]["kept"] == ["run.npz", "run.previous.npz"]
    assert report["others"]["notes"] == [3, 2]
    assert report["others"]["discarded"]


def test_corrupt_saves_are_set_aside(report):
    assert "Unreadable" in report["others"]["all corrupt"]
    assert report["others"]["set aside"] == 2


def test_checkpoint_of_other_arrays_is_rejected(report):
    assert "the run needs" in report["others"]["other arrays"]


def test_a_full_disk_leaves_nothing_half_written(report):
    code, text = report["others"]["full"]
    assert code == 74
    assert "run.npz: cannot write" in text
    assert report["others"]["left"] == []


@pytest.fixture(scope="module")
def moves(tmp_path_factory):
    return child_processes.answer(
        child_processes.start("tests.train.move_cases", tmp_path_factory.mktemp("moves"), devices=4)
    )


@pytest.mark.parametrize(
    ("run", "move"),
    [
        ("adamw", "mesh and back"),
        ("adamw", "one device and back"),
        ("adamw", "scanned and back"),
        ("muon", "mesh and back"),
        ("averaged", "mesh and back"),
    ],
)
def test_run_goes_on_on_a_mesh_and_back_with_the_same_losses(moves, run, move):
    undisturbed, moved = moves[run]["undisturbed"], moves[run][move]
    assert all(moved["stopped"])
    assert [row[:2] for row in moved["numbers"]] == [row[:2] for row in undisturbed]
    assert [row[2] for row in moved["numbers"]] == pytest.approx(
        [row[2] for row in undisturbed], rel=1e-5
    )


@pytest.mark.parametrize("run", ["adamw", "muon", "averaged"])
def test_state_changes_its_layout_to_the_bit(moves, run):
    assert moves[run]["layouts"] == [True] * 16


def test_change_of_mesh_is_asked_for(moves):
    text, remedy, exists = moves["asked"]
    assert "execution was" in text
    assert "--accept-changes" in remedy
    assert exists
