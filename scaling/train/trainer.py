"""The training loop: a run group, from its checkpoint or step 0, to its measurements."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from scaling import accounting
from scaling.config import Execution, RunConfig
from scaling.config.run_groups import RunGroup
from scaling.store.rows import measurement_steps
from scaling.tasks import Task
from scaling.train import checkpointing, optim
from scaling.train.data_loader import NextBatches, dispatch_steps, prefetch_batches
from scaling.train.distributed import broadcast_from_host0
from scaling.train.evaluate import Evaluator
from scaling.train.fingerprint import peak_flops, pin_numerics, resolve_for_local_devices
from scaling.train.program import program_key
from scaling.train.run_metrics import Outcome
from scaling.train.step import TrainState, stack_runs, train_program

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
    losses: Array
    norms: Array


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called while a group trains.

    `on_branch_saved`: a branch has its checkpoint, or must be trained on its own. `on_run_end`: the
    final parameters of a run that did not diverge, before its outcome is returned.
    """

    on_progress: Callable[[Progress], None] = lambda progress: None
    on_branch_saved: Callable[[RunGroup], None] = lambda branch: None
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
    the `extensions` of the group the state is saved where its constant rate ends.
    Returns the outcome of each run that has ended; when all runs of a pack diverge, so do the
    branches that have not left. Raises ScalingError when the checkpoint was written under other
    conditions and `allow_changes` is not set. A trace of PROFILED_DISPATCHES dispatches is written
    to the folder `profile`, for TensorBoard or Perfetto.
    """
    pin_numerics()
    execution = resolve_for_local_devices(group.runs[0], execution or Execution(), len(group.runs))
    callbacks = callbacks or Callbacks()
    trainer = Trainer(group, task, checkpoint_path, execution, should_stop, callbacks, profile)
    return trainer.run(allow_changes)


@dataclass
class Trainer:
    """One call of `train`; `execution` is resolved.

    `following` holds the group and those that so far are one and the same as it, by the step up to
    which they are: branches, and longer runs for which the state will be kept.
    """

    group: RunGroup
    task: Task
    checkpoint_path: Callable[[RunGroup], Path]
    execution: Execution
    should_stop: Callable[[], bool]
    callbacks: Callbacks = Callbacks()
    profile: Path | None = None
    following: dict[RunGroup, int] = field(default_factory=dict)

    def run(self, allow_changes: bool) -> dict[str, Outcome]:
        """Restore or initialise, train, and return the outcomes of the runs that have ended."""
        group, self.runs, self.config = self.group, self.group.runs, self.group.runs[0]
        self.key = program_key(self.config, self.execution, len(self.runs))
        self.step_seconds, self.saved_at = 0.0, time.monotonic()
        is_sharded = self.execution.mesh.n_devices > 1
        self.save_pause = MIN_SHARDED_SAVE_SECONDS if is_sharded else MIN_SAVE_SECONDS
        self.peak_flops = peak_flops(self.execution.mesh.n_devices)
        seq_len = self.config.task.seq_len
        self.token_flops = accounting.train_flops(self.config.model, seq_len, 1, "exact")
        path = self.checkpoint_path(group)
        state, self.metrics = checkpointing.restore_or_init(
            path, group, self.execution, allow_changes
        )
        self.state: TrainState = self.key.sharder.put_state(state)
        step = int(np.ravel(self.state.step)[0])
        self.following = {group: self.config.n_steps}
        for other in (*group.branches, *group.extensions):
            leaves_at = group.branch_step if other in group.extensions else other.branch_step
            if step < leaves_at and all(run.run_id in self.metrics for run in other.runs):
                self.following[other] = leaves_at
            elif other in group.branches:
                self.callbacks.on_branch_saved(other)
        self.evaluator = Evaluator(self.config, self.task, self.execution)
        parts = self.key.sharder.batch_parts(self.config.batch_size)
        with prefetch_batches(self.config, self.task, step, *parts) as next_batches:
            step = self._train_loop(step, next_batches)
        checkpointing.wait_until_saved(path, self.execution)
        if self._all_diverged():
            ended = self._unfinished_group().all_runs()
            return {run.run_id: self.metrics[run.run_id].outcome() for run in ended}
        reason = f"at step {step} of {self.config.n_steps}" if step < self.config.n_steps else ""
        return {run.run_id: self.metrics[run.run_id].outcome(reason) for run in self.runs}

    def _train_loop(self, step: int, next_batches: NextBatches) -> int:
        """Train from `step` to the end, to divergence or to a stop; returns the last step."""
        program, n_dispatches = train_program(self.key), 0
        hyper = stack_runs([optim.hyper(run.optim, run.n_steps) for run in self.runs])
        tokens_KBT1 = self._put_tokens(next_batches(0))
        self.state, *_ = program(self.state, hyper, tokens_KBT1, 0)  # compiles it
        boundaries = set()  # where a dispatch must end
        for group, last in self.following.items():
            steps = {*measurement_steps(group.runs[0]), *group.constant_lr_eval_steps, last}
            boundaries |= {end for end in steps if end <= last}
        self.began_at, self.began = step, time.monotonic()
        in_flight: list[_Dispatch] = []  # losses of one are read while the next one is computed
        with ExitStack() as trace:
            while step < self.config.n_steps and not self._all_diverged():
                boundary, most = min(end for end in boundaries if end > step), FIRST_DISPATCH_STEPS
                if self.step_seconds:
                    most = max(1, int(DISPATCH_SECONDS / self.step_seconds))
                count = min(boundary - step, dispatch_steps(self.config), most)
                save_is_due = time.monotonic() - self.saved_at > self.save_pause
                stop, save, count = broadcast_from_host0(self.should_stop(), save_is_due, count)
                if stop or save:
                    self._read_losses(in_flight)
                    began = time.monotonic()
                    self._save(self._unfinished_group())
                    self.saved_at = time.monotonic()  # a slow disk is saved to less often
                    pause = (self.saved_at - began) / MAX_SAVE_SHARE
                    self.save_pause = max(self.save_pause, pause)
                if stop:
                    break
                if not in_flight:  # the device has nothing to do: the next steps begin now
                    self.dispatched_at = time.monotonic()
                if self.profile and n_dispatches == 1:
                    trace.enter_context(jax.profiler.trace(str(self.profile)))
                elif n_dispatches == 1 + PROFILED_DISPATCHES:
                    trace.close()
                n_dispatches += 1
                tokens_KBT1 = self._put_tokens(next_batches(count))
                self.state, losses, norms = program(self.state, hyper, tokens_KBT1, count)
                self._read_losses(in_flight)
                in_flight.append(_Dispatch(step, count, losses, norms))
                step += count
                if step == boundary or not self.execution.on_accelerator:
                    self._read_losses(in_flight)
                if step == boundary:
                    self._evaluate(step)
                    self._save_branches(step)
            self._read_losses(in_flight)
        return step

    def _put_tokens(self, tokens: np.ndarray) -> Any:
        return self.key.sharder.put_tokens(tokens, self.config.batch_size)

    def _all_diverged(self) -> bool:
        return all(self.metrics[run.run_id].diverged for run in self.runs)

    def _read_losses(self, in_flight: list[_Dispatch]) -> None:
        """Wait for the dispatch under way, if any; add it to every run that it belongs to."""
        if not in_flight:
            return
        step, count, *arrays = in_flight.pop()
        losses_RK, norms_RK = (
            np.asarray(array).reshape(len(self.runs), -1)[:, :count] for array in arrays
        )
        now = time.monotonic()
        seconds, self.dispatched_at = now - self.dispatched_at, now
        self.step_seconds = seconds / count
        for index, losses_K in enumerate(losses_RK):
            highest = 2.0 * math.log(self.config.model.vocab_size) + 1.0
            bad = np.flatnonzero(~np.isfinite(losses_K) | (losses_K > highest))
            for run in (group.runs[index] for group in self.following):
                metrics = self.metrics[run.run_id]
                if not metrics.diverged:
                    metrics.add(losses_K, norms_RK[index], seconds / len(self.runs))
                    if len(bad):
                        metrics.mark_diverged(run, step + int(bad[0]) + 1, float(losses_K[bad[0]]))
        tokens = len(self.runs) * (step + count - self.began_at) * self.config.batch_tokens
        tokens_per_second = tokens / (time.monotonic() - self.began)
        self.callbacks.on_progress(
            Progress(
                run_id=self.config.run_id,
                step=step + count,
                n_steps=self.config.n_steps,
                loss=float(losses_RK[0].mean()),
                tokens_per_second=tokens_per_second,
                flops_per_second=tokens_per_second * self.token_flops,
                flops=tokens * self.token_flops,
                mfu=self._mfu(tokens_per_second),
            )
        )

    def _mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOP/s over the devices' peak; None where that is unknown, as on a CPU."""
        return tokens_per_second * self.token_flops / self.peak_flops if self.peak_flops else None

    def _evaluate(self, step: int) -> None:
        """Evaluate every run, and those that are still one with it, where a measurement is due."""
        speed = len(self.runs) * self.config.batch_tokens / self.step_seconds
        for index, run in enumerate(self.runs):
            state, evaluator, values = self.state, self.evaluator, None
            if len(self.runs) > 1:
                state = jax.tree.map(lambda leaf, index=index: leaf[index], state)
            for group in self.following:
                member = group.runs[index]
                metrics = self.metrics[member.run_id]
                if not metrics.diverged and step in measurement_steps(member):
                    if values is None:
                        values = evaluator.evaluate(state, run)
                    metrics.flush_window(step, speed, self._mfu(speed))
                    metrics.record(values, step)
                    if step == member.n_steps:
                        metrics.record(evaluator.evaluate_at_end(state, member), step)
                if not metrics.diverged and step in group.constant_lr_eval_steps:
                    metrics.record(evaluator.evaluate_without_cooldown(state), step)
            if step == run.n_steps and not self.metrics[run.run_id].diverged:
                self.callbacks.on_run_end(run, state.params)

    def _unfinished_group(self) -> RunGroup:
        """The group without those that have left."""
        branches, extensions = (
            tuple(group for group in groups if group in self.following)
            for groups in (self.group.branches, self.group.extensions)
        )
        return replace(self.group, branches=branches, extensions=extensions)

    def _save_branches(self, step: int) -> None:
        """Save the branches that leave here, and the state for longer runs that may come."""
        for group in [group for group, end in self.following.items() if end == step]:
            if group is not self.group:
                self._save(group)
                checkpointing.wait_until_saved(self.checkpoint_path(group), self.execution)
                del self.following[group]
                if group in self.group.branches:
                    self.callbacks.on_branch_saved(group)

    def _save(self, group: RunGroup) -> None:
        path = self.checkpoint_path(group)
        checkpointing.save(path, group, self.state, self.metrics, self.execution)
