"""The training loop: a run group, from its checkpoint or step 0, to its measurements."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scaling import accounting
from scaling.config import Execution, RunConfig
from scaling.config.run_groups import RunGroup
from scaling.store.rows import Measurement, measurement_steps
from scaling.tasks import Task
from scaling.train import checkpointing, optim
from scaling.train.data_loader import BatchPrefetcher, dispatch_steps
from scaling.train.distributed import broadcast_from_host0
from scaling.train.evaluate import Evaluator
from scaling.train.fingerprint import peak_flops, pin_numerics, resolve_for_local_devices
from scaling.train.run_metrics import Outcome, RunMetrics, first_diverged_step
from scaling.train.sharding import Sharder
from scaling.train.step import TrainState, program_key, train_program, unstack_state

DISPATCH_SECONDS = 0.5  # the longest dispatch, so that a signal is answered soon
FIRST_DISPATCH_STEPS = 4  # before the speed is known
MAX_SAVE_SHARE = 0.01  # of the time that may go into checkpoints
MIN_SAVE_SECONDS = 0.5  # between two saves of one device, so that a kill costs little
MIN_SHARDED_SAVE_SECONDS = 20.0  # between two saves of a mesh, whose shards go over a network
PROFILED_DISPATCHES = 3  # after the first, which is not at full speed


@dataclass(frozen=True)
class Progress:
    """The state of a run: mean loss of the last dispatch in nats, and speed since it was resumed.

    `mfu` is the model FLOP/s over the peak of all devices of its mesh, where their peak is known.
    For a pack, `run_id` and `loss` are those of its first run; speeds and FLOPs are of all its runs
    together.
    """

    run_id: str
    step: int
    n_steps: int
    loss: float
    tokens_per_second: float
    flops_per_second: float
    flops: float
    mfu: float | None = None


class _Dispatch(NamedTuple):
    """Steps that were handed to the device after `step`; their losses may not be there yet."""

    step: int
    n_steps: int
    losses: jax.Array
    norms: jax.Array


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called while a group trains.

    `on_branch_saved`: a branch has its checkpoint, or must be trained on its own. `on_eval`: the
    new measurements of a run. `on_run_end`: the final parameters of a run that did not diverge,
    before its outcome is returned.
    """

    on_progress: Callable[[Progress], None] = lambda progress: None
    on_branch_saved: Callable[[RunGroup], None] = lambda branch: None
    on_eval: Callable[[RunConfig, Sequence[Measurement]], None] = lambda run, rows: None
    on_run_end: Callable[[RunConfig, Any], None] = lambda run, params: None


def train(
    group: RunGroup,
    task: Task,
    checkpoint_path: Callable[[RunGroup], Path],
    execution: Execution | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    callbacks: Callbacks | None = None,
    allow_changes: bool = False,
    profile: Path | None = None,
) -> dict[str, Outcome]:
    """Train the runs of a group to their end, to divergence, or until `should_stop`.

    Training resumes from `checkpoint_path(group)` if there is one, with the same bits as an
    uninterrupted run on the same kind of machine. A branch leaves where its cooldown begins: its
    state is saved, `on_branch_saved` is called, and a later `train(branch, ...)` resumes there. For
    the `later` runs of the group the state is saved where its constant rate ends.
    Returns the outcome of each run that has ended; when all runs of a pack diverge, so do the
    branches that have not left. Raises ScalingError when the checkpoint was written under other
    conditions and `allow_changes` is not set. A trace of PROFILED_DISPATCHES dispatches is written
    to the folder `profile`, for TensorBoard or Perfetto.
    """
    pin_numerics()
    execution = resolve_for_local_devices(group.runs[0], execution or Execution(), len(group.runs))
    trainer = Trainer(group, task, checkpoint_path, execution, should_stop, callbacks, profile)
    return trainer.run(allow_changes)


class Trainer:
    """One call of `train`; `execution` is resolved."""

    def __init__(
        self,
        group: RunGroup,
        task: Task,
        checkpoint_path: Callable[[RunGroup], Path],
        execution: Execution,
        should_stop: Callable[[], bool],
        callbacks: Callbacks | None = None,
        profile: Path | None = None,
    ) -> None:
        self.profile, self.peak_flops = profile, peak_flops(execution.mesh.n_devices)
        self.group, self.runs, self.task = group, group.runs, task
        self.config = group.runs[0]  # a pack shares model shape, horizon and evaluation steps
        self.checkpoint_path, self.execution = checkpoint_path, execution
        self.should_stop, self.callbacks = should_stop, callbacks or Callbacks()
        self.sharder = Sharder(execution)

    def run(self, allow_changes: bool) -> dict[str, Outcome]:
        """Restore or initialise, train, and return the outcomes of the runs that have ended."""
        path = self.checkpoint_path(self.group)
        restored = checkpointing.restore_or_init(path, self.group, self.execution, allow_changes)
        self.metrics: dict[str, RunMetrics] = restored.metrics
        self.state: TrainState = self.sharder.put_state(restored.state)
        step = int(np.ravel(self.state.step)[0])
        self.pending_branches = [b for b in self.group.branches if self._is_pending(b, step)]
        self.pending_later = [
            later
            for later in self.group.later
            if step < self.group.branch_step and later.name in self.metrics
        ]
        for branch in self.group.branches:
            if branch not in self.pending_branches:
                self.callbacks.on_branch_saved(branch)
        self.evaluator = Evaluator(self.config, self.task, self.sharder)
        with BatchPrefetcher(self.config, self.task, step) as batches:
            step = self._train_loop(step, batches)
        checkpointing.wait_until_saved(self.execution)
        diverged = self._all_diverged()
        if step < self.config.n_steps and not diverged:
            reason = f"at step {step} of {self.config.n_steps}"
            return {
                run.run_id: Outcome("stopped", tuple(self.metrics[run.run_id].measured), reason)
                for run in self.runs
            }
        ended = self._unfinished_group().all_runs() if diverged else self.runs
        return {run.run_id: self.metrics[run.run_id].outcome() for run in ended}

    def _train_loop(self, step: int, batches: BatchPrefetcher) -> int:
        """Train from `step` to the end, to divergence or to a stop; returns the last step."""
        program, hyper = self._compile(batches)
        boundaries, timer = self._dispatch_boundaries(), _Timer(self.execution.mesh.n_devices > 1)
        first_step, started = step, time.monotonic()
        pending: _Dispatch | None = None  # its losses are read while the next one is computed
        trace = _Trace(self.profile)

        def record(dispatch: _Dispatch | None) -> None:
            if dispatch is not None:
                loss = self._read_losses(dispatch, timer)
                end = dispatch.step + dispatch.n_steps
                self._report_progress(end, loss, end - first_step, started)

        while step < self.config.n_steps and not self._all_diverged():
            boundary = next(boundary for boundary in boundaries if boundary > step)
            count = min(boundary - step, dispatch_steps(self.config), timer.max_steps())
            wishes = np.array([self.should_stop(), timer.save_is_due(), count])
            stop, save, count = map(int, broadcast_from_host0(wishes))
            if stop or save:
                record(pending)
                pending = None
                began = time.monotonic()
                self._save_checkpoint()
                timer.record_save(began)
            if stop:
                break
            if pending is None:
                timer.start()
            trace.before_dispatch()
            tokens_KBT1 = self.sharder.put_tokens(batches.next_batches(count))
            self.state, losses, norms = program(self.state, hyper, tokens_KBT1, count)
            record(pending)
            pending = _Dispatch(step, count, losses, norms)
            step += count
            if step == boundary or not self.execution.on_accelerator:
                record(pending)
                pending = None
            if step == boundary:
                self._evaluate(step, self._pack_tokens(1) / timer.step_seconds)
                self._save_branches(step)
        record(pending)
        trace.close()
        return step

    def _read_losses(self, dispatch: _Dispatch, timer: _Timer) -> float:
        """Wait for a dispatch, record it, and return the first run's mean loss in nats."""
        count = dispatch.n_steps
        losses_RK = np.asarray(dispatch.losses).reshape(len(self.runs), -1)[:, :count]
        norms_RK = np.asarray(dispatch.norms).reshape(len(self.runs), -1)[:, :count]
        timer.record_steps(count)
        self._record_losses(dispatch.step, losses_RK, norms_RK, timer.step_seconds * count)
        return float(losses_RK[0].mean())

    def _compile(self, batches: BatchPrefetcher) -> tuple[Any, optim.OptimHyperparams]:
        """The compiled program and its traced numbers; a call of zero steps compiles it."""
        hypers = [optim.hyper(run.optim, run.n_steps) for run in self.runs]
        if len(hypers) == 1:
            program, hyper = train_program(program_key(self.config), self.execution), hypers[0]
        else:
            program = train_program(program_key(self.config), self.execution, len(hypers))
            hyper = jax.tree.map(lambda *leaves: jnp.stack(leaves), *hypers)
        empty = self.sharder.put_tokens(batches.next_batches(0))
        self.state, *_ = program(self.state, hyper, empty, 0)
        return program, hyper

    def _dispatch_boundaries(self) -> list[int]:
        """Steps at which a dispatch must end: evaluations, branch points, shorter budgets."""
        boundaries = {*measurement_steps(self.config), *self.group.read_at}
        followed = [(branch, branch.branch_step) for branch in self.group.branches]
        followed += [(later, self.group.branch_step) for later in self.group.later]
        for group, end in followed:
            steps = {*measurement_steps(group.runs[0]), *group.read_at, end}
            boundaries |= {step for step in steps if step <= end}
        return sorted(boundaries - {0})

    def _pack_tokens(self, steps: int) -> int:
        return len(self.runs) * steps * self.config.batch_tokens

    def _all_diverged(self) -> bool:
        return all(self.metrics[run.run_id].diverged for run in self.runs)

    # Metrics

    def _record_losses(
        self, step: int, losses_RK: np.ndarray, norms_RK: np.ndarray, seconds: float
    ) -> None:
        """Add a dispatch that began after `step` to every run and to its pending branches."""
        for index, losses_K in enumerate(losses_RK):
            bad = first_diverged_step(losses_K, self.config.model.vocab_size)
            for run in self._runs_at(index):
                metrics = self.metrics[run.run_id]
                if not metrics.diverged:
                    metrics.add(losses_K, norms_RK[index], seconds / len(self.runs))
                    if bad is not None:
                        metrics.mark_diverged(run, step + bad + 1, float(losses_K[bad]))

    def _report_progress(self, step: int, loss: float, n_new: int, started: float) -> None:
        """`n_new` steps were trained since `started`."""
        run, seconds = self.config, time.monotonic() - started
        tokens = self._pack_tokens(n_new)
        flops = accounting.train_flops(run.model, run.task.seq_len, tokens, "exact")
        self.callbacks.on_progress(
            Progress(
                run_id=run.run_id,
                step=step,
                n_steps=run.n_steps,
                loss=loss,
                tokens_per_second=tokens / seconds,
                flops_per_second=flops / seconds,
                flops=flops,
                mfu=flops / seconds / self.peak_flops if self.peak_flops else None,
            )
        )

    def _evaluate(self, step: int, tokens_per_second: float) -> None:
        """Evaluate every run and pending branch that has a measurement after this step."""
        for index, run in enumerate(self.runs):
            state = self.state if len(self.runs) == 1 else unstack_state(self.state, index)
            followed = [r for r in self._runs_at(index) if not self.metrics[r.run_id].diverged]
            due = [r for r in followed if step in measurement_steps(r)]
            values = self.evaluator.evaluate(state) if due else []
            noise = self.evaluator.gradient_noise(state, run) if due else []
            for member in due:
                metrics = self.metrics[member.run_id]
                metrics.flush_window(step, tokens_per_second, self._mfu(tokens_per_second))
                metrics.record([*values, *noise], step)
                if step == member.n_steps:
                    metrics.record(self.evaluator.evaluate_at_end(state, member), step)
            for group in (self.group, *self.pending_later):
                if step in group.read_at and group.runs[index] in followed:
                    constant = self.evaluator.evaluate_without_cooldown(state)
                    self.metrics[group.runs[index].run_id].record(constant, step)
            for member in (run, *(branch.runs[index] for branch in self.pending_branches)):
                self._notify(member, step)
            if step == run.n_steps and run in followed:
                self.callbacks.on_run_end(run, state.params)

    def _mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOP/s over the devices' peak; None where that is unknown, as on a CPU."""
        if not self.peak_flops:
            return None
        run = self.config
        per_token = accounting.train_flops(run.model, run.task.seq_len, 1, "exact")
        return tokens_per_second * per_token / self.peak_flops

    def _notify(self, run: RunConfig, step: int) -> None:
        """Pass on what was measured of a run after this step."""
        latest_first = reversed(self.metrics[run.run_id].measured)
        rows = list(takewhile(lambda row: row.step == step, latest_first))[::-1]
        if rows:
            self.callbacks.on_eval(run, rows)

    # Branches and checkpoints

    def _is_pending(self, branch: RunGroup, step: int) -> bool:
        """Whether a branch leaves after `step`, and its metrics have been recorded so far."""
        return step < branch.branch_step and all(run.run_id in self.metrics for run in branch.runs)

    def _runs_at(self, index: int) -> list[RunConfig]:
        """A run of the pack, its pending branches and the longer runs for which its state will be
        kept: so far they are one and the same run.
        """
        pending = (*self.pending_branches, *self.pending_later)
        return [self.runs[index], *(group.runs[index] for group in pending)]

    def _unfinished_group(self) -> RunGroup:
        """The group with the branches that have not left."""
        pending = tuple(self.pending_branches), tuple(self.pending_later)
        return RunGroup(self.runs, pending[0], self.group.read_at, pending[1])

    def _save_checkpoint(self) -> None:
        self._save(self.checkpoint_path(self.group), self._unfinished_group())

    def _save_branches(self, step: int) -> None:
        """Save the branches that leave here, and the state for longer runs that may come."""
        if step == self.group.branch_step:
            for later in self.pending_later:
                self._save(self.checkpoint_path(later), later)
                checkpointing.wait_until_saved(self.execution)
            self.pending_later = []
        for branch in [b for b in self.pending_branches if b.branch_step == step]:
            self._save(self.checkpoint_path(branch), branch)
            checkpointing.wait_until_saved(self.execution)
            self.pending_branches.remove(branch)
            self.callbacks.on_branch_saved(branch)

    def _save(self, path: Path, group: RunGroup) -> None:
        state = checkpointing.TrainingState(self.state, self.metrics)
        checkpointing.save(path, group, state, self.execution)


class _Trace:
    """A profiler's trace of a few dispatches, in a folder; without one nothing happens."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._n_dispatches, self._on = folder, 0, False

    def before_dispatch(self) -> None:
        """Start after the first dispatch, stop PROFILED_DISPATCHES later."""
        if self._folder and self._n_dispatches == 1:
            jax.profiler.start_trace(str(self._folder))
            self._on = True
        elif self._n_dispatches == 1 + PROFILED_DISPATCHES:
            self.close()
        self._n_dispatches += 1

    def close(self) -> None:
        """Write the trace, if one is being made."""
        if self._on:
            jax.profiler.stop_trace()
            self._on = False


class _Timer:
    """How many steps fit in a dispatch, and when the next checkpoint is due."""

    def __init__(self, is_sharded: bool) -> None:
        self.step_seconds = 0.0
        self._began = time.monotonic()
        self._saved = time.monotonic()
        self._pause = MIN_SHARDED_SAVE_SECONDS if is_sharded else MIN_SAVE_SECONDS

    def max_steps(self) -> int:
        if not self.step_seconds:
            return FIRST_DISPATCH_STEPS
        return max(1, int(DISPATCH_SECONDS / self.step_seconds))

    def start(self) -> None:
        """The device has nothing to do: the next steps begin now."""
        self._began = time.monotonic()

    def record_steps(self, count: int) -> None:
        """Steps ended; those that were handed over meanwhile begin."""
        now = time.monotonic()
        self.step_seconds, self._began = (now - self._began) / count, now

    def save_is_due(self) -> bool:
        return time.monotonic() - self._saved > self._pause

    def record_save(self, began: float) -> None:
        """A slow disk is saved to less often."""
        self._saved = time.monotonic()
        self._pause = max(self._pause, (self._saved - began) / MAX_SAVE_SHARE)
