"""One run, from its configuration to its measurements: the only loop of the project that trains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from scaling import accounting
from scaling.config import RunConfig
from scaling.errors import ScalingError
from scaling.lm import checkpoint, machine, optim
from scaling.lm.step import State, eval_program, initial_state, train_program
from scaling.results import DIVERGED, Measurement
from scaling.tasks import Task, val_batches

DISPATCH_STEPS = 64  # training steps in one dispatch at most: hides the dispatch of tiny models
DISPATCH_SECONDS = 0.5  # and at most this long, so that a signal is answered soon
SAVE_SECONDS = 20.0
EVAL_SEQUENCES = 64


@dataclass(frozen=True)
class Progress:
    """Where a run stands: mean loss of the last dispatch in nats, and speed since the run was taken up."""

    run_id: str
    step: int
    n_steps: int
    loss: float
    tokens_per_second: float
    flops_per_second: float


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `done`, `diverged` (a result, with its reason) or `stopped` (a checkpoint holds its state)."""

    kind: Literal["done", "diverged", "stopped"]
    measured: tuple[Measurement, ...]
    reason: str = ""


@dataclass
class _Trail:
    """What a run has to show so far; it travels in the checkpoint."""

    measured: list[Measurement] = field(default_factory=list)
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    since: int = 0
    seconds: float = 0.0

    def add(self, losses: np.ndarray, norms: np.ndarray, seconds: float) -> None:
        """Add the steps of a dispatch one by one: the sums must not depend on where a dispatch ends."""
        for loss, norm in zip(losses.tolist(), norms.tolist(), strict=True):
            self.loss_sum += loss
            self.norm_sum += norm
        self.since += len(losses)
        self.seconds += seconds

    def close_window(self, step: int, tokens_per_second: float) -> None:
        """Record the means of the steps since the last measurement and start a new window."""
        pairs = {"loss": self.loss_sum / self.since, "grad_norm": self.norm_sum / self.since, "tokens_per_second": tokens_per_second}
        self.measured += [Measurement(step, "train", name, value, seconds=self.seconds) for name, value in pairs.items()]
        self.loss_sum = self.norm_sum = 0.0
        self.since = 0


def measurement_steps(run: RunConfig) -> list[int]:
    """The steps after which a run is evaluated: evenly spaced in log(step) from 2 % of the run to its end."""
    spaced = np.geomspace(max(1.0, 0.02 * run.n_steps), run.n_steps, run.evals.points)
    return sorted({int(round(step)) for step in spaced} | {run.n_steps})


def train(
    run: RunConfig,
    task: Task,
    save_to: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    report: Callable[[Progress], None] = lambda progress: None,
    accept_other_machine: bool = False,
) -> Outcome:
    """Train `run` to its end, to divergence, or until `should_stop`; take up the checkpoint `save_to` where there is one.

    A resumed run gives the same bits as an undisturbed one on the same kind of machine. Raises ScalingError when the
    checkpoint was written on another kind and `accept_other_machine` is not set.
    """
    program = train_program(run.model, run.task.seq_len, run.optim.schedule, run.precision)
    state, trail = _take_up(run, save_to, accept_other_machine)
    hyper, held_out = optim.hyper(run.optim, run.n_steps), _held_out(run, task)
    state, *_ = program(state, hyper, _batches(run, task, 0, 0), 0)  # compiles; takes no step
    step, stops, pace = int(state.step), measurement_steps(run), 0.0
    saved = started = time.monotonic()
    first_step = step
    while step < run.n_steps:
        if should_stop():
            _save(save_to, run, state, trail)
            return Outcome("stopped", tuple(trail.measured), f"at step {step} of {run.n_steps}")
        target = next(stop for stop in stops if stop > step)
        count = min(target - step, DISPATCH_STEPS, max(1, int(DISPATCH_SECONDS / pace)) if pace else 4)
        begun = time.monotonic()
        state, losses, norms = program(state, hyper, _batches(run, task, step, count), count)
        losses, norms = np.asarray(losses)[:count], np.asarray(norms)[:count]
        pace = (time.monotonic() - begun) / count
        trail.add(losses, norms, pace * count)
        bad = _first_bad(losses, run)
        if bad is not None:
            return _diverged(run, trail, step + bad + 1, float(losses[bad]), save_to)
        step += count
        speed = (step - first_step) * run.batch_tokens / (time.monotonic() - started)
        report(_progress(run, step, float(losses.mean()), speed))
        if step == target:
            trail.close_window(step, run.batch_tokens / pace)
            trail.measured += _evaluate(run, task, state, held_out, step, trail.seconds)
        if time.monotonic() - saved > SAVE_SECONDS and step < run.n_steps:
            _save(save_to, run, state, trail)
            saved = time.monotonic()
    return Outcome("done", tuple(trail.measured))


def _batches(run: RunConfig, task: Task, step: int, count: int) -> np.ndarray:
    """The batches of `count` steps from `step`, padded to a fixed number so that the program is compiled once."""
    buffer = np.zeros((DISPATCH_STEPS, run.batch_size, run.task.seq_len + 1), np.int32)
    for i in range(count):
        buffer[i] = task.batch("train", step + i, run.batch_size)
    return buffer


def _progress(run: RunConfig, step: int, loss: float, tokens_per_second: float) -> Progress:
    flops_per_token = accounting.train_flops(run.model, run.task.seq_len, 1, "exact")
    return Progress(run.run_id, step, run.n_steps, loss, tokens_per_second, tokens_per_second * flops_per_token)


def _first_bad(losses: np.ndarray, run: RunConfig) -> int | None:
    """Index of the first loss that is not finite or twice that of a uniform guess: the run has diverged."""
    bad = ~np.isfinite(losses) | (losses > 2.0 * math.log(run.model.vocab_size) + 1.0)
    return int(bad.argmax()) if bad.any() else None


def _diverged(run: RunConfig, trail: _Trail, step: int, loss: float, save_to: Path) -> Outcome:
    save_to.unlink(missing_ok=True)
    outcome = Measurement(step, "train", DIVERGED, float(step), seconds=trail.seconds)
    reason = f"diverged at step {step} of {run.n_steps}: training loss {loss:.4g} nats at learning rate {run.optim.lr:.3g}"
    return Outcome("diverged", (*trail.measured, outcome), reason)


def _held_out(run: RunConfig, task: Task) -> np.ndarray:
    """Held-out windows of shape (M, B, T + 1): the same for every run on this task."""
    return np.stack(list(val_batches(task, EVAL_SEQUENCES, run.evals.tokens)))


def _evaluate(run: RunConfig, task: Task, state: State, held_out: np.ndarray, step: int, seconds: float) -> list[Measurement]:
    """Held-out loss in nats per token with its standard error over windows, and in bits per byte where bytes are known."""
    nll = np.asarray(eval_program(run.model, run.task.seq_len, run.precision)(state.params, jnp.asarray(held_out)), np.float64).ravel()
    loss, stderr = float(nll.mean()), float(nll.std(ddof=1) / math.sqrt(nll.size)) if nll.size > 1 else None
    found = [Measurement(step, "val", "loss", loss, stderr, seconds=seconds)]
    if task.bytes_per_token:
        scale = 1.0 / (math.log(2.0) * task.bytes_per_token)
        found.append(Measurement(step, "val", "bpb", loss * scale, stderr * scale if stderr else None, seconds=seconds))
    return found


def _save(path: Path, run: RunConfig, state: State, trail: _Trail) -> None:
    progress = asdict(trail) | {"run": run.canonical(), "fingerprint": machine.fingerprint()}
    checkpoint.save(path, state, progress)


def _take_up(run: RunConfig, path: Path, accept_other_machine: bool) -> tuple[State, _Trail]:
    """The state to go on from: the checkpoint's, or a new one; a damaged checkpoint is set aside under another name."""
    state = initial_state(run.model, run.task.seq_len, run.seed)
    if not path.exists():
        return state, _Trail()
    try:
        state, progress = checkpoint.restore(path, state)
        if progress["run"] != run.canonical():
            raise checkpoint.Unreadable("belongs to another run")
    except checkpoint.Unreadable as error:
        path.rename(path.with_suffix(".damaged"))
        machine.warn(f"{path.name}: checkpoint set aside, the run starts again: {error}")
        return initial_state(run.model, run.task.seq_len, run.seed), _Trail()
    if not accept_other_machine:
        _check_machine(progress["fingerprint"], path)
    names = ("loss_sum", "norm_sum", "since", "seconds")
    return state, _Trail([Measurement(**item) for item in progress["measured"]], **{name: progress[name] for name in names})


def _check_machine(written: dict[str, Any], path: Path) -> None:
    here = machine.fingerprint()
    changed = [f"{key} was {written.get(key)}, is {here.get(key)}" for key in sorted(written | here) if written.get(key) != here.get(key)]
    if changed:
        raise ScalingError(
            f"the checkpoint was written under other conditions, so the bits would differ: {'; '.join(changed)}",
            where=str(path),
            remedy="restore the conditions, delete the checkpoint, or give --accept-other-machine",
        )
