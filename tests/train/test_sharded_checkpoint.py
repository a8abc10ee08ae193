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
    damaged = report["damages"]
    assert {
        "flip manifest.json",
        "delete progress.json",
        "flip state/_METADATA",
        "flip state/manifest.ocdbt",
    } <= set(damaged)
    assert any(name.startswith("flip state/ocdbt.process_0/d/") for name in damaged)
    assert set(map(tuple, damaged.values())) == {(1, True)}


def test_partial_save_is_ignored(report):
    assert report["interrupted"]["half-written"] == 2
    assert report["interrupted"]["cleaned"]


def test_corrupt_saves_are_set_aside(report):
    assert "none of the saves in run.sharded is intact" in report["interrupted"]["all damaged"]
    assert report["interrupted"]["set aside"]


def test_the_last_two_are_kept(report):
    assert report["others"]["kept"] == ["00000003", "00000004"]
    assert report["others"]["discarded"]


def test_checkpoint_of_other_arrays_is_rejected(report):
    assert "the run needs" in report["others"]["other arrays"]


def test_an_error_in_the_background_is_raised(report):
    code, text = report["others"]["disk"]
    assert code == 74
    assert "run.sharded: cannot write" in text


def test_a_full_disk_leaves_nothing_half_written(report):
    code, text = report["others"]["full"]
    assert code == 74
    assert "run.sharded: cannot write" in text
    assert report["others"]["left"] == ["00000001", "00000002"]


@pytest.fixture(scope="module")
def moves(tmp_path_factory):
    return child_processes.answer(
        child_processes.start("tests.train.move_cases", tmp_path_factory.mktemp("moves"), devices=4)
    )


@pytest.mark.parametrize(
    ("run", "move", "kept"),
    [
        ("adamw", "mesh and back", [[True, False], [False, True]]),
        ("adamw", "one device and back", [[False, True], [True, False]]),
        ("adamw", "scanned and back", [[True, False], [False, True], [True, False]]),
        ("muon", "mesh and back", [[True, False], [False, True]]),
        ("averaged", "mesh and back", [[True, False], [False, True]]),
    ],
)
def test_run_goes_on_on_a_mesh_and_back_with_the_same_losses(moves, run, move, kept):
    undisturbed, moved = moves[run]["undisturbed"], moves[run][move]
    assert moved["kept"] == kept
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
    assert not moves["saved"]
