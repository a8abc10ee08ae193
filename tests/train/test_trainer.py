"""One run: it learns, resumes to the bit, compiles once, and its divergence is a result."""

import itertools
import json

import jax
import numpy as np
import pytest

from scaling import accounting
from scaling.config import Execution
from scaling.config.run_groups import RunGroup
from scaling.errors import ScalingError
from scaling.plan import plan
from scaling.store.rows import measurement_steps
from scaling.tasks import open_task
from scaling.train import fingerprint, local_checkpoint, optim
from scaling.train import trainer as trainer_module
from scaling.train.data_loader import dispatch_steps
from scaling.train.program import program_key
from scaling.train.step import initial_state, train_program
from scaling.train.trainer import Trainer
from scaling.train.trainer import train as train_family
from tests.sweep_files import TINY, tiny
from tests.train.model.variants import CHOICES, tiny_model

pytestmark = pytest.mark.slow

SETTLED = Execution(
    layers="unrolled", attention="own", kind="cpu"
)  # what a run of `one_run` settles for on a CPU


def one_run(n_tokens="20k", lr=1e-2, model=None, **optimiser):
    base = TINY["base"] | {"optim": {"lr": lr, **optimiser}, "model": model or {}}
    sweep = tiny(base=base, design={"kind": "grid", "sizes": ["3k"], "tokens": [n_tokens]})
    return plan(sweep, sweep.base.task, open_task(sweep.base.task).vocab_size).runs[0].run


def train(run, task, path, **options):
    """One run alone."""
    return train_family(RunGroup((run,)), task, lambda group: path, **options)[run.run_id]


def numbers(outcome):
    """What must not depend on interruptions: everything but the clock."""
    return [
        (m.step, m.split, m.metric, m.value, m.stderr)
        for m in outcome.measured
        if m.metric != "tokens_per_second"
    ]


def train_as_on_a_gpu(run, task, path, **options):
    """The loop and the programs of a GPU, on a CPU: losses are read one dispatch late."""
    execution = SETTLED.model_copy(update={"kind": "gpu"})
    stop = options.get("should_stop", lambda: False)
    trainer = Trainer(RunGroup((run,)), task, lambda group: path, execution, stop)
    return trainer.run(False)[run.run_id]


def stop_after(dispatches):
    count = itertools.count()
    return lambda: next(count) >= dispatches


VARIANTS = [
    {},
    {"norm": "layernorm", "bias": True, "pos": "learned", "ffn": "swiglu"},
    {"tie_embeddings": True, "pos": "alibi", "qk_norm": False},
]


def test_losses_that_are_read_late_are_those_of_the_same_steps(tmp_path):
    run = one_run()
    task = open_task(run.task)
    on_cpu = numbers(train(run, task, tmp_path / "cpu.npz"))
    whole = train_as_on_a_gpu(run, task, tmp_path / "gpu.npz")
    assert [row[:3] for row in numbers(whole)] == [row[:3] for row in on_cpu]
    np.testing.assert_allclose(
        [row[3] for row in numbers(whole)], [row[3] for row in on_cpu], rtol=1e-3
    )
    path = tmp_path / "stopped.npz"
    stopped = train_as_on_a_gpu(run, task, path, should_stop=stop_after(2))
    assert stopped.kind == "stopped"
    assert numbers(train_as_on_a_gpu(run, task, path)) == numbers(whole)


def test_a_profile_is_written_to_its_folder(tmp_path):
    run = one_run()
    train(run, open_task(run.task), tmp_path / "c.npz", profile=tmp_path / "trace")
    assert [path for path in (tmp_path / "trace").rglob("*") if path.is_file()]


def test_rows_have_the_mfu_where_the_peak_is_known(tmp_path, monkeypatch):
    run = one_run()
    monkeypatch.setattr(trainer_module, "peak_flops", lambda n_devices: 1e12)
    rows = train(run, open_task(run.task), tmp_path / "c.npz").measured
    speed = {row.step: row.value for row in rows if row.metric == "tokens_per_second"}
    per_token = accounting.train_flops(run.model, run.task.seq_len, 1, "exact")
    assert {row.step: row.value for row in rows if row.metric == "mfu"} == pytest.approx(
        {step: value * per_token / 1e12 for step, value in speed.items()}
    )


@pytest.mark.parametrize("model", VARIANTS)
@pytest.mark.parametrize("dispatches", [0, 2])
def test_resume_is_exact_to_the_bit(tmp_path, model, dispatches):
    run = one_run(model=model)
    task = open_task(run.task)
    whole = train(run, task, tmp_path / "whole.npz")
    path = tmp_path / "parts.npz"
    stopped = train(run, task, path, should_stop=stop_after(dispatches))
    assert stopped.kind == "stopped"
    assert path.exists()
    resumed = train(run, task, path)
    assert resumed.kind == "done"
    assert numbers(resumed) == numbers(whole)


EVERY_OPTION = [
    {name: values[i % len(values)] for name, values in CHOICES.items()}
    for i in range(max(map(len, CHOICES.values())))
]


@pytest.mark.parametrize(
    "options",
    [
        *EVERY_OPTION[:2],
        *(pytest.param(options, marks=pytest.mark.exhaustive) for options in EVERY_OPTION[2:]),
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_resume_is_exact_at_every_step_for_every_option(tmp_path, monkeypatch, options):
    """Stopped after each single step and taken up again, a run ends as if nothing had happened."""
    monkeypatch.setattr("scaling.train.trainer.dispatch_steps", lambda run: 1)
    run = one_run(warmup_steps=2)
    run = run.model_copy(
        update={"model": tiny_model(n_layers=1, vocab_size=16, **options), "n_steps": 7}
    )
    task, path = open_task(run.task), tmp_path / "parts.npz"
    whole = train(run, task, tmp_path / "whole.npz")
    sittings = 0
    while (outcome := train(run, task, path, should_stop=stop_after(1))).kind == "stopped":
        sittings += 1
    assert sittings == run.n_steps - 1
    assert numbers(outcome) == numbers(whole)


def test_loss_falls_and_stays_above_the_entropy(tmp_path):
    run = one_run("200k")
    task = open_task(run.task)
    outcome = train(run, task, tmp_path / "c.npz")
    losses = [m.value for m in outcome.measured if (m.split, m.metric) == ("val", "loss")]
    assert losses == sorted(losses, reverse=True)
    assert task.entropy < losses[-1] < np.log(task.vocab_size) - 0.5
    assert [
        m.step for m in outcome.measured if (m.split, m.metric) == ("val", "loss")
    ] == measurement_steps(run)


def test_divergence_is_a_recorded_outcome(tmp_path):
    run = one_run(
        lr=10.0, clip=False, warmup_steps=0, schedule="constant", model={"qk_norm": False}
    )
    outcome = train(run, open_task(run.task), tmp_path / "c.npz")
    assert outcome.kind == "diverged"
    last = outcome.measured[-1]
    assert (last.metric, last.value) == ("diverged_at_step", last.step)
    assert f"step {last.step}" in outcome.reason


def test_one_compilation_serves_learning_rates_decays_and_horizons(tmp_path):
    train_program.cache_clear()
    runs = [
        one_run(lr=3e-3),
        one_run("10k", lr=1e-3),
        one_run(lr=1e-3, weight_decay=0.1, b2=0.95, cooldown_frac=0.5),
    ]
    for i, run in enumerate(runs):
        train(run, open_task(run.task), tmp_path / f"{i}.npz")
    program = train_program(program_key(runs[0], SETTLED))
    assert train_program.cache_info().misses == 1
    assert program._cache_size() == 1


def test_a_corrupt_checkpoint_is_set_aside_and_the_run_redone(tmp_path, capsys):
    run = one_run()
    task, path = open_task(run.task), tmp_path / "c.npz"
    whole = train(run, task, tmp_path / "whole.npz")
    train(run, task, path, should_stop=stop_after(2))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert numbers(train(run, task, path)) == numbers(whole)
    assert "set aside" in capsys.readouterr().err
    assert path.with_name("c.npz.damaged").exists()


def test_every_single_bit_flip_of_a_checkpoint_is_noticed_or_harmless(tmp_path):
    run = one_run()
    state, path = initial_state(program_key(run, SETTLED), 0), tmp_path / "c.npz"
    local_checkpoint.save(path, state, {"step": 3})
    clean, _ = local_checkpoint.restore(path, lambda progress: state)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(good), 60):
        flipped = bytearray(good)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            found, progress = local_checkpoint.restore(path, lambda progress: state)
        except local_checkpoint.Unreadable:
            continue
        assert progress["step"] == 3
        assert all(
            (a == b).all()
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(clean), strict=True)
        )


def test_resume_on_another_machine_needs_a_flag(tmp_path, monkeypatch):
    run = one_run()
    task, path = open_task(run.task), tmp_path / "c.npz"
    train(run, task, path, should_stop=stop_after(1))
    changed = fingerprint.fingerprint() | {"threads": 77}
    monkeypatch.setattr(fingerprint, "_machine", lambda: changed)
    with pytest.raises(ScalingError, match="threads was") as caught:
        train(run, task, path)
    assert "--accept-changes" in caught.value.remedy
    assert train(run, task, path, allow_changes=True).kind == "done"


def rates(schedule, n_steps=100, **changes):
    run = one_run(lr=1.0, schedule=schedule, warmup_steps=10, **changes)
    h = optim.hyper(run.optim, n_steps)
    return np.array(
        [optim.learning_rate(schedule, h, jax.numpy.int32(step)) for step in range(n_steps)]
    )


def test_schedules():
    wsd, cosine, constant = rates("wsd"), rates("cosine", final_lr_frac=0.1), rates("constant")
    for warm in (wsd, cosine, constant):
        assert warm[:10] == pytest.approx(np.arange(1, 11) / 10, rel=1e-6)
    assert (wsd[10:80] == 1.0).all()
    assert wsd[80:] == pytest.approx(1 - np.sqrt(np.arange(1, 21) / 21), rel=1e-5)
    assert cosine[55] == pytest.approx(0.1 + 0.9 * 0.5, rel=1e-5)
    assert (constant[10:] == 1.0).all()


def test_stable_phase_of_wsd_does_not_depend_on_the_horizon():
    assert (rates("wsd", 100)[:80] == rates("wsd", 400)[:80]).all()


GOLDEN = {"losses": [3.362122, 3.33551], "norms": [2.257526, 1.995982]}


def test_golden_first_steps():
    """Two steps of a fixed run.

    After a change that is meant to alter training, renew GOLDEN from this message.
    """
    run = one_run()
    task = open_task(run.task)
    tokens = np.zeros((dispatch_steps(run), run.batch_size, 31), np.int32)
    tokens[:2] = [task.batch("train", i, run.batch_size) for i in range(2)]
    program = train_program(program_key(run, SETTLED))
    _, losses, norms = program(
        initial_state(program_key(run, SETTLED), 0), optim.hyper(run.optim, run.n_steps), tokens, 2
    )
    found = {
        "losses": np.asarray(losses)[:2].round(6).tolist(),
        "norms": np.asarray(norms)[:2].round(6).tolist(),
    }
    assert found == {key: pytest.approx(value, rel=1e-4) for key, value in GOLDEN.items()}, (
        f"renew with: GOLDEN = {json.dumps(found)}"
    )
