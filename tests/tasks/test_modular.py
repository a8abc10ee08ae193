import numpy as np
import pytest

from scaling.config import ModularTask
from scaling.errors import ScalingError
from scaling.tasks import Scores, open_task
from scaling.tasks.modular import OPERATIONS


def opened(**fields):
    return open_task(ModularTask(kind="modular", **fields))


def rows_of(windows):
    return {tuple(row) for row in windows.tolist()}


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_splits_partition_all_equations(operation):
    task = opened(p=7, operation=operation, train_fraction=0.6)
    assert (task.n_windows("train"), task.n_windows("val")) == (29, 20)
    both = np.concatenate(
        [task.batch(split, 0, task.n_windows(split)) for split in ("train", "val")]
    )
    assert len(rows_of(both)) == 49
    a, b, sign, c = both.astype(int).T
    assert {*sign.tolist()} == {7}
    worked = {"add": a + b, "subtract": a - b, "multiply": a * b, "quadratic": a**2 + a * b + b**2}[
        operation
    ]
    assert (c == worked % 7).all()
    assert (task.vocab_size, task.seq_len, both.dtype) == (8, 3, np.int32)


def test_every_epoch_reads_all_equations_in_another_order():
    task = opened(p=11)
    n = task.n_windows("train")
    epochs = [task.batch("train", epoch, n) for epoch in range(3)]
    assert [len(rows_of(epoch)) for epoch in epochs] == [n, n, n]
    assert (epochs[0] != epochs[1]).any()
    assert (epochs[1] != epochs[2]).any()


def test_batches_do_not_depend_on_their_size_or_on_history():
    n = opened(p=11).n_windows("train")
    straight = np.concatenate([opened(p=11).batch("train", index, 1) for index in range(2 * n)])
    for size in (7, n, 2 * n):
        pieces = [opened(p=11).batch("train", index, size) for index in range(2 * n // size)]
        joined = np.concatenate(pieces)
        assert (joined == straight[: len(joined)]).all()


def test_a_batch_larger_than_an_epoch_reads_it_again():
    task = opened(p=5, train_fraction=0.4)
    batch = task.batch("train", 0, 25)
    assert len(rows_of(batch)) == 10
    assert np.unique(batch, axis=0, return_counts=True)[1].tolist().count(3) == 5


def test_another_data_seed_is_another_split():
    first, other = opened(p=23), opened(p=23, data_seed=1)
    assert rows_of(first.windows["train"]) != rows_of(other.windows["train"])
    assert first.digest != other.digest
    assert first.digest == opened(p=23).digest


def test_held_out_equations_are_read_once():
    task = opened(p=5)
    assert task.batch("val", 0, 15).shape == (15, 4)
    with pytest.raises(IndexError, match="val windows 15 to 15 of 15"):
        task.batch("val", 15, 1)


def test_accuracy_is_the_share_of_hits():
    task = opened(p=5)
    blank = np.zeros((4, 1))
    (found,) = task.metrics(
        task.batch("val", 0, 4),
        Scores(blank, np.array([[True], [True], [False], [True]]), blank, blank),
    )
    assert (found.metric, found.value, found.at) == ("accuracy", 0.75, None)
    assert found.stderr == pytest.approx(0.25)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_a_split_without_equations_is_rejected(fraction):
    with pytest.raises(ScalingError, match="leaves a split empty"):
        opened(p=5, train_fraction=fraction)
