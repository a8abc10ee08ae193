import time

import numpy as np
import pytest

from scaling.config import TextTask
from scaling.errors import ScalingError
from scaling.tasks import epochs, fixed_batches, open_task, resolve
from scaling.tasks.corpus.token_store import TokenizerFacts, open_store
from scaling.tasks.text import _starts, _stride, permuted


def opened(folder, seq_len=16, **fields):
    return open_task(TextTask(kind="text", corpus=str(folder), seq_len=seq_len, **fields))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000, 4097])
def test_permutation_visits_everything_once(n):
    orders = [permuted(np.arange(n), n, epoch) for epoch in range(2)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(n))
    if n > 10:
        assert (orders[0] != orders[1]).any()


def test_permutation_looks_random():
    n = 20_000
    for epoch in range(5):
        order = permuted(np.arange(n), n, epoch)
        for lag in (1, 2, 7, 64):
            assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < 5 / np.sqrt(n)
        early = np.bincount(
            order[: n // 10] * 20 // n, minlength=20
        )  # the first tenth is spread over the corpus
        assert np.abs(early - 100).max() < 60


def test_batches_do_not_depend_on_history_or_batch_size(make_store):
    folder = make_store(5000)
    straight = np.concatenate([opened(folder).batch("train", i, 1) for i in range(1200)])
    task = opened(folder)
    task.batch("train", 90, 8)
    _starts.cache_clear()
    wide = np.concatenate(
        [task.batch("train", i, 24) for i in range(50)]
    )  # crosses epochs and chunks
    assert (wide == straight).all()
    assert wide.dtype == np.int32
    assert wide.shape == (1200, 17)


def test_an_epoch_predicts_every_token_once(make_store):
    folder = make_store(5000)
    task, tokens = opened(folder), open_store(folder).tokens["train"]
    n = task.n_windows("train")
    assert n == (5000 - 16) // 16
    seen = []
    for epoch in (0, 1):
        starts = np.sort(
            np.concatenate([_starts(n, 16, chunk) for chunk in range(3)])[
                epoch * n : (epoch + 1) * n
            ]
        )
        assert (np.diff(starts) == 16).all()
        assert 0 <= starts[0] < 16
        assert starts[-1] + 16 < len(tokens)
        seen.append(starts[0])
    assert seen[0] != seen[1]  # windows are cut elsewhere in another epoch
    start = _starts(n, 16, 0)[5]
    assert (task.batch("train", 5, 1)[0] == tokens[start : start + 17]).all()
    assert epochs(task, task.n_tokens("train") * 3) == 3.0


def test_val_windows_are_disjoint_even_and_end(make_store):
    task = opened(make_store(n_val=16 * 400 + 1))
    n = task.n_windows("val")
    assert n == 400
    starts = task._val_starts(0, n) // 16
    assert sorted(starts.tolist()) == list(range(n))
    with pytest.raises(IndexError):
        task.batch("val", 50, 8)
    batches = list(fixed_batches(task, 64, 10**9))
    assert [batch.shape for batch in batches] == [(64, 17)] * 6
    assert len(list(fixed_batches(task, 64, 20 * 16))) == 1
    with pytest.raises(ScalingError, match=r"evals\.tokens = 3"):
        fixed_batches(task, 64, 3)


@pytest.mark.parametrize("n", [100, 400, 997, 2310, 16818])
def test_any_first_part_of_val_is_spread_evenly(n):
    order = np.arange(n) * _stride(n) % n
    for part in (n // 20, n // 7, n // 3):
        gaps = np.diff(np.concatenate([[0], np.sort(order[:part]), [n]]))
        assert gaps.max() <= 4 * n / part  # a random choice has gaps of ln(n) times the mean


def test_a_corpus_that_changed_is_rejected(make_store):
    folder = make_store()
    task = resolve(TextTask(kind="text", corpus=str(folder), seq_len=16))
    assert task.digest == open_task(task).digest
    with pytest.raises(ScalingError, match="now another text"):
        open_task(task.model_copy(update={"corpus": str(make_store(name="other"))}))


def test_too_little_text_is_rejected(make_store):
    with pytest.raises(ScalingError, match=r"1000 val tokens are too few for seq_len = 1000"):
        opened(make_store(5000, 1000), seq_len=1000)
    assert opened(make_store(5000, 1000), seq_len=999).batch("val", 0, 1).shape == (1, 1000)


def test_ids_outside_the_vocabulary_never_reach_a_model(make_store):
    folder = make_store(facts=TokenizerFacts(kind="file", name="t", vocab_size=300))
    (folder / "train.bin").write_bytes(np.full(5000, 301, "<u2").tobytes())
    with pytest.raises(ScalingError, match="token id 301 in a vocabulary of 300"):
        opened(folder).batch("train", 0, 8)


def test_bits_per_byte_need_a_lossless_tokenizer(make_store):
    facts = {"kind": "file", "name": "t", "vocab_size": 300}
    assert opened(make_store(name="a", facts=TokenizerFacts(**facts))).bytes_per_token == 1.0
    assert (
        opened(make_store(name="b", facts=TokenizerFacts(**facts, lossless=False))).bytes_per_token
        is None
    )


def test_batches_are_cheap(make_store):
    task = opened(make_store(1_000_000), seq_len=64)
    best = min(_seconds(task, first) for first in range(0, 5000, 1000))
    assert 1000 * 8 * 64 / best > 2e6  # tokens a second; 14e6 on an idle core


def _seconds(task, first):
    begun = time.process_time()
    for index in range(first, first + 1000):
        task.batch("train", index, 8)
    return time.process_time() - begun


def starts_of(task, count):
    return task._train_starts(0, count)


def test_limited_corpus_is_the_prefix_of_a_fresh_run_and_reshuffles_each_epoch(
    make_store,
):
    folder = make_store(5000)
    fresh, limited = starts_of(opened(folder), 300), opened(folder, unique_tokens=50 * 16)
    found = starts_of(limited, 2500)  # crosses epochs and chunks
    assert (found[:50] == fresh[:50]).all()
    orders = [tuple(found[epoch * 50 : epoch * 50 + 50]) for epoch in range(50)]
    assert {frozenset(order) for order in orders} == {frozenset(fresh[:50].tolist())}
    assert len(set(orders)) == 50
    assert limited.n_windows("train") == 50
    assert epochs(limited, 50 * 16 * 8) == 8.0
    assert set(starts_of(opened(folder, unique_tokens=25 * 16), 100)) < set(
        found
    )  # every limit lies in the next
    tokens = open_store(folder).tokens["train"]
    assert (limited.batch("train", 60, 1)[0] == tokens[found[60] : found[60] + 17]).all()


def test_limited_corpus_is_a_sample_of_the_whole(make_store):
    folder = make_store(320_016)
    found = starts_of(opened(folder, unique_tokens=1000 * 16), 1000)
    assert np.abs(np.bincount(found * 20 // 320_016, minlength=20) - 50).max() < 30


def test_limit_changes_neither_validation_nor_batch_invariance(make_store):
    folder = make_store()
    plain, limited = opened(folder), opened(folder, unique_tokens=10 * 16 + 3)
    assert limited.n_windows("train") == 10
    assert limited.n_windows("val") == plain.n_windows("val")
    assert (limited.batch("val", 0, 8) == plain.batch("val", 0, 8)).all()
    one_by_one = np.concatenate([limited.batch("train", i, 1) for i in range(96)])
    assert (
        np.concatenate([limited.batch("train", i, 32) for i in range(3)]) == one_by_one
    ).all()  # a batch of three epochs
    assert (opened(folder, unique_tokens=16).batch("train", 7, 4) == one_by_one[0]).all()


@pytest.mark.parametrize(
    ("limit", "words"), [(4977, "more than the corpus holds"), (15, "fewer than a window of 16")]
)
def test_limit_larger_than_the_corpus_is_rejected(make_store, limit, words):
    folder = make_store(5000)
    with pytest.raises(ScalingError, match=words) as caught:
        opened(folder, unique_tokens=limit)
    assert "from 16 to 4976" in caught.value.remedy
    assert opened(folder, unique_tokens=4976).n_windows("train") == opened(folder).n_windows(
        "train"
    )


def test_order_without_a_limit_is_unchanged(make_store):
    """Another order would make another run of every run_id.

    These numbers are those of the first release.
    """
    assert starts_of(opened(make_store(5000)), 1027)[[0, 1, 2, 3, 1024, 1025, 1026]].tolist() == [
        885,
        85,
        1989,
        549,
        3693,
        4669,
        4589,
    ]


def test_limit_enters_the_run_id_and_its_absence_does_not():
    task = TextTask(kind="text", digest="d")
    assert "unique_tokens" not in task.canonical()
    assert TextTask(kind="text", digest="d", unique_tokens=64).canonical() != task.canonical()
