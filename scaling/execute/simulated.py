"""A simulated trainer: a published law stands in for training, so that a sweep of any size can be
rehearsed. No jax here.

A run's losses are the law's at its N and at the tokens so far, moved by what moves real runs: the
seed, a learning rate off its optimum, the windows that are evaluated, and divergence. Noise is
drawn from the run_id: the same run always gives the same numbers.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import queue
import threading
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from scaling import __version__, accounting, recipe
from scaling.config import Recipe, RunConfig
from scaling.errors import ScalingError, unknown_choice
from scaling.execute.events import GroupFinished, RunEnded
from scaling.execute.local import Worker
from scaling.execute.sweep_folder import SweepFolder
from scaling.execute.worker import REQUESTS, TrainRequest, failed, publish
from scaling.fit.laws.laws import LAWS
from scaling.fit.laws.published import PUBLISHED, Published
from scaling.store.rows import Measurement, Outcome, Provenance, divergence, measurement_steps

PREFIX = "published:"
SEED_NOISE = (
    0.005  # sd of log loss; 0.01 to 0.02 at 50k parameters (docs/LOG.md), less in larger models
)
TOKEN_SPREAD = 4.2  # nats: standard error of a held-out loss times the root of its tokens
OCTAVE_COST = 0.04  # nats at twice or half the best rate, growing as the square of octaves (LOG)
STABLE_OCTAVES = (3.0, 4.0)  # a run diverges from 8 to 16 times its best rate on, by its seed
DIVERGED_AFTER = (0.02, 0.5)  # of its steps
SPEED = 4e14  # FLOP/s: one H100 (989e12 at its peak) at 40 %


def simulatable_laws() -> tuple[str, ...]:
    """The names that can be simulated: published laws of N and D alone that give a loss."""
    return tuple(
        f"{PREFIX}{name}"
        for name, entry in sorted(PUBLISHED.items())
        if (law := LAWS.get(entry.law)) and set(law.inputs) == {"N", "D"}
    )


def load_simulated_law(name: str) -> Published:
    """The law behind "published:NAME". Raises ScalingError that lists the usable names."""
    if name not in simulatable_laws():
        raise unknown_choice("law to simulate", name, simulatable_laws())
    return PUBLISHED[name.removeprefix(PREFIX)]


def simulate(run: RunConfig) -> Outcome:
    """How a run with `simulated` set ends, and its measurements, as a real run has them.

    Seconds are those of one device at SPEED. Raises ScalingError where the run is real or its law
    cannot be simulated.
    """
    if run.simulated is None:
        raise ScalingError(
            f"run {run.run_id} is a real run, not a simulated one",
            remedy=f"simulate one of {', '.join(simulatable_laws())}",
        )
    # the width rule is the optimum here
    best = recipe.learning_rate(run.model, 1.0, 1.0, 1.0, Recipe(transfer=run.model.transfer))
    octaves = math.log2(run.optim.lr / best)
    end: int | None = None  # the step at which it diverges
    if octaves > _uniform(run, "stable", STABLE_OCTAVES):
        end = max(1, round(_uniform(run, "diverged", DIVERGED_AFTER) * run.n_steps))
    steps = [step for step in measurement_steps(run) if end is None or step < end]
    flops = accounting.train_flops(run.model, run.task.seq_len, run.batch_tokens, "exact")
    step_seconds, published = flops / SPEED, load_simulated_law(run.simulated)
    n = accounting.n_params(run.model, run.task.seq_len, published.params)
    shift = math.exp(SEED_NOISE * _normal(run, "seed"))
    stderr, speed = TOKEN_SPREAD / math.sqrt(run.evals.tokens), run.batch_tokens / step_seconds
    spans = list(itertools.pairwise([0, *steps]))
    # training losses are means of the steps since the measurement before
    ends = [at for first, step in spans for at in (step, (first + step) / 2)]
    tokens = np.array(ends, float) * run.batch_tokens
    law, inputs = LAWS[published.law], {"N": np.full_like(tokens, n), "D": tokens}
    expected = np.exp(law.log_predict(law.theta(published.values), inputs))
    losses = (expected * shift + OCTAVE_COST * octaves**2).tolist()
    rows = []
    for (first, step), loss, mean in zip(spans, losses[::2], losses[1::2], strict=True):
        spread = TOKEN_SPREAD / math.sqrt((step - first) * run.batch_tokens)
        train_loss = max(0.0, mean + spread * _normal(run, f"train {step}"))
        seconds = step * step_seconds
        rows += [
            Measurement(step, "train", "loss", train_loss, seconds=seconds),
            Measurement(step, "train", "tokens_per_second", speed, seconds=seconds),
            Measurement(step, "val", "loss", loss, stderr, seconds=seconds),
        ]
    if end is None:
        return Outcome("done", tuple(rows))
    loss = 2.0 * math.log(run.model.vocab_size) + 1.0  # where a trainer gives up
    row, reason = divergence(run, end, loss, end * step_seconds)
    return Outcome("diverged", (*rows, row), reason)


def _uniform(run: RunConfig, purpose: str, ends: tuple[float, float] = (0.0, 1.0)) -> float:
    """A number strictly between two that depends on the run and the purpose alone."""
    digest = hashlib.sha256(f"{run.run_id} {purpose}".encode()).digest()
    return ends[0] + (ends[1] - ends[0]) * (int.from_bytes(digest[:6], "big") + 0.5) / 2**48


def _normal(run: RunConfig, purpose: str) -> float:
    return NormalDist().inv_cdf(_uniform(run, purpose))


class SimulatedWorker(Worker):
    """Takes requests as a worker process does, and answers from the law."""

    def __init__(self, folder: SweepFolder, index: int = 0) -> None:
        self.folder, self._stopped = folder, threading.Event()
        self._requests: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def send(self, line: str) -> None:
        self._requests.put(line)

    def events(self) -> Iterator[str]:
        while (line := self._requests.get()) is not None:
            request = REQUESTS.validate_json(line)
            for run in request.group.all_runs():
                yield self._simulate(request, run).model_dump_json()
            yield GroupFinished(run_id=request.group.runs[0].run_id).model_dump_json()

    def _simulate(self, request: TrainRequest, run: RunConfig) -> RunEnded:
        if self._stopped.is_set():
            return RunEnded(event="stopped", run_id=run.run_id, reason="before it began")
        device, fingerprint = f"simulated: {run.simulated}", {"simulated": run.simulated}
        source = Provenance(device, None, __version__, fingerprint, request.notes)
        lease = self.folder.path_of("lease", request.lease) if request.lease else None
        try:
            return publish(self.folder, request.sweep, run, simulate(run), source, lease)
        except ScalingError as error:
            return failed(run, error)

    def signal(self, number: int) -> None:
        """Simulate nothing more."""
        self._stopped.set()
