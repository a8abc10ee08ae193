"""Runs, from their configuration to their measurements: the only loop of the project that trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

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
from scaling.train.evaluate import Evaluator
from scaling.train.fingerprint import resolve_for_local_devices
from scaling.train.run_metrics import Outcome, RunMetrics, first_diverged_step
from scaling.train.sharding import Sharder
from scaling.train.step import TrainState, shape_of, train_program, unstack_state

DISPATCH_SECONDS = 0.5  # a dispatch takes at most this long, so that a signal is answered soon
SAVE_SHARE = 0.01  # of the time may go into checkpoints: a small state is saved each half second, so that a kill costs little
LEAST_SECONDS = {
    1: 0.5
}  # between two saves, by the number of devices; the shards of many go to a network
MANY_SECONDS = 20.0


@dataclass(frozen=True)
class Progress:
    """Where a run stands: mean loss of the last dispatch in nats, and speed since the run was taken up.

    Of a pack this is the first run; the speeds are those of all its runs together, and so are the FLOPs since it was taken up.
    """

    run_id: str
    step: int
    n_steps: int
    loss: float
    tokens_per_second: float
    flops_per_second: float
    flops: float


@dataclass(frozen=True)
class Callbacks:
    """Who is told what while a family trains: progress, which branch has its checkpoint (or could not be carried), what was measured
    of a run at a step, and the parameters with which a run has ended (not of one that diverged), before its outcome is returned.
    """

    progress: Callable[[Progress], None] = lambda progress: None
    ready: Callable[[RunGroup], None] = lambda branch: None
    measured: Callable[[RunConfig, Sequence[Measurement]], None] = lambda run, rows: None
    ended: Callable[[RunConfig, Any], None] = lambda run, params: None


def train(
    family: RunGroup,
    task: Task,
    save_to: Callable[[RunGroup], Path],
    how: Execution | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    listener: Callbacks | None = None,
    accept_other_machine: bool = False,
) -> dict[str, Outcome]:
    """Train the runs of a pack to their end, to divergence, or until `should_stop`, from the checkpoint `save_to(family)` if there is one.

    A branch leaves where its cooldown begins: its state is saved and `listener.ready` is told; whoever trains it then takes
    up that checkpoint. Returns the outcome of each run that has ended, and of those still carried when all diverged. A
    resumed run gives the same bits as an undisturbed one on the same kind of machine. Raises ScalingError when the
    checkpoint was written under other conditions and `accept_other_machine` is not set.
    """
    settled = resolve_for_local_devices(family.runs[0], how or Execution(), len(family.runs))
    journey = Trainer(family, task, save_to, settled, should_stop, listener or Callbacks())
    return journey.travel(accept_other_machine)


@dataclass
class Trainer:
    """One call of `train`."""

    family: RunGroup
    task: Task
    save_to: Callable[[RunGroup], Path]
    how: Execution
    should_stop: Callable[[], bool]
    listener: Callbacks
    carriage: checkpointing.TrainingState = field(init=False)
    aboard: list[RunGroup] = field(init=False)

    def __post_init__(self) -> None:
        self.runs = self.family.runs
        self.run = self.runs[0]  # all runs of a pack have its shape, horizon and evaluations
        self.place = Sharder(self.how)

    def travel(self, accept_other_machine: bool) -> dict[str, Outcome]:
        """The whole way."""
        self.carriage = checkpointing.restore_or_init(
            self.save_to(self.family), self.family, self.how, accept_other_machine
        )
        self.carriage.state = self.place.state(self.carriage.state)
        first = int(np.ravel(self.carriage.state.step)[0])
        self.aboard = [branch for branch in self.family.branches if self._carries(branch, first)]
        for branch in self.family.branches:
            if branch not in self.aboard:
                self.listener.ready(branch)
        self.examiner = Evaluator(self.run, self.task, self.place)
        with BatchPrefetcher(self.run, self.task, first) as feed:
            stopped = self._steps(first, feed)
        checkpointing.wait_until_saved(self.how)
        if stopped:
            return {
                run.run_id: Outcome("stopped", tuple(self._trail(run).measured), stopped)
                for run in self.runs
            }
        ended = self.family.all_runs() if self._all_diverged() else self.runs
        return {
            run.run_id: self._trail(run).outcome()
            for run in ended
            if run in self.runs or self._is_aboard(run)
        }

    def _carries(self, branch: RunGroup, step: int) -> bool:
        return step < branch.branch_step and all(
            run.run_id in self.carriage.trails for run in branch.runs
        )

    def _is_aboard(self, run: RunConfig) -> bool:
        return any(run in branch.runs for branch in self.aboard)

    def _trail(self, run: RunConfig) -> RunMetrics:
        return self.carriage.trails[run.run_id]

    def _all_diverged(self) -> bool:
        return all(self._trail(run).diverged for run in self.runs)

    def _steps(self, step: int, feed: BatchPrefetcher) -> str:
        """Step after step to the end; a reason when it stopped before."""
        program, hyper = self._program()
        stops, pace = self._stops(), 0.0
        self.carriage.state, *_ = program(
            self.carriage.state, hyper, self.place.tokens(feed.take(0)), 0
        )  # compiles; takes no step
        first, saved = step, time.monotonic()
        started, pause = saved, LEAST_SECONDS.get(self.how.mesh.n_devices, MANY_SECONDS)
        while step < self.run.n_steps and not self._all_diverged():
            target = next(stop for stop in stops if stop > step)
            count = min(
                target - step,
                dispatch_steps(self.run),
                max(1, int(DISPATCH_SECONDS / pace)) if pace else 4,
            )
            wish = np.array([self.should_stop(), time.monotonic() - saved > pause, count])
            stopping, saving, count = (int(number) for number in self.place.agreed(wish))
            if stopping or saving:
                begun = time.monotonic()
                checkpointing.save(
                    self.save_to(self.family), self._remaining(), self.carriage, self.how
                )
                saved = time.monotonic()
                pause = max(pause, (saved - begun) / SAVE_SHARE)
            if stopping:
                return f"at step {step} of {self.run.n_steps}"
            begun = time.monotonic()
            self.carriage.state, losses, norms = program(
                self.carriage.state, hyper, self.place.tokens(feed.take(count)), count
            )
            losses, norms = (
                np.asarray(found).reshape(len(self.runs), -1)[:, :count]
                for found in (losses, norms)
            )
            pace = (time.monotonic() - begun) / count
            self._follow(step, losses, norms, pace * count)
            step += count
            tokens = len(self.runs) * (step - first) * self.run.batch_tokens
            self.listener.progress(
                _progress(
                    self.run, step, float(losses[0].mean()), tokens, time.monotonic() - started
                )
            )
            if step == target:
                self._stop_at(step, len(self.runs) * self.run.batch_tokens / pace)
        return ""

    def _program(self) -> tuple[Any, optim.OptimHyperparams]:
        hypers = [optim.hyper(run.optim, run.n_steps) for run in self.runs]
        if len(hypers) == 1:
            return train_program(shape_of(self.run), self.how), hypers[0]
        return train_program(shape_of(self.run), self.how, len(hypers)), jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *hypers
        )

    def _stops(self) -> list[int]:
        """Where a dispatch must end: measurements, branchings, and the budgets of branches on the trunk."""
        found = {*measurement_steps(self.run), *self.family.read_at}
        for branch in self.family.branches:
            found |= {
                stop for stop in measurement_steps(branch.runs[0]) if stop <= branch.branch_step
            } | {branch.branch_step}
        return sorted(found - {0})

    def _follow(
        self, step: int, losses_RK: np.ndarray, norms_RK: np.ndarray, seconds: float
    ) -> None:
        """Add a dispatch to the trails of every run and of its branches that are still aboard."""
        for index, losses_K in enumerate(losses_RK):
            bad = first_diverged_step(losses_K, self.run.model.vocab_size)
            for run in self._lane(index):
                trail = self._trail(run)
                if not trail.diverged:
                    trail.add(losses_K, norms_RK[index], seconds / len(self.runs))
                    if bad is not None:
                        trail.end(run, step + bad + 1, float(losses_K[bad]))

    def _lane(self, index: int) -> list[RunConfig]:
        """A run of the pack and its branches that are still aboard: they are one and the same so far."""
        return [self.runs[index], *(branch.runs[index] for branch in self.aboard)]

    def _stop_at(self, step: int, tokens_per_second: float) -> None:
        """Measure for whoever has a measurement here, then let those go who branch off."""
        read = step in self.family.read_at
        for index in range(len(self.runs)):
            state = (
                self.carriage.state
                if len(self.runs) == 1
                else unstack_state(self.carriage.state, index)
            )
            measured = [
                run
                for run in self._lane(index)
                if step in measurement_steps(run) and not self._trail(run).diverged
            ]
            found = self.examiner.examine(state) if measured else []
            noise = self.examiner.noise(state, self.runs[index]) if measured else []
            for run in measured:
                self._trail(run).close_window(step, tokens_per_second)
                self._trail(run).see(found, step)
                self._trail(run).see(noise, step)
                if step == run.n_steps:
                    self._trail(run).see(self.examiner.conclude(state, run), step)
            if read and not self._trail(self.runs[index]).diverged:
                self._trail(self.runs[index]).see(self.examiner.read_out(state), step)
            self._tell(index, state, step)
        for branch in [branch for branch in self.aboard if branch.branch_step == step]:
            checkpointing.save(self.save_to(branch), branch, self.carriage, self.how)
            checkpointing.wait_until_saved(self.how)
            self.aboard.remove(branch)
            self.listener.ready(branch)

    def _tell(self, index: int, state: TrainState, step: int) -> None:
        """Tell what the trails of a run and its branches hold of this step, and the parameters where the run ends here."""
        for run in self._lane(index):
            fresh = list(
                takewhile(lambda row: row.step == step, reversed(self._trail(run).measured))
            )
            if fresh:
                self.listener.measured(run, fresh[::-1])
        run = self.runs[index]
        if step == run.n_steps and not self._trail(run).diverged:
            self.listener.ended(run, state.params)

    def _remaining(self) -> RunGroup:
        """The family as it goes on from here."""
        return RunGroup(self.runs, tuple(self.aboard), self.family.read_at)


def _progress(run: RunConfig, step: int, loss: float, tokens: int, seconds: float) -> Progress:
    flops = accounting.train_flops(run.model, run.task.seq_len, tokens, "exact")
    return Progress(run.run_id, step, run.n_steps, loss, tokens / seconds, flops / seconds, flops)
